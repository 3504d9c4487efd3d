"""Copies of the buffer's store: made while it works, true, and safe to start on."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import stat
from pathlib import Path

import apsw
import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from agentic_sdr.common.v1 import message_pb2, turn_pb2
from buffer_service.app import BufferApp
from buffer_service.store import copies
from buffer_service.store.schema import VERSION
from service_kit import backups, errors
from service_kit.testing import in_process
from tests.buffer_service.test_service import CONTACT, SCOPE, Worker, buffer, echo, enqueue, lane, message, settings

LID = message_pb2.Contact(contact="lid:100", aliases=["lid:100"], address="100@lid")


def person(number: int) -> message_pb2.Contact:
    phone = f"55819{number:08d}"
    return message_pb2.Contact(contact=phone, aliases=[f"phone:{phone}"], address=f"{phone}@s.whatsapp.net")


def restore(source: Path, name: str, target: Path) -> Path:
    target.mkdir()
    shutil.copy(source / "backups" / name / "buffer.db", target / "buffer.db")
    return target


async def refused(stub: object, name: str) -> errors.ParsedError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Backup(pb.BackupRequest(name=name), timeout=10)  # type: ignore[attr-defined]
    return errors.parse(caught.value)


async def test_a_copy_is_what_its_answer_says(tmp_path: Path) -> None:
    async with buffer(tmp_path, SDR_BUFFER_STRATEGY="enqueue") as stub:
        await enqueue(stub, message("m1"))
        answer = await stub.Backup(pb.BackupRequest(name="nightly"), timeout=10)
        assert (answer.open_turns, answer.pending_messages, answer.workers) == (1, 0, 0)
        worker = Worker(stub)
        await worker.hello()
        turn = await worker.assigned()
        await enqueue(stub, message("m2"))
        again = await stub.Backup(pb.BackupRequest(name="again"), timeout=10)
        assert (again.open_turns, again.pending_messages, again.workers) == (1, 1, 1)
        await worker.commit(turn, "um")
        await worker.finish(turn)
    file = tmp_path / "backups" / "nightly" / "buffer.db"
    assert answer.copy.file_name == file.name
    assert answer.copy.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (answer.copy.bytes, answer.copy.schema_version) == (file.stat().st_size, VERSION)
    assert [p.name for p in file.parent.iterdir()] == ["buffer.db"]
    # No write-ahead log: whoever looks into it leaves nothing beside it.
    assert file.read_bytes()[18:20] == b"\x01\x01"
    for path in (file, file.parent, file.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/tmp/a", "a\n", "é", "-a", "a" * 65, "a\\b"])
async def test_only_a_plain_name_is_taken(tmp_path: Path, name: str) -> None:
    async with buffer(tmp_path) as stub:
        error = await refused(stub, name)
        assert (error.reason, error.metadata) == ("INVALID_ARGUMENT", {"field": "name"})
    assert not (tmp_path / "backups").exists()


async def test_a_name_is_used_once(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        await stub.Backup(pb.BackupRequest(name="one"), timeout=10)
        error = await refused(stub, "one")
        assert (error.reason, error.metadata) == ("WRONG_STATE", {"backup": "one", "state": "exists"})
        await stub.Backup(pb.BackupRequest(name="two"), timeout=10)


async def test_one_copy_is_made_at_a_time_and_a_cancelled_one_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "STEP_PAGES", 0)  # it never ends
    async with buffer(tmp_path) as stub:
        first = stub.Backup(pb.BackupRequest(name="one"), timeout=10)
        partial = tmp_path / "backups" / "one" / "buffer.db.partial"
        waiting = asyncio.ensure_future(first)
        while not partial.exists():
            await asyncio.sleep(0.01)
        error = await refused(stub, "two")
        assert (error.reason, error.metadata) == ("WRONG_STATE", {"backup": "two", "state": "running"})
        first.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        while partial.exists():
            await asyncio.sleep(0.01)
        monkeypatch.setattr(backups, "STEP_PAGES", 64)
        await stub.Backup(pb.BackupRequest(name="one"), timeout=10)


async def test_a_service_that_stops_gives_the_copy_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "STEP_PAGES", 0)
    app = BufferApp(settings(tmp_path))
    async with in_process(app) as channel:
        call = asyncio.ensure_future(refused(BufferServiceStub(channel), "one"))
        while not (tmp_path / "backups" / "one" / "buffer.db.partial").exists():
            await asyncio.sleep(0.01)
        await app.drain()
        error = await call
    assert (error.reason, error.metadata) == ("UNAVAILABLE", {"component": "backup"})
    assert not list((tmp_path / "backups" / "one").iterdir())


async def test_no_room_is_said_and_the_buffer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "SPARE_BYTES", 1 << 60)
    async with buffer(tmp_path) as stub:
        error = await refused(stub, "one")
        assert (error.reason, error.metadata) == ("UNAVAILABLE", {"component": "backup"})
        await enqueue(stub, message("m1"))


async def test_what_is_written_meanwhile_does_not_spoil_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages, and a person who is forgotten (which rebuilds the file), between the steps of the copy."""
    monkeypatch.setattr(backups, "STEP_PAGES", 1)
    async with buffer(tmp_path) as stub:
        await enqueue(stub, *(message(f"m{n}", "x" * 4000, contact=person(n)) for n in range(400)))
        done = asyncio.ensure_future(stub.Backup(pb.BackupRequest(name="one"), timeout=30))
        during = 0
        while not done.done():
            await enqueue(stub, message(f"during-{during}", "y" * 500, contact=person(1000 + during)))
            if during == 2:
                await stub.ForgetContact(pb.ForgetContactRequest(contact=person(3).contact), timeout=5)
            during += 1
        answer = await done
        assert during > 4
        assert 399 <= answer.open_turns <= 399 + during
    async with buffer(restore(tmp_path, "one", tmp_path / "restored")) as stub:
        stats = await stub.GetStats(pb.GetStatsRequest(), timeout=5)
        assert stats.conversations == answer.open_turns
    assert person(3).contact.encode() not in (tmp_path / "restored" / "buffer.db").read_bytes()


