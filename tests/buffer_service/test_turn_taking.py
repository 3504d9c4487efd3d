"""Turn-taking by hand: the knobs, one at a time, on a clock that the test moves."""

from __future__ import annotations

import itertools

import pytest

from buffer_service.turn_taking import Policy, Strategy, TurnTaking
from buffer_service.turn_taking import frames as fr
from buffer_service.turn_taking.entities import Incoming, Lane, SendOutcome, TurnKind
from buffer_service.turn_taking.sessions import Commit
from tests.simulation.memory_store import MemoryStore

T0 = 1_000_000


class Desk:
    """One lane, one worker."""

    def __init__(self, policy: Policy | None = None, *, worker: bool = True) -> None:
        self.store = MemoryStore(record_batch=100)
        self.core = TurnTaking(store=self.store, policy=policy or Policy())
        self.now = T0
        self.lane: Lane = self.store.open_lane("a", self.now)
        self.ids = itertools.count(1)
        if worker:
            self.core.hello(self.now, 1, worker="w", capacity=5, holding=[])

    def frames(self) -> list[fr.Frame]:
        return [f for _, f in self.core.take_frames()]

    def write(self, body: bytes = b"x", **more: bool) -> None:
        incoming = Incoming(message_id=f"m{next(self.ids)}", body=body, provider_at=self.now, **more)
        self.core.enqueue(self.now, "a", incoming)

    def later(self, milliseconds: int) -> None:
        """Lets time pass as the engine does: a tick whenever something is due, heartbeats every second."""
        until = self.now + milliseconds
        while self.now < until:
            due = self.core.timers.next() or until
            self.now = min(until, max(self.now + 1, min(due, self.now + 200)))
            self.core.heartbeat(self.now, 1)
            self.core.tick(self.now)

    def assigned(self) -> fr.Assign:
        [assign] = [f for f in self.frames() if isinstance(f, fr.Assign)]
        return assign

    def commit(self, assign: fr.Assign, *parts: str, last: bool = True) -> fr.Committed:
        [answer] = self.commit_parked(assign, *parts, last=last)
        return answer

    def commit_parked(self, assign: fr.Assign, *parts: str, last: bool = True) -> list[fr.Committed]:
        """The answers that come at once: none while it is held."""
        request = Commit(
            ask=1, turn_id=assign.turn_id, epoch=assign.epoch, revision=assign.revision, parts=parts, last=last
        )
        self.core.commit(self.now, 1, request)
        self.core.settle(self.now)
        return [f for f in self.frames() if isinstance(f, fr.Committed)]

    def answer(self, assign: fr.Assign) -> None:
        committed = self.commit(assign, "olá")
        assert committed.go
        self.core.result(
            self.now,
            1,
            ask=2,
            turn_id=assign.turn_id,
            epoch=assign.epoch,
            part=0,
            attempt=committed.go.part.attempt,
            outcome=SendOutcome.SENT,
        )
        self.core.finish(self.now, 1, ask=3, turn_id=assign.turn_id, epoch=assign.epoch, version=1)
        self.core.settle(self.now)


def test_an_idle_lane_answers_at_once_and_again_at_once() -> None:
    desk = Desk()
    for _ in range(3):
        desk.write()
        desk.answer(desk.assigned())
        desk.frames()
        desk.later(10)
    assert desk.lane.turn is None and not desk.lane.pending


def test_what_came_during_a_turn_waits_until_the_lead_is_quiet() -> None:
    desk = Desk(Policy(quiet=700, busy_timeout=10_000))
    desk.write()
    first = desk.assigned()
    desk.later(1_000)
    desk.write()
    desk.answer(first)
    desk.later(400)
    desk.write()
    desk.later(600)
    assert desk.lane.turn is None, "the lead wrote 600 ms ago"
    desk.later(200)
    assert [m.message_id for m in desk.assigned().messages] == ["m2", "m3"]


