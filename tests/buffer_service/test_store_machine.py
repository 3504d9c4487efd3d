"""Random leads, workers, humans and deaths, done over a store and over the model of one; both must show the same."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, FlakyFailure
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2, turn_pb2
from buffer_service.inbox import Inbox, Limits
from buffer_service.people import People
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import Policy, Strategy, TurnTaking
from buffer_service.turn_taking.entities import InboxMessage, Lane, Scope, SendOutcome, Turn, TurnKind
from buffer_service.turn_taking.frames import RecordedTurn
from buffer_service.turn_taking.sessions import Commit
from service_kit.durations import ms_to_timestamp
from service_kit.errors import ServiceError
from tests.buffer_service.broken_stores import FOUND_IN_SECONDS
from tests.buffer_service.stores import STORES, Home, MemoryHome, SqliteHome

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "15"))
POLICY = Policy(strategy=Strategy.PREEMPT, max_messages=3, max_attempts=2)
LIMITS = Limits(messages=1 << 30, bytes=1 << 30, free_disk=0)
T0 = 1_700_000_000_000
RETENTION = 60_000
# What a store is free to choose, as long as the order is right; and times that follow from them.
FREE = {"number", "ended_no", "sequence", "dead_letter_id"}
EFFECT = turn_pb2.Effect(lead_update=turn_pb2.LeadUpdate(name="Ana")).SerializeToString()
ALIASES = ("phone:1", "phone:2", "lid:1")
WORKERS = {1: "w1", 2: "w2"}


class Undone(Exception):
    """The step failed after it had changed things."""


class Died(Exception):
    """The process is gone."""


class Fate(enum.Enum):
    """What becomes of a command."""

    DONE = enum.auto()
    UNDONE = enum.auto()
    GROUPED_WITH_A_FAILURE = enum.auto()
    DIED_BEFORE_THE_COMMIT = enum.auto()
    DIED_AFTER_THE_COMMIT = enum.auto()


FATES = st.sampled_from([Fate.DONE] * 14 + list(Fate))


class Names:
    """One name on both sides for ids that each side makes up itself."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.turns: Counter[str] = Counter()

    def add(self, identifier: str, name: str) -> None:
        self.names[identifier], self.ids[name] = name, identifier

    def lane(self, identifier: str) -> str:
        if identifier not in self.names:
            self.add(identifier, f"c{sum(n[0] == 'c' for n in self.ids)}")
        return self.names[identifier]

    def turn(self, turn: Turn) -> None:
        lane = self.lane(turn.conversation_id)
        self.turns[lane] += 1
        self.add(turn.turn_id, f"t{self.turns[lane]} of {lane}")

    def plain(self, value: Any) -> Any:
        """As nested tuples, without what a store is free to choose."""
        if isinstance(value, RecordedTurn):
            value = dataclasses.replace(value, merged=tuple(sorted(map(self.lane, value.merged))))
        if isinstance(value, InboxMessage | Turn | Lane) or dataclasses.is_dataclass(value):
            fields = [f.name for f in dataclasses.fields(value) if f.name not in FREE]
            return type(value).__name__, *((name, self.plain(getattr(value, name))) for name in fields)
        if isinstance(value, Message):
            return type(value).__name__, *((f.name, self.plain(v)) for f, v in value.ListFields() if f.name not in FREE)
        if isinstance(value, str) and not isinstance(value, enum.Enum):
            return self.names.get(value, re.sub(r"^replay:\d+:\d+$", "replay", value))
        if isinstance(value, dict | Counter):
            return tuple(sorted((str(k), self.plain(v)) for k, v in value.items()))
        if hasattr(value, "__iter__") and not isinstance(value, str | bytes):
            return tuple(self.plain(one) for one in value)
        return value


