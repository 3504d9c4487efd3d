"""Where the time of a turn went: instants on one line, so that the segments between them sum to the whole."""

from __future__ import annotations

from dataclasses import dataclass, field

# In the order in which they can happen; a mark that never came lends its segment to the next one.
SEGMENTS = ("wait", "context", "discarded", "first_token", "first_part", "hold", "first_send", "rest", "record")


@dataclass(slots=True)
class Timeline:
    """Marks of one turn, in seconds of a monotonic clock. `start` is when the oldest message was accepted."""

    start: float
    marks: dict[str, float] = field(default_factory=dict)
    messages: int = 0
    parts: int = 0
    restarts: int = 0
    degraded: bool = False
    provider_lag_ms: int = 0
    """From the sender's phone to the acceptance, by the provider's clock (1 s resolution); before `start`."""

    def mark(self, segment: str, now: float) -> None:
        """This segment ends now; only its first end counts, but for the ones that go on to the last part."""
        if segment in ("rest", "record") or segment not in self.marks:
            self.marks[segment] = now

    def restart(self, now: float) -> None:
        """What was generated is discarded: its marks are made anew, and the time it took has its own segment."""
        self.restarts += 1
        self.marks["discarded"] = now
        for segment in ("first_token", "first_part", "hold"):
            self.marks.pop(segment, None)

    def segments_ms(self) -> dict[str, float]:
        """Milliseconds per segment; they sum to `total_ms`."""
        out: dict[str, float] = {}
        at = self.start
        for name in SEGMENTS:
            end = max(self.marks.get(name, at), at)
            out[name] = round((end - at) * 1000, 1)
            at = end
        return out

    @property
    def total_ms(self) -> float:
        """From acceptance to the last mark."""
        return round((max(self.marks.values(), default=self.start) - self.start) * 1000, 1)