def test_a_lead_who_never_stops_is_answered_at_the_busy_timeout() -> None:
    desk = Desk(Policy(quiet=700, busy_timeout=3_000))
    desk.write()
    first = desk.assigned()
    desk.write()
    desk.answer(first)
    for _ in range(7):
        desk.later(400)
        desk.write()
        assert desk.lane.turn is None
    desk.later(400)
    assert len(desk.assigned().messages) == 8


def test_fixed_delay_makes_everybody_wait() -> None:
    desk = Desk(Policy(strategy=Strategy.FIXED_DELAY, fixed_delay=5_000))
    desk.write()
    desk.later(2_000)
    desk.write()
    desk.later(2_900)
    assert desk.lane.turn is None
    desk.later(200)
    assert len(desk.assigned().messages) == 2


@pytest.mark.parametrize(("body", "count"), [(b"x", 50), (b"x" * 300_000, 3)])
def test_a_turn_is_bounded_and_the_rest_waits(body: bytes, count: int) -> None:
    desk = Desk()
    desk.write()
    first = desk.assigned()
    for _ in range(60):
        desk.write(body)
    desk.answer(first)
    desk.later(800)
    second = desk.assigned()
    assert len(second.messages) == count
    assert len(desk.lane.pending) == 60 - count


def test_messages_join_a_turn_that_waits_for_a_worker() -> None:
    desk = Desk(worker=False)
    for _ in range(5):
        desk.write()
        desk.now += 2_000
    desk.core.hello(desk.now, 1, worker="w", capacity=1, holding=[])
    assign = desk.assigned()
    assert len(assign.messages) == 5 and assign.revision == 5
    assert assign.remaining == 20_000, "joining messages don't move the deadline"


@pytest.mark.parametrize("strategy", list(Strategy))
def test_what_comes_while_a_silence_is_recorded_is_a_turn_of_its_own(strategy: Strategy) -> None:
    """It joined the turn whose record was under way: never answered, and in nobody's history."""
    desk = Desk(Policy(strategy=strategy, fixed_delay=10))
    desk.write(b"sticker")
    desk.later(20)
    silent = desk.assigned()
    assert desk.commit(silent).record
    desk.write(b"quanto custa?")
    assert not desk.frames(), "nothing tells the worker to think again"
    desk.core.finish(desk.now, 1, ask=3, turn_id=silent.turn_id, epoch=silent.epoch, version=1)
    desk.core.settle(desk.now)
    desk.later(1_000)
    assert [m.body for m in desk.assigned().messages] == [b"quanto custa?"]


def test_a_silence_that_no_worker_could_finish_stays_one() -> None:
    """History may have it already: an apology would be one that nobody remembers."""
    desk = Desk(Policy(max_attempts=1))
    desk.write()
    silent = desk.assigned()
    assert desk.commit(silent).complete
    desk.core.release(desk.now, turn_id=silent.turn_id, epoch=silent.epoch, failed=True)
    desk.core.settle(desk.now)
    desk.frames()
    desk.later(9_000)
    again = desk.assigned()
    assert (again.kind, again.last, again.parts, again.truncated) == (TurnKind.ANSWER, True, (), False)


def test_a_reply_that_was_refused_and_then_paused_changes_nothing() -> None:
    """It looks like a chosen silence, whose effects are kept: no parts, and no more to come."""
    desk = Desk()
    desk.write()
    turn = desk.assigned()
    request = Commit(
        ask=1, turn_id=turn.turn_id, epoch=turn.epoch, revision=1, parts=("a",), last=True, effects=(b"x",)
    )
    desk.core.commit(desk.now, 1, request)
    desk.core.settle(desk.now)
    [committed] = [f for f in desk.frames() if isinstance(f, fr.Committed)]
    desk.core.pause(desk.now, "a", "human")
    assert committed.go
    attempt = committed.go.part.attempt
    refused = SendOutcome.REFUSED_RETRY
    desk.core.result(
        desk.now, 1, ask=2, turn_id=turn.turn_id, epoch=turn.epoch, part=0, attempt=attempt, outcome=refused
    )
    desk.core.settle(desk.now)
    [record] = [f for f in desk.frames() if isinstance(f, fr.Record)]
    assert [(t.turn.parts, t.turn.effects) for t in record.turns] == [([], ())]