class Core(TurnTaking):
    """Names what it makes, and gives turns in the order of names: lanes that are due at one instant have no order."""

    def __init__(self, names: Names, store: Any) -> None:
        super().__init__(store=store, policy=POLICY)
        self.names = names

    def touch(self, lane: Lane) -> None:
        self.names.lane(lane.conversation_id)
        super().touch(lane)

    def _new_turn(self, now: int, lane: Lane, kind: TurnKind, messages: list[InboxMessage]) -> Turn:
        turn = super()._new_turn(now, lane, kind, messages)
        self.names.turn(turn)
        return turn

    def assign(self, now: int) -> None:
        self.waiting = dict(sorted(self.waiting.items(), key=lambda item: self.names.lane(item[0])))
        self.to_record = dict(sorted(self.to_record.items(), key=lambda item: self.names.lane(item[0])))
        super().assign(now)


class Side:
    """A buffer's process over one store; the engine's steps without its thread."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.names = Names()
        self.start(T0)

    def start(self, now: int) -> None:
        self.store: Any = self.home.open()
        self.core = Core(self.names, self.store)
        self.inbox = Inbox(store=self.store, turns=self.core, limits=LIMITS)
        self.people = People(store=self.store, turns=self.core)
        with self.store.transaction(), self.store.step():
            lanes = [self.store.lane(name) for name in self.store.live_lanes()]
            # Of those that were active last at one instant, a store may tell any first.
            lanes.sort(key=lambda lane: (lane.activity_at, self.names.lane(lane.conversation_id)))
            self.core.restore(now, lanes)
        self.core.keep_frames()
        self.core.take_frames()

    def restart(self, now: int) -> None:
        self.store.close()
        self.start(now)

    def id(self, name: str) -> str:
        return self.names.ids.get(name, name)

    def do(self, now: int, work: Callable[[Side], Any], fate: Fate) -> Any:
        """The command's answer and the frames that left."""
        answer: Any = None
        try:
            with self.store.transaction():
                if fate is Fate.UNDONE:
                    self._fail(now, work)
                else:
                    answer = self._step(now, work)
                if fate is Fate.GROUPED_WITH_A_FAILURE:
                    self._fail(now, lambda side: [side.core.pause(now, name, "?") for name in side.lanes()])
                if fate is Fate.DIED_BEFORE_THE_COMMIT:
                    self.home.kill()
                    raise Died
        except Exception:
            if fate is not Fate.DIED_BEFORE_THE_COMMIT:
                raise
            self.start(now)
            return "died"
        if fate is Fate.DIED_AFTER_THE_COMMIT:
            self.home.kill()
            self.start(now)
            return answer
        # Frames of several lanes that were due at one instant have no order either.
        return answer, sorted(map(repr, self.names.plain(self.core.take_frames())))

    def _step(self, now: int, work: Callable[[Side], Any]) -> Any:
        try:
            with self.store.step():
                answer = self.names.plain(work(self))
                self.core.settle(now)
            self.core.keep_frames()
        except ServiceError as error:
            self._undo(now)
            return type(error).__name__
        return answer

    def _fail(self, now: int, work: Callable[[Side], Any]) -> None:
        try:
            with self.store.step():
                work(self)
                self.core.settle(now)
                raise Undone
        except (Undone, ServiceError):
            self._undo(now)

    def _undo(self, now: int) -> None:
        conversations = self.core.abandon()
        if conversations:
            conversations.sort(key=self.names.lane)
            with self.store.step():
                self.core.resync(now, conversations)
            self.core.keep_frames()

    def lanes(self) -> list[str]:
        """Every lane that speaks for itself, in the order of names."""
        found = self.store.list_lanes("default", (-1, ""), 999, idle_too=True)
        return sorted((lane.conversation_id for lane in found), key=self.names.lane)

    def letters(self) -> list[int]:
        return [d.dead_letter_id for d in self.store.dead_letters("default", 1 << 62, 99, replayed_too=True)]

    def everything(self) -> dict[str, Any]:
        """All that can be seen of the store."""
        with self.store.transaction(), self.store.step():
            known = [name for name in self.names.ids if name[0] == "c"]
            seen: dict[str, Any] = {"names": sorted(self.names.lane(name) for name in self.store.live_lanes())}
            for name in known:
                try:
                    lane = self.store.lane(self.id(name))
                except LookupError:
                    seen[name] = "erased"
                    continue
                more, cut = self.store.unrecorded(lane, 40)
                seen[name] = self.names.plain(lane)
                seen[f"ended turns of {name}"] = self.names.plain(self.store.ended_turns(lane.conversation_id, 99))
                seen[f"unrecorded of {name}"] = [self.names.plain(t.turn_id) for t in more], cut
                seen[f"merged into {name}"] = sorted(map(self.names.lane, self.store.merged_into(lane)))
            letters = self.store.dead_letters("default", 1 << 62, 99, replayed_too=True)
            seen["dead letters"] = self.names.plain(letters)
            seen["their messages"] = self.names.plain([self.store.messages_of(d.turn_id) for d in letters])
            for alias in ALIASES:
                found = self.store.conversations_of(Scope("default", "test", "one"), [alias])
                seen[f"who {alias} is"] = self.names.plain(found)
            seen["stats"] = self.names.plain(self.store.stats("default"))
            seen["live"] = self.store.live_messages, self.store.live_bytes
            return seen


