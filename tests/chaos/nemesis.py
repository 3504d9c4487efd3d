"""Faults by a seed: who, what, when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import time
from dataclasses import dataclass, field

from tests.chaos.fleet import BLOCK_S, LEASE_S, Fleet
from tests.chaos.history import Injected
from tests.chaos.load import Load
from tests.stand_ins.evolution_answers import Fault

PROVIDER_FAULTS = (
    "accept_then_reset", "accept_then_hang", "accept_then_500", "reset", "connection_closed_500", "rate_limited",
    "bad_gateway",
)  # fmt: skip
YOUNG_S = 0.3


@dataclass(kw_only=True)
class Nemesis:
    """Breaks one fleet. Every fault that it injects is in `faults`."""

    fleet: Fleet
    dice: random.Random
    faults: list[Injected] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._victims = itertools.cycle(self.fleet.members)

    def _note(self, kind: str, victim: str, lasts: float = 0.0) -> None:
        now = time.time()
        self.faults.append(Injected(at=now, kind=kind, victim=victim, until=now + lasts))

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(fault.kind == "kill" for fault in self.faults)

    async def kill(self, name: str) -> None:
        """kill -9, once it is up."""
        member = self.fleet.members[name]
        while not member.alive or member.age < YOUNG_S:
            await asyncio.sleep(0.02)
        self._note("kill", name)
        member.send(signal.SIGKILL)

    async def kill_next(self) -> None:
        """Everybody in turn, at a random moment of its life."""
        await self.kill(next(self._victims))

    async def stop(self, name: str, seconds: float) -> None:
        """SIGSTOP, later SIGCONT."""
        member = self.fleet.members[name]
        if not member.alive:
            return
        self._note("stop", name, seconds)
        member.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        member.send(signal.SIGCONT)

    async def block(self, name: str) -> None:
        """The event loop stands still, other threads run on."""
        member = self.fleet.members[name]
        # Before it has its handler, the signal would kill it.
        if member.alive and member.age > 3:
            self._note("block", name, BLOCK_S)
            member.send(signal.SIGUSR1)

    async def partition(self, seconds: float) -> None:
        """The second ingress and the buffer can't hear each other, and nobody tells them."""
        self._note("partition", "ingress-1", seconds)
        self.fleet.proxy.stall()
        await asyncio.sleep(seconds)
        self.fleet.proxy.heal()

    async def cut(self) -> None:
        """The second ingress's connections to the buffer are reset."""
        self._note("cut", "ingress-1")
        self.fleet.proxy.cut()

    async def rolling_restart(self) -> None:
        """SIGTERM to each in turn, as a deployment does."""
        for name, member in self.fleet.members.items():
            if member.alive and member.age > 2:
                self._note("term", name)
                starts = member.starts
                member.send(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(25):
                        while member.starts == starts:
                            await asyncio.sleep(0.05)

    def provoke(self) -> None:
        """The provider misbehaves at the next send."""
        self._note("provider", kind := self.dice.choice(PROVIDER_FAULTS))
        self.fleet.provider.faults.append(Fault(kind=kind))

    async def rage(self, load: Load, *, kills: int, others: bool = True) -> None:
        """Kills so many, everything else in between."""
        beside: set[asyncio.Task[None]] = set()
        while self.kills < kills:
            await asyncio.sleep(self.dice.uniform(0.6, 2.2))
            if self.dice.random() < 0.25:
                self.provoke()
            if others and self.dice.random() < 0.12 and not beside:
                task = asyncio.create_task(self._other(load), name="nemesis-other")
                beside.add(task)
                task.add_done_callback(beside.discard)
            await self.kill_next()
        await asyncio.gather(*beside)

    async def _other(self, load: Load) -> None:
        ingress = self.dice.choice(list(self.fleet.ingress_urls))
        choice = self.dice.randrange(6)
        if choice == 0:
            await self.stop(ingress, 3 * LEASE_S)
        elif choice == 1:
            await self.stop("buffer_service", 1.5 * LEASE_S)
        elif choice == 2:
            await self.block(self.dice.choice([ingress, "buffer_service", "agent_service"]))
        elif choice == 3:
            await self.partition(3 * LEASE_S)
        elif choice == 4:
            self._note("overload", "ingress")
            await load.flood(60)
        else:
            await self.rolling_restart()
