"""Breaks a copy of the tree in fifteen ways and sees whether the tests notice: `python -m tests.sabotage.run [--json]`.

A build counts as caught when a test that was named for it fails; one that can't even be imported doesn't.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.sabotage.builds import BUILDS, Build

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "data", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "docs"
)
AT_ONCE = 2
LONGEST_S = 120
_FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the named tests said of a build."""

    build: Build
    caught: bool
    by: str


def edit(tree: Path, build: Build) -> None:
    """Breaks a copy. Raises ValueError when the text isn't there exactly once: the table must follow the code."""
    for one in build.edits:
        path = tree / one.file
        text = path.read_text(encoding="utf-8")
        if text.count(one.old) != 1:
            raise ValueError(f"{build.name}: {one.file} has {text.count(one.old)} times: {one.old!r}")
        path.write_text(text.replace(one.old, one.new), encoding="utf-8")


def tried(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Pytest's exit code and output."""
    environ = {
        **os.environ,
        "PYTHONPATH": f"{tree}:{tree / 'protos'}",
        "POWER_LOSS_TRIALS": "12",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=LONGEST_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return -1, "took too long"
    return done.returncode, done.stdout


def sabotage(build: Build) -> Outcome:
    """One build in a tree of its own."""
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        edit(tree, build)
        code, output = tried(tree, build.caught_by)
    failed = _FAILED.search(output)
    if code == 1 and failed:
        return Outcome(build=build, caught=True, by=failed.group(1))
    return Outcome(build=build, caught=False, by=output[-400:])


def sabotage_all(builds: Sequence[Build] = BUILDS) -> list[Outcome]:
    """All of them, two at a time."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(sabotage, builds))


def main() -> int:
    """Prints who caught what; 1 when a build went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    outcomes = sabotage_all()
    for one in outcomes:
        row = {
            "promise": one.build.promise,
            "test": f"sabotage: {one.build.name}",
            "operations": 1,
            "faults": 1,
            "violations": 0 if one.caught else 1,
            "note": f"`{one.by}`" if one.caught else one.by,
        }
        print(json.dumps(row) if arguments.json else f"{'caught' if one.caught else 'NOT CAUGHT'}: {row}")
    return 0 if all(one.caught for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