class StoreMachine(RuleBasedStateMachine):
    """`home` is the store under test."""

    home: ClassVar[Callable[[Path], Home]] = MemoryHome

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="store-machine-")
        self.now = T0
        self.ids = itertools.count(1)
        self.model = Side(MemoryHome(Path(self.folder.name)))
        self.sides = (self.model, Side(type(self).home(Path(self.folder.name))))
        self.last_turn: dict[str, tuple[str, int, int, int]] = {}
        for sid in WORKERS:
            self.hello(sid, 2, True)

    def teardown(self) -> None:
        for side in self.sides:
            side.home.kill()
        self.folder.cleanup()

    # ---- plumbing

    def both(self, work: Callable[[Side], Any], fate: Fate = Fate.DONE) -> None:
        self.now += 1
        expected, found = (side.do(self.now, work, fate) for side in self.sides)
        assert found == expected
        if "DIED" in fate.name:
            for sid in WORKERS:
                self.hello(sid, 2, True)

    def lane(self, pick: int) -> str:
        """The name of some lane."""
        with self.model.store.step():
            names = [self.model.names.lane(name) for name in self.model.lanes()]
        return names[pick % len(names)] if names else "nobody"

    def turn(self, lane: str) -> tuple[str, int, int, int]:
        """Name, epoch, revision and attempt of the lane's turn, or of the one before when there is none."""
        found = self.model.store.lanes.get(self.model.id(lane))
        if found and found.turn:
            turn = found.turn
            self.last_turn[lane] = self.model.names.names[turn.turn_id], turn.epoch, turn.revision, turn.attempt_no
        return self.last_turn.get(lane, ("none", 1, 1, 0))

    def in_flight(self, lane: str) -> int:
        found = self.model.store.lanes.get(self.model.id(lane))
        parts = found.turn.parts if found and found.turn else []
        return next((i for i, p in enumerate(parts) if p.state.name == "ATTEMPTING"), 0)

    def event(self, who: list[str], **more: Any) -> pb.Event:
        contact = message_pb2.Contact(contact=who[0], aliases=who, address=who[0], display_name=f"n{next(self.ids)}")
        return pb.Event(scope=message_pb2.Scope(channel="test", instance="one"), contact=contact, **more)

    def message(self, text: str, *, human: bool = False, stale: bool = False, again: bool = False) -> Any:
        number = 1 if again else next(self.ids)
        message = message_pb2.Message(message_id=f"m{number}", text=text)
        message.author = message_pb2.AUTHOR_HUMAN if human else message_pb2.AUTHOR_LEAD
        message.provider_time.CopyFrom(ms_to_timestamp(self.now - (2 * POLICY.stale_after if stale else 0)))
        return message

    def enqueue(self, events: list[pb.Event], fate: Fate) -> None:
        self.both(lambda side: side.inbox.enqueue(self.now, events), fate)

    people = st.lists(st.sampled_from(ALIASES), min_size=1, max_size=2, unique=True)
    lanes = st.integers(0, 2)
    rarely = st.sampled_from([False] * 4 + [True])

    # ---- what arrives

    @rule(who=people, text=st.sampled_from(["oi", "#bot on", "x" * 30]), human=rarely, stale=rarely, fate=FATES)
    def write(self, who: list[str], text: str, human: bool, stale: bool, fate: Fate) -> None:
        self.enqueue([self.event(who, message=self.message(text, human=human, stale=stale))], fate)

    @rule(who=st.sampled_from(ALIASES), fate=FATES)
    def write_alone(self, who: str, fate: Fate) -> None:
        self.enqueue([self.event([who], message=self.message("oi"))], fate)

    @rule(who=people)
    def write_again(self, who: list[str]) -> None:
        self.enqueue([self.event(who, message=self.message("oi", again=True))], Fate.DONE)

    @rule(new=st.sampled_from(ALIASES), who=people)
    def one_webhook_names_two(self, new: str, who: list[str]) -> None:
        events = [self.event([new], message=self.message("a"))]
        if len(who) == 2 and new in who:
            events.append(self.event(who, message=self.message("b")))
        self.enqueue(events, Fate.DONE)

    @rule(who=people, pick=lanes, kind=st.sampled_from(["ours by id", "ours by text", "foreign", "foreign"]))
    def echo(self, who: list[str], pick: int, kind: str) -> None:
        turn, _, _, attempt = self.turn(self.lane(pick))
        message = self.message("foreign")
        if kind == "ours by id":
            message.message_id = f"wa {turn} {attempt}"
        elif kind == "ours by text":
            message.text = f"0 of {turn}"
        self.enqueue([self.event(who, echo=message)], Fate.DONE)

    @rule(pick=lanes, body=st.sampled_from([b"phone:1 1", b"?"]))
    def receipt_and_rubbish(self, pick: int, body: bytes) -> None:
        turn, _, _, attempt = self.turn(self.lane(pick))
        receipt = pb.Receipt(provider_message_id=f"wa {turn} {attempt}", status=pb.DELIVERY_STATUS_DELIVERED)
        events = [self.event(["x"], receipt=receipt), self.event(["x"], unparsed=pb.Unparsed(body=body, reason="?"))]
        self.enqueue(events, Fate.DONE)

    # ---- workers

    @rule(sid=st.sampled_from(list(WORKERS)), capacity=st.integers(0, 2), remembers=st.booleans())
    def hello(self, sid: int, capacity: int, remembers: bool) -> None:
        holding = []
        if remembers:
            for name in [n for n in self.model.names.ids if n[0] == "c"]:
                turn, epoch, *_ = self.turn(name)
                holding += [(turn, epoch)] if turn != "none" else []
        self.both(
            lambda side: side.core.hello(
                self.now, sid, worker=WORKERS[sid], capacity=capacity, holding=[(side.id(t), e) for t, e in holding]
            )
        )

    @rule(sid=st.sampled_from(list(WORKERS)))
    def stream_lost(self, sid: int) -> None:
        self.both(lambda side: side.core.stream_lost(sid))

    @rule(
        sid=st.sampled_from(list(WORKERS)),
        pick=lanes,
        parts=st.integers(1, 3),
        last=st.booleans(),
        handoff=rarely,
        behind=rarely,
        fate=FATES,
    )
    def commit(self, sid: int, pick: int, parts: int, last: bool, handoff: bool, behind: bool, fate: Fate) -> None:
        self.now += POLICY.hold
        turn, epoch, revision, _ = self.turn(self.lane(pick))

        def work(side: Side) -> None:
            commit = Commit(
                ask=5,
                turn_id=side.id(turn),
                epoch=epoch,
                revision=revision - behind,
                parts=tuple(f"{n} of {turn}" for n in range(parts)),
                last=last,
                effects=(EFFECT, b""),
                handoff=handoff,
            )
            side.core.commit(self.now, sid, commit)

        self.both(work, fate)

    @rule(
        sid=st.sampled_from(list(WORKERS)),
        pick=lanes,
        outcome=st.sampled_from([SendOutcome.SENT] * 4 + list(SendOutcome)),
        named=st.booleans(),
        late=rarely,
        fate=FATES,
    )
    def result(self, sid: int, pick: int, outcome: SendOutcome, named: bool, late: bool, fate: Fate) -> None:
        lane = self.lane(pick)
        turn, epoch, _, attempt = self.turn(lane)
        part = self.in_flight(lane)
        self.both(
            lambda side: side.core.result(
                self.now,
                sid,
                ask=6,
                turn_id=side.id(turn),
                epoch=epoch - late,
                part=part,
                attempt=attempt,
                outcome=outcome,
                provider_message_id=f"wa {turn} {attempt}" if named else "",
            ),
            fate,
        )

    @rule(sid=st.sampled_from(list(WORKERS)), pick=lanes, version=st.sampled_from([None, None, 1, 2]), fate=FATES)
    def finish(self, sid: int, pick: int, version: int | None, fate: Fate) -> None:
        turn, epoch, *_ = self.turn(self.lane(pick))
        self.both(
            lambda side: side.core.finish(self.now, sid, ask=7, turn_id=side.id(turn), epoch=epoch, version=version),
            fate,
        )

    @rule(
        pick=lanes,
        version=st.sampled_from([None, None, 3]),
        outcome=st.sampled_from(["SENT", "SENT", "UNKNOWN"]),
        handoff=rarely,
    )
    def answer(self, pick: int, version: int | None, outcome: str, handoff: bool) -> None:
        """The common way, so that short runs get far."""
        self.commit(1, pick, 1, True, handoff, False, Fate.DONE)
        self.result(1, pick, SendOutcome[outcome], True, False, Fate.DONE)
        self.finish(1, pick, version, Fate.DONE)

    @rule(pick=lanes, failed=st.booleans(), fate=FATES)
    def release(self, pick: int, failed: bool, fate: Fate) -> None:
        turn, epoch, *_ = self.turn(self.lane(pick))
        self.both(lambda side: side.core.release(self.now, turn_id=side.id(turn), epoch=epoch, failed=failed), fate)

    @rule(pick=lanes, last=st.booleans(), fate=FATES)
    def recorded(self, pick: int, last: bool, fate: Fate) -> None:
        def work(side: Side) -> None:
            name = side.id(lane)
            ended = side.store.ended_turns(name, 99) if lane != "nobody" else []
            for turn in [t for t in ended if not t.recorded][slice(0, 1) if last else slice(-1, None)]:
                side.core.recorded(self.now, conversation_id=name, turn_id=turn.turn_id, version=4)

        lane = self.lane(pick)
        self.both(work, fate)

    # ---- people

    @precondition(lambda self: self.model.store.lanes)
    @rule(pick=lanes, fate=FATES)
    def pause(self, pick: int, fate: Fate) -> None:
        lane = self.lane(pick)
        self.both(lambda side: side.core.pause(self.now, side.id(lane), "rpc"), fate)

    @precondition(lambda self: self.model.store.lanes)
    @rule(pick=lanes, fate=FATES)
    def resume(self, pick: int, fate: Fate) -> None:
        lane = self.lane(pick)
        self.both(lambda side: side.people.resume(self.now, side.id(lane)).state, fate)

    @rule(alias=st.sampled_from(["1", "lid:1"]), fate=FATES)
    def forget(self, alias: str, fate: Fate) -> None:
        self.both(lambda side: side.people.forget(self.now, "default", alias).messages, fate)

    @precondition(lambda self: self.model.store.letters)
    @rule(pick=lanes, stale_too=st.booleans(), fate=FATES)
    def replay(self, pick: int, stale_too: bool, fate: Fate) -> None:
        def work(side: Side) -> Any:
            letters = side.letters()
            return side.people.replay(self.now, letters[pick % len(letters)], answer_stale=stale_too)

        self.both(work, fate)

    # ---- time

    @rule(milliseconds=st.sampled_from([1, 400, 3_000, 12_000, POLICY.handoff_quiet]), beats=st.booleans(), fate=FATES)
    def wait(self, milliseconds: int, beats: bool, fate: Fate) -> None:
        def work(side: Side) -> None:
            for sid in WORKERS if beats else ():
                side.core.heartbeat(self.now, sid)
            side.core.tick(self.now)

        self.now += milliseconds
        self.both(work, fate)

    @rule(fate=FATES)
    def sweep(self, fate: Fate) -> None:
        self.both(lambda side: side.store.sweep(self.now - RETENTION), fate)

    @rule(fate=FATES)
    def sweep_people(self, fate: Fate) -> None:
        self.both(lambda side: side.store.sweep_people(self.now - RETENTION), fate)

    @rule()
    def restart(self) -> None:
        for side in self.sides:
            side.restart(self.now)
        for sid in WORKERS:
            self.hello(sid, 2, True)

    @invariant()
    def both_show_the_same(self) -> None:
        expected, found = (side.everything() for side in self.sides)
        for name in expected:
            assert found[name] == expected[name], name
        assert found.keys() == expected.keys()


