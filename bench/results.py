"""From slices to a table, and the same as JSON."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.load import Slice
from bench.stand_in import Reply

MAX_P50_RATIO = 2.0
MIN_THROUGHPUT_RATIO = 0.5


@dataclass(kw_only=True)
class Measured:
    """All rounds of one target."""

    latency: list[Slice] = field(default_factory=list)
    throughput: list[Slice] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)
    settle_s: list[float] = field(default_factory=list)

    @property
    def latencies_ms(self) -> list[float]:
        """Of all rounds, one message at a time."""
        return [one for part in self.latency for one in part.latencies_ms]

    @property
    def per_second(self) -> float:
        """Messages per second at saturation, over all rounds."""
        return sum(s.messages for s in self.throughput) / sum(s.seconds for s in self.throughput)

    def summary(self) -> dict[str, Any]:
        """The numbers."""
        loaded = sum(s.messages for s in self.throughput)
        return {
            "messages": loaded + len(self.latencies_ms),
            "p50_ms": round(percentile(self.latencies_ms, 50), 3),
            "p99_ms": round(percentile(self.latencies_ms, 99), 3),
            "messages_per_second": round(self.per_second, 1),
            "p50_under_load_ms": round(percentile([x for s in self.throughput for x in s.latencies_ms], 50), 1),
            "cpu_ms_per_message": {name: round(s * 1000 / loaded, 3) for name, s in self.cpu_s.items()},
            "settle_s": round(max(self.settle_s, default=0.0), 3),
        }


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the provider was asked to send, against what was posted."""

    posted: int
    unanswered: int
    repeated: int
    bubbles: Mapping[int, int]

    @property
    def exactly_once(self) -> bool:
        """Every message has one reply, and no bubble left twice."""
        return not self.unanswered and not self.repeated and len(self.bubbles) == 1


def answered(contacts: Sequence[str], replies: Mapping[str, Reply]) -> Answered:
    """Each contact wrote the same once: the reply has the same number of bubbles for all, and none of them twice."""
    found = [replies[contact].texts for contact in contacts if contact in replies]
    return Answered(
        posted=len(contacts),
        unanswered=len(contacts) - len(found),
        repeated=sum(len(texts) - len(set(texts)) for texts in found),
        bubbles=dict(sorted(Counter(len(texts) for texts in found).items())),
    )


def ratios(system: Measured, floor: Measured) -> dict[str, Any]:
    """System over floor: of all rounds together, and of each."""
    p50s = [
        percentile(s.latencies_ms, 50) / percentile(f.latencies_ms, 50)
        for s, f in zip(system.latency, floor.latency, strict=True)
    ]
    rates = [
        (s.messages / s.seconds) / (f.messages / f.seconds)
        for s, f in zip(system.throughput, floor.throughput, strict=True)
    ]
    return {
        "p50": round(percentile(system.latencies_ms, 50) / percentile(floor.latencies_ms, 50), 3),
        "p99": round(percentile(system.latencies_ms, 99) / percentile(floor.latencies_ms, 99), 3),
        "throughput": round(system.per_second / floor.per_second, 3),
        "p50_by_round": [round(one, 3) for one in p50s],
        "throughput_by_round": [round(one, 3) for one in rates],
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """Interpolated, so that two small samples can be compared."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(system: Measured, floor: Measured, found: Answered) -> str:
    """For people."""
    ours, theirs, ratio = system.summary(), floor.summary(), ratios(system, floor)
    lines = [f"{'':<26}{'system':>10}{'floor':>10}{'ratio':>8}  target"]
    rows = (
        ("p50 ms, one at a time", "p50_ms", "p50", f"at most {MAX_P50_RATIO:g}"),
        ("p99 ms, one at a time", "p99_ms", "p99", ""),
        ("messages per second", "messages_per_second", "throughput", f"at least {MIN_THROUGHPUT_RATIO:g}"),
    )
    for title, key, of, target in rows:
        lines.append(f"{title:<26}{ours[key]:>10.2f}{theirs[key]:>10.2f}{ratio[of]:>8.2f}  {target}".rstrip())
    for part in ("p50", "throughput"):
        rounds = " ".join(f"{one:.2f}" for one in ratio[f"{part}_by_round"])
        lines.append(f"ratio of {part} by round: {rounds}")
    for title, cpu in (("system", ours["cpu_ms_per_message"]), ("floor", theirs["cpu_ms_per_message"])):
        shares = ", ".join(f"{name} {ms:.2f}" for name, ms in cpu.items())
        lines.append(f"CPU ms per message under load, {title}: {shares}; together {sum(cpu.values()):.2f}")
    bubbles = ", ".join(f"{count} of {size}" for size, count in found.bubbles.items())
    lines.append(
        f"{found.posted} messages to the system, {found.unanswered} without a reply, {found.repeated} bubbles twice; "
        f"bubbles per reply: {bubbles}"
    )
    return "\n".join(lines)
