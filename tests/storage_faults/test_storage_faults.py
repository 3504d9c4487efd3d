"""What is acknowledged is on the disk: power loss, death at every write and sync, a full disk, a sync that fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from buffer_service.store.sqlite import SqliteStore
from service_kit import errors
from service_kit.settings import ConfigurationError
from tests.buffer_service.test_service import Worker, buffer, enqueue, message
from tests.storage_faults.disk import FaultyDisk, mounted
from tests.storage_faults.shop import Shop, found
from tests.storage_faults.trials import deaths, power_losses

TRIALS = int(os.environ.get("POWER_LOSS_TRIALS", "150"))


@pytest.mark.slow
@pytest.mark.timeout(60 + TRIALS)
def test_a_power_loss_takes_nothing_that_was_acknowledged() -> None:
    result = power_losses(TRIALS)
    assert not result.problems, result.problems[:10]
    assert result.acknowledged > 5 * TRIALS, "too little was acknowledged: the run proves nothing"


def test_with_less_than_full_durability_the_same_trials_lose() -> None:
    """The test has teeth: synchronous=NORMAL, which kill -9 alone can never tell from FULL."""
    result = power_losses(10, level="NORMAL")
    assert result.broken_trials > 5
    assert any("is lost" in p for p in result.problems)


@pytest.mark.slow
def test_death_at_every_write_and_every_sync_of_an_ingest_and_a_send(tmp_path: Path) -> None:
    points = 0
    for name, told, problems in deaths(tmp_path):
        points += 1
        assert not problems, (name, problems, told)
    assert points > 50


async def _tries(path: Path, disk: FaultyDisk, break_it: Callable[[], None]) -> tuple[list[str], list[str]]:
    """Enqueues until a call is refused; ids of what was acknowledged, and reasons of what wasn't."""
    accepted, refused = [], []
    with contextlib.suppress(Exception):  # a dead engine stops its process, which is what this is about
        async with buffer(path, SDR_BUFFER_MIN_FREE_DISK_BYTES="0") as stub:
            worker = Worker(stub)
            await worker.hello()
            await enqueue(stub, message("before"))
            accepted.append("before")
            turn = await worker.assigned()
            break_it()
            for number in range(40):
                try:
                    await enqueue(stub, message(f"m{number}", "x" * 400))
                    accepted.append(f"m{number}")
                except grpc.aio.AioRpcError as error:
                    refused.append(errors.parse(error).reason or error.code().name)
                    break
            # Whoever asks to send now gets no permission that is not on the disk.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(0.3):
                    answer = await worker.commit(turn, "olá")
                    assert not answer.HasField("go") or not refused
    return accepted, refused


@pytest.mark.parametrize("after", [1, 2, 3, 5, 9, 20])
async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, after: int) -> None:
    with mounted(tmp_path / "data") as disk:

        def fill() -> None:
            disk.full_from = disk.writes + after

        accepted, refused = await _tries(tmp_path / "data", disk, fill)
    assert refused and set(refused) <= {"UNAVAILABLE", "DEPENDENCY_UNAVAILABLE", "BUFFER_FULL", "INTERNAL"}, refused
    await _is_all_there(tmp_path, accepted)


@pytest.mark.parametrize("after", [1, 2, 4])
async def test_a_sync_that_fails_is_never_acknowledged_and_stops_the_engine(tmp_path: Path, after: int) -> None:
    """Linux may forget a page after a failed fsync: the only safe way on is a new process that reads the disk."""
    with mounted(tmp_path / "data") as disk:

        def fail() -> None:
            disk.sync_fails_from = disk.syncs + after

        accepted, refused = await _tries(tmp_path / "data", disk, fail)
    assert refused, "a sync failed and everything was acknowledged"
    assert len(accepted) <= after, accepted
    await _is_all_there(tmp_path, accepted)


async def _is_all_there(folder: Path, accepted: list[str]) -> None:
    """A new process, on a disk that works again: what was acknowledged is known, and new messages come in."""
    # The dead engine's handles would still hold the lock in this process.
    shutil.copytree(folder / "data", folder / "again")
    async with buffer(folder / "again") as stub:
        for message_id in accepted:
            [known] = await enqueue(stub, message(message_id))
            assert known.outcome == pb.EventResult.OUTCOME_DUPLICATE, message_id
        [new] = await enqueue(stub, message("after"))
        assert new.outcome == pb.EventResult.OUTCOME_ACCEPTED


def _filled(path: Path) -> Shop:
    shop = Shop(path)
    shop.work(random.Random(1), 30)
    return shop


@pytest.mark.parametrize("at", [30, 100, 4_096, 4_100, 3 * 4_096, 3 * 4_096 + 5])
def test_a_damaged_page_is_refused_with_a_sentence(tmp_path: Path, at: int) -> None:
    path = tmp_path / "buffer.db"
    _filled(path).store.close()
    content = bytearray(path.read_bytes())
    content[at : at + 24] = bytes(255 - b for b in content[at : at + 24])
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"damaged|not a healthy|newer version|cannot be"):
        SqliteStore(path).close()


def test_garbage_behind_the_last_commit_of_the_log_is_ignored(tmp_path: Path) -> None:
    """A log that was being written when the power failed ends in garbage; nothing before it is touched."""
    with mounted(tmp_path / "data"):
        shop = _filled(tmp_path / "data" / "buffer.db")
        image = tmp_path / "image"
        image.mkdir()
        for file in (tmp_path / "data").iterdir():
            (image / file.name).write_bytes(file.read_bytes())
        shop.store.close()
    log = image / "buffer.db-wal"
    assert log.stat().st_size
    with log.open("ab") as end:
        end.write(random.Random(2).randbytes(9_000))
    assert found(image / "buffer.db", shop.acknowledged) == []
