"""How long a reply waits for the lead to go on. Only the reply waits: the computation has begun long ago."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Cue(enum.StrEnum):
    """What the last message itself says about whether more will follow."""

    FINISHED = "finished"
    NEUTRAL = "neutral"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, kw_only=True)
class AdaptiveHold:
    """A multiple of this person's usual gap between two messages of one thought; the cue says which. Milliseconds."""

    usual_gap: int = 1_000
    """Of somebody who is not known yet."""
    longest_gap: int = 4_000
    """A longer silence is not a gap inside a thought, so it doesn't count."""
    newest_counts: float = 0.3
    """Weight of the newest gap in the moving average."""
    finished: float = 0.3
    neutral: float = 2.0
    unfinished: float = 2.6

    def after(self, cue: Cue, average_gap: int) -> int:
        """Milliseconds of quiet to wait for; `average_gap` 0 means unknown."""
        times = {Cue.FINISHED: self.finished, Cue.NEUTRAL: self.neutral, Cue.UNFINISHED: self.unfinished}
        return round(times[cue] * (average_gap or self.usual_gap))

    def average(self, average_gap: int, gap: int) -> int:
        """The moving average with one more gap; 0 as long as nothing is known."""
        if not 0 < gap <= self.longest_gap:
            return average_gap
        before = average_gap or self.usual_gap
        return max(1, round(before + self.newest_counts * (gap - before)))
