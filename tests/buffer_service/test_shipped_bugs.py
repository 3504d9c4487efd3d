"""Bugs that others shipped in systems like this one, each with its story, against the buffer's real store. Time is
moved by hand; a crash is a copy of the folder as `kill -9` leaves it, opened by a new buffer."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from agentic_sdr.common.v1 import error_reason_pb2, message_pb2, turn_pb2
from buffer_service.app import BufferApp
from buffer_service.turn_taking import TurnTaking
from buffer_service.turn_taking.entities import InboxMessage, Lane
from service_kit.clock import ManualClock
from service_kit.durations import duration_to_ms, timestamp_to_ms
from service_kit.testing import in_process
from tests.buffer_service.test_service import SCOPE, Worker, echo, enqueue, lane, message, settings

T = TypeVar("T")
STEP_MS = 500
both = pytest.mark.parametrize("strategy", ["enqueue", "preempt"])
LID = message_pb2.Contact(contact="lid:100", aliases=["lid:100"], address="100@lid")
PHONE = message_pb2.Contact(
    contact="5581999990001", aliases=["phone:5581999990001", "lid:100"], address="5581999990001@s.whatsapp.net"
)


class OneWriter:
    """A stream on which a heartbeat may meet a request: grpc takes one write at a time."""

    def __init__(self, call: Any) -> None:
        self._call, self._lock = call, asyncio.Lock()
        self.read, self.cancel = call.read, call.cancel

    async def write(self, frame: pb.RunTurnsRequest) -> None:
        async with self._lock:
            await self._call.write(frame)


class Shop:
    """A running buffer and the clock that it lives by."""

    def __init__(self, path: Path, clock: ManualClock, stub: Any) -> None:
        self.path, self.clock, self.stub = path, clock, stub

    def killed(self) -> Path:
        """What a new process would find if this one died now."""
        left = self.path.with_name(f"{self.path.name}x")
        shutil.copytree(self.path, left)
        return left

    async def passes(self, milliseconds: int, *alive: Worker) -> None:
        """Lets time pass; these workers' hearts beat."""
        for _ in range(0, milliseconds, STEP_MS):
            self.clock.advance(min(STEP_MS, milliseconds))
            for worker in alive:
                await worker.call.write(pb.RunTurnsRequest(heartbeat=pb.Heartbeat()))
            # A call turns the engine's crank, which does what is due.
            await self.stub.GetStats(pb.GetStatsRequest(), timeout=5)

    async def until(self, work: Coroutine[Any, Any, T], *alive: Worker) -> T:
        """Lets time pass until this is done."""
        task = asyncio.create_task(work)
        while not task.done():
            await self.passes(STEP_MS, *alive)
            await asyncio.sleep(0.005)
        return await task

    async def worker(self, name: str = "w1", *holding: pb.Holding) -> Worker:
        worker = Worker(self.stub, name)
        worker.call = OneWriter(worker.call)
        await worker.hello(*holding)
        return worker


@asynccontextmanager
async def shop(path: Path, clock: ManualClock | None = None, **more: str) -> AsyncIterator[Shop]:
    clock = clock or ManualClock(int(time.time() * 1000))
    path.mkdir(exist_ok=True)
    async with in_process(
        BufferApp(settings(path, **{"SDR_BUFFER_COMMIT_HOLD_MS": "400", **more}), clock=clock)
    ) as channel:
        yield Shop(path, clock, BufferServiceStub(channel))


def texts(turn: pb.Assign) -> list[str]:
    return [m.text for m in turn.messages]


@both
async def test_enqueue_between_the_last_dequeue_and_the_release(tmp_path: Path, strategy: str) -> None:
    """The consumer found its list empty and then gave its lock back. What arrived between the two found the lock taken,
    started nobody, and lay there until the customer wrote again."""
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        await enqueue(s.stub, message("m0", "0"))
        for number in range(1, 13):
            turn = await s.until(worker.assigned(), worker)
            committed = await s.until(worker.commit(turn, "olá"), worker)
            done = await worker.result(turn, committed.go)
            assert done.complete
            if number % 2:
                await asyncio.gather(enqueue(s.stub, message(f"m{number}", str(number))), worker.finish(turn))
            else:
                await enqueue(s.stub, message(f"m{number}", str(number)))
                await worker.finish(turn)
            assert texts(turn) == [str(number - 1)]
        assert texts(await s.until(worker.assigned(), worker)) == ["12"]


