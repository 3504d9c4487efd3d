"""How long to go on waiting for a service that may be out. Pure: instants are arguments, seconds of a monotonic clock.

    TRUSTED --trouble--> DOUBTED --no answer for GRACE_S--> OUT
       ^--------------------+----any answer----------------'

One call that hangs says something about one conversation, so it is only a reason to doubt: whoever owns this then asks
a question of its own, and the service is taken for out when nobody got an answer for the whole grace. That long a
service may take to restart without anybody noticing. While it is out nobody waits; the owner asks on until it answers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

GRACE_S = 1.0
DOUBT_S = 0.5
# A service that takes its time, but answers, is worth waiting for.
SLOWER = 1.5
PAUSE_MIN_S = 0.25
PAUSE_MAX_S = 1.0


class Trust(enum.StrEnum):
    """What is thought of the service."""

    TRUSTED = "trusted"
    DOUBTED = "doubted"
    OUT = "out"


@dataclass(kw_only=True)
class Patience:
    """One service's, shared by all who wait for it. `full_s` is how long a call of a trusted service may take."""

    full_s: float
    trust: Trust = Trust.TRUSTED
    pace_s: float = 0.0
    """How long the latest answer took."""
    proven_at: float = 0.0
    """Doubted: when it is taken for out, unless it answers."""
    out_since: float = 0.0
    """Out: since when."""

    @property
    def overdue_s(self) -> float:
        """After this long a call without an answer is a reason to doubt."""
        return min(self.full_s, max(DOUBT_S, SLOWER * self.pace_s))

    def trouble(self, now: float, *, since: float) -> bool:
        """A call failed, or has been overdue since then. True: this begins the doubt, and its owner has to ask."""
        if self.trust is not Trust.TRUSTED:
            return False
        self.trust = Trust.DOUBTED
        # Also when the trouble is noticed late, a question must have the time that an answer takes.
        self.proven_at = max(since + GRACE_S, now + self.overdue_s)
        return True

    def judge(self, now: float) -> bool:
        """True: the doubt is proven, and who waits is to be let go."""
        if self.trust is not Trust.DOUBTED or now < self.proven_at:
            return False
        self.trust, self.out_since = Trust.OUT, now
        return True

    def answered(self, *, took_s: float | None = None) -> bool:
        """It answered; `took_s` when the call was one whose length says something. True: it was out until now."""
        was_out = self.trust is Trust.OUT
        self.trust = Trust.TRUSTED
        if took_s is not None:
            self.pace_s = took_s
        return was_out


def pause_s(failures: int) -> float:
    """Between two questions, after that many failed ones."""
    return min(PAUSE_MIN_S * 2.0 ** min(max(0, failures - 1), 10), PAUSE_MAX_S)
