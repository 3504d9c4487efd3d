"""Runs every rig and writes docs/promises.md: `make prove` (long), `make prove ARGS=--short`.

`--from FILE …` takes the rows of earlier runs (`python -m tests.chaos.prove --json > FILE`) instead of running a rig.
Ends with 1 when a promise was broken, a run proved nothing, or a missing protection went unnoticed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "promises.md"
RIGS: dict[str, tuple[list[str], list[str]]] = {
    # Name, how to run it long, and what shortens it.
    "simulation": (["tests.simulation.prove", "--seeds", "5000"], ["--seeds", "200"]),
    "storage_faults": (["tests.storage_faults.prove", "--trials", "2000"], ["--trials", "150"]),
    "chaos": (["tests.chaos.prove", "--kills", "500", "--rounds", "5"], ["--kills", "20", "--rounds", "1"]),
    "sabotage": (["tests.sabotage.run"], []),
}
WORDS = {
    "I1": "A message acknowledged with 200 is never lost",
    "I1p": "… nor across a power loss",
    "I2": "One turn in flight per conversation, and only its holder has effects",
    "I3": "Messages, turns and bubbles keep their order",
    "I4": "No bubble is sent twice",
    "I5": "Nobody is told another conversation's words",
    "I8": "A redelivered webhook is recorded once",
    "I9": "Nothing is stranded: every turn ends, is answered and recorded",
    "truncated": "A reply ends early only after five attempts",
}
ELSEWHERE = (
    ("I6: memory is bounded, refusals are explicit",
     "admission: `tests/contract/`, `tests/system/test_errors_contract.py` (BUFFER_FULL); the edge's limits: "
     "`tests/ingress/test_edge.py`; cost and memory against what is stored: `python -m bench.growth`"),
    ("I11: SIGTERM drains within 20 s",
     "`tests/system/test_life.py`; \"term\" among the faults of the chaos rig; `tests/system/test_upgrade.py`"),
    ("I12: recovery is bounded", "the columns recovery and takeover above"),
    ("I22: clock jumps break nothing",
     "leases and windows run on a clock that never jumps: `tests/service_kit/test_clock.py`; set back between two "
     "processes: `tests/buffer_service/test_shipped_bugs.py`"),
)  # fmt: skip


def run(name: str, *, short: bool) -> list[dict[str, Any]]:
    """The rows of one rig."""
    arguments, shorter = RIGS[name]
    command = [sys.executable, "-m", *arguments, *(shorter if short else []), "--json"]
    print(f"{name}: {' '.join(command[2:])}", file=sys.stderr)
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    done = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True, check=False)
    return read(name, done.stdout.splitlines())


def read(rig: str, lines: Iterable[str]) -> list[dict[str, Any]]:
    """Rows, with the rig that they come from."""
    return [{"rig": rig, **json.loads(line)} for line in lines if line.startswith("{")]


def unprotected(row: dict[str, Any]) -> bool:
    """It shows what happens without a protection."""
    return bool(row.get("protection_off")) or str(row["promise"]).startswith("without")


def fails(row: dict[str, Any]) -> bool:
    """A broken promise, a run that proves nothing, or a protection that nobody would miss."""
    if unprotected(row):
        return not row["violations"]
    return bool(row["violations"]) or row.get("verdict") in ("fail", "invalid")


def page(rows: Sequence[dict[str, Any]], *, commit: str, when: str, earlier: Sequence[str] = ()) -> str:
    """The whole page."""
    held, bare = [r for r in rows if not unprotected(r)], [r for r in rows if unprotected(r)]
    sabotage = [r for r in held if r["rig"] == "sabotage"]
    kept = [r for r in held if r["rig"] != "sabotage"]
    lines = [
        "# What was shown",
        "",
        f"Written by `make prove` on {when} at {commit}; every row is one run of one rig.",
        *([f"Taken from an earlier run of the same day: {', '.join(earlier)}."] if earlier else []),
        "*Upper bound* is the 95 % bound for the rate of violations per operation that so many operations without one",
        "allow (3 / n). *In flight* are faults that hit a turn at work. UNKNOWN are bubbles whose fate the provider",
        "left open: counted, never sent again.",
        "",
        "| promise | rig, test | operations | faults (in flight) | broken | bound | UNKNOWN | back in s (p50, p99) |",
        "|---|---|---|---|---|---|---|---|",
        *(_kept(row) for row in sorted(kept, key=lambda r: (str(r["promise"]), r["rig"]))),
        "",
        *_phases(kept),
        "Under *random faults* the buffer dies more often than an attempt window (12 s) lasts, and a restart begins",
        "windows anew, so a bubble on its way may block its conversation until the storm is over; how soon the other",
        "worker takes over is judged under *one of two ingresses*.",
        "",
        "## The same tests with a protection off",
        "",
        "A test that stays green without what it tests proves nothing.",
        "",
        "| protection that was taken away | rig | operations | violations |",
        "|---|---|---|---|",
        *(f"| {_name(r)} | {r['rig']} | {r['operations']:,} | {r['violations']:,} |" for r in bare),
        "",
    ]
    if sabotage:
        lines += ["## Broken builds", "", "| build | found by |", "|---|---|"]
        lines += [f"| {_name(r)} | {'**not found**' if r['violations'] else r.get('note', '')} |" for r in sabotage]
        lines.append("")
    lines += ["## Promises with a test of their own", "", "| promise | test |", "|---|---|"]
    lines += [f"| {promise} | {test} |" for promise, test in ELSEWHERE]
    return "\n".join(lines) + "\n"


def _name(row: dict[str, Any]) -> str:
    name = str(row["promise"]).removeprefix("without: ")
    test = str(row.get("test", "")).removeprefix("sabotage: ")
    return test or name


def _kept(row: dict[str, Any]) -> str:
    operations, parts = row["operations"], row.get("parts", 0)
    bound = f"{3 / operations:.1e}" if operations and not row["violations"] else "-"
    unknown = f"{row['unknown']} of {parts:,}" if parts else "-"
    recovery = row.get("recovery_s") or {}
    faults = f"{row['faults']:,}" + (f" ({row['in_flight']:,})" if "in_flight" in row else "")
    words = WORDS.get(row["promise"], "")
    promise = f"{row['promise']}: {words}" if words else str(row["promise"])
    return (
        f"| {promise} | {row['rig']}: {row.get('test') or row.get('note', '')} | {operations:,} | {faults} | "
        f"{row['violations']} | {bound} | {unknown} | "
        f"{'{p50} / {p99}'.format(**recovery) if recovery else '-'} |"
    )


def _phases(rows: Sequence[dict[str, Any]]) -> list[str]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["rig"] == "chaos":
            found[row["test"]] = row
    lines: list[str] = []
    for test, row in found.items():
        phases = ", ".join(f"{name} {count:,}" for name, count in sorted(row["phases"].items(), key=lambda p: -p[1]))
        kinds: dict[str, int] = defaultdict(int)
        for name, count in row.get("kinds", {}).items():
            kinds[name] += count
        taken = {k: v for k in ("takeover_s", "takeover_sending_s") if (v := row.get(k))}
        told = [f"turns that a fault hit, by phase: {phases}"]
        told += ["faults: " + ", ".join(f"{k} {v}" for k, v in kinds.items())] if kinds else []
        told += [f"stale effects refused: {row['stale_refused']}"]
        told += [f"{name}: p50 {t['p50']}, p99 {t['p99']}, at most {t['max']}" for name, t in taken.items()]
        lines += [f"**{test}.** " + ". ".join(told) + ".", ""]
    return lines


def main() -> int:
    """Runs, writes, and says what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="minutes instead of an hour")
    parser.add_argument("--rig", action="append", choices=RIGS, help="only this one (repeat for more)")
    parser.add_argument(
        "--from", dest="earlier", nargs="*", default=[], metavar="RIG=FILE", help="rows of earlier runs"
    )
    parser.add_argument("--write", type=Path, default=PAGE)
    arguments = parser.parse_args()
    earlier = dict(one.split("=", 1) for one in arguments.earlier)
    rows: list[dict[str, Any]] = []
    for name in arguments.rig or RIGS:
        if name in earlier:
            rows += read(name, Path(earlier[name]).read_text(encoding="utf-8").splitlines())
        else:
            rows += run(name, short=arguments.short)
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    text = page(rows, commit=git.stdout.strip() or "no commit", when=time.strftime("%Y-%m-%d"), earlier=sorted(earlier))
    arguments.write.write_text(text, encoding="utf-8")
    bad = [row for row in rows if fails(row)]
    for row in bad:
        print(f"FAILED: {json.dumps(row)}", file=sys.stderr)
    print(f"{len(rows)} rows in {arguments.write}, {len(bad)} failed")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
