"""The reply on its way out: commits, sends, results, and the end of a turn."""

from __future__ import annotations

from copy import copy

from buffer_service.turn_taking.assignment import next_unsent
from buffer_service.turn_taking.entities import Lane, Part, PartState, SendOutcome, Turn, TurnKind
from buffer_service.turn_taking.frames import Committed, Go, Reason
from buffer_service.turn_taking.lanes import Lanes
from buffer_service.turn_taking.sessions import Commit, Parked


class Replies(Lanes):
    """The worker's side of turn-taking."""

    def _find(self, turn_id: str, epoch: int) -> tuple[Lane, Turn] | Reason:
        run = self.runs.get(turn_id)
        lane = self.raw(run.conversation_id) if run else None
        if lane is None or lane.turn is None or lane.turn.turn_id != turn_id:
            return Reason.WRONG_STATE
        if epoch != lane.turn.epoch:
            return Reason.STALE_EPOCH
        return lane, lane.turn

    def _refuse(self, sid: int, *, ask: int, turn_id: str, epoch: int, reason: Reason) -> None:
        self.counters[f"refused_{reason.lower()}"] += 1
        self.emit(sid, Committed(ask=ask, turn_id=turn_id, epoch=epoch, refusal=reason))

    def _touch(self, now: int, sid: int, turn: Turn) -> None:
        """A frame with the right epoch: its worker lives, even when its lease had run out meanwhile."""
        run = self.runs[turn.turn_id]
        run.sign = now
        if run.holder is None and sid in self.sessions:
            self._hold(run, turn.turn_id, self.sessions[sid])

    def _hears(self, sid: int) -> bool:
        """The stream is still there. A permission for one that is no more would burn the part: it might be sent."""
        session = self.sessions.get(sid)
        return session is not None and session.connected

    # ---- commit

    def commit(self, now: int, sid: int, commit: Commit) -> None:
        """A worker asks to send. Here the race between a new message and the reply is decided."""
        self._commit(now, sid, commit, since=now)

    def _commit(self, now: int, sid: int, commit: Commit, *, since: int) -> None:
        found = self._find(commit.turn_id, commit.epoch)
        if isinstance(found, Reason):
            return self._refuse(sid, ask=commit.ask, turn_id=commit.turn_id, epoch=commit.epoch, reason=found)
        lane, turn = found
        if lane.paused and not turn.in_flight:
            return self._refuse(sid, ask=commit.ask, turn_id=turn.turn_id, epoch=turn.epoch, reason=Reason.PAUSED)
        self._touch(now, sid, turn)
        if turn.open:
            return self._first_commit(now, sid, lane, turn, commit, since=since) if self._hears(sid) else None
        self._add_parts(turn, commit)
        return self._go(now, sid, lane, turn, ask=commit.ask)

    def _first_commit(self, now: int, sid: int, lane: Lane, turn: Turn, commit: Commit, *, since: int) -> None:
        if commit.revision < turn.revision:
            return self.emit(sid, self.superseded(now, lane, turn, commit.ask))
        until = self.hold_until(now, lane, turn)
        if commit.parts and now < until:
            run = self.runs[turn.turn_id]
            run.parked = Parked(sid=sid, ask=commit.ask, since=since, until=until, commit=commit)
            return None
        turn.parts = [Part(text) for text in commit.parts]
        turn.last, turn.effects, turn.handoff = commit.last, commit.effects, commit.handoff
        turn.truncated, turn.needs_human = commit.truncated, turn.needs_human or commit.needs_human
        self.counters["added_wait_ms"] += now - since
        return self._go(now, sid, lane, turn, ask=commit.ask, parked=now - since, first=True)

    @staticmethod
    def _add_parts(turn: Turn, commit: Commit) -> None:
        if turn.last:
            return
        turn.parts += [Part(text) for text in commit.parts[len(turn.parts) :]]
        turn.last, turn.effects = commit.last, commit.effects or turn.effects
        turn.handoff, turn.truncated = turn.handoff or commit.handoff, turn.truncated or commit.truncated
        turn.needs_human = turn.needs_human or commit.needs_human

    def _go(
        self, now: int, sid: int, lane: Lane, turn: Turn, *, ask: int, parked: int = 0, first: bool = False
    ) -> None:
        """Puts the first unsent part into ATTEMPTING if nothing is, and answers; parks the answer during back-off."""
        run = self.runs[turn.turn_id]
        unsent = next_unsent(turn) if self._hears(sid) and not turn.in_flight else None
        go = None
        if unsent and (first or not turn.open):
            if turn.tries and now < run.not_before:
                run.parked = Parked(sid=sid, ask=ask, since=now - parked, until=run.not_before)
                return
            run.parked = None
            go = self._attempt(now, sid, turn, *unsent)
        self.emit(
            sid,
            Committed(
                ask=ask,
                turn_id=turn.turn_id,
                epoch=turn.epoch,
                go=go,
                parked=parked,
                stored_parts=len(turn.parts),
                complete=turn.complete,
                record=self.account(lane, turn) if turn.complete else None,
            ),
        )

    def _attempt(self, now: int, sid: int, turn: Turn, index: int, part: Part) -> Go:
        turn.attempt_no += 1
        part.state, part.attempt = PartState.ATTEMPTING, turn.attempt_no
        turn.sender = self.sessions[sid].worker if sid in self.sessions else "?"
        self.runs[turn.turn_id].window = now + self.policy.window
        self.counters["attempts"] += 1
        return Go(index=index, part=copy(part))

    def let_go(self, now: int, lane: Lane, turn: Turn) -> None:
        """Answers a parked request when its time has come; a parked Commit is judged again."""
        run = self.runs[turn.turn_id]
        parked = run.parked
        if parked is None or now < self._parked_until(now, lane, turn, parked):
            return
        run.parked = None
        if parked.commit:
            self._commit(now, parked.sid, parked.commit, since=parked.since)
        else:
            self._go(now, parked.sid, lane, turn, ask=parked.ask, parked=now - parked.since)

    def _parked_until(self, now: int, lane: Lane, turn: Turn, parked: Parked) -> int:
        return self.hold_until(now, lane, turn) if parked.commit else parked.until

    # ---- result, finish, release

    def result(
        self,
        now: int,
        sid: int,
        *,
        ask: int,
        turn_id: str,
        epoch: int,
        part: int,
        attempt: int,
        outcome: SendOutcome,
        provider_message_id: str = "",
    ) -> None:
        """What became of a send. With a stale epoch it is evidence for the books, nothing else."""
        found = self._find(turn_id, epoch)
        if isinstance(found, Reason):
            if outcome is SendOutcome.SENT and self.store.correct(turn_id, part, attempt, provider_message_id):
                self.counters["unknown_resolved"] += 1
            return self._refuse(sid, ask=ask, turn_id=turn_id, epoch=epoch, reason=found)
        lane, turn = found
        self._touch(now, sid, turn)
        sent = turn.parts[part] if 0 <= part < len(turn.parts) else None
        if sent and sent.attempt == attempt:
            sent.provider_message_id = provider_message_id or sent.provider_message_id
            if sent.state is PartState.ATTEMPTING:
                self.close_part(now, lane, turn, sent, outcome)
            elif sent.state is PartState.UNKNOWN and outcome is SendOutcome.SENT:
                sent.state = PartState.SENT
        self.judge_echoes(now, self.lane(lane.conversation_id))
        if turn.end_reason or lane.turn is not turn:
            self._refuse(sid, ask=ask, turn_id=turn_id, epoch=epoch, reason=Reason.PAUSED)
            return self.open_next(now, lane)
        return self._go(now, sid, lane, turn, ask=ask)

    def finish(self, now: int, sid: int, *, ask: int, turn_id: str, epoch: int, version: int | None) -> None:
        """The turn is over; with a version, it and all older ones are in history."""
        found = self._find(turn_id, epoch)
        if not isinstance(found, Reason) and not found[1].complete:
            found = Reason.WRONG_STATE
        if isinstance(found, Reason):
            return self._refuse(sid, ask=ask, turn_id=turn_id, epoch=epoch, reason=found)
        lane, turn = found
        self.emit(sid, Committed(ask=ask, turn_id=turn_id, epoch=epoch, complete=True))
        if version is not None:
            self._all_recorded(lane, version)
        self.counters["replies"] += 1 if turn.parts and turn.kind is TurnKind.ANSWER else 0
        self.end_turn(now, lane, turn, self.end_reason(turn), recorded=version is not None)
        if turn.handoff:
            waiting = self.lane(lane.conversation_id)
            waiting.needs_human = True
            self.pause_lane(now, waiting, "handoff")
        return self.open_next(now, lane)

    def _all_recorded(self, lane: Lane, version: int) -> None:
        # The latest, not the highest: a store that was restored, moved or swept counts anew.
        lane.recorded_version = version or lane.recorded_version
        if lane.unrecorded:
            self.store.mark_recorded(lane, 1 << 62)

    def recorded(self, now: int, *, conversation_id: str, turn_id: str, version: int) -> None:
        """Answer to Record: ended turns up to this one are in history."""
        lane = self.raw(conversation_id)
        upto = self.store.ended_no(lane, turn_id)
        if not upto:
            return
        missing = lane.unrecorded
        self.store.mark_recorded(lane, upto)
        if lane.unrecorded < missing:
            # A repeated answer is about a version from before.
            lane.recorded_version = version or lane.recorded_version
        clock = self.clock(lane)
        if upto >= clock.record_upto:
            # Only the answer to what was handed out last: else every repeated answer calls forth another Record.
            clock.record_after = clock.record_tries = 0
            self.recording.discard(conversation_id)
        self.open_next(now, lane)

    def release(self, now: int, *, turn_id: str, epoch: int, failed: bool) -> None:
        """A worker gives a turn back. A part that it had begun would have been reported first."""
        found = self._find(turn_id, epoch)
        if isinstance(found, Reason):
            return
        lane, turn = found
        holder = self.runs[turn_id].holder
        if holder and not failed:
            # A worker that drains must not be handed the turn again at once.
            holder.capacity = 0
        if turn.in_flight:
            self.close_part(now, lane, turn, turn.in_flight, SendOutcome.NOT_STARTED)
        self.judge_echoes(now, self.lane(lane.conversation_id))
        if lane.turn is turn:
            self.lose(now, lane, turn, counts=failed)
        self.open_next(now, lane)
