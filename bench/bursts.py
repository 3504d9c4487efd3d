"""Bursts over HTTP against the running system with a model that takes 1.5 s: how many get one reply, and what a hold
costs a lone message. `python -m bench.bursts [--quick] [--json FILE]`.

Texts and gaps come from `bench.burst_generator`. A reply is cut into one bubble, so that texts count replies. The
overhead of a lone message is its total minus the longer of hold and model; systems with other holds run side by side
and take turns, so only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.burst_generator import Pace, Thought, thoughts
from bench.load import Client, NotAnswered
from bench.stand_in import StandIn
from bench.targets import System

MODEL_MS = 1_500
ONE_REPLY = 0.95
MAX_OVERHEAD_RATIO = 1.2
HOLDS = (0, 400, 2_500)
ENOUGH_S = 15.0
# A question: the adaptive hold is then shorter than the model takes.
LONE = "quanto custa?"
PACES = (
    ("gaps of median 0.6 s, sigma 0.4", Pace(median_s=0.6, people_sigma=0, sigma=0.4), ONE_REPLY),
    ("gaps of median 1.5 s, sigma 0.6", Pace(median_s=1.5, people_sigma=0, sigma=0.6), None),
)
_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Bursts:
    """What one world of bursts gave."""

    world: str
    bursts: int
    messages: int
    in_one_reply: float
    replies_per_burst: float
    unanswered: int
    target: float | None


@dataclass(frozen=True, kw_only=True)
class Lone:
    """Lone messages under one hold; milliseconds, medians."""

    hold: str
    messages: int
    total_ms: float
    overhead_ms: float
    ratio: float


@asynccontextmanager
async def system(folder: Path, **settings: str) -> AsyncIterator[tuple[System, StandIn]]:
    """The product with a slow model, and its provider."""
    provider = StandIn()
    await provider.open()
    environ = {"SDR_INGRESS_MAX_PARTS": "1"}
    command = ("-m", "bench.slow_agent", str(MODEL_MS))
    environ |= {"SDR_BUFFER_COMMIT_HOLD_MS": "adaptive", **settings}
    target = System(folder, evolution_url=provider.url, settings=environ, agent_command=command)
    try:
        await target.start()
        yield target, provider
    finally:
        target.processes.stop()
        await provider.close()


async def burst(target: System, thought: Thought) -> str:
    """Writes one thought as one new person; the contact."""
    client = await Client.connect(target.port)
    contact = f"55819{91_000_000 + next(_numbers)}"
    start = time.perf_counter()
    try:
        for offset, text in thought.messages:
            await asyncio.sleep(max(0.0, start + offset / 1000 - time.perf_counter()))
            status = await client.post(target.webhooks.of(contact, text))
            if status != 200:
                raise NotAnswered(f"a webhook got {status}")
    finally:
        client.close()
    return contact


async def play(target: System, provider: StandIn, *, name: str, pace: Pace, bursts: int, goal: float | None) -> Bursts:
    """All bursts of a world, thirty at a time."""
    world = list(thoughts(11, people=bursts, each=1, pace=pace, lone=0, corrected=0))
    at_once = asyncio.Semaphore(30)

    async def one(thought: Thought) -> str:
        async with at_once:
            contact = await burst(target, thought)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENOUGH_S):
                    await provider.expect(contact)
            return contact

    contacts = await asyncio.gather(*(one(thought) for thought in world))
    await target.settle()
    await provider.wait_quiet(0.2)
    counts = [len(provider.replies[c].texts) if c in provider.replies else 0 for c in contacts]
    return Bursts(
        world=name,
        bursts=len(counts),
        messages=sum(len(t.messages) for t in world),
        in_one_reply=round(sum(c == 1 for c in counts) / len(counts), 4),
        replies_per_burst=round(statistics.fmean(counts), 3),
        unanswered=counts.count(0),
        target=goal,
    )


async def lone_messages(folder: Path, rounds: int) -> list[Lone]:
    """The same lone message under every hold, in turns."""
    names = [*map(str, HOLDS), "adaptive"]
    seen: dict[str, list[float]] = {name: [] for name in names}
    async with _all_systems(folder, names) as running:
        for number in range(rounds + 1):
            for name, (target, provider) in running.items():
                client = await Client.connect(target.port)
                contact = f"55819{92_000_000 + next(_numbers)}"
                answer = provider.expect(contact)
                posted = time.perf_counter()
                await client.post(target.webhooks.of(contact, LONE))
                async with asyncio.timeout(ENOUGH_S):
                    first_byte = await answer
                client.close()
                if number:  # the first round warms up
                    seen[name].append((first_byte - posted) * 1000)
    overheads = {name: statistics.median(seen[name]) - max(_hold(name), MODEL_MS) for name in names}
    return [
        Lone(
            hold=name,
            messages=len(seen[name]),
            total_ms=round(statistics.median(seen[name]), 1),
            overhead_ms=round(overheads[name], 1),
            ratio=round(overheads[name] / overheads["0"], 2),
        )
        for name in names
    ]


def _hold(name: str) -> int:
    return int(name) if name.isdigit() else 0


@asynccontextmanager
async def _all_systems(folder: Path, names: Sequence[str]) -> AsyncIterator[dict[str, tuple[System, StandIn]]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(system(folder / name, SDR_BUFFER_COMMIT_HOLD_MS=name))
            for name in names
        }


async def measure(folder: Path, *, bursts: int, rounds: int) -> tuple[list[Bursts], list[Lone]]:
    """Everything, in one run."""
    found = []
    async with system(folder / "bursts") as (target, provider):
        for name, pace, goal in PACES:
            found.append(await play(target, provider, name=name, pace=pace, bursts=bursts, goal=goal))
    return found, await lone_messages(folder, rounds)


def report(bursts: Sequence[Bursts], lone: Sequence[Lone]) -> str:
    """For people."""
    lines = [f"Bursts of 2 to 6 over HTTP, a model of {MODEL_MS} ms, default settings"]
    for b in bursts:
        goal = ""
        if b.target is not None:
            goal = f"; target {b.target:.0%}: {'met' if b.in_one_reply >= b.target else 'MISSED'}"
        lines.append(
            f"  {b.world}: {b.bursts} bursts, {b.messages} messages, one reply in {b.in_one_reply:.1%}, "
            f"{b.replies_per_burst} replies per burst, unanswered {b.unanswered}{goal}"
        )
    lines.append(f"A lone message, total minus max(hold, model); target {MAX_OVERHEAD_RATIO} times that at hold 0")
    for one in lone:
        verdict = "met" if one.ratio <= MAX_OVERHEAD_RATIO else "MISSED"
        lines.append(
            f"  hold {one.hold:>8}: total {one.total_ms:7.1f} ms, overhead {one.overhead_ms:5.1f} ms, "
            f"ratio {one.ratio:.2f}  {verdict}"
        )
    return "\n".join(lines)


def main() -> int:
    """Measures and prints; 1 when a burst got no answer, never because of a number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute; its numbers are coarse")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    arguments = parser.parse_args()
    bursts, rounds = (40, 6) if arguments.quick else (200, 20)
    with (
        tempfile.TemporaryDirectory(prefix="sdr-bench-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found, lone = runner.run(measure(Path(folder), bursts=bursts, rounds=rounds))
    print(report(found, lone))
    if arguments.json:
        data: dict[str, Any] = {"bursts": [asdict(b) for b in found], "lone": [asdict(one) for one in lone]}
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return 1 if any(b.unanswered for b in found) else 0


if __name__ == "__main__":
    sys.exit(main())
