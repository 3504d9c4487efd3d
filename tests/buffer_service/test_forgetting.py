"""Forgetting a person, whatever the buffer was doing for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import error_reason_pb2, message_pb2, turn_pb2
from bench.fill import fill
from buffer_service import engine
from buffer_service.app import DAY_MS, BufferApp
from buffer_service.forgetting import names_in_bodies
from buffer_service.store import copies
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking.entities import Incoming
from service_kit import errors
from service_kit.clock import ManualClock
from service_kit.testing import in_process
from tests.buffer_service.test_service import (
    SCOPE,
    BufferServiceStub,
    Worker,
    buffer,
    echo,
    enqueue,
    lane,
    message,
    settings,
)

if TYPE_CHECKING:
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub

PHONE = "5581999990001"
CANARY = "canario-5d20c7"
GONE = (error_reason_pb2.STALE_EPOCH, error_reason_pb2.WRONG_STATE)


async def forget(stub: BufferServiceAsyncStub, contact: str = PHONE) -> pb.ForgetContactResponse:
    return await stub.ForgetContact(pb.ForgetContactRequest(contact=contact), timeout=5)


async def refusal(answer: Awaitable[pb.Committed]) -> error_reason_pb2.ErrorReason.ValueType:
    return (await answer).refusal.reason


async def being_generated(stub: BufferServiceAsyncStub, worker: Worker) -> pb.Assign:
    await enqueue(stub, message("m1", CANARY))
    return await worker.assigned()


async def in_attempting(stub: BufferServiceAsyncStub, worker: Worker) -> pb.Assign:
    turn = await being_generated(stub, worker)
    assert (await worker.commit(turn, f"você disse {CANARY}")).HasField("go")
    return turn


async def between_two_parts(stub: BufferServiceAsyncStub, worker: Worker) -> pb.Assign:
    turn = await being_generated(stub, worker)
    go = (await worker.commit(turn, CANARY, last=False)).go
    await worker.result(turn, go, provider_id="p1")
    return turn


async def with_a_parked_commit(stub: BufferServiceAsyncStub, worker: Worker) -> pb.Assign:
    turn = await being_generated(stub, worker)
    worker.asks += 1
    commit = pb.Commit(
        ask=worker.asks, turn_id=turn.turn_id, epoch=turn.epoch, revision=turn.revision, parts=[CANARY], last=True
    )
    await worker.call.write(pb.RunTurnsRequest(commit=commit))
    # It is not answered; when this one is, it was taken.
    nobody = pb.Assign(turn_id="nobody's", epoch=1, revision=1)
    assert await refusal(worker.commit(nobody, "x")) in GONE
    return turn


STATES: list[Callable[[BufferServiceAsyncStub, Worker], Awaitable[pb.Assign]]] = [
    being_generated,
    in_attempting,
    between_two_parts,
    with_a_parked_commit,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_a_turn_under_way_is_taken_away_and_nothing_of_it_comes_back(
    tmp_path: Path, state: Callable[[BufferServiceAsyncStub, Worker], Awaitable[pb.Assign]]
) -> None:
    hold = "30000" if state is with_a_parked_commit else "0"
    async with buffer(tmp_path, SDR_BUFFER_COMMIT_HOLD_MS=hold, SDR_BUFFER_MAX_HOLD_MS="60000") as stub:
        worker = Worker(stub)
        await worker.hello()
        turn = await state(stub, worker)
        gone = await forget(stub)
        assert (list(gone.conversation_ids), gone.messages) == ([turn.conversation_id], 1)
        assert (await worker.read("revoke")).revoke.turn_id == turn.turn_id
        # What was on its way to the buffer changes nothing, and brings nobody back.
        assert await refusal(worker.commit(turn, CANARY)) in GONE
        late = turn_pb2.Part(index=0, attempt=1)
        assert await refusal(worker.result(turn, late, provider_id="p9")) in GONE
        assert await refusal(worker.finish(turn, None)) in GONE
        await worker.call.write(pb.RunTurnsRequest(release=pb.Release(turn_id=turn.turn_id, epoch=turn.epoch)))
        [noted] = await enqueue(stub, echo("e1", CANARY if state is between_two_parts else f"você disse {CANARY}"))
        if state in (in_attempting, between_two_parts):
            assert noted.conversation_id == ""
        else:
            await forget(stub)
        stats = await stub.GetStats(pb.GetStatsRequest(), timeout=5)
        assert (stats.conversations, stats.running_turns, stats.unrecorded_turns) == (0, 0, 0)
        left = {file.name: file.read_bytes().count(CANARY.encode()) for file in tmp_path.iterdir()}
        assert set(left.values()) == {0}, left
        # They may write again, as somebody new.
        [again] = await enqueue(stub, message("m9", "olá de novo"))
        assert again.conversation_id not in ("", turn.conversation_id)
        assert (await worker.assigned()).turn_id == again.turn_id


async def test_what_waits_to_be_recorded_is_not_handed_out_any_more(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        await enqueue(stub, message("m1", CANARY))
        turn = await worker.assigned()
        go = (await worker.commit(turn, CANARY)).go
        await worker.result(turn, go, provider_id="p1")
        await worker.finish(turn, None)
        record = (await worker.read("record")).record
        assert record.turns[0].turn_id == turn.turn_id
        assert list((await forget(stub)).conversation_ids) == [turn.conversation_id]
        # The worker could not record it, or did: either way it is over.
        recorded = pb.Recorded(conversation_id=turn.conversation_id, turn_id=turn.turn_id, version=1)
        await worker.call.write(pb.RunTurnsRequest(recorded=recorded))
        assert (await stub.GetStats(pb.GetStatsRequest(), timeout=5)).unrecorded_turns == 0
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await lane(stub, turn.conversation_id)
        assert errors.parse(gone.value).reason == "NOT_FOUND"
    async with buffer(tmp_path) as stub:
        assert (await stub.GetStats(pb.GetStatsRequest(), timeout=5)).conversations == 0


async def test_an_echo_of_a_turn_that_has_just_ended_brings_nobody_back(tmp_path: Path) -> None:
    """Only the turn under way was remembered: the echo of the one before made a conversation with the answer in it."""
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        await enqueue(stub, message("m1"))
        await worker.answer(await worker.assigned(), CANARY)
        await forget(stub)
        [result] = await enqueue(stub, echo("e1", CANARY))
        assert (result.outcome, result.conversation_id) == (pb.EventResult.OUTCOME_NOTED, "")
        [human] = await enqueue(stub, echo("e2", "aqui é a Ana, da loja"))
        assert human.conversation_id, "somebody else's text is news"


async def test_dead_letters_and_bodies_in_quarantine_go_too(tmp_path: Path) -> None:
    """A body was looked for by the names of conversations alone, and with the ninth digit that it did not have."""
    without_nine = f"{PHONE[:4]}{PHONE[5:]}"
    other = message_pb2.Scope(tenant="another", channel="evolution", instance="shop")
    bodies = [
        pb.Event(scope=scope, unparsed=pb.Unparsed(reason="?", body=body.encode()))
        for scope, body in (
            (SCOPE, f'{{"remoteJid": "{without_nine}@s.whatsapp.net", "x": "{CANARY}"}}'),
            (SCOPE, f'{{"remoteJid": "{PHONE}@s.whatsapp.net", "x": "{CANARY}"}}'),
            (SCOPE, '{"remoteJid": "5581999990002@s.whatsapp.net"}'),
            (other, f'{{"remoteJid": "{PHONE}@s.whatsapp.net"}}'),
        )
    ]
    async with buffer(tmp_path, SDR_BUFFER_MAX_ATTEMPTS="1") as stub:
        await enqueue(stub, *bodies)
        assert not (await forget(stub)).conversation_ids
        assert (await stub.GetStats(pb.GetStatsRequest(tenant="default"), timeout=5)).quarantined == 1
        assert (await stub.GetStats(pb.GetStatsRequest(tenant="another"), timeout=5)).quarantined == 1
        worker = Worker(stub)
        await worker.hello()
        turn = await being_generated(stub, worker)
        release = pb.Release(turn_id=turn.turn_id, epoch=turn.epoch, reason=pb.RELEASE_REASON_FAILED)
        await worker.call.write(pb.RunTurnsRequest(release=release))
        assert (await worker.assigned()).kind == turn_pb2.TURN_KIND_APOLOGY
        assert len((await stub.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=5)).dead_letters) == 1
        assert (await forget(stub)).messages == 1
        assert not (await stub.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=5)).dead_letters
        left = {file.name: file.read_bytes().count(CANARY.encode()) for file in tmp_path.iterdir()}
        assert set(left.values()) == {0}, left


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["phone:5581999990001"], {"5581999990001", "558199990001"}),
        (["phone:558133330001"], {"558133330001"}),
        (["phone:4915112345678"], {"4915112345678"}),
        (["lid:123", "123@lid", "bsuid:BR.9ab", ""], {"123", "BR.9ab"}),
    ],
)
def test_a_raw_body_may_name_somebody_otherwise(names: list[str], found: set[str]) -> None:
    assert set(names_in_bodies(names)) == found


async def test_a_large_file_is_rebuilt_when_nothing_is_written_though_a_worker_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every heartbeat counted as work, so that with a worker connected a large file was never rebuilt."""
    monkeypatch.setattr(engine, "SMALL_FILE", 0)
    monkeypatch.setattr(engine, "QUIET_MS", 100)
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        await enqueue(stub, message("m1", CANARY))
        await worker.answer(await worker.assigned(), "olá")
        await forget(stub)
        marked = b"erased"
        async with asyncio.timeout(20):
            while marked in (tmp_path / "buffer.db").read_bytes():
                await worker.call.write(pb.RunTurnsRequest(heartbeat=pb.Heartbeat()))
                await asyncio.sleep(0.01)


