"""A copy of the context's store, made while it works."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentic_sdr.context.v1 import context_service_pb2 as pb
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from context_service.app import ContextApp
from context_service.settings import ContextSettings
from service_kit import backups, errors
from service_kit.settings import load as load_settings
from service_kit.testing import in_process
from tests.context_service.builders import turn


@asynccontextmanager
async def context(path: Path) -> AsyncIterator[Any]:
    settings = load_settings(ContextSettings, environ={"SDR_DATA_DIR": str(path)}, env_file=None)
    async with in_process(ContextApp(settings)) as channel:
        yield ContextServiceStub(channel)


async def record(stub: Any, number: int) -> Any:
    record = turn(f"t{number}", f"c{number}")
    return await stub.RecordTurn(pb.RecordTurnRequest(record=record), timeout=5)


async def test_a_copy_holds_what_was_recorded_before_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And perhaps what came meanwhile; what is recorded a second time in the copy changes nothing."""
    monkeypatch.setattr(backups, "STEP_PAGES", 1)
    async with context(tmp_path) as stub:
        for number in range(60):
            await record(stub, number)
        done = asyncio.ensure_future(stub.Backup(pb.BackupRequest(name="one"), timeout=30))
        during = 60
        while not done.done():
            await record(stub, during)
            during += 1
        answer = await done
        assert during > 63
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Backup(pb.BackupRequest(name="one"), timeout=30)
        error = errors.parse(caught.value)
        assert (error.reason, error.metadata) == ("WRONG_STATE", {"backup": "one", "state": "exists"})
    file = tmp_path / "backups" / "one" / "context.db"
    assert answer.copy.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (answer.copy.file_name, answer.copy.bytes) == ("context.db", file.stat().st_size)
    assert [p.name for p in file.parent.iterdir()] == ["context.db"]
    (tmp_path / "restored").mkdir()
    shutil.copy(file, tmp_path / "restored" / "context.db")
    async with context(tmp_path / "restored") as stub:
        for number in range(60):
            assert (await record(stub, number)).duplicate


async def test_what_is_no_plain_name_is_refused(tmp_path: Path) -> None:
    async with context(tmp_path) as stub:
        for name in ("", "..", "a/b"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Backup(pb.BackupRequest(name=name), timeout=5)
            assert errors.parse(caught.value).metadata == {"field": "name"}
