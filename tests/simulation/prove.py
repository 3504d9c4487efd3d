"""What the simulation shows, in numbers: `python -m tests.simulation.prove --seeds 1000 [--json]`.

Runs that many seeds per strategy in memory and a share over the real SQLite store, then the same kind of world with one
protection taken out at a time: a test that stays green without what it tests proves nothing. Ends with 1 when a promise
was broken, or a missing protection went unnoticed."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.simulation.model_face import SqliteDurable
from tests.simulation.teeth import TEETH, Tooth
from tests.simulation.world import World

STRATEGIES = ("enqueue", "preempt")
SQLITE_SHARE = 20
FAULTS = (
    "crash_b", "crash_w", "stop_b", "stop_w", "cut", "forgot", "poisoned", "send_REFUSED_RETRY", "send_REFUSED_FINAL",
    "send_UNKNOWN", "send_SLOW", "send_HANG",
)  # fmt: skip


@dataclass(kw_only=True)
class Row:
    """One line of the result."""

    promise: str
    operations: int
    faults: int
    violations: int
    note: str


class Counted(World):
    """Counts what the checker itself has no use for."""

    def redeliver(self, *args: Any) -> None:
        self.stats["redelivered"] += 1
        super().redeliver(*args)


@dataclass
class Totals:
    """Of many seeds. A violation counts once per seed and kind."""

    seeds: int = 0
    stats: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    heal_ms: list[int] = field(default_factory=list)

    def add(self, name: str, world: World, violations: list[str]) -> None:
        """One seed's run."""
        self.seeds += 1
        self.stats.update(world.stats)
        self.stats["acked"] += len(world.acked)
        self.stats["delivered"] += len(world.deliveries)
        self.stats["sends"] += len(world.sends)
        self.stats["recorded"] += len(world.rec_payload)
        self.heal_ms.append(world.heal_time)
        for kind in {v.split(":")[0] for v in violations}:
            self.kinds[kind] += 1
            self.examples.setdefault(kind, name)

    @property
    def faults(self) -> int:
        """Everything that went wrong on purpose."""
        return sum(self.stats[name] for name in FAULTS)


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Which violations break it, and what is counted as an operation."""

    name: str
    kinds: tuple[str, ...]
    operations: str
    note: Callable[[Totals], str]


def _at(values: list[int], share: float) -> int:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _heal(t: Totals) -> str:
    times = ", ".join(f"{name} {_at(t.heal_ms, share)}" for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1)))
    return f"turns; everything ended after healing, in ms: {times}"


def _lost(t: Totals) -> str:
    return f"acknowledged messages; each ended in exactly one turn; {t.stats['crash_b']} crashes of the buffer"


def _epochs(t: Totals) -> str:
    return f"permissions to send, each of the newest epoch, begun in its window; {t.stats['core_assign']} assignments"


def _once(t: Totals) -> str:
    unknown = t.stats["closed_UNKNOWN"]
    return f"sends begun; {unknown} parts ended UNKNOWN (perhaps delivered, counted, never sent again)"


def _stale(t: Totals) -> str:
    return f"first commits; {t.stats['refused_SUPERSEDED']} drafts were refused as superseded"


PROMISES = (
    Promise(name="I1", kinds=("LOST or doubled", "LOST", "SWALLOWED"), operations="acked", note=_lost),
    Promise(name="I2", kinds=("EPOCH", "EFFECT", "EFFECTS", "WINDOW"), operations="permitted", note=_epochs),
    Promise(
        name="I3", kinds=("ORDER", "OVERLAP", "MERGE", "GAP"), operations="delivered",
        note=lambda t: "deliveries; parts and turns in order, none before the one before it had ended",
    ),
    Promise(name="I4", kinds=("TWICE",), operations="sends", note=_once),
    Promise(
        name="I8", kinds=("LOST or doubled",), operations="redelivered",
        note=lambda t: "redelivered webhooks; none became a second message",
    ),
    Promise(name="I9", kinds=("STUCK", "LIVELOCK"), operations="core_open", note=_heal),
    Promise(name="no stale reply", kinds=("STALE",), operations="core_first", note=_stale),
    Promise(
        name="silent while a human answers", kinds=("PAUSED",), operations="core_pause",
        note=lambda t: "pauses; nothing was permitted in them",
    ),
    Promise(
        name="whole replies", kinds=("TRUNCATED", "MIXED"), operations="turns_answered",
        note=lambda t: f"turns answered; {t.stats['turns_truncated']} cut short, and marked so",
    ),
    Promise(
        name="true history", kinds=("RECORD", "RECORD ORDER"), operations="recorded",
        note=lambda t: "records; once, in order, what was said and what the model did for it",
    ),
)  # fmt: skip


def _run(totals: Totals, seed: int, strategy: str, **more: Any) -> None:
    world = Counted(seed, {"strategy": strategy, **more})
    try:
        try:
            violations = world.run()
        except Exception as error:
            violations = [f"STUCK: {type(error).__name__}"]
        totals.add(f"strategy={strategy} seed={seed}{' sqlite' * bool(more)}", world, violations)
    finally:
        if more:
            world.d.close()


def protected(seeds: int, first: int) -> tuple[Totals, int]:
    """Everything in its place; how many of the runs were over SQLite."""
    totals, over_sqlite = Totals(), max(1, seeds // SQLITE_SHARE)
    for strategy in STRATEGIES:
        for seed in range(first, first + seeds):
            _run(totals, seed, strategy)
        for seed in range(first + seeds, first + seeds + over_sqlite):
            _run(totals, seed, strategy, durable=SqliteDurable)
    return totals, over_sqlite * len(STRATEGIES)


def promise_rows(totals: Totals) -> Iterator[Row]:
    """One row for each promise."""
    for promise in PROMISES:
        broken = [kind for kind in promise.kinds if totals.kinds[kind]]
        example = f" FIRST: {totals.examples[broken[0]]} {broken[0]}" if broken else ""
        yield Row(
            promise=promise.name,
            operations=totals.stats[promise.operations],
            faults=totals.faults,
            violations=sum(totals.kinds[kind] for kind in broken),
            note=promise.note(totals) + example,
        )


def unprotected(tooth: Tooth, seeds: int) -> tuple[Row, bool]:
    """The same test with this protection off: in how many seeds the checker objects. True when it does, and is silent
    about the right build under the same faults."""
    off, with_it, faults = 0, 0, 0
    for seed in range(tooth.seed, tooth.seed + seeds):
        off += bool(tooth.caught(seed))
        world = tooth.world(seed, right=True)
        with_it += bool(world.run())
        faults += sum(world.stats[name] for name in FAULTS)
    note = f"protection off: violations in {off} of {seeds} seeds; with it in {with_it} of {seeds}"
    row = Row(promise=f"without: {tooth.reading}", operations=seeds, faults=faults, violations=off, note=note)
    return row, bool(off) and not with_it


def show(row: Row, *, as_json: bool) -> None:
    """Prints a row as soon as it is known."""
    if as_json:
        print(json.dumps(asdict(row), ensure_ascii=False), flush=True)
    else:
        counts = f"{row.operations:>10} {row.faults:>10} {row.violations:>6}"
        print(f"{row.promise:40} {counts}  {row.note}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.prove", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="per strategy (default 500)")
    parser.add_argument("--first", type=int, default=700_000, help="the first seed")
    parser.add_argument("--off-seeds", type=int, default=100, help="seeds for each protection that is off")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    options = parser.parse_args(arguments)
    if not options.json:
        print(f"{'promise':40} {'operations':>10} {'faults':>10} {'broken':>6}")
    totals, over_sqlite = protected(options.seeds, options.first)
    summary = Row(
        promise="simulation",
        operations=totals.seeds,
        faults=totals.faults,
        violations=sum(totals.kinds.values()),
        note=f"schedules, enqueue and preempt, {over_sqlite} of them over SQLite; {totals.stats['steps']} steps",
    )
    for row in (summary, *promise_rows(totals)):
        show(row, as_json=options.json)
    sound = not totals.kinds
    for tooth in TEETH:
        row, bites = unprotected(tooth, options.off_seeds)
        show(row, as_json=options.json)
        sound = sound and bites
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
