"""The path's own cost: the running system beside the floor under it, in the same run, in turns.

`python -m bench.overhead [--quick] [--json FILE]`. Latency is from a webhook's first byte to the first byte of the
first sendText for its contact. Only the ratios mean something: the load shares the machine with both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.load import NotAnswered, Slice, closed_loop
from bench.processes import NotStarted
from bench.results import Measured, answered, ratios, table
from bench.stand_in import StandIn
from bench.targets import Floor, System, Target


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How long what is done."""

    rounds: int
    warm_up_s: float
    latency_s: float
    throughput_s: float
    concurrency: int
    # The rest of a reply, its record and its end are not the next message's cost.
    pause_s: float = 0.05


FULL = Profile(rounds=5, warm_up_s=3.0, latency_s=4.0, throughput_s=5.0, concurrency=32)
QUICK = Profile(rounds=2, warm_up_s=0.6, latency_s=0.8, throughput_s=0.8, concurrency=16)


class Run:
    """One target, its stand-in, and what was seen of it."""

    def __init__(self, target: Target, stand_in: StandIn) -> None:
        self.target = target
        self.stand_in = stand_in
        self.measured = Measured()
        self.contacts: list[str] = []

    async def load(self, *, concurrency: int, seconds: float, pause_s: float = 0.0) -> Slice:
        """One closed loop, and then quiet."""
        seen = await closed_loop(
            port=self.target.port,
            webhooks=self.target.webhooks,
            stand_in=self.stand_in,
            concurrency=concurrency,
            seconds=seconds,
            pause_s=pause_s,
        )
        self.contacts += seen.contacts
        self.measured.settle_s.append(await self.target.settle())
        return seen

    async def warm_up(self, profile: Profile) -> None:
        """Connections, caches, pages."""
        await self.load(concurrency=profile.concurrency, seconds=profile.warm_up_s)
        await self.load(concurrency=1, seconds=profile.warm_up_s / 3)

    async def latency(self, profile: Profile) -> None:
        """One message at a time."""
        self.measured.latency.append(await self.load(concurrency=1, seconds=profile.latency_s, pause_s=profile.pause_s))

    async def throughput(self, profile: Profile) -> None:
        """As much as goes."""
        before = self.target.processes.cpu_seconds()
        self.measured.throughput.append(await self.load(concurrency=profile.concurrency, seconds=profile.throughput_s))
        after = self.target.processes.cpu_seconds()
        for name, seconds in after.items():
            spent = self.measured.cpu_s.get(name, 0.0)
            self.measured.cpu_s[name] = spent + seconds - before[name]


async def measure(directory: Path, profile: Profile, settings: Mapping[str, str]) -> tuple[Run, Run]:
    """The system and the floor, taking turns."""
    stand_ins = StandIn(), StandIn()
    for one in stand_ins:
        await one.open()
    system = Run(System(directory / "system", evolution_url=stand_ins[0].url, settings=settings), stand_ins[0])
    floor = Run(Floor(directory / "floor", evolution_url=stand_ins[1].url), stand_ins[1])
    runs = [system, floor]
    try:
        await asyncio.gather(*(run.target.start() for run in runs))
        for run in runs:
            await run.warm_up(profile)
        for _ in range(profile.rounds):
            for run in runs:
                await run.latency(profile)
            for run in runs:
                await run.throughput(profile)
            # Whoever goes first finds a cooler machine.
            runs.reverse()
    finally:
        for run in runs:
            run.target.processes.stop()
        for one in stand_ins:
            await one.close()
    return system, floor


def fsync_ms(directory: Path) -> float:
    """What one durable write costs on this disk, the median of fifty."""
    took = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            started = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - started)
    return sorted(took)[25] * 1000


def report(system: Run, floor: Run, profile: Profile, disk_ms: float) -> tuple[str, dict[str, Any], bool]:
    """A text, the same as data, and whether every message was answered exactly once."""
    found = answered(system.contacts, system.stand_in.replies)
    data = {
        "profile": asdict(profile),
        "cores": os.cpu_count(),
        "fsync_ms": round(disk_ms, 3),
        "system": system.measured.summary(),
        "floor": floor.measured.summary(),
        "ratios": ratios(system.measured, floor.measured),
        "answered": {**asdict(found), "exactly_once": found.exactly_once},
    }
    heading = f"{os.cpu_count()} cores, a durable write {disk_ms:.2f} ms, {profile.concurrency} conversations at a time"
    text = f"{heading}\n\n{table(system.measured, floor.measured, found)}"
    return text, data, found.exactly_once


def main() -> int:
    """Measure and print; 1 when a message was not answered exactly once, never because of a number."""
    parser = argparse.ArgumentParser(description="The system's own cost beside the floor, measured in the same run.")
    parser.add_argument("--quick", action="store_true", help="at most 20 seconds, for CI; its numbers are coarse")
    parser.add_argument("--rounds", type=int, default=0, help="how often both take turns")
    parser.add_argument("--concurrency", type=int, default=0, help="conversations at a time under load")
    parser.add_argument("--pause-ms", type=float, default=50.0, help="between two messages when it is one at a time")
    parser.add_argument(
        "--max-parts", type=int, default=0, help="SDR_INGRESS_MAX_PARTS; 1: one send, as the floor does"
    )
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    parser.add_argument("--keep", type=Path, help="keep data and logs in this directory")
    arguments = parser.parse_args()
    chosen = QUICK if arguments.quick else FULL
    profile = Profile(
        **{
            **asdict(chosen),
            "rounds": arguments.rounds or chosen.rounds,
            "concurrency": arguments.concurrency or chosen.concurrency,
            "pause_s": arguments.pause_ms / 1000,
        }
    )
    settings = {"SDR_INGRESS_MAX_PARTS": str(arguments.max_parts)} if arguments.max_parts else {}
    directory = (arguments.keep or Path(tempfile.mkdtemp(prefix="sdr-bench-"))).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        disk_ms = fsync_ms(directory)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            system, floor = runner.run(measure(directory, profile, settings))
    except (NotStarted, NotAnswered) as error:
        print(f"The measurement broke off: {error}. Logs: {directory}", file=sys.stderr)
        return 1
    text, data, exactly_once = report(system, floor, profile, disk_ms)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    if not exactly_once:
        print(f"Not every message was answered exactly once; logs: {directory}", file=sys.stderr)
        return 1
    if not arguments.keep:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
