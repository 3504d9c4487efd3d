"""The runs: what is broken while people write, and how much of it makes the run count."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.chaos.checker import Needed, Report, check
from tests.chaos.fleet import LEASE_S, fleet
from tests.chaos.history import collect
from tests.chaos.load import Load
from tests.chaos.nemesis import Nemesis

DRAIN_S = 120.0
PHASES_OF_A_TURN = frozenset({"thinking", "held", "sending", "between parts"})
Breaking = Callable[[Nemesis, Load], Awaitable[None]]


async def run(
    breaking: Breaking, *, seed: int, needed: Needed, writers: int = 8, folder: Path | None = None, **settings: str
) -> Report:
    """Two ingresses on one buffer, people who write, something that breaks; then everything heals and is judged."""
    dice = random.Random(seed)
    folder = folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    async with fleet(folder, ingresses=2, **settings) as running:
        load = Load(http=running.http, urls=list(running.ingress_urls.values()), dice=random.Random(seed + 1))
        nemesis = Nemesis(fleet=running, dice=dice)
        writing = asyncio.create_task(load.run(writers), name="load")
        await asyncio.sleep(3)
        await breaking(nemesis, load)
        await asyncio.sleep(2)
        load.stop()
        await running.heal()
        await writing
        drained = await running.drained(DRAIN_S)
    return check(collect(running, load.people, nemesis.faults, drained=drained), needed)


async def random_faults(seed: int, kills: int, folder: Path | None = None) -> Report:
    """kill -9 of every process in turn, and everything else in between."""

    async def breaking(nemesis: Nemesis, load: Load) -> None:
        await nemesis.rage(load, kills=kills, others=kills > 20)

    phases = PHASES_OF_A_TURN if kills >= 50 else frozenset({"thinking"})
    needed = Needed(acked=2 * kills, faults_in_flight=kills // 2, phases=phases)
    return await run(breaking, seed=seed, needed=needed, folder=folder)


async def stopped_worker(seed: int, rounds: int = 1, folder: Path | None = None) -> Report:
    """SIGSTOP of a worker for three lease times: what it wants to do afterwards is refused."""

    async def breaking(nemesis: Nemesis, load: Load) -> None:
        for number in range(rounds):
            await nemesis.stop(f"ingress-{number % 2}", 3 * LEASE_S)
            await asyncio.sleep(3)

    needed = Needed(acked=20, faults_in_flight=1, stale_refused=1)
    return await run(breaking, seed=seed, needed=needed, folder=folder)


async def one_of_two(seed: int, rounds: int = 1, folder: Path | None = None) -> Report:
    """The second ingress is killed, stopped and partitioned; the other one takes over."""

    async def breaking(nemesis: Nemesis, load: Load) -> None:
        for _ in range(rounds):
            await nemesis.kill("ingress-1")
            await asyncio.sleep(3 * LEASE_S)
            await nemesis.stop("ingress-1", 3 * LEASE_S)
            await asyncio.sleep(2)
            await nemesis.partition(3 * LEASE_S)
            await asyncio.sleep(2)
            await nemesis.cut()
            await asyncio.sleep(2)

    needed = Needed(acked=40, faults_in_flight=2, stale_refused=1)
    return await run(breaking, seed=seed, needed=needed, folder=folder)
