"""Does the cost grow with what is stored? `python -m bench.growth [--quick] [--json FILE]`.

Two buffers, one with ten conversations and one with many, answer by turns, one whole turn at a time: Enqueue, Assign,
Commit, Committed(go), Result, Finish over gRPC with a hold of 0, durability on. Before that both do the same number of
turns, in the large one each in another conversation. Only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.buffer_worker import BufferWorker, Took
from bench.fill import fill
from bench.overhead import fsync_ms
from bench.processes import NotStarted, Processes, free_ports
from bench.results import percentile
from buffer_service.settings import BufferSettings
from service_kit.settings import load

FEW = 10
AT_ONCE = 8
MAX_RATIO = 1.3
MAX_BYTES_EACH = 50.0
MINUTE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much is stored, and how much is done."""

    stored: int
    active: int
    turns: int
    rounds: int


FULL = Profile(stored=100_000, active=5_000, turns=150, rounds=4)
QUICK = Profile(stored=10_000, active=500, turns=40, rounds=3)


@dataclass(kw_only=True)
class Buffer:
    """One buffer process with so many stored conversations, and what was measured of it."""

    stored: int
    processes: Processes
    address: str
    environ: dict[str, str]
    worker: BufferWorker = field(init=False)
    rounds: list[list[Took]] = field(default_factory=list)
    fill_s: float = 0.0
    start_s: float = 0.0
    recent: int = 0
    rss_bytes: int = 0

    @classmethod
    def make(cls, folder: Path, stored: int) -> Buffer:
        [port] = free_ports(1)
        environ = {
            "SDR_DATA_DIR": str(folder / "data"),
            "SDR_BUFFER_ADDRESS": f"127.0.0.1:{port}",
            # The path is measured, not what it waits for on purpose.
            "SDR_BUFFER_COMMIT_HOLD_MS": "0",
        }
        return cls(stored=stored, processes=Processes(folder), address=f"127.0.0.1:{port}", environ=environ)

    async def start(self, stack: AsyncExitStack) -> None:
        """Fills the store and starts the process on it."""
        started = time.perf_counter()
        fill(load(BufferSettings, environ=self.environ, env_file=None).path, self.stored)
        self.fill_s = time.perf_counter() - started
        stack.callback(self.processes.stop)
        started = time.perf_counter()
        self.processes.start("buffer_service", ["-m", "buffer_service"], self.environ)
        await self.processes.wait_listening(int(self.address.rpartition(":")[2]), seconds=120.0)
        self.start_s = time.perf_counter() - started
        self.worker = await stack.enter_async_context(BufferWorker.connected(self.address, capacity=2 * AT_ONCE))

    async def work(self, conversations: Sequence[int]) -> None:
        """A turn in each of these, several at once; no two at once in the same."""

        async def one(share: Sequence[int]) -> None:
            for number in share:
                await self.worker.turn(number)

        async with asyncio.TaskGroup() as group:
            for first in range(AT_ONCE):
                group.create_task(one([n for n in conversations if n % AT_ONCE == first]))

    def of(self, part: str) -> list[float]:
        """All milliseconds of "enqueue" or "whole"."""
        return [getattr(took, part) for took in self.all]

    @property
    def all(self) -> list[Took]:
        """Of all rounds."""
        return [took for found in self.rounds for took in found]

    def p50s(self, part: str) -> list[float]:
        """By round."""
        return [percentile([getattr(took, part) for took in found], 50) for found in self.rounds]


async def measure(folder: Path, profile: Profile) -> list[Buffer]:
    """Both, side by side."""
    chance = random.Random(7)
    few, many = Buffer.make(folder / "few", FEW), Buffer.make(folder / "many", profile.stored)
    async with AsyncExitStack() as stack:
        for one in (few, many):
            await one.start(stack)
        await few.work([number % FEW for number in range(profile.active)])
        recent = chance.sample(range(profile.stored), profile.active)
        await many.work(recent)
        worked = time.monotonic()
        for _ in range(profile.rounds):
            await _round(few, many, profile.turns, chance)
        for one in (few, many):
            one.recent = one.worker.conversations_since(worked - MINUTE_S)
            one.rss_bytes = one.processes.rss_bytes()["buffer_service"]
            one.processes.check()
    return [few, many]


