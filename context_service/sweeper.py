"""Deletes what is older than the business wants to keep, a little at a time."""

from context_service.store import ContextStore
from service_kit import logs
from service_kit.clock import Clock
from service_kit.errors import Unavailable

BATCH = 500
STEP_PAUSE_S = 0.2
ROUND_PAUSE_S = 3600.0
_DAY_MS = 86_400_000
_log = logs.get(__name__)


class Sweeper:
    """One per process; several replicas do no harm to each other."""

    def __init__(self, *, store: ContextStore, clock: Clock, retention_days: float) -> None:
        self._store = store
        self._clock = clock
        self._retention_ms = round(retention_days * _DAY_MS)

    async def run(self) -> None:
        """Sweep until cancelled; 0 days keep everything."""
        while self._retention_ms:
            try:
                await self.sweep()
            except Unavailable:
                _log.warning("retention_sweep_postponed")
            await self._clock.sleep(ROUND_PAUSE_S)

    async def sweep(self) -> int:
        """Everything that is too old now; how many rows are gone. Errors: Unavailable."""
        before_ms, gone = self._clock.now_ms() - self._retention_ms, 0
        while (swept := await self._store.sweep(before_ms, limit=BATCH)).total:
            gone += swept.total
            # Turns are recorded in between.
            await self._clock.sleep(STEP_PAUSE_S)
        if gone:
            _log.info("retention_swept", rows=gone)
        return gone