@both
async def test_the_lease_expires_in_mid_turn(tmp_path: Path, strategy: str) -> None:
    """A worker stopped for a garbage collection, its lock ran out, another took the conversation over; then the first
    one woke, still believed in its lock, and the customer got both replies."""
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        sleeper = await s.worker("sleeper")
        await enqueue(s.stub, message("m1"))
        turn = await sleeper.assigned()
        first = await s.until(sleeper.commit(turn, "um", last=False), sleeper)
        await sleeper.result(turn, first.go, provider_id="p0")
        other = await s.worker("other")
        taken = await s.until(other.assigned(), other)
        assert (taken.turn_id, taken.epoch, taken.kept) == (turn.turn_id, turn.epoch + 1, False)
        assert [(p.text, p.state) for p in taken.parts] == [("um", turn_pb2.PART_STATE_SENT)]
        refused = await sleeper.commit(turn, "um", "dois do velho")
        assert refused.refusal.reason == error_reason_pb2.STALE_EPOCH and not refused.HasField("go")
        second = await other.commit(taken, "um", "dois")
        assert (second.go.index, second.go.text) == (1, "dois")
        assert (await sleeper.finish(turn)).refusal.reason == error_reason_pb2.STALE_EPOCH


@both
async def test_the_lease_expires_during_a_send(tmp_path: Path, strategy: str) -> None:
    """The same, while the provider was being slow: the next worker began to send before the first one's request was
    over, and the bubbles arrived in the wrong order."""
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        sleeper = await s.worker("sleeper")
        await enqueue(s.stub, message("m1"))
        turn = await sleeper.assigned()
        await s.until(sleeper.commit(turn, "um", "dois"), sleeper)
        permitted = s.clock.now_ms()
        other = await s.worker("other")
        taken = await s.until(other.assigned(), other)
        assert s.clock.now_ms() - permitted >= 12_000 - STEP_MS, "a send may take 10 s, and begin 1 s late"
        states = [p.state for p in taken.parts]
        assert states == [turn_pb2.PART_STATE_UNKNOWN, turn_pb2.PART_STATE_STORED]
        assert (await other.commit(taken, "um", "dois")).go.index == 1, "what may have been sent is not sent again"


