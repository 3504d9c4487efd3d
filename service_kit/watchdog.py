"""Notices a blocked event loop: keepalive does not, it is answered from other threads."""

import asyncio
import faulthandler
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from service_kit import logs

EXIT_BLOCKED = 70
_TICK_S = 0.1
_THREAD_TICK_S = 0.25
_REMEMBER_S = 5.0
_UNHEALTHY_S = 2.0
_log = logs.get(__name__)


def _log_lag(lag_s: float) -> None:
    _log.warning("loop_lagged", lag_ms=round(lag_s * 1000))


class LoopWatchdog:
    """Measures the loop's lag; says unhealthy while it is bad, and ends the process when it stays blocked."""

    def __init__(
        self, *, warn_s: float = 1.0, abort_s: float = 10.0, on_lag: Callable[[float], None] | None = None
    ) -> None:
        self._warn_s = warn_s
        self._abort_s = abort_s
        self._on_lag = on_lag or _log_lag
        self._lags: deque[tuple[float, float]] = deque()
        self._last_tick = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._stopped = threading.Event()

    @property
    def lag_s(self) -> float:
        """The worst lag of the last five seconds."""
        return self._worst(_REMEMBER_S)

    @property
    def healthy(self) -> bool:
        """False while a lag worth a warning was seen in the last two seconds."""
        return self._worst(_UNHEALTHY_S) <= self._warn_s

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._last_tick = time.monotonic()
        self._stopped.clear()
        self._task = asyncio.create_task(self._measure(), name="loop-watchdog")
        threading.Thread(target=self._guard, name="loop-watchdog", daemon=True).start()

    async def stop(self) -> None:
        """End the task and the thread."""
        self._stopped.set()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _worst(self, within_s: float) -> float:
        since = time.monotonic() - within_s
        return max((lag for at, lag in self._lags if at >= since), default=0.0)

    async def _measure(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            lag = max(0.0, now - before - _TICK_S)
            self._last_tick = now
            self._lags.append((now, lag))
            while self._lags[0][0] < now - _REMEMBER_S:
                self._lags.popleft()
            if lag > self._warn_s:
                self._on_lag(lag)

    def _guard(self) -> None:
        blocked_since = self._last_tick
        while True:
            before = time.monotonic()
            if self._stopped.wait(_THREAD_TICK_S):
                return
            now = time.monotonic()
            if now - before > _THREAD_TICK_S + self._warn_s:
                # This thread slept too: the whole process was stopped or starved, the loop is not to blame.
                blocked_since = now
            blocked_since = max(blocked_since, self._last_tick)
            if now - blocked_since > self._abort_s:
                self._abort()

    def _abort(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"event loop blocked for more than {self._abort_s:g} s, giving up\n")
            faulthandler.dump_traceback(all_threads=True)
        os._exit(EXIT_BLOCKED)
