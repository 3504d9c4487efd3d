"""Backups while the context is in Supabase: of the buffer alone, and never half of a pair."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.common.v1 import backup_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from buffer_service.store import schema as buffer_schema
from context_service.app import ContextApp
from context_service.settings import ContextSettings
from deploy import backup, manifest, rehearsal, restore
from deploy.manifest import BackupError
from deploy.settings import SystemSettings
from service_kit import errors
from service_kit.settings import load
from service_kit.testing import in_process
from tests.context_service.supabase_project import migrated
from tests.deploy.test_backup import digest, made, settings, upgrading
from tests.stand_ins.postgres import PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer

__all__ = ["made", "settings"]


@pytest.fixture
def alone(made: Path, settings: SystemSettings) -> Path:
    """A backup without a copy of the context."""
    (made / "context.db").unlink()
    written = json.loads((made / manifest.FILE).read_text())
    (made / manifest.FILE).write_text(json.dumps(written | {"context": None}))
    return made


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDR_CONTEXT_STORE", "supabase")


async def test_the_context_says_that_it_makes_none(postgres_cluster: PostgresCluster, tmp_path: Path) -> None:
    with migrated(postgres_cluster) as database:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:
            app = ContextApp(load(ContextSettings, environ=_project(server, tmp_path), env_file=None))
            async with in_process(app) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ContextServiceStub(channel).Backup(context_pb.BackupRequest(name="one"), timeout=10)
    refused = errors.parse(caught.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert refused.metadata == {"method": "Backup"}


def test_the_buffer_is_copied_alone(settings: SystemSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = settings.data_dir / "backups" / "one"
    folder.mkdir(parents=True)
    (folder / "buffer.db").write_bytes(b"x")
    copied = backup_pb2.StoreCopy(file_name="buffer.db", bytes=1, sha256=digest(folder / "buffer.db"), schema_version=1)
    answers = {"buffer_service": buffer_service_pb2.BackupResponse(copy=copied), "context_service": None}
    monkeypatch.setattr(backup, "_ask", lambda program, *_: answers[program])
    monkeypatch.setattr(Path, "exists", lambda _: False)
    made, lines = backup.make(settings, "one")
    monkeypatch.undo()
    written = manifest.read(made)
    assert (written.context, written.stores) == (None, (written.buffer,))
    assert "Supabase" in lines[1]
    manifest.verify(made, written)


def test_only_a_refusal_means_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses(grpc.RpcError):
        reason = ""

    def raises(*_: object, **__: object) -> None:
        raise Refuses

    class Stub:
        def __init__(self, channel: object) -> None:
            self.Backup = raises

    monkeypatch.setattr(backup, "ContextServiceStub", Stub)
    channel = grpc.insecure_channel("unix:/nowhere")
    for reason in ("", "UNAVAILABLE", "WRONG_STATE"):
        parsed = errors.ParsedError(code=grpc.StatusCode.UNIMPLEMENTED, reason=reason)
        monkeypatch.setattr(backup, "parse", lambda _, parsed=parsed: parsed)
        with pytest.raises(Refuses):
            backup._context(channel, "one")
    parsed = errors.ParsedError(code=grpc.StatusCode.UNIMPLEMENTED, reason="NOT_IMPLEMENTED")
    monkeypatch.setattr(backup, "parse", lambda _: parsed)
    assert backup._context(channel, "one") is None
    channel.close()


def test_it_is_put_in_place_and_the_context_file_of_before_stays(
    settings: SystemSettings, alone: Path, remote: None
) -> None:
    data = settings.data_dir
    before = (data / "context.db").read_bytes()
    where = restore.places()
    assert where.context is None
    found = restore.checked(alone)
    restore._check_kinds(alone, found, where)
    kept = restore.put_in_place(settings, alone, found, where)
    assert kept is not None and (kept / "buffer.db").exists() and not (kept / "context.db").exists()
    assert (data / "context.db").read_bytes() == before


def test_half_a_backup_is_not_restored(settings: SystemSettings, alone: Path) -> None:
    with pytest.raises(BackupError, match="has no copy of the context, which was in Supabase"):
        restore._check_kinds(alone, restore.checked(alone), restore.places())


def test_nor_is_one_whose_context_nobody_would_look_at(settings: SystemSettings, made: Path, remote: None) -> None:
    with pytest.raises(BackupError, match="SDR_CONTEXT_STORE=supabase would not look at it"):
        restore._check_kinds(made, restore.checked(made), restore.places())


def test_a_backup_without_the_buffer_is_none(made: Path) -> None:
    written = json.loads((made / manifest.FILE).read_text())
    (made / manifest.FILE).write_text(json.dumps(written | {"buffer": None}))
    with pytest.raises(BackupError, match="is not a manifest"):
        manifest.read(made)


def test_after_a_failed_upgrade_only_the_buffer_is_looked_at(
    settings: SystemSettings, alone: Path, remote: None
) -> None:
    assert manifest.read(alone).buffer.schema_version == buffer_schema.VERSION
    assert upgrading(settings)._put_back(alone) == "The data stayed as they were."


def _project(server: PostgrestServer, data: Path) -> dict[str, str]:
    return {
        "SDR_CONTEXT_STORE": "supabase",
        "SUPABASE_URL": server.url,
        "SUPABASE_SECRET_KEY": server.keys.secret,
        "SDR_DATA_DIR": str(data),
    }


async def test_a_rehearsal_looks_at_the_project_and_keeps_out_of_it(
    postgres_cluster: PostgresCluster, settings: SystemSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with migrated(postgres_cluster) as database:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:
            for name, value in _project(server, tmp_path).items():
                monkeypatch.setenv(name, value)
            await asyncio.to_thread(rehearsal._check_remote)
            assert {(one.path, one.role) for one in server.seen} == {("rpc/sdr_schema_version", "service_role")}
            with database.connect() as connection:
                connection.execute("DELETE FROM public.sdr_migrations WHERE version > 1")
            with pytest.raises(BackupError, match="make migrate"):
                await asyncio.to_thread(rehearsal._check_remote)
    with pytest.raises(BackupError):
        await asyncio.to_thread(rehearsal._check_remote)
    where = restore.Places(buffer=tmp_path / "r" / "buffer.db", context=tmp_path / "r" / "context.db")
    second = load(ContextSettings, environ=rehearsal._environ(tmp_path / "r", where), env_file=None)
    assert not second.uses_supabase and second.sqlite_path() == tmp_path / "r" / "context.db"
