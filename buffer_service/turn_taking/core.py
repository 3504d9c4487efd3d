"""The state machine's commands. Every public method is one store transaction; the frames it makes may leave once that
transaction is durable. `now` is epoch milliseconds of a clock that never jumps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from buffer_service.turn_taking.entities import Echo, EndReason, Incoming, Lane, Pause, SendOutcome, Turn
from buffer_service.turn_taking.frames import Drain, Reason, Revoke
from buffer_service.turn_taking.hold import Cue
from buffer_service.turn_taking.lanes import same_text
from buffer_service.turn_taking.policy import Policy
from buffer_service.turn_taking.ports import LaneStore, UnknownConversation
from buffer_service.turn_taking.replies import Replies
from buffer_service.turn_taking.sessions import Run, Session


class TurnTaking(Replies):
    """One instance per buffer process and store."""

    def __init__(
        self, *, store: LaneStore, policy: Policy, read_cue: Callable[[bytes], Cue] = lambda body: Cue.NEUTRAL
    ) -> None:
        super().__init__(store=store, policy=policy, read_cue=read_cue)
        self.forgotten: list[tuple[int, str]] = []

    # ---- start

    def restore(self, now: int, lanes: Iterable[Lane]) -> None:
        """Takes up what a store holds: every turn gets one fresh lease, attempt windows begin anew, and nothing is of
        later than now."""
        held = list(lanes)
        for lane in held:
            self.touch(lane)
            _bring_back(now, lane)
            if lane.turn:
                run = self.runs[lane.turn.turn_id] = Run(conversation_id=lane.conversation_id, given=True)
                run.not_before = now + self.policy.lease
                if lane.turn.in_flight:
                    run.window = now + self.policy.window
        for lane in held:
            self.open_next(now, self.lane(lane.conversation_id))
        self.settle(now)

    def hand_over(self, now: int, lanes: Iterable[Lane], *, reason: str) -> int:
        """Takes up a copy of a store: what it holds open may have been answered since, so a human looks at it and the
        agent never does. The number of conversations."""
        held = list(lanes)
        people = dict.fromkeys(self.lane(h.conversation_id).conversation_id for h in held if h.turn or h.pending)
        for lane in held:
            if lane.turn:
                self.runs[lane.turn.turn_id] = Run(conversation_id=lane.conversation_id, given=True)
                if lane.turn.in_flight:
                    self.close_part(now, lane, lane.turn, lane.turn.in_flight, SendOutcome.UNKNOWN)
        for name in people:
            lane = self.lane(name)
            self.judge_echoes(now, lane)
            self.pause_lane(now, lane, reason)
            lane.needs_human = True
        self.restore(now, held)
        return len(people)

    def resync(self, now: int, conversation_ids: Iterable[str]) -> None:
        """After a step that was rolled back: the volatile side of these lanes follows the store again."""
        lane: Lane | None
        for conversation_id in conversation_ids:
            try:
                lane = self.raw(conversation_id)
            except UnknownConversation:
                lane = None
            current = lane.turn.turn_id if lane and lane.turn else ""
            for turn_id, run in list(self.runs.items()):
                if run.conversation_id == conversation_id and turn_id != current:
                    self._hold(run, turn_id, None)
                    del self.runs[turn_id]
            if lane is None:
                self._drop(conversation_id)
            elif lane.turn:
                run = self.runs.setdefault(current, Run(conversation_id=conversation_id, given=True))
                if current in self._given_in_step:
                    # The worker never heard of it: give it anew.
                    self._hold(run, current, None)
                    run.given, run.parked = True, None
                if lane.turn.in_flight and run.window is None:
                    run.window = now + self.policy.window
        self._given_in_step.clear()
        self.settle(now)

    # ---- messages

    def enqueue(self, now: int, conversation_id: str, incoming: Incoming) -> tuple[Lane, str] | None:
        """A message of a lead or a human. The lane and the turn it went to ("" while it waits); None: seen before."""
        lane = self.lane(conversation_id)
        message = self.store.new_message(lane, incoming, now)
        if message is None:
            return None
        self.take_message(now, lane, message)
        self.settle(now)
        return lane, message.turn_id

    def echo(self, now: int, conversation_id: str, echo: Echo) -> bool:
        """The provider's copy of an outgoing message. True when it was somebody else's."""
        foreign = self.take_echo(now, self.lane(conversation_id), echo)
        self.settle(now)
        return foreign

    def replay(self, now: int, conversation_id: str, incomings: Iterable[Incoming]) -> None:
        """Messages of a dead letter, again, as one turn at the end of the lane."""
        lane = self.lane(conversation_id)
        idle = lane.turn is None and not lane.pending
        for incoming in incomings:
            message = self.store.new_message(lane, incoming, now)
            if message is not None:
                lane.pending.append(message)
        self.open_next(now, lane, at_once=idle)
        self.settle(now)

    def presence(self, now: int, conversation_id: str, composing: bool) -> None:
        """The lead types, or stopped."""
        self.composing(now, self.lane(conversation_id), composing)

    def join_lanes(self, now: int, older_id: str, younger_id: str) -> None:
        """An alias set named two conversations."""
        self.merge(now, self.lane(older_id), self.lane(younger_id))
        self.settle(now)

    # ---- people

    def pause(self, now: int, conversation_id: str, reason: str) -> Lane:
        """A human answers."""
        lane = self.lane(conversation_id)
        self.pause_lane(now, lane, reason)
        self.open_next(now, lane)
        self.settle(now)
        return lane

    def resume(self, now: int, conversation_id: str) -> Lane:
        """The agent answers again."""
        lane = self.lane(conversation_id)
        self.resume_lane(now, lane)
        self.settle(now)
        return lane

    def forget(self, now: int, lane: Lane, *, said: Iterable[str] = ()) -> None:
        """Takes the turn away; the store erases the lane in the same transaction. `said` are texts of turns before it
        whose echoes may still come."""
        self.forgotten += [(now + self.policy.evidence, text) for text in said]
        turn = lane.turn
        if turn:
            holder = self.runs[turn.turn_id].holder
            if holder:
                self.emit(holder.sid, Revoke(turn_id=turn.turn_id, epoch=0, reason=Reason.WRONG_STATE))
            self.forget_run(turn)
            lane.turn, turn.end_reason = None, EndReason.FORGOTTEN
            self.forgotten += [(now + self.policy.evidence, part.text) for part in turn.parts]
        self._drop(lane.conversation_id)
        self.settle(now)

    def _drop(self, conversation_id: str) -> None:
        """Nothing volatile is left of a conversation that is no more."""
        self._touched.pop(conversation_id, None)
        for waiting in (self.waiting, self.to_record, self.clocks):
            waiting.pop(conversation_id, None)
        self.recording.discard(conversation_id)
        self.timers.set(conversation_id, None)

    def recently_forgotten(self, now: int, text: str) -> bool:
        """An echo of a part that was on its way when its person was forgotten: it must not bring them back."""
        self.forgotten = [(until, said) for until, said in self.forgotten if until > now]
        return any(same_text(said, text) for _, said in self.forgotten)

    # ---- workers

    def hello(self, now: int, sid: int, *, worker: str, capacity: int, holding: Iterable[tuple[str, int]]) -> None:
        """A worker (re)appears: turns that it rightly holds go on with a new epoch, others are revoked, and turns of it
        that it doesn't name are given up."""
        old = [s for s in self.sessions.values() if s.worker == worker]
        for session in old:
            del self.sessions[session.sid]
        new = self.sessions[sid] = Session(sid, worker, capacity, now)
        named = dict(holding)
        for turn_id, epoch in named.items():
            self._take_up(now, new, turn_id, epoch)
        for session in old:
            for turn_id in list(session.held):
                lane = self.raw(self.runs[turn_id].conversation_id)
                if lane.turn:
                    self.lose(now, lane, lane.turn, counts=False)
        self.settle(now)

    def _take_up(self, now: int, session: Session, turn_id: str, epoch: int) -> None:
        run = self.runs.get(turn_id)
        lane = self.raw(run.conversation_id) if run else None
        turn = lane.turn if lane else None
        if lane and turn and self._may_keep(turn, session.worker, epoch):
            self.give(now, lane, turn, session, kept=True)
        else:
            self.emit(session.sid, Revoke(turn_id=turn_id, epoch=epoch, reason=Reason.STALE_EPOCH))

    def _may_keep(self, turn: Turn, worker: str, epoch: int) -> bool:
        if turn.in_flight and turn.sender != worker:
            return False
        holder = self.runs[turn.turn_id].holder
        return epoch == turn.epoch and (holder is None or holder.worker == worker)

    def heartbeat(self, now: int, sid: int) -> None:
        """The worker lives."""
        if sid in self.sessions:
            self.sessions[sid].beat = now

    def stream_lost(self, sid: int) -> None:
        """The lease decides about the worker's turns; only parked answers die with their stream."""
        for run in self.runs.values():
            if run.parked and run.parked.sid == sid:
                run.parked = None
        session = self.sessions.get(sid)
        if session is None:
            return
        session.connected = False
        if not session.held:
            del self.sessions[sid]

    def drain(self) -> None:
        """The buffer stops."""
        for sid in self.sessions:
            self.emit(sid, Drain())

    # ---- time

    def woke(self, now: int) -> None:
        """The buffer noticed that it slept: a fresh lease for everyone before anything is taken away."""
        for session in self.sessions.values():
            session.beat = now
        for run in self.runs.values():
            if run.window is not None:
                run.window = max(run.window, now + self.policy.lease)
            if run.sign is not None:
                run.sign = max(run.sign, now + self.policy.lease - self.policy.forgotten_after)
        self.tick(now)

    def tick(self, now: int) -> None:
        """Does what is due. Costs nothing for lanes where nothing is."""
        due = dict.fromkeys(self.timers.pop_due(now))
        for session in list(self.sessions.values()):
            if now - session.beat >= self.policy.lease:
                due.update(dict.fromkeys(self.runs[t].conversation_id for t in session.held))
        for conversation_id in due:
            self._tick_lane(now, self.raw(conversation_id))
        for session in list(self.sessions.values()):
            if not session.connected and not session.held:
                del self.sessions[session.sid]
        self.settle(now)

    def _tick_lane(self, now: int, lane: Lane) -> None:
        turn = lane.turn
        if turn and turn.in_flight:
            window = self.runs[turn.turn_id].window
            if window is not None and now >= window:
                self.close_part(now, lane, turn, turn.in_flight, SendOutcome.UNKNOWN)
                self.judge_echoes(now, self.lane(lane.conversation_id))
        if lane.turn:
            self._tick_turn(now, lane, lane.turn)
        if lane.pause and now >= lane.pause.renewed_at + self.policy.handoff_quiet:
            self.counters["auto_resumed"] += 1
            self.resume_lane(now, lane)
        self.open_next(now, self.lane(lane.conversation_id))

    def _tick_turn(self, now: int, lane: Lane, turn: Turn) -> None:
        run = self.runs[turn.turn_id]
        if run.holder and now - run.holder.beat >= self.policy.lease:
            self.counters["leases_expired"] += 1
            self.lose(now, lane, turn, counts=True)
        elif run.holder and now >= self._forgotten_at(turn):
            self.emit(run.holder.sid, Revoke(turn_id=turn.turn_id, epoch=turn.epoch, reason=Reason.STALE_EPOCH))
            self.lose(now, lane, turn, counts=True)
        self.let_go(now, lane, turn)

    def _forgotten_at(self, turn: Turn) -> int:
        run = self.runs[turn.turn_id]
        if turn.in_flight or run.parked or run.sign is None:
            return 1 << 62
        return run.sign + self.policy.forgotten_after

    def settle(self, now: int) -> None:
        """Ends a transaction: gives out what became free, and notes when each touched lane is due."""
        for lane in self._touched.values():
            self._settle_lane(now, lane)
        self.assign(now)
        touched, self._touched = self._touched, {}
        for lane in touched.values():
            self._settle_lane(now, lane)
            self.timers.set(lane.conversation_id, self._due(now, lane))

    def _settle_lane(self, now: int, lane: Lane) -> None:
        turn, name = lane.turn, lane.conversation_id
        if self.ready(now, lane):
            self.waiting.setdefault(name)
        else:
            self.waiting.pop(name, None)
        if not turn and lane.unrecorded and now >= self.clock(lane).record_after:
            self.to_record.setdefault(name)
            self.recording.discard(name)
        else:
            self.to_record.pop(name, None)
        if turn or not lane.unrecorded:
            self.recording.discard(name)
        if not turn and not lane.unrecorded and not lane.pending:
            self.clocks.pop(lane.conversation_id, None)

    def _due(self, now: int, lane: Lane) -> int | None:
        """The next instant at which _tick_lane has something to do. What waits for a worker is in `waiting` instead."""
        times: list[int] = []
        turn = lane.turn
        if turn:
            run = self.runs[turn.turn_id]
            if run.holder:
                times.append(self._forgotten_at(turn))
            elif run.not_before > now:
                times.append(run.not_before)
            times += [run.window] if run.window is not None else []
            times += [self._parked_until(now, lane, turn, run.parked)] if run.parked else []
        elif lane.pending and not lane.waits_for:
            times.append(self.ripe_at(lane))
        if lane.pause:
            times.append(lane.pause.renewed_at + self.policy.handoff_quiet)
        if not turn and lane.unrecorded and self.clock(lane).record_after > now:
            times.append(self.clock(lane).record_after)
        return max(now + 1, min(times)) if times else None


def _bring_back(now: int, lane: Lane) -> None:
    """The clock may have been set back while no buffer ran: nobody is to wait until those instants come again."""
    turn, pause = lane.turn, lane.pause
    for message in [*lane.pending, *(turn.messages if turn else ())]:
        message.accepted_at = min(message.accepted_at, now)
    if turn:
        turn.opened_at = min(turn.opened_at, now)
    if pause:
        lane.pause = Pause(since=min(pause.since, now), renewed_at=min(pause.renewed_at, now), reason=pause.reason)
    lane.activity_at = min(lane.activity_at, now)
