"""Wrong builds: readings of the design that once looked right, and plain sabotage. Each keeps everything else as it is,
so that what the checker says about it is about that one rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from buffer_service.turn_taking.entities import (
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
from buffer_service.turn_taking.frames import Reason
from buffer_service.turn_taking.sessions import Commit, Run, Session
from tests.simulation.model_face import Witnessed

# ---- plain sabotage


class NoFence(Witnessed):
    """Takes frames of any epoch."""

    def _find(self, turn_id: str, epoch: int) -> tuple[Lane, Turn] | Reason:
        run = self.runs.get(turn_id)
        turn = self.raw(run.conversation_id).turn if run else None
        return super()._find(turn_id, turn.epoch if turn else epoch)


class NeverSuperseded(Witnessed):
    """Sends replies that were made from fewer messages than the turn has."""

    def _first_commit(self, now: int, sid: int, lane: Lane, turn: Turn, commit: Commit, *, since: int) -> None:
        real, turn.revision = turn.revision, min(turn.revision, commit.revision)
        try:
            super()._first_commit(now, sid, lane, turn, commit, since=since)
        finally:
            turn.revision = real


class SendsAgain(Witnessed):
    """Sends again what may have been sent."""

    def close_part(self, now: int, lane: Lane, turn: Turn, part: Part, outcome: SendOutcome) -> None:
        super().close_part(now, lane, turn, part, outcome)
        if part.state is PartState.UNKNOWN:
            part.state = PartState.STORED


class ForgetsPending(Witnessed):
    """Loses what arrived while it worked, as the monolith did."""

    def take_message(self, now: int, lane: Lane, message: InboxMessage) -> None:
        if lane.turn is None or not lane.turn.parts:
            super().take_message(now, lane, message)


class TalksOverHumans(Witnessed):
    """A pause doesn't end the turn."""

    def pause_lane(self, now: int, lane: Lane, reason: str) -> None:
        turn, lane.turn = lane.turn, None
        super().pause_lane(now, lane, reason)
        lane.turn = turn


class NoDeduplication(Witnessed):
    """Takes a redelivered message for a new one."""

    def enqueue(self, now: int, conversation_id: str, incoming: Any) -> Any:
        scope = self.store.lane(conversation_id).scope
        self.store.messages.pop((scope, incoming.message_id), None)  # type: ignore[attr-defined]
        return super().enqueue(now, conversation_id, incoming)


class ShortWindow(Witnessed):
    """Declares a send unknown while it may still be under way."""

    def _attempt(self, now: int, sid: int, turn: Turn, index: int, part: Part) -> Any:
        go = super()._attempt(now, sid, turn, index, part)
        self.runs[turn.turn_id].window = now + 3_000
        return go


# ---- readings of the buffer's rules


class KeepsByName(Witnessed):
    """keep_check: a worker keeps what it names, whatever the epoch."""

    def _may_keep(self, turn: Turn, worker: str, epoch: int) -> bool:
        return not turn.in_flight or turn.sender == worker


class KeepsAnybodysSend(KeepsByName):
    """keep_check and attempting_keep: whoever names a turn gets it, also in the middle of another's send."""

    def _may_keep(self, turn: Turn, worker: str, epoch: int) -> bool:
        return True


class AttemptingKeptByAnybody(Witnessed):
    """attempting_keep: the sender isn't asked for; the epoch still is."""

    def _may_keep(self, turn: Turn, worker: str, epoch: int) -> bool:
        holder = self.runs[turn.turn_id].holder
        return epoch == turn.epoch and (holder is None or holder.worker == worker)


class EpochInMemory(Witnessed):
    """epoch: raised in memory, written with the next frame of the worker only."""

    def _written(self) -> dict[str, int]:
        written: dict[str, int] = self.store.__dict__.setdefault("written_epochs", {})
        return written

    def _touch(self, now: int, sid: int, turn: Turn) -> None:
        super()._touch(now, sid, turn)
        self._written()[turn.turn_id] = turn.epoch

    def restore(self, now: int, lanes: Iterable[Lane]) -> None:
        held = list(lanes)
        for lane in held:
            if lane.turn:
                lane.turn.epoch = self._written().get(lane.turn.turn_id, 0)
        super().restore(now, held)


class WindowEndsWithTheProcess(Witnessed):
    """restart_window: a restart closes what was being sent."""

    def restore(self, now: int, lanes: Iterable[Lane]) -> None:
        held = list(lanes)
        super().restore(now, held)
        for lane in held:
            if lane.turn and lane.turn.in_flight:
                self.runs[lane.turn.turn_id].window = now
                self.touch(lane)
        self.settle(now)


class KeepsReopenedReply(Witnessed):
    """reopen: a first part that comes back refused keeps the reply, although messages may join now."""

    def _refused(self, now: int, turn: Turn, part: Part, outcome: SendOutcome) -> None:
        kept = turn.parts, turn.last, turn.effects, turn.handoff, turn.truncated
        super()._refused(now, turn, part, outcome)
        turn.parts, turn.last, turn.effects, turn.handoff, turn.truncated = kept

    def _first_commit(self, now: int, sid: int, lane: Lane, turn: Turn, commit: Commit, *, since: int) -> None:
        old = tuple(p.text for p in turn.parts)
        commit = replace(commit, parts=old + commit.parts[len(old) :])
        super()._first_commit(now, sid, lane, turn, commit, since=since)