async def test_a_disk_without_room_to_rebuild_the_file_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine died of it, and so did that of every process after it: nobody was answered until there was room."""
    query = SqliteStore.query

    def no_room(self: SqliteStore, sql: str, args: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        if sql == "VACUUM":
            raise apsw.FullError("database or disk is full")
        return query(self, sql, args)

    monkeypatch.setattr(SqliteStore, "query", no_room)
    clock = ManualClock(start_ms=int(time.time() * 1000))
    for number in range(2):
        async with in_process(BufferApp(settings(tmp_path), clock=clock)) as channel:
            stub = BufferServiceStub(channel)
            await enqueue(stub, message(f"m{number}", CANARY))
            await forget(stub)
            await stub.GetStats(pb.GetStatsRequest(), timeout=5)
    async with in_process(BufferApp(settings(tmp_path), clock=clock)) as channel:
        stub = BufferServiceStub(channel)
        await stub.GetStats(pb.GetStatsRequest(), timeout=5)
        monkeypatch.undo()
        clock.advance(engine.SCRUB_AGAIN_MS)
        await stub.GetStats(pb.GetStatsRequest(), timeout=5)
        await stub.GetStats(pb.GetStatsRequest(), timeout=5)
    store = SqliteStore(tmp_path / "buffer.db")
    assert not store.erased, "made up for as soon as there is room"
    store.close()


async def test_what_a_process_did_not_come_to_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only memory knew that the file was still to be rebuilt."""
    monkeypatch.setattr(SqliteStore, "vacuum", lambda *_, **__: False)
    async with buffer(tmp_path) as stub:
        await enqueue(stub, message("m1", CANARY))
        await forget(stub)
    monkeypatch.undo()
    store = SqliteStore(tmp_path / "buffer.db")
    assert store.erased
    assert store.vacuum(at_most_bytes=1 << 62)
    store.close()
    again = SqliteStore(tmp_path / "buffer.db")
    assert not again.erased
    again.close()