async def test_what_a_copy_holds_open_goes_to_a_human_and_is_never_answered(tmp_path: Path) -> None:
    """It may have been answered after the copy was made: nobody gets the same answer twice."""
    async with buffer(tmp_path, SDR_BUFFER_STRATEGY="enqueue", SDR_BUFFER_QUIET_MS="60000") as stub:
        worker = Worker(stub)
        await worker.hello()
        [sending] = await enqueue(stub, message("m1"))
        turn = await worker.assigned()
        await worker.commit(turn, "um", "dois", last=True)
        await enqueue(stub, message("m2", "e aí?"))
        [waiting] = await enqueue(stub, message("n1", contact=person(2)))
        other = await worker.assigned()
        [done] = await enqueue(stub, message("d1", contact=person(3)))
        third = await worker.assigned()
        await worker.answer(third, "Olá!")
        [collecting] = await enqueue(stub, message("c1", contact=person(4)))
        fourth = await worker.assigned()
        await enqueue(stub, message("c2", contact=person(4)))
        await worker.answer(fourth, "Olá!")
        await stub.Backup(pb.BackupRequest(name="one"), timeout=10)
        assert other.turn_id == waiting.turn_id
    async with buffer(restore(tmp_path, "one", tmp_path / "restored")) as stub:
        worker = Worker(stub)
        await worker.hello()
        for conversation_id, messages in (
            (sending.conversation_id, ["m1", "m2"]),
            (waiting.conversation_id, ["n1"]),
            (collecting.conversation_id, ["c1", "c2"]),
        ):
            await worker.read("record")
            found = await lane(stub, conversation_id)
            assert (found.state, found.pause.reason, found.needs_human) == (pb.LANE_STATE_PAUSED, "restored", True)
            assert not found.HasField("turn") and not found.pending
            assert sorted(m.message_id for t in found.ended_turns for m in t.messages) == messages
        states = [p.state for t in (await lane(stub, sending.conversation_id)).ended_turns for p in t.parts]
        assert states == [turn_pb2.PART_STATE_UNKNOWN, turn_pb2.PART_STATE_DROPPED]
        untouched = await lane(stub, done.conversation_id)
        assert (untouched.state, untouched.needs_human) == (pb.LANE_STATE_IDLE, False)
        assert not [f for f in worker.passed if f.WhichOneof("frame") == "assign"]
        # A provider that repeats what the copy knows gets no second answer either.
        assert (await enqueue(stub, message("m1")))[0].outcome == pb.EventResult.OUTCOME_DUPLICATE


