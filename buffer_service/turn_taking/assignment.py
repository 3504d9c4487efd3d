"""Who works on what: sessions, leases, and giving turns and records to workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy

from buffer_service.turn_taking.entities import (
    SAID,
    EndReason,
    InboxMessage,
    Lane,
    Part,
    PartState,
    SendOutcome,
    Turn,
    TurnKind,
)
from buffer_service.turn_taking.frames import (
    Assign,
    Frame,
    Reason,
    Record,
    RecordedTurn,
    Revoke,
    Who,
)
from buffer_service.turn_taking.hold import Cue
from buffer_service.turn_taking.policy import Policy
from buffer_service.turn_taking.ports import LaneStore
from buffer_service.turn_taking.sessions import LaneClock, Run, Session, Timers

RECORD_BYTES = 1 << 20
MAX_RECORDING = 64


def in_order(messages: Sequence[InboxMessage]) -> tuple[InboxMessage, ...]:
    """Inside a turn: provider time, then acceptance."""
    return tuple(sorted(messages, key=lambda m: (m.provider_at, m.sequence)))


def who(lane: Lane) -> Who:
    """A lane's identity for frames."""
    return Who(
        conversation_id=lane.conversation_id,
        scope=lane.scope,
        contact=lane.contact,
        address=lane.address,
        display_name=lane.display_name,
        aliases=lane.aliases,
    )


def recorded_turn(lane: Lane, turn: Turn, *, merged: tuple[str, ...]) -> RecordedTurn:
    """A turn's account for history: only what was said, and no effects of a reply of which nothing was. `merged` are
    the conversations that went into this one."""
    account = copy(turn)
    account.messages = list(in_order(turn.messages))
    account.parts = [copy(p) for p in turn.parts]
    if turn.parts and not any(p.state in SAID for p in turn.parts):
        account.effects = ()
    return RecordedTurn(turn=account, who=who(lane), merged=merged)


def next_unsent(turn: Turn) -> tuple[int, Part] | None:
    """The first part that is stored and not begun."""
    return next(((i, p) for i, p in enumerate(turn.parts) if p.state is PartState.STORED), None)