async def test_a_crash_after_the_deduplication_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The webhook set its mark, then died before the message was in the queue. The provider sent it again, the mark
    said "seen", and the message was lost for ever behind a 200."""
    left: list[Path] = []
    async with shop(tmp_path / "a") as s:
        take = TurnTaking.take_message

        def die(self: TurnTaking, now: int, on: Lane, what: InboxMessage) -> None:
            # The mark is set at this point.
            left.append(s.killed())
            take(self, now, on, what)

        monkeypatch.setattr(TurnTaking, "take_message", die)
        await enqueue(s.stub, message("m1"))
        monkeypatch.undo()
        left.append(s.path.with_name("after"))
        shutil.copytree(s.path, left[1])
    outcomes = []
    for path in left:
        async with shop(path) as s:
            [again] = await enqueue(s.stub, message("m1"))
            outcomes.append(again.outcome)
            worker = await s.worker()
            turn = await s.until(worker.assigned(), worker)
            assert texts(turn) == ["oi"], "before or after: there is one turn with it"
            await s.until(worker.answer(turn, "olá"), worker)
            assert (await s.stub.GetStats(pb.GetStatsRequest(), timeout=5)).running_turns == 0
    assert outcomes == [pb.EventResult.OUTCOME_ACCEPTED, pb.EventResult.OUTCOME_DUPLICATE]


@both
async def test_a_message_in_mid_turn_kills_the_reply_in_flight(tmp_path: Path, strategy: str) -> None:
    """Every new message cancelled what was running, also when half of the reply was already out: the customer got the
    first bubble of three replies and the whole of none."""
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        await enqueue(s.stub, message("m1", "1"))
        turn = await worker.assigned()
        first = await s.until(worker.commit(turn, "um", "dois"), worker)
        await enqueue(s.stub, message("m2", "2"))
        second = await worker.result(turn, first.go, provider_id="p0")
        assert (second.go.index, second.go.text) == (1, "dois")
        await enqueue(s.stub, message("m3", "3"))
        done = await worker.result(turn, second.go, provider_id="p1")
        assert done.complete and [m.text for m in done.record.messages] == ["1"]
        assert not worker.passed, "nobody told the worker to stop"
        await worker.finish(turn)
        assert texts(await s.until(worker.assigned(), worker)) == ["2", "3"]


@both
async def test_a_crash_after_the_first_bubble_loses_the_rest(tmp_path: Path, strategy: str) -> None:
    """The reply lived in the worker's memory and the message was acknowledged when the first bubble was out. A deploy
    later the customer had read "Temos três opções:" and nothing after it."""
    clock = ManualClock(int(time.time() * 1000))
    async with shop(tmp_path / "a", clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker("old")
        await enqueue(s.stub, message("m1"))
        turn = await worker.assigned()
        first = await s.until(worker.commit(turn, "um", last=False), worker)
        await worker.result(turn, first.go, provider_id="p0")
        said = s.killed()
        second = await worker.commit(turn, "um", "dois", "três")
        assert second.go.index == 1
        sending = said.with_name("sending")
        shutil.copytree(s.path, sending)
    async with shop(said, clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker("new")
        turn = await s.until(worker.assigned(), worker)
        assert [(p.text, p.state) for p in turn.parts] == [("um", turn_pb2.PART_STATE_SENT)] and not turn.last
        assert (await worker.commit(turn, "um", "dois")).go.index == 1, "goes on after what was said"
    async with shop(sending, clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker("new")
        turn = await s.until(worker.assigned(), worker)
        assert turn.last, "the rest is known and never generated again"
        rest = await worker.commit(turn, *(p.text for p in turn.parts))
        assert (rest.go.index, rest.go.text) == (2, "três")
        done = await worker.result(turn, rest.go, provider_id="p2")
        sent = [p.state for p in done.record.parts]
        assert sent == [turn_pb2.PART_STATE_SENT, turn_pb2.PART_STATE_UNKNOWN, turn_pb2.PART_STATE_SENT]


@both
async def test_superseded_between_check_and_send(tmp_path: Path, strategy: str) -> None:
    """The worker asked "anything new?", heard no, and sent; in the millisecond between, the customer had written "não,
    espera". Each message must be in the turn that is answered, or in the next one, and the worker must know which."""
    outcomes = set()
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        for number in range(12):
            contact = message_pb2.Contact(contact=f"lid:{number}", aliases=[f"lid:{number}"], address=f"{number}@lid")
            await enqueue(s.stub, message(f"a{number}", "quero", contact=contact))
            turn = await worker.assigned()
            second = message(f"b{number}", "não, espera", contact=contact)
            if number % 4:
                await s.passes(STEP_MS, worker)
            if number % 4 == 1:
                answer = await worker.commit(turn, "um")
                await enqueue(s.stub, second)
            elif number % 4 == 2:
                await enqueue(s.stub, second)
                answer = await worker.commit(turn, "um")
            else:
                answer, _ = await asyncio.gather(worker.commit(turn, "um"), enqueue(s.stub, second))
            if answer.refusal.reason == error_reason_pb2.SUPERSEDED:
                told = [m.text for m in answer.superseded.messages]
                assert told == ["quero", "não, espera"] and not answer.HasField("go")
                turn.revision = answer.superseded.revision
                answer = await s.until(worker.commit(turn, "dois"), worker)
                outcomes.add("superseded")
                expected = told
            else:
                outcomes.add("sent")
                expected = ["quero"]
            done = await worker.result(turn, answer.go)
            assert [m.text for m in done.record.messages] == expected
            await worker.finish(turn)
            if len(expected) == 1:
                following = await s.until(worker.assigned(), worker)
                assert texts(following) == ["não, espera"]
                await s.until(worker.answer(following, "certo"), worker)
    assert outcomes == ({"sent"} if strategy == "enqueue" else {"sent", "superseded"})