async def test_who_is_silent_for_longer_than_people_are_kept_is_forgotten_by_name_too(tmp_path: Path) -> None:
    """Turns went after some days, and phone and name of the person stayed for ever."""
    clock = ManualClock(start_ms=int(time.time() * 1000))
    app = BufferApp(settings(tmp_path, SDR_RETENTION_DAYS="10"), clock=clock)
    async with in_process(app) as channel:
        stub = BufferServiceStub(channel)
        worker = Worker(stub)
        await worker.hello()
        await enqueue(stub, message("m1", CANARY))
        await worker.answer(await worker.assigned(), "olá")
        for days, left in ((9, 1), (2, 0)):
            clock.advance(days * DAY_MS)
            async with asyncio.timeout(20):
                while (await stub.GetStats(pb.GetStatsRequest(), timeout=5)).conversations != left:
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["erase", "sweep_people"])
def test_who_goes_costs_the_others_nothing(tmp_path: Path, how: str) -> None:
    """Messages and turns of everybody were read for each person who went: with 20 000 stored messages a sweep kept all
    turns waiting for 14 s, again and again."""
    fill(tmp_path / "buffer.db", 400)
    store = SqliteStore(tmp_path / "buffer.db")
    names = [row[0] for row in store.query("SELECT conversation_id FROM conversation LIMIT 5")]
    with store.transaction(), store.step():
        lane = store.lane(names[0])
        unread = Incoming(message_id="unread", body=b"x" * 100, provider_at=0)
        lane.pending = [message for message in [store.new_message(lane, unread, 0)] if message]
    scanned: list[int] = []
    store.db.trace_v2(
        apsw.SQLITE_TRACE_PROFILE, lambda told: scanned.append(told["stmt_status"]["SQLITE_STMTSTATUS_FULLSCAN_STEP"])
    )
    with store.transaction(), store.step():
        if how == "erase":
            assert [store.erase(name) for name in names] == [2, 1, 1, 1, 1]
        else:
            for (turn_id,) in store.query("SELECT turn_id FROM turn LIMIT 6"):
                for table in ("turn", "message", "part"):
                    store.db.execute(f"DELETE FROM {table} WHERE turn_id = ?", (turn_id,))
            assert store.sweep_people(1 << 60, limit=5) == 5
    assert sum(scanned) < 50, "but for a few rows of small tables, everything is found by an index"
    counted = (store.live_messages, store.live_bytes, store.conversations)
    store.close()
    store = SqliteStore(tmp_path / "buffer.db")
    assert counted == (store.live_messages, store.live_bytes, store.conversations)
    store.close()


