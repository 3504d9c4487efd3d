"""The buffer through a real in-process server."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from agentic_sdr.common.v1 import error_reason_pb2, message_pb2, turn_pb2
from buffer_service.app import BufferApp
from buffer_service.inbox import Inbox
from buffer_service.settings import BufferSettings
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking.entities import Incoming, Part, Scope, Turn, TurnKind
from service_kit import errors
from service_kit.durations import ms_to_timestamp
from service_kit.settings import load
from service_kit.testing import in_process

if TYPE_CHECKING:
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub

SCOPE = message_pb2.Scope(channel="evolution", instance="shop")
CONTACT = message_pb2.Contact(
    contact="5581999990001", aliases=["phone:5581999990001"], address="5581999990001@s.whatsapp.net"
)


def settings(path: Path, **more: str) -> BufferSettings:
    return load(
        BufferSettings, environ={"SDR_DATA_DIR": str(path), "SDR_BUFFER_COMMIT_HOLD_MS": "0", **more}, env_file=None
    )


@asynccontextmanager
async def buffer(path: Path, **more: str) -> AsyncIterator[BufferServiceAsyncStub]:
    async with in_process(BufferApp(settings(path, **more))) as channel:
        yield BufferServiceStub(channel)


def message(
    message_id: str,
    text: str = "oi",
    *,
    human: bool = False,
    age_s: float = 0,
    contact: message_pb2.Contact = CONTACT,
    scope: message_pb2.Scope = SCOPE,
) -> pb.Event:
    author = message_pb2.AUTHOR_HUMAN if human else message_pb2.AUTHOR_LEAD
    body = message_pb2.Message(
        message_id=message_id,
        author=author,
        type=message_pb2.MESSAGE_TYPE_TEXT,
        text=text,
        provider_time=ms_to_timestamp(int((time.time() - age_s) * 1000)),
    )
    return pb.Event(scope=scope, contact=contact, message=body)


def echo(message_id: str, text: str) -> pb.Event:
    event = message(message_id, text, human=True)
    body = event.message
    body.foreign = True
    return pb.Event(scope=SCOPE, contact=CONTACT, echo=body)


class Worker:
    """A turn runner by hand."""

    def __init__(self, stub: BufferServiceAsyncStub, name: str = "w1", capacity: int = 10) -> None:
        self.call = stub.RunTurns()
        self.name, self.capacity = name, capacity
        self.asks = 0
        self.passed: list[pb.RunTurnsResponse] = []
        self.came_along: list[pb.RunTurnsResponse] = []

    async def hello(self, *holding: pb.Holding) -> None:
        hello = pb.Hello(worker_id=self.name, capacity=self.capacity, holding=holding)
        await self.call.write(pb.RunTurnsRequest(hello=hello))

    async def read(self, kind: str) -> pb.RunTurnsResponse:
        """The next frame of this kind; others are kept in `passed`."""
        async with asyncio.timeout(5):
            while True:
                if not self.came_along:
                    read = await self.call.read()
                    assert isinstance(read, pb.RunTurnsResponse), read
                    self.came_along = [read, *read.also]
                frame = self.came_along.pop(0)
                if frame.WhichOneof("frame") == kind:
                    return frame
                self.passed.append(frame)

    async def assigned(self) -> pb.Assign:
        return (await self.read("assign")).assign

    async def commit(
        self, turn: pb.Assign, *parts: str, last: bool = True, revision: int | None = None
    ) -> pb.Committed:
        self.asks += 1
        frame = pb.Commit(
            ask=self.asks,
            turn_id=turn.turn_id,
            epoch=turn.epoch,
            revision=turn.revision if revision is None else revision,
            parts=parts,
            last=last,
        )
        await self.call.write(pb.RunTurnsRequest(commit=frame))
        return (await self.read("committed")).committed

    async def result(
        self,
        turn: pb.Assign,
        part: turn_pb2.Part,
        outcome: pb.SendOutcome.ValueType = pb.SEND_OUTCOME_SENT,
        provider_id: str = "",
    ) -> pb.Committed:
        self.asks += 1
        frame = pb.Result(
            ask=self.asks,
            turn_id=turn.turn_id,
            epoch=turn.epoch,
            part=part.index,
            attempt=part.attempt,
            outcome=outcome,
            provider_message_id=provider_id,
        )
        await self.call.write(pb.RunTurnsRequest(result=frame))
        return (await self.read("committed")).committed

    async def finish(self, turn: pb.Assign, version: int | None = 1) -> pb.Committed:
        self.asks += 1
        frame = pb.Finish(ask=self.asks, turn_id=turn.turn_id, epoch=turn.epoch)
        if version is None:
            frame.unrecorded = True
        else:
            frame.recorded_version = version
        await self.call.write(pb.RunTurnsRequest(finish=frame))
        return (await self.read("committed")).committed

    async def answer(self, turn: pb.Assign, *parts: str) -> pb.Committed:
        """Says everything, records and finishes."""
        committed = await self.commit(turn, *parts)
        while committed.HasField("go"):
            committed = await self.result(turn, committed.go, provider_id=f"p-{turn.turn_id}-{committed.go.index}")
        assert committed.complete
        return await self.finish(turn)


async def enqueue(stub: BufferServiceAsyncStub, *events: pb.Event) -> list[pb.EventResult]:
    response = await stub.Enqueue(pb.EnqueueRequest(events=events), timeout=5)
    return list(response.results)


async def lane(stub: BufferServiceAsyncStub, conversation_id: str) -> pb.Lane:
    response = await stub.GetLane(pb.GetLaneRequest(conversation_id=conversation_id), timeout=5)
    return response.lane


async def test_a_message_becomes_a_turn_and_its_reply_goes_out_part_by_part(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        [result] = await enqueue(stub, message("m1"))
        assert result.outcome == pb.EventResult.OUTCOME_ACCEPTED
        turn = await worker.assigned()
        assert (turn.turn_id, turn.epoch, turn.revision) == (result.turn_id, 1, 1)
        assert [m.text for m in turn.messages] == ["oi"]
        assert turn.contact.address == CONTACT.address
        first = await worker.commit(turn, "um", last=False)
        assert (first.go.index, first.go.text, first.go.state) == (0, "um", turn_pb2.PART_STATE_ATTEMPTING)
        second = await worker.result(turn, first.go, provider_id="p0")
        assert not second.HasField("go") and not second.complete
        third = await worker.commit(turn, "um", "dois")
        assert third.go.index == 1
        done = await worker.result(turn, third.go, provider_id="p1")
        assert done.complete
        assert [p.text for p in done.record.parts] == ["um", "dois"]
        assert (await worker.finish(turn, version=7)).complete
        after = await lane(stub, result.conversation_id)
        assert after.state == pb.LANE_STATE_IDLE
        assert after.recorded_version == 7
        assert [p.provider_message_id for p in after.ended_turns[0].parts] == ["p0", "p1"]


async def test_a_duplicate_is_recorded_once_also_after_a_restart(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        await enqueue(stub, message("m1"))
        assert (await enqueue(stub, message("m1")))[0].outcome == pb.EventResult.OUTCOME_DUPLICATE
    async with buffer(tmp_path) as stub:
        [again] = await enqueue(stub, message("m1"))
        assert again.outcome == pb.EventResult.OUTCOME_DUPLICATE
        stats = await stub.GetStats(pb.GetStatsRequest(), timeout=5)
        assert stats.waiting_turns == 1


async def test_what_arrives_during_a_turn_waits_and_is_answered_together(tmp_path: Path) -> None:
    async with buffer(tmp_path, SDR_BUFFER_STRATEGY="enqueue", SDR_BUFFER_QUIET_MS="50") as stub:
        worker = Worker(stub)
        await worker.hello()
        await enqueue(stub, message("m1", "oi"))
        turn = await worker.assigned()
        for number in range(2, 27):
            await enqueue(stub, message(f"m{number}", str(number)))
        await worker.answer(turn, "olá")
        following = await worker.assigned()
        assert [m.text for m in following.messages] == [str(n) for n in range(2, 27)]


async def test_a_restart_gives_the_turn_back_to_its_worker_with_a_new_epoch(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        await enqueue(stub, message("m1"))
        turn = await worker.assigned()
        await worker.commit(turn, "um", "dois")
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello(pb.Holding(turn_id=turn.turn_id, epoch=turn.epoch))
        again = await worker.assigned()
        assert again.kept and again.epoch == 2
        assert [p.state for p in again.parts] == [turn_pb2.PART_STATE_ATTEMPTING, turn_pb2.PART_STATE_STORED]


async def test_an_old_epoch_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        await enqueue(stub, message("m1"))
        turn = await worker.assigned()
        stale = pb.Assign(turn_id=turn.turn_id, epoch=turn.epoch - 1, revision=1)
        refused = await worker.commit(stale, "oi")
        assert refused.refusal.reason == error_reason_pb2.STALE_EPOCH
        assert dict(refused.refusal.metadata) == {"turn_id": turn.turn_id, "epoch": "0"}


async def test_a_human_message_pauses_and_bot_on_resumes(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        [first] = await enqueue(stub, message("m1"))
        turn = await worker.assigned()
        await enqueue(stub, message("h1", "deixa comigo", human=True))
        revoked = (await worker.read("revoke")).revoke
        assert revoked.turn_id == turn.turn_id and revoked.reason == error_reason_pb2.PAUSED
        record = (await worker.read("record")).record
        assert [m.text for r in record.turns for m in r.messages] == ["oi", "deixa comigo"]
        [during] = await enqueue(stub, message("m2"))
        assert during.outcome == pb.EventResult.OUTCOME_RECORDED_ONLY
        assert (await lane(stub, first.conversation_id)).state == pb.LANE_STATE_PAUSED
        await enqueue(stub, message("h2", "#bot on", human=True))
        assert (await lane(stub, first.conversation_id)).state == pb.LANE_STATE_IDLE
        [after] = await enqueue(stub, message("m3"))
        assert after.outcome == pb.EventResult.OUTCOME_ACCEPTED


async def test_an_echo_of_our_own_part_is_evidence_even_before_the_http_reply(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        [result] = await enqueue(stub, message("m1"))
        turn = await worker.assigned()
        committed = await worker.commit(turn, "Olá! Tudo bem?")
        [noted] = await enqueue(stub, echo("p1", "Olá! Tudo bem?"))
        assert noted.outcome == pb.EventResult.OUTCOME_NOTED
        done = await worker.result(turn, committed.go, pb.SEND_OUTCOME_UNKNOWN)
        assert done.complete
        assert done.record.parts[0].state == turn_pb2.PART_STATE_SENT
        assert (await lane(stub, result.conversation_id)).state == pb.LANE_STATE_RUNNING


async def test_a_foreign_send_is_judged_after_the_part_closes_and_takes_over(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        [result] = await enqueue(stub, message("m1"))
        turn = await worker.assigned()
        committed = await worker.commit(turn, "um", "dois")
        await enqueue(stub, echo("f1", "Oi, aqui é a Ana da loja"))
        assert (await lane(stub, result.conversation_id)).state == pb.LANE_STATE_RUNNING
        refused = await worker.result(turn, committed.go, provider_id="p0")
        assert refused.refusal.reason == error_reason_pb2.PAUSED
        assert worker.passed[0].revoke.reason == error_reason_pb2.PAUSED
        after = await lane(stub, result.conversation_id)
        assert after.state == pb.LANE_STATE_PAUSED


async def test_a_stale_message_is_recorded_without_an_answer(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        [result] = await enqueue(stub, message("m1", age_s=3 * 86_400))
        assert result.outcome == pb.EventResult.OUTCOME_RECORDED_ONLY
        assert (await lane(stub, result.conversation_id)).unrecorded == 1


async def test_what_a_human_wrote_yesterday_takes_nothing_over(tmp_path: Path) -> None:
    """After a reconnect the provider delivers what was missed, a colleague's messages too. The lead who wrote next met
    eight hours of silence, because somebody had answered the day before."""
    async with buffer(tmp_path) as stub:
        [old] = await enqueue(stub, message("h1", human=True, age_s=9 * 3_600))
        assert old.outcome == pb.EventResult.OUTCOME_RECORDED_ONLY
        assert (await lane(stub, old.conversation_id)).unrecorded == 1
        [new] = await enqueue(stub, message("m1"))
        assert new.outcome == pb.EventResult.OUTCOME_ACCEPTED
        await enqueue(stub, message("h3", human=True), message("h4", "#bot on", human=True, age_s=9 * 3_600))
        assert (await lane(stub, new.conversation_id)).state == pb.LANE_STATE_PAUSED, "an old word gives nothing back"


async def test_a_human_of_long_ago_is_recorded_without_an_answer_whatever_the_settings(tmp_path: Path) -> None:
    async with buffer(tmp_path, SDR_HANDOFF_QUIET_MS="60000") as stub:
        [result] = await enqueue(stub, message("h1", human=True, age_s=120))
        assert result.outcome == pb.EventResult.OUTCOME_RECORDED_ONLY
        found = await lane(stub, result.conversation_id)
        assert (found.state, found.unrecorded) == (pb.LANE_STATE_IDLE, 1)


async def test_lid_first_phone_later_is_one_conversation(tmp_path: Path) -> None:
    lid = message_pb2.Contact(contact="lid:100", aliases=["lid:100"], address="100@lid")
    both = message_pb2.Contact(
        contact="5581999990001", aliases=["phone:5581999990001", "lid:100"], address="5581999990001@s.whatsapp.net"
    )
    async with buffer(tmp_path) as stub:
        [a] = await enqueue(stub, message("m1", contact=lid))
        [b] = await enqueue(stub, message("m2", contact=both))
        assert a.conversation_id == b.conversation_id
        assert (await lane(stub, a.conversation_id)).contact.contact == "5581999990001"


async def test_an_alias_set_that_names_two_conversations_merges_them(tmp_path: Path) -> None:
    lid = message_pb2.Contact(contact="lid:100", aliases=["lid:100"], address="100@lid")
    both = message_pb2.Contact(contact="5581999990001", aliases=["phone:5581999990001", "lid:100"])
    async with buffer(tmp_path) as stub:
        [older] = await enqueue(stub, message("m1"))
        [younger] = await enqueue(stub, message("m2", contact=lid))
        assert older.conversation_id != younger.conversation_id
        [third] = await enqueue(stub, message("m3", contact=both))
        assert third.conversation_id == older.conversation_id
        found = await lane(stub, younger.conversation_id)
        assert found.conversation_id == older.conversation_id
        assert set(found.contact.aliases) == {"phone:5581999990001", "lid:100"}


async def test_a_record_names_the_conversations_that_were_merged_into_its_own(tmp_path: Path) -> None:
    """The context service can't know by itself that two leads are one person: aliases alone are a guess."""
    lid = message_pb2.Contact(contact="lid:100", aliases=["lid:100"], address="100@lid")
    both = message_pb2.Contact(contact="5581999990001", aliases=["phone:5581999990001", "lid:100"])
    async with buffer(tmp_path, SDR_BUFFER_STRATEGY="enqueue", SDR_BUFFER_QUIET_MS="0") as stub:
        worker = Worker(stub)
        await worker.hello()
        [older] = await enqueue(stub, message("m1"))
        [younger] = await enqueue(stub, message("m2", contact=lid))
        turns = {turn.conversation_id: turn for turn in [await worker.assigned(), await worker.assigned()]}
        await enqueue(stub, message("m3", contact=both))
        records = {}
        for conversation_id, turn in turns.items():
            go = (await worker.commit(turn, "Olá!")).go
            records[conversation_id] = (await worker.result(turn, go)).record
            await worker.finish(turn)
        assert list(records[older.conversation_id].merged_conversation_ids) == [younger.conversation_id]
        assert not records[younger.conversation_id].merged_conversation_ids


