"""The numbers: `python -m tests.storage_faults.prove [--trials 2000] [--json]`. Ends with 1 when something was lost."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.storage_faults.history import judge_all
from tests.storage_faults.trials import deaths, power_losses


def rows(trials: int) -> Iterator[dict[str, Any]]:
    """One per promise and way to break it."""
    result = power_losses(trials)
    row = {
        "promise": "I1p",
        "what": "what was acknowledged survives a power loss",
        "test": "power loss, lossy VFS",
        "operations": result.acknowledged,
        "faults": result.trials,
        "in_flight": result.trials,
        "violations": len(result.problems),
    }
    yield row
    weak = power_losses(max(20, trials // 20), level="NORMAL")
    yield {
        **row,
        "test": "the same with synchronous=NORMAL",
        "operations": weak.acknowledged,
        "faults": weak.trials,
        "in_flight": weak.trials,
        "violations": len(weak.problems),
        "protection_off": True,
    }
    with tempfile.TemporaryDirectory(prefix="deaths-") as base:
        found = list(deaths(Path(base)))
    yield {
        "promise": "I1",
        "what": "what was acknowledged survives death at any operation",
        "test": "kill at every write and sync of one ingest and one send, with and without power loss",
        "operations": sum(told.count for _, told, _ in found),
        "faults": len(found),
        "in_flight": len(found),
        "violations": sum(len(problems) for _, _, problems in found),
    }
    with tempfile.TemporaryDirectory(prefix="deaths-") as base:
        judged = asyncio.run(judge_all(Path(base)))
    yield {
        "promise": "I1",
        "what": "a recorded turn is whole or absent, and the retry completes it once",
        "test": "kill at every statement, write and sync of one RecordTurn, with and without power loss",
        "operations": 2 * len(judged),
        "faults": len(judged),
        "in_flight": len(judged),
        "violations": sum(bool(problem) for problem in judged),
    }


def main() -> int:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    bad = False
    for row in rows(arguments.trials):
        print(json.dumps(row) if arguments.json else row)
        bad |= bool(row["violations"]) != bool(row.get("protection_off"))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
