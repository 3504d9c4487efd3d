"""The knobs of turn-taking, in milliseconds unless a name says otherwise."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from buffer_service.turn_taking.hold import AdaptiveHold


class Strategy(enum.StrEnum):
    """When a turn opens, and whether messages may join one that runs."""

    ENQUEUE = "enqueue"
    FIXED_DELAY = "fixed_delay"
    PREEMPT = "preempt"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Defaults are the design's; see docs/architecture.md for what each one buys."""

    strategy: Strategy = Strategy.ENQUEUE
    lease: int = 3_000
    window: int = 12_000  # send time-out 10 s + 2 s
    hold: int | AdaptiveHold = 400
    max_hold: int = 8_000
    composing: int = 2_000
    quiet: int = 700
    busy_timeout: int = 10_000
    fixed_delay: int = 10_000
    deadline: int = 30_000
    min_remaining: int = 10_000
    reserve: int = 3_000
    max_attempts: int = 5
    max_messages: int = 50
    max_bytes: int = 1 << 20
    record_retry: int = 2_000
    record_retry_max: int = 16_000
    handoff_quiet: int = 8 * 3_600_000
    stale_after: int = 3_600_000
    evidence: int = 60_000

    @property
    def forgotten_after(self) -> int:
        """How long a worker may be silent about a turn before it is taken for forgotten."""
        return self.deadline + self.window + 5_000