@pytest.mark.parametrize("waits", [True, False])
async def test_a_human_gets_both_halves_of_a_merged_conversation(tmp_path: Path, waits: bool) -> None:
    """Also when nothing waits in the older half: it is the one that people look at."""
    both = message_pb2.Contact(contact=CONTACT.contact, aliases=[*CONTACT.aliases, "lid:100"])
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        [older] = await enqueue(stub, message("m1"))
        turn = await worker.assigned()
        await worker.answer(turn, "Olá!")
        await enqueue(stub, message("m2", contact=LID))
        younger = await worker.assigned()
        await worker.commit(younger, "um")
        if waits:
            await enqueue(stub, message("m3", contact=both))
        else:
            echoed = echo("p1", "um")
            await enqueue(stub, pb.Event(scope=SCOPE, contact=both, echo=echoed.echo))
        answer = await stub.Backup(pb.BackupRequest(name="one"), timeout=10)
        assert (answer.open_turns, answer.pending_messages) == (1, waits)
    async with buffer(restore(tmp_path, "one", tmp_path / "restored")) as stub:
        found = await lane(stub, older.conversation_id)
        assert (found.state, found.pause.reason, found.needs_human) == (pb.LANE_STATE_PAUSED, "restored", True)
        assert not found.HasField("turn") and not found.pending
        stats = await stub.GetStats(pb.GetStatsRequest(), timeout=5)
        assert (stats.waiting_turns, stats.pending_messages, stats.unknown_parts) == (0, 0, waits)


async def test_the_mark_is_gone_after_the_first_start(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        await enqueue(stub, message("m1"))
        await stub.Backup(pb.BackupRequest(name="one"), timeout=10)
    restored = restore(tmp_path, "one", tmp_path / "restored")
    async with buffer(restored) as stub:
        [result] = await enqueue(stub, message("m2", contact=person(2)))
    async with buffer(restored) as stub:
        found = await lane(stub, result.conversation_id)
        assert (found.state, found.needs_human) == (pb.LANE_STATE_WAITING, False)


async def test_an_unmarked_copy_goes_on_where_it_was(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        [result] = await enqueue(stub, message("m1"))
        await stub.Backup(pb.BackupRequest(name="one"), timeout=10)
    restored = restore(tmp_path, "one", tmp_path / "restored")
    copies.unmark_file(restored / "buffer.db")
    assert not copies.moved_on(tmp_path / "buffer.db", restored / "buffer.db")
    async with buffer(restored) as stub:
        assert (await lane(stub, result.conversation_id)).state == pb.LANE_STATE_WAITING
        worker = Worker(stub)
        await worker.hello()
        committed = await worker.commit(await worker.assigned(), "Olá!")
        assert committed.HasField("go")
    assert copies.moved_on(tmp_path / "buffer.db", restored / "buffer.db")
    async with buffer(tmp_path) as stub:
        await enqueue(stub, message("m2"))
    shutil.copy(tmp_path / "backups" / "one" / "buffer.db", tmp_path / "before.db")
    assert copies.moved_on(tmp_path / "before.db", tmp_path / "buffer.db")


async def test_a_file_of_the_version_before_is_lifted(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        [result] = await enqueue(stub, message("m1"))
    db = apsw.Connection(str(tmp_path / "buffer.db"))
    db.execute(f"DROP TABLE forgotten; DROP INDEX conversation_silent; PRAGMA user_version = {VERSION - 1}").fetchall()
    db.close()
    async with buffer(tmp_path) as stub:
        assert (await lane(stub, result.conversation_id)).state == pb.LANE_STATE_WAITING