async def test_two_instances_with_the_same_customer_stay_apart(tmp_path: Path) -> None:
    other = message_pb2.Scope(channel="evolution", instance="other")
    async with buffer(tmp_path) as stub:
        [a] = await enqueue(stub, message("m1"))
        [b] = await enqueue(stub, message("m1", scope=other))
        assert a.conversation_id != b.conversation_id
        assert b.outcome == pb.EventResult.OUTCOME_ACCEPTED


async def test_above_the_limits_nothing_is_stored_and_the_delay_is_named(tmp_path: Path) -> None:
    async with buffer(tmp_path, SDR_BUFFER_MAX_PENDING_MESSAGES="1") as stub:
        await enqueue(stub, message("m1"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await enqueue(stub, message("m2"))
        error = errors.parse(refused.value)
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUFFER_FULL")
        assert error.metadata == {"limit": "pending_messages"} and error.retry_after_ms == 5_000


async def test_forgetting_erases_every_byte_and_revokes_the_turn(tmp_path: Path) -> None:
    canary = "canario-7f3a91"
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        [result] = await enqueue(stub, message("m1", canary))
        turn = await worker.assigned()
        await worker.commit(turn, f"você disse {canary}")
        forgotten = await stub.ForgetContact(pb.ForgetContactRequest(contact="5581999990001"), timeout=5)
        assert list(forgotten.conversation_ids) == [result.conversation_id] and forgotten.messages == 1
        assert (await worker.read("revoke")).revoke.turn_id == turn.turn_id
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await lane(stub, result.conversation_id)
        assert errors.parse(gone.value).reason == "NOT_FOUND"
        for file in tmp_path.iterdir():
            assert canary.encode() not in file.read_bytes(), file
        again = await stub.ForgetContact(pb.ForgetContactRequest(contact="5581999990001"), timeout=5)
        assert not again.conversation_ids


async def test_a_turn_that_kills_every_worker_becomes_a_dead_letter_and_an_apology(tmp_path: Path) -> None:
    async with buffer(tmp_path, SDR_BUFFER_MAX_ATTEMPTS="1") as stub:
        worker = Worker(stub)
        await worker.hello()
        [result] = await enqueue(stub, message("m1", "veneno"))
        turn = await worker.assigned()
        release = pb.Release(turn_id=turn.turn_id, epoch=turn.epoch, reason=pb.RELEASE_REASON_FAILED)
        await worker.call.write(pb.RunTurnsRequest(release=release))
        apology = await worker.assigned()
        assert apology.kind == turn_pb2.TURN_KIND_APOLOGY and not apology.messages
        await worker.answer(apology, "Desculpe, tive um problema.")
        letters = await stub.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=5)
        [letter] = letters.dead_letters
        assert [m.text for m in letter.messages] == ["veneno"]
        request = pb.ReplayDeadLetterRequest(dead_letter_id=letter.dead_letter_id)
        replayed = await stub.ReplayDeadLetter(request, timeout=5)
        again = await worker.assigned()
        assert again.turn_id == replayed.dead_letter.replay_turn_id
        assert [m.text for m in again.messages] == ["veneno"]
        twice = await stub.ReplayDeadLetter(request, timeout=5)
        assert twice.dead_letter.replay_turn_id == again.turn_id
        assert (await lane(stub, result.conversation_id)).needs_human


async def test_lists_page_through_everything(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        for number in range(7):
            contact = message_pb2.Contact(contact=f"55819999900{number:02}", aliases=[f"phone:55819999900{number:02}"])
            await enqueue(stub, message(f"m{number}", contact=contact))
        seen: list[str] = []
        token = ""
        while True:
            page = await stub.ListLanes(pb.ListLanesRequest(page_size=3, page_token=token), timeout=5)
            seen += [x.conversation_id for x in page.lanes]
            token = page.next_page_token
            if not token:
                break
        assert len(seen) == len(set(seen)) == 7
        with pytest.raises(grpc.aio.AioRpcError) as bad:
            await stub.ListLanes(pb.ListLanesRequest(page_token="x"), timeout=5)
        assert errors.parse(bad.value).reason == "BAD_PAGE_TOKEN"


BAD_EVENTS = [
    (pb.Event(scope=SCOPE), "events[0].event"),
    (pb.Event(scope=message_pb2.Scope(channel="evolution"), presence=pb.Presence()), "events[0].scope.instance"),
    (pb.Event(scope=SCOPE, presence=pb.Presence()), "events[0].contact.aliases"),
    (message(""), "events[0].message.message_id"),
    (message("x", "a" * 65_537), "events[0].message.text"),
    (message("replay:1:1"), "events[0].message.message_id"),
]


@pytest.mark.parametrize(("event", "field"), BAD_EVENTS)
async def test_bad_events_are_refused_with_their_field(tmp_path: Path, event: pb.Event, field: str) -> None:
    async with buffer(tmp_path) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await enqueue(stub, event)
        error = errors.parse(refused.value)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert error.metadata == {"field": field}


async def test_a_stream_begins_with_hello(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        call = stub.RunTurns()
        await call.write(pb.RunTurnsRequest(heartbeat=pb.Heartbeat()))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert errors.parse(refused.value).reason == "PROTOCOL"


async def test_a_bug_in_one_command_harms_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception inside a step once killed the engine and hung the calls in hand."""
    async with buffer(tmp_path, SDR_BUFFER_STRATEGY="enqueue") as stub:
        worker = Worker(stub)
        await worker.hello()
        take = Inbox._incoming

        def fail(self: Inbox, now: int, body: message_pb2.Message, *, human: bool) -> Incoming:
            if body.text == "poison":
                raise RuntimeError("segredo")
            return take(self, now, body, human=human)

        monkeypatch.setattr(Inbox, "_incoming", fail)
        calls = [enqueue(stub, message(f"m{n}", "poison" if n == 3 else "oi")) for n in range(6)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        [failed] = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
        error = errors.parse(failed)
        assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "segredo" not in error.message
        turn = await worker.assigned()
        await worker.answer(turn, "olá")


@pytest.mark.parametrize("token", ["x", "WzFd", "W" * 5_000, base64.b64encode(b"[" * 700).decode()])
async def test_no_page_token_harms_the_buffer(tmp_path: Path, token: str) -> None:
    async with buffer(tmp_path) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListLanes(pb.ListLanesRequest(page_token=token), timeout=5)
        assert errors.parse(refused.value).reason == "BAD_PAGE_TOKEN"
        assert (await enqueue(stub, message("m1")))[0].outcome == pb.EventResult.OUTCOME_ACCEPTED


async def test_frames_that_came_in_one_message_are_taken_in_their_order(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        await enqueue(stub, message("m1"))
        turn = await worker.assigned()
        one, both = (
            pb.Commit(ask=ask, turn_id=turn.turn_id, epoch=turn.epoch, revision=turn.revision, parts=parts, last=last)
            for ask, parts, last in ((1, ["um"], False), (2, ["um", "dois"], True))
        )
        await worker.call.write(pb.RunTurnsRequest(commit=one, also=[pb.RunTurnsRequest(commit=both)]))
        answers = [(await worker.read("committed")).committed for _ in range(2)]
        assert [(a.ask, a.stored_parts, a.HasField("go")) for a in answers] == [(1, 1, True), (2, 2, False)]


async def test_what_leaves_together_shares_messages(tmp_path: Path) -> None:
    """Each message on the stream costs 0.2 ms on either side, which was half of the path under load."""
    async with buffer(tmp_path) as stub:
        worker = Worker(stub, capacity=100)
        contacts = [
            message_pb2.Contact(contact=f"lid:{n}", aliases=[f"lid:{n}"], address=f"{n}@lid") for n in range(30)
        ]
        await enqueue(stub, *(message(f"m{n}", contact=who) for n, who in enumerate(contacts)))
        await worker.hello()
        async with asyncio.timeout(5):
            sizes: list[int] = []
            while sum(sizes) < len(contacts):
                read = await worker.call.read()
                assert isinstance(read, pb.RunTurnsResponse)
                sizes.append(1 + len(read.also))
        assert len(sizes) < len(contacts)


async def test_a_bug_in_the_second_event_of_a_webhook_leaves_nothing_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rolled-back lane once kept its turn in memory: a worker's credit leaked, or the engine died of it."""
    async with buffer(tmp_path) as stub:
        worker = Worker(stub, capacity=1)
        await worker.hello()
        take = Inbox._incoming

        def fail(self: Inbox, now: int, body: message_pb2.Message, *, human: bool) -> Incoming:
            if body.text == "poison":
                raise RuntimeError
            return take(self, now, body, human=human)

        monkeypatch.setattr(Inbox, "_incoming", fail)
        with pytest.raises(grpc.aio.AioRpcError):
            await enqueue(stub, message("m1"), message("m2", "poison"))
        [result] = await enqueue(stub, message("m1"))
        assert result.outcome == pb.EventResult.OUTCOME_ACCEPTED, "nothing of the failed call was stored"
        turn = await worker.assigned()
        assert turn.turn_id == result.turn_id
        await worker.answer(turn, "olá")


async def test_a_person_who_was_merged_twice_is_forgotten_whole(tmp_path: Path) -> None:
    """Forgetting followed merges one level only: text stayed, and the next start failed on a lane that led nowhere."""

    def contact(*aliases: str) -> message_pb2.Contact:
        return message_pb2.Contact(contact=aliases[0], aliases=aliases)

    canary = "canario-91be"
    async with buffer(tmp_path) as stub:
        await enqueue(stub, message("b", contact=contact("bsuid:1")))
        await enqueue(stub, message("p", contact=contact("phone:5581999990009")))
        await enqueue(stub, message("l", canary, contact=contact("lid:1")))
        await enqueue(stub, message("pl", contact=contact("phone:5581999990009", "lid:1")))
        await enqueue(stub, message("bp", contact=contact("bsuid:1", "phone:5581999990009")))
        forgotten = await stub.ForgetContact(pb.ForgetContactRequest(contact="bsuid:1"), timeout=5)
        assert len(forgotten.conversation_ids) == 3 and forgotten.messages == 5
    for file in tmp_path.iterdir():
        assert canary.encode() not in file.read_bytes()
    async with buffer(tmp_path) as stub:
        assert (await enqueue(stub, message("n")))[0].outcome == pb.EventResult.OUTCOME_ACCEPTED


async def test_after_a_merge_an_echo_is_still_ours_and_a_human_stops_both(tmp_path: Path) -> None:
    lid = message_pb2.Contact(contact="lid:100", aliases=["lid:100"], address="100@lid")
    both = message_pb2.Contact(contact="5581999990001", aliases=["phone:5581999990001", "lid:100"])
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        await worker.hello()
        [older] = await enqueue(stub, message("m1"))
        await worker.answer(await worker.assigned(), "oi")
        await enqueue(stub, message("m2", contact=lid))
        turn = await worker.assigned()
        committed = await worker.commit(turn, "um", "dois")
        await enqueue(stub, message("m3", contact=both))
        [noted] = await enqueue(stub, echo("p1", "um"))
        assert noted.outcome == pb.EventResult.OUTCOME_NOTED, "our own bubble, in the lane that was merged away"
        assert (await lane(stub, older.conversation_id)).state != pb.LANE_STATE_PAUSED
        await enqueue(stub, message("h1", "deixa comigo", human=True))
        refused = await worker.result(turn, committed.go, provider_id="p1")
        assert refused.refusal.reason == error_reason_pb2.PAUSED, "the second part is not sent"


def test_no_query_of_the_hot_path_reads_a_whole_table(tmp_path: Path) -> None:
    """Partial indexes can't be used for a bound parameter: with a million kept messages a step took 180 ms."""
    store = SqliteStore(tmp_path / "buffer.db")
    seen: list[str] = []

    def watch(cursor: object, sql: str, bindings: object) -> bool:
        seen.append(sql)
        return True

    store.db.exec_trace = watch
    try:
        with store.transaction(), store.step():
            lane = store.create_lane(Scope("default", "evolution", "one"), 1)
            message = store.new_message(lane, Incoming(message_id="m", body=b"x", provider_at=1), 1)
            assert message
            turn = Turn(1, "t", lane.conversation_id, TurnKind.ANSWER, [message], 1, parts=[Part("oi")])
            store.add_turn(turn)
            lane.turn = turn
        with store.transaction(), store.step():
            lane = store.lane(lane.conversation_id)
            store.unrecorded(lane, 1)
            store.unknown_parts(lane, 0)
            store.knows_send(lane, "p")
            store.note_delivery(lane.scope, "p", 2)
            store.conversations_of(lane.scope, ["phone:1"])
            store.merged_into(lane)
            store.seen(lane.scope, "m")
            store.sweep(1)
    finally:
        store.db.exec_trace = None
    reads = {sql for sql in seen if sql.startswith(("SELECT", "WITH", "UPDATE", "DELETE"))}
    assert len(reads) > 10
    for sql in reads - {s for s in reads if "quarantine" in s}:
        arguments = tuple(0 for _ in range(sql.count("?")))
        plan = [row[3] for row in store.query(f"EXPLAIN QUERY PLAN {sql}", arguments)]
        scans = [step for step in plan if step.startswith("SCAN") and step not in ("SCAN m", "SCAN merged")]
        assert not scans, f"{sql}\n{plan}"
    store.close()


async def test_conversations_are_counted_by_tenant_through_failures_forgetting_and_restarts(tmp_path: Path) -> None:
    async def counts(stub: BufferServiceAsyncStub) -> list[int]:
        asked = [pb.GetStatsRequest(tenant=tenant) for tenant in ("", "default", "other", "nobody")]
        return [(await stub.GetStats(one, timeout=5)).conversations for one in asked]

    def person(number: int, tenant: str = "") -> pb.Event:
        contact = message_pb2.Contact(contact=f"55{number}", aliases=[f"phone:55{number}"])
        scope = message_pb2.Scope(tenant=tenant, channel="evolution", instance="shop")
        return message(f"m{number}", contact=contact, scope=scope)

    async with buffer(tmp_path) as stub:
        await enqueue(stub, person(1), person(2), person(3, "other"))
        await enqueue(stub, person(1))
        assert await counts(stub) == [3, 2, 1, 0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SqliteStore, "erase_quarantine", lambda *_: 1 / 0)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ForgetContact(pb.ForgetContactRequest(contact="552"), timeout=5)
        assert await counts(stub) == [3, 2, 1, 0]
        await stub.ForgetContact(pb.ForgetContactRequest(contact="552"), timeout=5)
        await stub.ForgetContact(pb.ForgetContactRequest(contact="552"), timeout=5)
        assert await counts(stub) == [2, 1, 1, 0]
    async with buffer(tmp_path) as stub:
        assert await counts(stub) == [2, 1, 1, 0]
