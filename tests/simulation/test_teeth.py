"""The checker objects to sabotaged cores; if it didn't, the green runs beside it would prove nothing."""

from __future__ import annotations

from typing import Any

import pytest

from buffer_service.turn_taking.entities import Lane, Part, PartState, SendOutcome, Turn
from buffer_service.turn_taking.frames import Reason
from buffer_service.turn_taking.sessions import Commit
from tests.simulation.model_face import Witnessed
from tests.simulation.world import World


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

    def take_message(self, now: int, lane: Lane, message: Any) -> None:
        if lane.turn is None or not lane.turn.parts:
            super().take_message(now, lane, message)


class TalksOverHumans(Witnessed):
    """A pause doesn't end the turn."""

    def pause_lane(self, now: int, lane: Lane, reason: str) -> None:
        turn, lane.turn = lane.turn, None
        super().pause_lane(now, lane, reason)
        lane.turn = turn


@pytest.mark.slow
@pytest.mark.parametrize("core", [NoFence, NeverSuperseded, SendsAgain, ForgetsPending, TalksOverHumans])
def test_sabotage_is_caught(core: type[Witnessed]) -> None:
    for seed in range(200_000, 201_500):
        try:
            if World(seed, {"strategy": "preempt", "core": core}).run():
                return
        except Exception:
            return  # a sabotaged core may also contradict itself
    pytest.fail(f"{core.__name__} went unnoticed")
