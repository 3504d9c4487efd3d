"""One rate limit for all turns: a brake that every turn of an engine shares, and a budget that retries are paid from.

Without the brake each of a hundred turns learns of the same rate limit by its own refused call, and repeats it.
"""

import asyncio

from service_kit.clock import Clock

_FIRST_S = 1.0
_MAX_S = 60.0
_MAX_DOUBLINGS = 6
_RETRY_SHARE = 0.1
_RETRIES_AT_ONCE = 10.0


class Pass:
    """Leave for one call. `alone`: the others wait for how it goes."""

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone


class Brake:
    """Put on by a refusal, let go by time; then one call goes first, and the others only when it got through.

    Times are those of `clock.monotonic`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0
        self._refusals = 0
        self._first: Pass | None = None
        self._changed = asyncio.Event()

    @property
    def left_s(self) -> float:
        """How long it is still on; 0 when it is off."""
        return max(0.0, self._until - self._clock.monotonic())

    async def passed(self, *, by: float) -> Pass | None:
        """Wait until a call may be made; None when that will not be before `by`. Each pass is ended by `end`."""
        while True:
            if self.left_s == 0 and (not self._refusals or self._first is None):
                leave = Pass(alone=self._refusals > 0)
                self._first = leave if leave.alone else None
                return leave
            now = self._clock.monotonic()
            if now + self.left_s >= by:
                return None
            await self._change(within_s=self.left_s or by - now)

    def refused(self, retry_after_s: float | None) -> None:
        """The server limits us: hold for as long as it says, else twice as long as the last time; at most a minute."""
        if self.left_s == 0:
            # Calls that were under way when it was put on tell nothing new.
            self._refusals += 1
        guess = _FIRST_S * 2.0 ** min(self._refusals - 1, _MAX_DOUBLINGS)
        told = guess if retry_after_s is None else retry_after_s
        self._until = max(self._until, self._clock.monotonic() + min(told, _MAX_S))

    def got_through(self) -> None:
        """A call is being answered."""
        if self._refusals and self.left_s == 0:
            self._refusals = 0
            self._first = None
            self._notify()

    def end(self, leave: Pass) -> None:
        """The call of this pass is over, however it went: if the others waited for it, the next one goes first."""
        if self._first is leave:
            self._first = None
            self._notify()

    async def _change(self, *, within_s: float) -> None:
        waits = [
            asyncio.create_task(self._changed.wait(), name="brake-changed"),
            asyncio.create_task(self._clock.sleep(within_s), name="brake-time"),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class RetryBudget:
    """Retries are a tenth of all calls, whatever happens: an outage is not to be doubled by those who suffer it."""

    def __init__(self) -> None:
        self._left = _RETRIES_AT_ONCE

    def called(self) -> None:
        """A call was made that is no retry."""
        self._left = min(_RETRIES_AT_ONCE, self._left + _RETRY_SHARE)

    def take(self) -> bool:
        """Whether one more retry is allowed; it counts as made."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