class ApologisesOnce(Witnessed):
    """apology: a failed apology ends the turn."""

    def lose(self, now: int, lane: Lane, turn: Turn, *, counts: bool) -> None:
        super().lose(now, lane, turn, counts=counts)
        if turn.kind is TurnKind.APOLOGY and turn.attempts > self.policy.max_attempts:
            self.end_turn(now, lane, turn, EndReason.FINISHED)

    def let_go(self, now: int, lane: Lane, turn: Turn) -> None:
        if lane.turn is turn:
            super().let_go(now, lane, turn)


class ApologyTakesMessages(Witnessed):
    """apology_joins: what comes while an apology waits joins it."""

    def _joinable(self, now: int, turn: Turn, message: InboxMessage) -> bool:
        kind, turn.kind = turn.kind, TurnKind.ANSWER
        try:
            return super()._joinable(now, turn, message)
        finally:
            turn.kind = kind


class PausesAtTheNextRefusal(Witnessed):
    """pause: noticed when the worker asks next; the worker ends the turn."""

    def pause_lane(self, now: int, lane: Lane, reason: str) -> None:
        if not lane.paused:
            self.log("pause", lane.conversation_id)
        lane.pause = Pause(since=now, renewed_at=now, reason=reason)

    def close_part(self, now: int, lane: Lane, turn: Turn, part: Part, outcome: SendOutcome) -> None:
        pause, lane.pause = lane.pause, None
        super().close_part(now, lane, turn, part, outcome)
        lane.pause = pause
        if pause:
            self.drop_rest(turn)

    def _go(self, now: int, sid: int, lane: Lane, turn: Turn, *, ask: int, **more: Any) -> None:
        if lane.paused and not turn.in_flight:
            return self._refuse(sid, ask=ask, turn_id=turn.turn_id, epoch=turn.epoch, reason=Reason.PAUSED)
        return super()._go(now, sid, lane, turn, ask=ask, **more)

    def finish(self, now: int, sid: int, *, ask: int, turn_id: str, epoch: int, version: int | None) -> None:
        found = self._find(turn_id, epoch)
        if not isinstance(found, Reason) and found[0].paused and not found[1].in_flight:
            self.drop_rest(found[1])
        super().finish(now, sid, ask=ask, turn_id=turn_id, epoch=epoch, version=version)


class GoesOnAfterAGap(Witnessed):
    """refused_final: the parts after one that was refused for good are still sent."""

    def drop_rest(self, turn: Turn) -> None:
        if all(p.state is not PartState.REFUSED for p in turn.parts):
            super().drop_rest(turn)


class MergesHalf(Witnessed):
    """merge: pending messages and the pause stay with the younger conversation."""

    def merge(self, now: int, older: Lane, younger: Lane) -> None:
        pause, younger.pause = younger.pause, None
        super().merge(now, older, younger)
        younger.pause = pause

    def _move_pending(self, younger: Lane) -> None:
        return


# ---- rules that are a second line: alone they change nothing, with the first line gone they hold


class JudgesAtReceiptOnly(Witnessed):
    """parked: a parked Commit is stored as it was judged when it came."""

    def let_go(self, now: int, lane: Lane, turn: Turn) -> None:
        parked = self.runs[turn.turn_id].parked
        pause = lane.pause
        if parked and parked.commit and now >= self._parked_until(now, lane, turn, parked):
            commit = replace(parked.commit, epoch=turn.epoch, revision=turn.revision)
            self.runs[turn.turn_id].parked = replace(parked, commit=commit)
            lane.pause = None
        super().let_go(now, lane, turn)
        lane.pause = lane.pause or pause


class JoinLeavesThePark(Witnessed):
    """The first line gone: a message that joins doesn't take the parked Commit away."""

    def _join(self, now: int, lane: Lane, turn: Turn, message: InboxMessage) -> None:
        run = self.runs[turn.turn_id]
        parked, run.parked = run.parked, None
        super()._join(now, lane, turn, message)
        run.parked = parked


class JoinLeavesTheParkAndNobodyJudges(JudgesAtReceiptOnly, JoinLeavesThePark):
    """Both lines gone."""


# ---- rules that are economy: their price is time or a bubble, not a broken promise


class ReleaseCrossesTheSend(Witnessed):
    """release: a part that was permitted and never begun stays under way when its worker gives the turn back."""

    def release(self, now: int, *, turn_id: str, epoch: int, failed: bool) -> None:
        found = self._find(turn_id, epoch)
        if isinstance(found, Reason) or not found[1].in_flight:
            return super().release(now, turn_id=turn_id, epoch=epoch, failed=failed)
        return self.lose(now, *found, counts=failed)


class NoFreshLease(Witnessed):
    """fresh_lease: after a restart every turn is anybody's at once."""

    def restore(self, now: int, lanes: Iterable[Lane]) -> None:
        held = list(lanes)
        super().restore(now, held)
        for run in self.runs.values():
            run.not_before = now
        for lane in held:
            self.touch(lane)
        self.settle(now)


class UnnamedStaysHeld(Witnessed):
    """unnamed: what a worker doesn't name stays its turn."""

    def hello(self, now: int, sid: int, *, worker: str, capacity: int, holding: Iterable[tuple[str, int]]) -> None:
        named = list(holding)
        kept: list[Run] = []
        for session in self.sessions.values():
            if session.worker == worker:
                kept += [self.runs[t] for t in session.held if t not in dict(named)]
                session.held = {t: None for t in session.held if t in dict(named)}
        super().hello(now, sid, worker=worker, capacity=capacity, holding=named)
        new: Session = self.sessions[sid]
        for run in kept:
            turn = self.raw(run.conversation_id).turn
            if turn:
                run.holder = new
                new.held[turn.turn_id] = None
