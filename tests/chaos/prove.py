"""The long profile: `python -m tests.chaos.prove [--kills 500] [--rounds 5] [--seed N] [--keep DIR] --json`.

Prints one JSON object per row; without --json a text. Exit code 1 unless every run passes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos import scenarios
from tests.chaos.checker import Report, Verdict

PROMISES = {
    "I1": "what was acknowledged is never lost",
    "I2": "one turn in flight, effects of its holder only",
    "I3": "order of messages, turns and bubbles",
    "I4": "no bubble is sent twice",
    "I5": "nobody gets another conversation's words",
    "I8": "a repeated webhook is recorded once",
    "I9": "nothing is stranded, everything is answered and recorded",
    "truncated": "a reply ends early only after five attempts",
}


def rows(test: str, report: Report) -> list[dict[str, Any]]:
    """One per promise."""
    operations = {
        "I1": report.acked,
        "I2": report.attempts_checked,
        "I3": report.delivered,
        "I4": report.delivered,
        "I5": report.canaries_seen,
        "I8": report.attempted,
        "I9": report.turns,
        "truncated": report.answered,
    }
    common = {
        "test": test,
        "verdict": report.verdict.value,
        "faults": sum(report.faults.values()),
        "in_flight": report.faults_in_flight,
        "unknown": report.unknown,
        "parts": report.delivered,
        "stale_refused": report.stale_refused,
        "phases": dict(report.phases),
        "kinds": dict(report.faults),
        "recovery_s": quantiles(report.recovery_s),
        "takeover_s": quantiles(report.takeover_s),
        "takeover_sending_s": quantiles(report.takeover_sending_s),
    }
    return [
        {
            "promise": promise,
            "what": what,
            "operations": operations[promise],
            "violations": len(report.violations[promise]),
            **common,
        }
        for promise, what in PROMISES.items()
    ]


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest."""
    if not values:
        return {}
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": round(statistics.median(ordered), 2), "p99": round(p99, 2), "max": round(ordered[-1], 2)}


async def prove(*, kills: int, rounds: int, seed: int, folder: Path) -> list[tuple[str, Report]]:
    """All runs, one after the other."""
    runs = [
        ("random faults", lambda f: scenarios.random_faults(seed, kills, f)),
        ("one of two ingresses", lambda f: scenarios.one_of_two(seed + 1, rounds, f)),
        ("stopped worker", lambda f: scenarios.stopped_worker(seed + 2, 2 * rounds, f)),
    ]
    found = []
    for name, work in runs:
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True)
        report = await work(place)
        print(f"{name}: {report}", file=sys.stderr)
        found.append((name, report))
    return found


def main() -> int:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="keep logs and stores there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    found = asyncio.run(prove(kills=arguments.kills, rounds=arguments.rounds, seed=arguments.seed, folder=folder))
    if arguments.json:
        for name, report in found:
            for row in rows(name, report):
                print(json.dumps(row))
    return 0 if all(report.verdict is Verdict.PASS for _, report in found) else 1


if __name__ == "__main__":
    sys.exit(main())