def machine(home: Callable[[Path], Home]) -> type[StoreMachine]:
    """The machine over one kind of store."""
    return type("Machine", (StoreMachine,), {"home": staticmethod(home)})


PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("home", [h for n, h in STORES.items() if n != "memory"], ids=lambda home: home.__name__)
def test_a_store_shows_what_the_model_shows(home: Callable[[Path], Home]) -> None:
    run_state_machine_as_test(machine(home), settings=PROFILE)


@pytest.mark.parametrize("broken", FOUND_IN_SECONDS, ids=lambda broken: broken.__name__)
def test_the_machine_rejects_a_broken_store(broken: type[SqliteStore]) -> None:
    search = settings(PROFILE, max_examples=100, phases=[Phase.generate], derandomize=True, database=None)
    with pytest.raises(BaseException) as rejected:
        run_state_machine_as_test(machine(lambda folder: SqliteHome(folder, broken)), settings=search)
    # A failure that doesn't come again in the same form was a failure; data that can't be drawn again was none.
    assert isinstance(rejected.value, FlakyFailure) or not isinstance(rejected.value, KeyboardInterrupt | Flaky)


class Story:
    """One run of the machine's commands by hand, checked as the machine checks it."""

    def __init__(self) -> None:
        self.machine = machine(SqliteHome)()

    def __enter__(self) -> StoreMachine:
        return self.machine

    def __exit__(self, *_: object) -> None:
        try:
            self.machine.both_show_the_same()
        finally:
            self.machine.teardown()