async def _round(few: Buffer, many: Buffer, turns: int, chance: random.Random) -> None:
    pair = [few, many]
    for one in pair:
        one.rounds.append([])
    for _ in range(turns):
        for one in pair:
            one.rounds[-1].append(await one.worker.turn(chance.randrange(one.stored)))
        # Whoever goes first finds a cooler machine.
        pair.reverse()


def numbers(few: Buffer, many: Buffer) -> dict[str, Any]:
    """The same as the report, as data."""
    found: dict[str, Any] = {"stored": [few.stored, many.stored], "recent": [few.recent, many.recent]}
    for part in ("enqueue", "whole"):
        p50s = [percentile(one.of(part), 50) for one in (few, many)]
        by_round = [b / a for a, b in zip(few.p50s(part), many.p50s(part), strict=True)]
        found[part] = {
            "p50_ms": [round(p50, 3) for p50 in p50s],
            "p99_ms": [round(percentile(one.of(part), 99), 3) for one in (few, many)],
            "ratio": round(p50s[1] / p50s[0], 3),
            "ratio_by_round": [round(ratio, 3) for ratio in by_round],
        }
    found["rss_bytes"] = [few.rss_bytes, many.rss_bytes]
    found["bytes_each"] = round((many.rss_bytes - few.rss_bytes) / (many.stored - few.stored), 1)
    found["turns"] = [len(one.all) for one in (few, many)]
    found["fill_s"] = [round(one.fill_s, 1) for one in (few, many)]
    found["start_s"] = [round(one.start_s, 2) for one in (few, many)]
    return found


def report(found: dict[str, Any], disk_ms: float) -> str:
    """For people."""
    few, many = found["stored"]
    lines = [
        f"{os.cpu_count()} cores, a durable write {disk_ms:.2f} ms; {found['turns'][0]} turns in each, in turns; "
        f"{found['recent'][1]} of the {many} with a turn in the last minute",
        f"{'stored conversations':<26}{few:>10}{many:>10}{'ratio':>8}  target",
    ]
    for title, part in (("p50 ms of Enqueue", "enqueue"), ("p50 ms of a whole turn", "whole")):
        ours = found[part]
        rounds = " ".join(f"{ratio:.2f}" for ratio in ours["ratio_by_round"])
        lines.append(
            f"{title:<26}{ours['p50_ms'][0]:>10.2f}{ours['p50_ms'][1]:>10.2f}{ours['ratio']:>8.2f}  "
            f"at most {MAX_RATIO:g}: {_verdict(ours['ratio'] <= MAX_RATIO)} (by round: {rounds})"
        )
    # SQLite's page cache fills up once, and weighs more than fewer conversations may.
    enough = many >= FULL.stored
    each = _verdict(found["bytes_each"] <= MAX_BYTES_EACH) if enough else f"judged with {FULL.stored} only"
    sizes = [size / (1 << 20) for size in found["rss_bytes"]]
    lines.append(
        f"{'MiB resident':<26}{sizes[0]:>10.1f}{sizes[1]:>10.1f}{'':>8}  {found['bytes_each']:g} bytes for each "
        f"conversation, at most {MAX_BYTES_EACH:g}: {each}"
    )
    lines.append(f"{'seconds to start':<26}{found['start_s'][0]:>10.1f}{found['start_s'][1]:>10.1f}")
    return "\n".join(lines)


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def main() -> int:
    """Measures and prints; 1 when a turn was not answered, never because of a number."""
    parser = argparse.ArgumentParser(description="The cost of a turn with few and with many stored conversations.")
    parser.add_argument("--quick", action="store_true", help="ten times less is stored; its numbers are coarse")
    for name in ("stored", "active", "turns"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    arguments = parser.parse_args()
    chosen = QUICK if arguments.quick else FULL
    asked = {name: getattr(arguments, name) for name in ("stored", "active", "turns") if getattr(arguments, name)}
    profile = Profile(**{**asdict(chosen), **asked})
    with tempfile.TemporaryDirectory(prefix="sdr-bench-") as folder:
        disk_ms = fsync_ms(Path(folder))
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                few, many = runner.run(measure(Path(folder), profile))
        except (NotStarted, TimeoutError, ExceptionGroup) as error:
            print(f"The measurement broke off: {error!r}", file=sys.stderr)
            return 1
    found = numbers(few, many)
    print(report(found, disk_ms))
    if arguments.json:
        data = {"profile": asdict(profile), "cores": os.cpu_count(), "fsync_ms": round(disk_ms, 3), **found}
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