class Assignment:
    """Volatile state, and the rules by which turns change hands. Base of the state machine."""

    def __init__(self, *, store: LaneStore, policy: Policy, read_cue: Callable[[bytes], Cue]) -> None:
        self.store = store
        self.policy = policy
        self.read_cue = read_cue
        self.sessions: dict[int, Session] = {}
        self.runs: dict[str, Run] = {}
        self.clocks: dict[str, LaneClock] = {}
        self.waiting: dict[str, None] = {}
        self.to_record: dict[str, None] = {}
        self.recording: set[str] = set()
        self.timers = Timers()
        self.counters: Counter[str] = Counter()
        self._touched: dict[str, Lane] = {}
        self._in_step: set[str] = set()
        self._given_in_step: set[str] = set()
        self._out: list[tuple[int, Frame]] = []
        self._kept = 0

    # ---- plumbing

    def raw(self, conversation_id: str) -> Lane:
        """The lane itself, not followed to the one that it was merged into."""
        lane = self.store.lane(conversation_id)
        self.touch(lane)
        return lane

    def touch(self, lane: Lane) -> None:
        """The lane may change in this step."""
        self._touched[lane.conversation_id] = lane
        self._in_step.add(lane.conversation_id)

    def lane(self, conversation_id: str) -> Lane:
        """The lane that speaks for this conversation."""
        lane = self.raw(conversation_id)
        while lane.merged_into:
            lane = self.raw(lane.merged_into)
        return lane

    def account(self, lane: Lane, turn: Turn) -> RecordedTurn:
        """A turn's account for history; see `recorded_turn`."""
        return self.accounts(lane, [turn])[0]

    def accounts(self, lane: Lane, turns: Sequence[Turn]) -> tuple[RecordedTurn, ...]:
        """The same for several. The lane is asked about once: the store saves all that it holds before it answers."""
        merged = tuple(self.store.merged_into(lane)) if turns else ()
        return tuple(recorded_turn(lane, turn, merged=merged) for turn in turns)

    def emit(self, sid: int, frame: Frame) -> None:
        """Sends a frame once the transaction is durable."""
        self._out.append((sid, frame))

    def take_frames(self) -> list[tuple[int, Frame]]:
        """Frames of the transaction that ends."""
        frames, self._out, self._kept = self._out, [], 0
        return frames

    def keep_frames(self) -> None:
        """The step that made the latest frames stands."""
        self._kept = len(self._out)
        self._in_step.clear()
        self._given_in_step.clear()

    def abandon(self) -> list[str]:
        """The step was rolled back: its frames must not leave. The conversations that it touched."""
        del self._out[self._kept :]
        self._touched.clear()
        touched = list(self._in_step)
        self._in_step.clear()
        return touched

    def clock(self, lane: Lane) -> LaneClock:
        """The lane's timers."""
        return self.clocks.setdefault(lane.conversation_id, LaneClock())

    # ---- giving

    def assign(self, now: int) -> None:
        """Gives ready turns, and records without a turn, to workers with credit; first come, first served."""
        while self.waiting and (session := self.free(now)):
            lane = self.raw(next(iter(self.waiting)))
            del self.waiting[lane.conversation_id]
            if lane.turn and self.ready(now, lane):
                self.give(now, lane, lane.turn, session)
        while self.to_record and len(self.recording) < MAX_RECORDING and (session := self.free(now)):
            lane = self.raw(next(iter(self.to_record)))
            del self.to_record[lane.conversation_id]
            if not lane.turn and lane.unrecorded:
                self._give_records(now, lane, session)

    def ready(self, now: int, lane: Lane) -> bool:
        """The lane's turn may be given to a worker now."""
        turn = lane.turn
        if turn is None or turn.in_flight:
            return False
        run = self.runs[turn.turn_id]
        return run.holder is None and now >= run.not_before

    def _give_records(self, now: int, lane: Lane, session: Session) -> None:
        clock = self.clock(lane)
        clock.record_after = now + min(self.policy.record_retry * 2**clock.record_tries, self.policy.record_retry_max)
        clock.record_tries = min(clock.record_tries + 1, 10)
        self.recording.add(lane.conversation_id)
        turns, _ = self.store.unrecorded(lane, RECORD_BYTES)
        clock.record_upto = max((t.ended_no for t in turns), default=0)
        records = self.accounts(lane, turns)
        self.emit(session.sid, Record(conversation_id=lane.conversation_id, turns=records))

    def give(self, now: int, lane: Lane, turn: Turn, session: Session, *, kept: bool = False) -> None:
        """Assigns a turn. The epoch rises in this transaction; the first one was reserved by the opening commit."""
        run = self.runs[turn.turn_id]
        turn.epoch += 1 if run.given else 0
        previous, run.given, run.sign, run.parked = run.holder, True, now, None
        self._hold(run, turn.turn_id, session)
        self._given_in_step.add(turn.turn_id)
        self.counters["assigned"] += 1
        self.emit(session.sid, self._assignment(now, lane, turn, kept=kept))
        if previous and previous.sid != session.sid and previous.sid in self.sessions:
            self.emit(previous.sid, Revoke(turn_id=turn.turn_id, epoch=0, reason=Reason.STALE_EPOCH))

    def _assignment(self, now: int, lane: Lane, turn: Turn, *, kept: bool) -> Assign:
        older, more = self.store.unrecorded(lane, RECORD_BYTES) if lane.unrecorded else ([], False)
        messages = () if turn.kind is TurnKind.APOLOGY else in_order(turn.messages)
        return Assign(
            turn_id=turn.turn_id,
            epoch=turn.epoch,
            revision=turn.revision,
            kind=turn.kind,
            who=who(lane),
            messages=messages,
            parts=tuple(copy(p) for p in turn.parts),
            last=turn.last,
            effects=turn.effects,
            min_version=lane.recorded_version,
            unrecorded=self.accounts(lane, older),
            more_unrecorded=more,
            kept=kept,
            truncated=turn.truncated,
            remaining=max(self.remaining(now, turn), self.policy.min_remaining),
            waited=max(0, now - min((m.accepted_at for m in turn.messages), default=now)),
        )

    def _hold(self, run: Run, turn_id: str, session: Session | None) -> None:
        if run.holder:
            run.holder.held.pop(turn_id, None)
        run.holder = session
        if session:
            session.held[turn_id] = None

    def free(self, now: int) -> Session | None:
        """The live worker with the most credit left."""
        load: Counter[str] = Counter()
        for session in self.sessions.values():
            load[session.worker] += len(session.held)
        live = [
            s
            for s in self.sessions.values()
            if s.connected and now - s.beat < self.policy.lease and load[s.worker] < s.capacity
        ]
        return max(live, key=lambda s: (s.capacity - load[s.worker], s.beat, s.sid), default=None)

    def remaining(self, now: int, turn: Turn) -> int:
        """Time left to the deadline: from the oldest message's acceptance, at least 10 s after each assignment."""
        sign = self.runs[turn.turn_id].sign
        oldest = min((m.accepted_at for m in turn.messages), default=turn.opened_at)
        floor = self.policy.min_remaining - (now - (now if sign is None else sign))
        return max(self.policy.deadline - (now - oldest), floor)

    # ---- losing

    def lose(self, now: int, lane: Lane, turn: Turn, *, counts: bool) -> None:
        """Takes a turn from its worker. Every loss, revocation or failed return counts as an attempt, with back-off."""
        run = self.runs[turn.turn_id]
        self._hold(run, turn.turn_id, None)
        run.parked = None
        self.counters["lost_turns"] += 1
        if not counts:
            return
        turn.attempts += 1
        run.not_before = now + min(250 * 2 ** min(turn.attempts, 10), 8_000)
        if turn.attempts < self.policy.max_attempts:
            return
        if not turn.open:
            turn.truncated, turn.last = turn.truncated or not turn.last, True
        elif turn.kind is TurnKind.ANSWER:
            self._bury(now, lane, turn)

    def _bury(self, now: int, lane: Lane, turn: Turn) -> None:
        self.store.bury(turn, "attempts", now)
        self.counters["dead_letters"] += 1
        # A worker that was only slow must not go on with it: what it holds is an answer, and its messages are gone.
        turn.epoch += 1
        turn.kind, turn.parts, turn.last, turn.effects = TurnKind.APOLOGY, [], False, ()
        turn.handoff = turn.truncated = False
        turn.needs_human = lane.needs_human = True

    def forget_run(self, turn: Turn) -> None:
        """Drops the volatile side of a turn that ends."""
        run = self.runs.pop(turn.turn_id, None)
        if run and run.holder:
            run.holder.held.pop(turn.turn_id, None)

    # ---- closing parts

    def drop_rest(self, turn: Turn) -> None:
        """What was not begun never will be."""
        for part in turn.parts:
            if part.state is PartState.STORED:
                part.state = PartState.DROPPED
        turn.last = True

    def _refused(self, now: int, turn: Turn, part: Part, outcome: SendOutcome) -> None:
        """Certainly not delivered: back to stored, with back-off. An open turn's reply is forgotten."""
        part.state = PartState.STORED
        turn.tries += 1
        first_try = outcome is SendOutcome.NOT_STARTED and turn.tries < 3
        self.runs[turn.turn_id].not_before = now + (0 if first_try else min(500 * 2 ** min(turn.tries, 10), 16_000))
        if turn.open:
            turn.parts, turn.last, turn.effects = [], False, ()
            turn.handoff = turn.truncated = False

    def end_reason(self, turn: Turn) -> EndReason:
        """How a complete turn ends."""
        return EndReason.FINISHED if turn.complete else EndReason.PAUSED
