"""Messages in, turns out: joining, opening, pausing, merging."""

from __future__ import annotations

import unicodedata

from buffer_service.turn_taking.assignment import Assignment, in_order
from buffer_service.turn_taking.entities import (
    Echo,
    EndReason,
    InboxMessage,
    Lane,
    Part,
    PartState,
    Pause,
    SendOutcome,
    Turn,
    TurnKind,
)
from buffer_service.turn_taking.frames import Committed, Joined, Reason, Revoke
from buffer_service.turn_taking.hold import AdaptiveHold
from buffer_service.turn_taking.policy import Strategy
from buffer_service.turn_taking.sessions import Run

RESUME_COMMAND = "#bot on"


def same_text(a: str, b: str) -> bool:
    """Equal up to what providers normalise: composition, line ends and outer blanks."""
    return unicodedata.normalize("NFC", a).split() == unicodedata.normalize("NFC", b).split()


class Lanes(Assignment):
    """The lane's side of turn-taking."""

    # ---- messages

    def take_message(self, now: int, lane: Lane, message: InboxMessage) -> None:
        """A new message of a lead or a human: it joins the turn, opens one, or waits. `record_only` comes set for stale
        ones. A human's message pauses."""
        self._measure_gap(now, lane, message)
        lane.activity_at = now
        if message.human:
            self.pause_lane(now, lane, "human")
        message.record_only = message.record_only or message.human or lane.paused
        idle = lane.turn is None and not lane.pending
        turn = lane.turn
        if turn and not message.record_only and not lane.pending and self._joinable(now, turn, message):
            self._join(now, lane, turn, message)
        else:
            lane.pending.append(message)
        self.open_next(now, lane, at_once=idle)

    def _measure_gap(self, now: int, lane: Lane, message: InboxMessage) -> None:
        if message.human:
            return
        gap = now - lane.activity_at
        self.counters["bursts"] += 1 if gap > self.policy.max_hold else 0
        if isinstance(self.policy.hold, AdaptiveHold):
            lane.average_gap = self.policy.hold.average(lane.average_gap, gap)

    def _joinable(self, now: int, turn: Turn, message: InboxMessage) -> bool:
        if turn.kind is not TurnKind.ANSWER or not turn.open:
            return False
        if len(turn.messages) >= self.policy.max_messages or turn.size + len(message.body) > self.policy.max_bytes:
            return False
        if self.runs[turn.turn_id].holder is None:
            return True
        return (
            self.policy.strategy is Strategy.PREEMPT
            and now < turn.opened_at + self.policy.max_hold
            and self.remaining(now, turn) > self.policy.reserve
        )

    def _join(self, now: int, lane: Lane, turn: Turn, message: InboxMessage) -> None:
        message.turn_id = turn.turn_id
        turn.messages.append(message)
        turn.revision += 1
        self.counters["joined"] += 1
        run = self.runs[turn.turn_id]
        parked, run.parked = run.parked, None
        if run.holder:
            run.restarts += 1
            self.counters["restarts"] += 1
            self.emit(run.holder.sid, self._joined(now, lane, turn))
        if parked:
            self.emit(parked.sid, self.superseded(now, lane, turn, parked.ask))

    def _joined(self, now: int, lane: Lane, turn: Turn) -> Joined:
        wait = max(0, self.hold_until(now, lane, turn) - now) if self.runs[turn.turn_id].restarts > 1 else 0
        return Joined(turn_id=turn.turn_id, revision=turn.revision, messages=in_order(turn.messages), wait=wait)

    def superseded(self, now: int, lane: Lane, turn: Turn, ask: int) -> Committed:
        """More messages belong to the turn than its reply was made from."""
        self.counters["superseded"] += 1
        joined = self._joined(now, lane, turn)
        return Committed(ask=ask, turn_id=turn.turn_id, epoch=turn.epoch, refusal=Reason.SUPERSEDED, superseded=joined)

    def hold_until(self, now: int, lane: Lane, turn: Turn) -> int:
        """Until when the first Commit is parked: refused sends back off; `preempt` waits for the lead to be quiet."""
        back_off = self.runs[turn.turn_id].not_before if turn.tries else 0
        if self.policy.strategy is not Strategy.PREEMPT or turn.kind is not TurnKind.ANSWER:
            return back_off
        last = turn.messages[-1]
        quiet = last.accepted_at + self._hold_after(lane, last)
        composing = self.clock(lane).composing
        if composing is not None and composing > now - self.policy.composing:
            quiet = max(quiet, composing + self.policy.composing)
        cap = min(m.accepted_at for m in turn.messages) + self.policy.deadline - self.policy.reserve
        return max(back_off, min(quiet, turn.opened_at + self.policy.max_hold, cap))

    def _hold_after(self, lane: Lane, message: InboxMessage) -> int:
        hold = self.policy.hold
        return hold if isinstance(hold, int) else hold.after(self.read_cue(message.body), lane.average_gap)

    def composing(self, now: int, lane: Lane, composing: bool) -> None:
        """The lead types, or stopped."""
        self.clock(lane).composing = now if composing else None

    # ---- opening

    def open_next(self, now: int, lane: Lane, *, at_once: bool = False) -> None:
        """Opens the next turn of a free lane. `at_once`: the lane was idle, so nothing is to be grouped."""
        if lane.turn or any(self.store.lane(other).turn for other in lane.waits_for):
            return
        lane.waits_for = ()
        while lane.pending and not lane.turn:
            first = lane.pending[0]
            if first.record_only or lane.paused:
                turn = self._new_turn(now, lane, TurnKind.RECORD, [lane.pending.pop(0)])
                self.end_turn(now, lane, turn, EndReason.RECORD_ONLY)
            elif now >= self.ripe_at(lane, at_once=at_once):
                lane.turn = self._new_turn(now, lane, TurnKind.ANSWER, self._batch(lane))
                self.counters["opened"] += 1
            else:
                return

    def ripe_at(self, lane: Lane, *, at_once: bool = False) -> int:
        """When the pending messages are a turn."""
        first, tail = lane.pending[0], lane.pending[-1]
        if self.policy.strategy is Strategy.FIXED_DELAY:
            return first.accepted_at + self.policy.fixed_delay
        if at_once or self.policy.strategy is Strategy.PREEMPT:
            return 0
        return min(tail.accepted_at + self.policy.quiet, first.accepted_at + self.policy.busy_timeout)

    def _batch(self, lane: Lane) -> list[InboxMessage]:
        batch: list[InboxMessage] = []
        size = 0
        while lane.pending and not lane.pending[0].record_only and len(batch) < self.policy.max_messages:
            size += len(lane.pending[0].body)
            if batch and size > self.policy.max_bytes:
                break
            batch.append(lane.pending.pop(0))
        return batch

    def _new_turn(self, now: int, lane: Lane, kind: TurnKind, messages: list[InboxMessage]) -> Turn:
        turn = Turn(
            number=self.store.next_number(),
            turn_id=self.store.new_turn_id(),
            conversation_id=lane.conversation_id,
            kind=kind,
            messages=messages,
            opened_at=now,
        )
        for message in messages:
            message.turn_id = turn.turn_id
        self.store.add_turn(turn)
        self.runs[turn.turn_id] = Run(conversation_id=lane.conversation_id)
        return turn

    def end_turn(self, now: int, lane: Lane, turn: Turn, reason: EndReason, *, recorded: bool = False) -> None:
        """Ends a turn; until it is recorded, it is handed out with the next ones."""
        turn.end_reason, turn.ended_at, turn.ended_no = reason, now, self.store.next_number()
        turn.recorded = recorded
        lane.unrecorded += 0 if recorded else 1
        self.forget_run(turn)
        if lane.turn is turn:
            lane.turn = None
        if self._all_unknown(turn):
            turn.needs_human = True
        lane.needs_human = lane.needs_human or turn.needs_human
        if lane.merged_into:
            lane.pause = None
            self._move_pending(lane)
            self.open_next(now, self.lane(lane.conversation_id))

    @staticmethod
    def _all_unknown(turn: Turn) -> bool:
        return bool(turn.parts) and all(p.state is PartState.UNKNOWN for p in turn.parts)

    # ---- closing parts

    def close_part(self, now: int, lane: Lane, turn: Turn, part: Part, outcome: SendOutcome) -> None:
        """Closes the part in ATTEMPTING. Refused ones go back; in a pause what is left is dropped and the turn ends."""
        self.runs[turn.turn_id].window = None
        self.counters[f"closed_{outcome.name.lower()}"] += 1
        if outcome in (SendOutcome.REFUSED_RETRY, SendOutcome.NOT_STARTED):
            self._refused(now, turn, part, outcome)
        else:
            turn.tries, part.closed_at = 0, now
            known = outcome is SendOutcome.SENT or bool(part.provider_message_id)
            part.state = PartState.SENT if known else PartState.UNKNOWN
            if outcome is SendOutcome.REFUSED_FINAL:
                part.state, turn.needs_human = PartState.REFUSED, True
                self.drop_rest(turn)
        if lane.paused:
            self.drop_rest(turn)
            self.end_turn(now, lane, turn, EndReason.PAUSED)

    # ---- people

    def pause_lane(self, now: int, lane: Lane, reason: str) -> None:
        """A human answers: the turn ends now, or when its part in ATTEMPTING closes. A repeat renews the quiet time."""
        since = lane.pause.since if lane.pause else now
        lane.pause = Pause(since=since, renewed_at=now, reason=reason)
        for other in lane.waits_for:
            younger = self.raw(other)
            if younger.turn:
                # One person: what the merged conversation still wants to say is over too.
                self.pause_lane(now, younger, reason)
        turn = lane.turn
        if turn is None or turn.in_flight:
            return
        holder = self.runs[turn.turn_id].holder
        if holder:
            self.emit(holder.sid, Revoke(turn_id=turn.turn_id, epoch=turn.epoch, reason=Reason.PAUSED))
        self.drop_rest(turn)
        self.end_turn(now, lane, turn, EndReason.PAUSED)

    def resume_lane(self, now: int, lane: Lane) -> None:
        """The agent answers again."""
        lane.pause = None
        self.open_next(now, lane)

    def merge(self, now: int, older: Lane, younger: Lane) -> None:
        """One person had two conversations. The older one goes on; it opens no turn before the younger's has ended."""
        if older is younger:
            return
        younger.merged_into = older.conversation_id
        self.counters["merged"] += 1
        if younger.pause and not older.pause:
            self.pause_lane(now, older, younger.pause.reason)
        older.needs_human = older.needs_human or younger.needs_human
        older.average_gap = older.average_gap or younger.average_gap
        if younger.turn:
            older.waits_for = (*older.waits_for, younger.conversation_id)
        older.waits_for += younger.waits_for
        younger.waits_for = ()
        known = {e.incoming.message_id for e in older.echoes}
        older.echoes += [e for e in younger.echoes if e.incoming.message_id not in known]
        younger.echoes = []
        if older.pause:
            self.pause_lane(now, older, older.pause.reason)
        self._move_pending(younger)
        self.open_next(now, older)

    def _move_pending(self, younger: Lane) -> None:
        if younger.turn:
            return
        older = self.raw(younger.merged_into)
        for message in younger.pending:
            message.conversation_id = older.conversation_id
        older.pending = sorted(older.pending + younger.pending, key=lambda m: m.sequence)
        younger.pending = []

    # ---- echoes

    def take_echo(self, now: int, lane: Lane, echo: Echo) -> bool:
        """A copy of something sent through the business's account. True: it was foreign, so it pauses the lane and goes
        into history. Deferred while a part is ATTEMPTING, whose id isn't known yet."""
        if self._is_ours(now, lane, echo):
            return False
        if self._sends(lane):
            if all(e.incoming.message_id != echo.incoming.message_id for e in lane.echoes):
                lane.echoes = [*lane.echoes, echo]
            return False
        message = self.store.new_message(lane, echo.incoming, now)
        if message is None:
            return False
        self.counters["foreign_sends"] += 1
        self.take_message(now, lane, message)
        return True

    def judge_echoes(self, now: int, lane: Lane) -> None:
        """Judges the echoes that waited for the part in ATTEMPTING."""
        if not lane.echoes or self._sends(lane):
            return
        echoes, lane.echoes = lane.echoes, []
        for echo in echoes:
            self.take_echo(now, lane, echo)

    def _sends(self, lane: Lane) -> bool:
        """A part of this person is on its way; its id isn't known yet."""
        turns = [lane.turn, *(self.raw(other).turn for other in lane.waits_for)]
        return any(t is not None and t.in_flight for t in turns)

    def _is_ours(self, now: int, lane: Lane, echo: Echo) -> bool:
        message_id = echo.incoming.message_id
        family = [lane, *(self.raw(name) for name in self.store.merged_into(lane))]
        current = [p for member in family if member.turn for p in member.turn.parts]
        if any(p.provider_message_id == message_id for p in current):
            return True
        if any(self.store.knows_send(member, message_id) for member in family):
            return True
        since = now - self.policy.evidence
        ended = [p for member in family for _, p in self.store.unknown_parts(member, since)]
        nameless = [
            p
            for p in [*current, *ended]
            if p.state in (PartState.ATTEMPTING, PartState.UNKNOWN) and not p.provider_message_id
        ]
        for part in nameless:
            if same_text(part.text, echo.text):
                self._evidence(part, message_id)
                return True
        # Different text alone never proves foreign: the provider may have changed ours.
        return any(p.state is PartState.UNKNOWN for p in nameless)

    def _evidence(self, part: Part, message_id: str) -> None:
        part.provider_message_id = message_id
        if part.state is PartState.UNKNOWN:
            part.state = PartState.SENT
            self.counters["unknown_resolved"] += 1