def test_a_pause_ends_when_no_human_wrote_for_long_enough() -> None:
    desk = Desk(Policy(handoff_quiet=60_000))
    desk.core.pause(desk.now, "a", "rpc")
    desk.later(50_000)
    desk.write(human=True)
    desk.later(50_000)
    assert desk.lane.paused, "the human renewed it"
    desk.later(11_000)
    assert not desk.lane.paused
    desk.frames()
    desk.write()
    assert desk.assigned().kind is TurnKind.ANSWER


def test_capacity_is_the_workers_credit() -> None:
    desk = Desk(worker=False)
    for name in "bcd":
        desk.store.open_lane(name, desk.now)
        desk.core.enqueue(desk.now, name, Incoming(message_id=name, body=b"x", provider_at=desk.now))
    desk.core.hello(desk.now, 1, worker="w", capacity=2, holding=[])
    assert [f.who.conversation_id for f in desk.frames() if isinstance(f, fr.Assign)] == ["b", "c"]


def test_a_worker_that_drains_is_not_handed_its_turn_again() -> None:
    desk = Desk()
    desk.write()
    assign = desk.assigned()
    desk.core.release(desk.now, turn_id=assign.turn_id, epoch=assign.epoch, failed=False)
    desk.core.settle(desk.now)
    desk.later(1_000)
    assert not [f for f in desk.frames() if isinstance(f, fr.Assign)]
    desk.core.hello(desk.now, 2, worker="other", capacity=1, holding=[])
    again = desk.assigned()
    assert (again.turn_id, again.epoch) == (assign.turn_id, 2)


def test_a_refused_first_part_opens_the_turn_again() -> None:
    desk = Desk()
    desk.write()
    assign = desk.assigned()
    committed = desk.commit(assign, "um", "dois")
    assert committed.go
    desk.core.result(
        desk.now, 1, ask=2, turn_id=assign.turn_id, epoch=assign.epoch, part=0,
        attempt=committed.go.part.attempt, outcome=SendOutcome.REFUSED_RETRY,
    )  # fmt: skip
    desk.core.settle(desk.now)
    [told] = [f for f in desk.frames() if isinstance(f, fr.Committed)]
    assert told.stored_parts == 0 and told.go is None
    request = Commit(ask=3, turn_id=assign.turn_id, epoch=assign.epoch, revision=1, parts=("um",), last=True)
    desk.core.commit(desk.now, 1, request)
    desk.core.settle(desk.now)
    assert not desk.frames(), "parked during back-off"
    desk.later(1_100)
    [go] = [f for f in desk.frames() if isinstance(f, fr.Committed)]
    assert go.go and go.parked == 1_000


def test_a_sleeping_buffer_takes_nothing_away_when_it_wakes() -> None:
    desk = Desk()
    desk.write()
    desk.assigned()
    desk.now += 60_000
    desk.core.woke(desk.now)
    assert desk.lane.turn and desk.lane.turn.attempts == 0
    desk.core.heartbeat(desk.now, 1)
    desk.later(2_000)
    assert desk.lane.turn.attempts == 0


def test_repeated_answers_to_a_record_call_forth_one_more_and_not_one_each() -> None:
    """Each answer handed the next turns out at once, also when it was the answer to an older copy: on a slow network
    the copies doubled until the workers did nothing else."""
    desk = Desk()
    desk.store.record_batch = 2
    desk.core.pause(desk.now, "a", "rpc")
    for _ in range(12):
        desk.write()
    records = 0
    for _ in range(40):
        frames = [f for f in desk.frames() if isinstance(f, fr.Record)]
        records += len(frames)
        for frame in frames:
            for _ in range(2):
                for recorded in frame.turns:
                    desk.core.recorded(
                        desk.now, conversation_id="a", turn_id=recorded.turn.turn_id, version=recorded.turn.ended_no
                    )
                    desk.core.settle(desk.now)
        desk.later(100)
    assert desk.lane.unrecorded == 0
    assert records <= 8, "12 turns, 2 in each, and one that went out with the first"