def test_our_bubble_that_ends_a_paused_turn_is_not_taken_for_a_human() -> None:
    """Its echo waited for the result. The result ended the turn, and the store that was asked for the id in the same
    step had not got it yet: the copy of our own bubble went into history as a human's message."""
    with Story() as run:
        run.write(["phone:1"], "oi", False, False, Fate.DONE)
        run.commit(1, 0, 1, True, False, False, Fate.DONE)
        run.pause(0, Fate.DONE)
        run.echo(["phone:1"], 0, "ours by id")
        run.result(1, 0, SendOutcome.SENT, True, False, Fate.DONE)
        for side in run.sides:
            assert side.core.counters["foreign_sends"] == 0


def test_one_echo_that_reached_two_conversations_lets_them_merge() -> None:
    """It waited in both, and the row of the second was the first one's: every message that named both failed."""
    with Story() as run:
        for who in ("phone:1", "phone:2"):
            run.write([who], "oi", False, False, Fate.DONE)
        for pick in (0, 1):
            run.commit(1, pick, 1, True, False, False, Fate.DONE)
        copy = run.message("somebody else")
        for who in ("phone:1", "phone:2"):
            run.enqueue([run.event([who], echo=copy)], Fate.DONE)
        run.write(["phone:1", "phone:2"], "oi", False, False, Fate.DONE)
        run.both_show_the_same()