async def test_endless_typing_starves_the_reply(tmp_path: Path) -> None:
    """Every "typing…" pushed the reply back by two seconds. A customer whose phone lay face down on the keyboard got no
    answer for a quarter of an hour."""
    contact = message("x").contact
    composing = pb.Event(scope=SCOPE, contact=contact, presence=pb.Presence(composing=True))
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY="preempt", SDR_BUFFER_MAX_HOLD_MS="8000") as s:
        worker = await s.worker()
        await enqueue(s.stub, message("m1"))
        turn = await worker.assigned()
        opened = s.clock.now_ms()
        asked = asyncio.create_task(worker.commit(turn, "olá"))
        waits = []
        while not asked.done() and s.clock.now_ms() - opened < 30_000:
            await enqueue(s.stub, composing)
            await s.passes(STEP_MS, worker)
            await asyncio.sleep(0.005)
            waits.append(s.clock.now_ms() - opened)
        assert (await asyncio.wait_for(asked, 5)).HasField("go")
        assert 2_000 < waits[-1] <= 8_000 + STEP_MS, "typing holds the reply, and not for longer than the cap"


def _update(name: str) -> turn_pb2.Effect:
    return turn_pb2.Effect(lead_update=turn_pb2.LeadUpdate(name=name))


async def _commit_with(worker: Worker, turn: pb.Assign, revision: int, said: str, *names: str) -> pb.Committed:
    worker.asks += 1
    frame = pb.Commit(
        ask=worker.asks, turn_id=turn.turn_id, epoch=turn.epoch, revision=revision, parts=[said], last=True,
        effects=[_update(name) for name in names],
    )  # fmt: skip
    await worker.call.write(pb.RunTurnsRequest(commit=frame))
    return (await worker.read("committed")).committed


async def test_discarded_speculation_wrote_state(tmp_path: Path) -> None:
    """The model had called its tools before the next message made its reply worthless: the draft was thrown away, the
    customer's record kept the wrong budget."""
    clock = ManualClock(int(time.time() * 1000))
    async with shop(tmp_path / "a", clock, SDR_BUFFER_STRATEGY="preempt") as s:
        worker = await s.worker()
        [taken] = await enqueue(s.stub, message("m1", "1"))
        turn = await worker.assigned()
        parked = asyncio.create_task(_commit_with(worker, turn, 1, "rascunho", "errado-parado"))
        await asyncio.sleep(0.05)
        await enqueue(s.stub, message("m2", "2"))
        answer = await parked
        assert answer.refusal.reason == error_reason_pb2.SUPERSEDED
        await s.passes(STEP_MS, worker)
        late = await _commit_with(worker, turn, 1, "rascunho", "errado-velho")
        assert late.refusal.reason == error_reason_pb2.SUPERSEDED
        assert not (await lane(s.stub, taken.conversation_id)).turn.effects
        refused = await _commit_with(worker, turn, 2, "rascunho", "errado-recusado")
        open_again = await worker.result(turn, refused.go, pb.SEND_OUTCOME_REFUSED_RETRY)
        assert open_again.stored_parts == 0
        assert not (await lane(s.stub, taken.conversation_id)).turn.effects
        await enqueue(s.stub, message("m3", "3"))
        committed = await s.until(_commit_with(worker, turn, 3, "certo"), worker)
        done = await worker.result(turn, committed.go)
        assert [m.text for m in done.record.messages] == ["1", "2", "3"]
        assert not done.record.effects
        await worker.finish(turn, version=None)
        handed_out = (await s.until(worker.read("record"), worker)).record
        assert [len(r.effects) for r in handed_out.turns] == [0]
    for file in (tmp_path / "a").iterdir():
        assert b"errado" not in file.read_bytes(), "a discarded draft leaves no trace"