def test_a_slow_worker_does_not_answer_a_turn_that_became_an_apology() -> None:
    """Its lease had ended for the last time, the messages went into the dead letter, and the worker came back in time
    to keep the turn: what it then generated was an answer to nothing."""
    desk = Desk(Policy(max_attempts=1))
    desk.write()
    slow = desk.assigned()
    desk.now += 3_100
    desk.core.tick(desk.now)
    desk.core.hello(desk.now, 2, worker="w", capacity=1, holding=[(slow.turn_id, slow.epoch)])
    assert [f.turn_id for f in desk.frames() if isinstance(f, fr.Revoke)] == [slow.turn_id]
    request = Commit(ask=9, turn_id=slow.turn_id, epoch=slow.epoch, revision=1, parts=("resposta",), last=True)
    desk.core.commit(desk.now, 2, request)
    [refused] = [f for f in desk.frames() if isinstance(f, fr.Committed)]
    assert refused.refusal is fr.Reason.STALE_EPOCH
    for _ in range(4):
        desk.now += 500
        desk.core.heartbeat(desk.now, 2)
        desk.core.tick(desk.now)
    apology = desk.assigned()
    assert apology.kind is TurnKind.APOLOGY and not apology.kept


def test_a_request_of_a_stream_that_is_no_more_burns_no_part() -> None:
    """Late frames of a broken stream were answered into the void: the part counted as perhaps sent, was never sent
    again, and the lead missed a bubble that nobody had tried to send."""
    desk = Desk()
    desk.write()
    assign = desk.assigned()
    desk.core.hello(desk.now, 2, worker="w", capacity=5, holding=[])
    late = Commit(ask=1, turn_id=assign.turn_id, epoch=assign.epoch, revision=1, parts=("um",), last=True)
    again = desk.assigned()
    desk.core.commit(desk.now, 1, late)
    assert desk.lane.turn and not desk.lane.turn.parts
    desk.core.stream_lost(2)
    current = Commit(ask=1, turn_id=again.turn_id, epoch=again.epoch, revision=1, parts=("um",), last=True)
    desk.core.commit(desk.now, 2, current)
    assert desk.lane.turn and not desk.lane.turn.parts
    desk.core.hello(desk.now, 3, worker="w", capacity=5, holding=[(again.turn_id, again.epoch)])
    desk.frames()
    kept = Commit(ask=2, turn_id=again.turn_id, epoch=again.epoch + 1, revision=1, parts=("um",), last=True)
    desk.core.commit(desk.now, 3, kept)
    [committed] = [f for f in desk.frames() if isinstance(f, fr.Committed)]
    assert committed.go


def test_the_version_to_read_is_the_latest_that_was_recorded_not_the_highest() -> None:
    """After its store had begun anew a conversation asked for a version that nobody had, turn after turn."""
    desk = Desk()
    desk.lane.recorded_version = 50
    desk.core.pause(desk.now, "a", "rpc")
    for _ in range(2):
        desk.write()
    [handed] = [f for f in desk.frames() if isinstance(f, fr.Record)]
    turns = [recorded.turn.turn_id for recorded in handed.turns]

    def recorded(turn_id: str, version: int) -> None:
        desk.core.recorded(desk.now, conversation_id="a", turn_id=turn_id, version=version)
        desk.core.settle(desk.now)

    recorded(turns[0], 1)
    assert desk.lane.recorded_version == 1
    [handed] = [f for f in desk.frames() if isinstance(f, fr.Record)]
    recorded(handed.turns[-1].turn.turn_id, 2)
    assert (desk.lane.unrecorded, desk.lane.recorded_version) == (0, 2)
    recorded(turns[0], 1)
    assert desk.lane.recorded_version == 2, "a repeated answer is about a version from before"
    desk.core.resume(desk.now, "a")
    desk.write()
    turn = desk.assigned()
    assert turn.min_version == 2
    desk.answer(turn)
    assert desk.lane.recorded_version == 1, "a store that begins anew once more"
