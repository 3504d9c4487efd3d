"""Time as an argument: a protocol, the real clock, and one that tests move by hand."""

import asyncio
import heapq
import itertools
import time
from typing import Protocol

# Wall time of the monotonic zero, taken once: a later jump of the wall clock cannot move `now_ms`.
_ANCHOR_NS = time.time_ns() - time.monotonic_ns()


class Clock(Protocol):
    """The only source of time for code that decides something by time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, never going backwards."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin, for measuring lengths."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for that long on this clock."""
        ...


class SystemClock:
    """The wall clock of process start, advanced by the monotonic clock."""

    def now_ms(self) -> int:
        return (_ANCHOR_NS + time.monotonic_ns()) // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until `advance`, which wakes the sleepers whose time has come."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = float(start_ms)
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return int(self._now_ms)

    def monotonic(self) -> float:
        return self._now_ms / 1000

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_ms + seconds * 1000, next(self._order), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many tasks are asleep, so that a test can wait until one is."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    def advance(self, ms: float) -> None:
        """Move time forward and wake, in the order of their due times, those who slept until then."""
        self._now_ms += ms
        while self._sleepers and self._sleepers[0][0] <= self._now_ms:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