async def test_tombstones_tell_what_came_back_with_a_copy(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        [theirs] = await enqueue(stub, message("m1", CANARY))
        contact = message_pb2.Contact(contact="5581999990002", aliases=["phone:5581999990002"])
        await enqueue(stub, message("m2", contact=contact))
        await stub.Backup(pb.BackupRequest(name="before"), timeout=30)
        copy = tmp_path / "backups" / "before" / "buffer.db"
        assert not copies.moved_on(copy, copy)
        await forget(stub)
    file = tmp_path / "buffer.db"
    assert copies.moved_on(copy, file), "going back to the copy would bring them back"
    [tombstone] = copies.tombstones(file)
    assert (tombstone.conversation_id, tombstone.tenant) == (theirs.conversation_id, "default")
    assert copies.tombstones(copy) == []
    assert copies.names_of(copy, [theirs.conversation_id, "elsewhere"]) == {("default", f"phone:{PHONE}")}
    for _ in range(2):
        copies.add_tombstones(copy, [tombstone])
        assert copies.tombstones(copy) == [tombstone]


def test_a_file_of_an_older_version_has_no_tombstones(tmp_path: Path) -> None:
    old = apsw.Connection(str(tmp_path / "old.db"))
    old.execute("CREATE TABLE conversation (conversation_id TEXT, tenant TEXT, aliases TEXT)").fetchall()
    old.close()
    assert copies.tombstones(tmp_path / "old.db") == []