@both
async def test_two_instances_with_the_same_customer_merged(tmp_path: Path, strategy: str) -> None:
    """Conversations were keyed by the customer's number. Someone who wrote to two shops of one platform got shop A's
    offer from shop B, and a human who took over in A silenced B."""
    others = [
        message_pb2.Scope(channel="evolution", instance="other"),
        message_pb2.Scope(channel="whatsapp", instance="shop"),
        message_pb2.Scope(tenant="second", channel="evolution", instance="shop"),
    ]
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        scopes = [SCOPE, *others]
        results = [(await enqueue(s.stub, message("m1", scope=scope)))[0] for scope in scopes]
        assert len({r.conversation_id for r in results}) == 4
        assert {r.outcome for r in results} == {pb.EventResult.OUTCOME_ACCEPTED}, "ids are unique per scope only"
        turns = [await worker.assigned() for _ in scopes]
        assert [(t.scope.tenant or "default", t.scope.channel, t.scope.instance) for t in turns] == [
            (x.tenant or "default", x.channel, x.instance) for x in scopes
        ]
        await enqueue(s.stub, message("h1", "deixa comigo", human=True))
        paused = [(await lane(s.stub, r.conversation_id)).state == pb.LANE_STATE_PAUSED for r in results]
        assert paused == [True, False, False, False]
        assert (await s.until(worker.commit(turns[1], "olá"), worker)).HasField("go")


