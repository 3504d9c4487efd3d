"""Opening a store: a wrong one ends the process with a sentence, one that is away is waited for."""

from collections.abc import Awaitable, Callable

from context_service.store import ContextStore
from service_kit import logs
from service_kit.clock import Clock
from service_kit.errors import Unavailable
from service_kit.settings import ConfigurationError

RETRY_S = 1.0
_log = logs.get(__name__)


class Opening:
    """`check` raises ConfigurationError for what waiting won't mend, and Unavailable for what it may."""

    def __init__(self, *, store: ContextStore, check: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self.store = store
        self._check = check
        self._clock = clock
        self.done = False

    async def open(self) -> None:
        """Open it, or begin to wait for it. Raises ConfigurationError."""
        try:
            await self._check()
            self.done = True
        except Unavailable:
            # Leads are answered meanwhile; their turns are recorded when it is back.
            _log.warning("store_awaited")

    async def settled(self) -> None:
        """Return when it is open. Raises ConfigurationError when the one that came is the wrong one."""
        while not self.done:
            await self._clock.sleep(RETRY_S)
            try:
                await self.open()
            except ConfigurationError as error:
                _log.critical("store_refused", reason=str(error))
                raise