@both
async def test_lid_first_and_the_phone_later(tmp_path: Path, strategy: str) -> None:
    """The first message carried WhatsApp's opaque id only, the second the number too. The second was a new customer:
    two turns at once, two greetings, and nobody knew what the first one had said."""
    clock = ManualClock(int(time.time() * 1000))
    async with shop(tmp_path / "a", clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        [first] = await enqueue(s.stub, message("m1", "1", contact=LID))
        turn = await worker.assigned()
        committed = await s.until(worker.commit(turn, "um", "dois"), worker)
        [second] = await enqueue(s.stub, message("m2", "2", contact=PHONE))
        assert second.conversation_id == first.conversation_id
        left = s.killed()
        assert (await worker.result(turn, committed.go)).go.index == 1, "one turn, and it goes on"
        await s.passes(2_000, worker)
        assert all(f.WhichOneof("frame") != "assign" for f in worker.passed)
    async with shop(left, clock, SDR_BUFFER_STRATEGY=strategy) as s:
        only_phone = message_pb2.Contact(contact="5581999990001", aliases=["phone:5581999990001"])
        for number, contact in enumerate((only_phone, LID)):
            [later] = await enqueue(s.stub, message(f"n{number}", contact=contact))
            assert later.conversation_id == first.conversation_id, "also after a restart, by either name"


@both
async def test_a_human_takes_over_between_two_parts(tmp_path: Path, strategy: str) -> None:
    """The seller wrote "deixa comigo" while the bot was in the middle of its answer; the bot's other two bubbles came
    after it, and quoted a price that the seller had just lowered."""
    clock = ManualClock(int(time.time() * 1000))
    async with shop(tmp_path / "a", clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        await enqueue(s.stub, message("m1", "1"))
        turn = await worker.assigned()
        first = await s.until(worker.commit(turn, "um", "dois", "três"), worker)
        [taken] = await enqueue(s.stub, message("h1", "deixa comigo", human=True))
        left = s.killed()
        refused = await worker.result(turn, first.go, provider_id="p0")
        assert refused.refusal.reason == error_reason_pb2.PAUSED and not refused.HasField("go")
        await s.passes(2_000, worker)
        record = (await worker.read("record")).record
        assert [[p.text for p in r.parts if p.state == turn_pb2.PART_STATE_SENT] for r in record.turns] == [["um"], []]
        assert [m.text for r in record.turns for m in r.messages] == ["1", "deixa comigo"]
    async with shop(left, clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker("new")
        await s.passes(20_000, worker)
        assert (await lane(s.stub, taken.conversation_id)).state == pb.LANE_STATE_PAUSED
        kinds = {f.WhichOneof("frame") for f in worker.passed}
        record = (await worker.read("record")).record
        assert "assign" not in kinds | {f.WhichOneof("frame") for f in worker.passed}, "nobody goes on with it"
        states = [p.state for p in record.turns[0].parts]
        assert turn_pb2.PART_STATE_STORED not in states and turn_pb2.PART_STATE_ATTEMPTING not in states


@both
async def test_a_human_takes_over_while_the_next_part_is_written(tmp_path: Path, strategy: str) -> None:
    """The same, with nothing on its way: the turn ends at once, not when its worker next asks."""
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        await enqueue(s.stub, message("m1", "1"))
        turn = await worker.assigned()
        first = await s.until(worker.commit(turn, "um", last=False), worker)
        assert not (await worker.result(turn, first.go)).HasField("go")
        await enqueue(s.stub, message("h1", "deixa comigo", human=True))
        assert (await worker.read("revoke")).revoke.reason == error_reason_pb2.PAUSED
        late = await worker.commit(turn, "um", "dois")
        assert late.HasField("refusal") and not late.HasField("go")
        record = (await s.until(worker.read("record"), worker)).record
        assert [[p.text for p in r.parts] for r in record.turns] == [["um"], []]


@both
@pytest.mark.parametrize("copy", ["Olá!  Tudo bem?", "Olá! Tudo bem? *"])
async def test_an_echo_before_the_http_reply_taken_for_a_foreign_send(tmp_path: Path, strategy: str, copy: str) -> None:
    """The provider's copy of our own bubble overtook the answer to our request. Its id was unknown, so "a human wrote",
    so the bot silenced itself after its first bubble, in one conversation of fifty."""
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        [result] = await enqueue(s.stub, message("m1"))
        turn = await worker.assigned()
        first = await s.until(worker.commit(turn, "Olá! Tudo bem?", "Sou a Ana."), worker)
        [noted] = await enqueue(s.stub, echo("p0", copy))
        assert noted.outcome == pb.EventResult.OUTCOME_NOTED
        second = await worker.result(turn, first.go, provider_id="p0")
        assert second.go.index == 1, "not paused"
        await enqueue(s.stub, echo("p0", copy))
        assert (await lane(s.stub, result.conversation_id)).state == pb.LANE_STATE_RUNNING
        await worker.result(turn, second.go, provider_id="p1")
        await worker.finish(turn)
        await enqueue(s.stub, echo("p0", copy), echo("p1", "Sou a Ana."))
        assert (await lane(s.stub, result.conversation_id)).state == pb.LANE_STATE_IDLE


@both
async def test_our_own_bubble_told_as_a_message_of_the_phone(tmp_path: Path, strategy: str) -> None:
    """After a reconnect the provider repeated what had been sent through it among the phone's own messages. The bot
    took its own words for a colleague's and was silent for eight hours."""
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        [result] = await enqueue(s.stub, message("m1"))
        turn = await worker.assigned()
        first = await s.until(worker.commit(turn, "Olá!", "Sou a Ana."), worker)
        second = await worker.result(turn, first.go, provider_id="p0")
        [noted] = await enqueue(s.stub, message("p0", "Olá!", human=True))
        assert (noted.outcome, noted.conversation_id) == (pb.EventResult.OUTCOME_NOTED, result.conversation_id)
        await worker.result(turn, second.go, provider_id="p1")
        await worker.finish(turn)
        assert (await lane(s.stub, result.conversation_id)).state == pb.LANE_STATE_IDLE


@both
async def test_a_foreign_send_that_waits_for_judgement_survives_a_crash(tmp_path: Path, strategy: str) -> None:
    """The other half: the copy that waits for the answer to our request was in memory. After a crash nobody remembered
    that a human had written, and the bot talked on."""
    clock = ManualClock(int(time.time() * 1000))
    async with shop(tmp_path / "a", clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        [result] = await enqueue(s.stub, message("m1"))
        turn = await worker.assigned()
        first = await s.until(worker.commit(turn, "um", "dois"), worker)
        await enqueue(s.stub, echo("f1", "Oi, aqui é a Ana da loja"))
        left = s.killed()
    async with shop(left, clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker("w1", pb.Holding(turn_id=turn.turn_id, epoch=turn.epoch))
        kept = await worker.assigned()
        refused = await worker.result(kept, first.go, provider_id="p0")
        assert refused.refusal.reason == error_reason_pb2.PAUSED
        assert (await lane(s.stub, result.conversation_id)).state == pb.LANE_STATE_PAUSED


@both
async def test_an_oversized_turn_kills_one_worker_after_the_other(tmp_path: Path, strategy: str) -> None:
    """One customer pasted a novel. The worker that read it ran out of memory, the job went back to the queue, the next
    worker took it, and in ten minutes there was no worker left for anybody."""
    novel = "x" * 64_000
    async with shop(tmp_path / "a", SDR_BUFFER_STRATEGY=strategy, SDR_BUFFER_MAX_ATTEMPTS="4") as s:
        for number in range(16):
            [result] = await enqueue(s.stub, message(f"m{number}", novel))
        killed: list[Worker] = []
        for number in range(4):
            victim = Worker(s.stub, f"victim{number}", capacity=1)
            await victim.hello()
            turn = await s.until(victim.assigned(), victim)
            assert turn.kind == turn_pb2.TURN_KIND_ANSWER and len(turn.messages) == 16
            victim.call.cancel()
            killed.append(victim)
            await s.passes(4_000)
        healthy = await s.worker("healthy")
        apology = await s.until(healthy.assigned(), healthy)
        assert apology.kind == turn_pb2.TURN_KIND_APOLOGY
        assert not apology.messages and apology.ByteSize() < 4_000, "what killed them is not in it"
        [later] = await enqueue(s.stub, message("later", "e agora?"))
        assert later.turn_id != apology.turn_id, "nothing joins it"
        await s.until(healthy.answer(apology, "Desculpe, tive um problema."), healthy)
        letters = await s.stub.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=5)
        [letter] = letters.dead_letters
        assert [len(m.text) for m in letter.messages] == [64_000] * 16, "nothing is lost"
        assert texts(await s.until(healthy.assigned(), healthy)) == ["e agora?"]
        assert (await lane(s.stub, result.conversation_id)).needs_human


@both
async def test_a_clock_that_was_set_back_while_nobody_ran(tmp_path: Path, strategy: str) -> None:
    """The machine came up with the right time, an hour before the one that it went down with. What had been accepted
    in that future was held, and collected, until the hour was over; the pause of a human lasted longer by it."""
    clock = ManualClock(int(time.time() * 1000))
    async with shop(tmp_path / "a", clock, SDR_BUFFER_STRATEGY=strategy) as s:
        worker = await s.worker()
        await enqueue(s.stub, message("m1", "1"))
        turn = await worker.assigned()
        first = await s.until(worker.commit(turn, "um"), worker)
        assert first.go
        await enqueue(s.stub, message("m2", "2"))
        other = message_pb2.Contact(contact="5581999990002", aliases=["phone:5581999990002"])
        [paused] = await enqueue(s.stub, message("h1", "deixa", human=True, contact=other))
        left = s.killed()
    clock = ManualClock(clock.now_ms() - 3_600_000)
    async with shop(left, clock, SDR_BUFFER_STRATEGY=strategy) as s:
        began = clock.now_ms()
        worker = await s.worker("new")
        again = await s.until(worker.assigned(), worker)
        assert (await worker.commit(again, "um")).complete
        await worker.finish(again)
        second = await s.until(worker.assigned(), worker)
        assert texts(second) == ["2"]
        assert duration_to_ms(second.remaining) <= 30_000
        await s.until(worker.commit(second, "dois"), worker)
        assert clock.now_ms() - began < 30_000
        resumes = timestamp_to_ms((await lane(s.stub, paused.conversation_id)).pause.resume_time)
        assert resumes <= began + 8 * 3_600_000
