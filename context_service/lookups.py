"""A context, looked up once for all who ask at the same time."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, TypeVar

from context_service.domain import ContextQuery, Conversation, HistoryMessage, Lead
from context_service.store import ContextStore
from service_kit.clock import Clock
from service_kit.errors import Unavailable

T = TypeVar("T")
_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Timed(Generic[T]):
    """A result and how long it took, in seconds."""

    value: T
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What is known of a conversation at one version, and the seconds that each lookup took."""

    lead: Lead | None
    conversation: Conversation | None
    history: tuple[HistoryMessage, ...]
    version: int
    lead_s: float
    conversation_s: float
    history_s: float


@dataclass(kw_only=True)
class _Flight:
    task: asyncio.Task[Loaded]
    min_version: int
    readers: int = 0


class ContextLoader:
    """Looks up lead, conversation and history together; readers of one conversation share the lookup.

    Errors are shared and never kept. A lookup is not shared with a reader that asks for a higher version than the one
    it was begun for: it may have been begun before that version was recorded.
    """

    def __init__(self, *, store: ContextStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._flights: dict[ContextQuery, _Flight] = {}
        self._tasks: set[asyncio.Task[Loaded]] = set()

    async def load(self, query: ContextQuery, min_version: int) -> Loaded:
        """The context, at least at that version. Errors: Unavailable when the store is behind or fails."""
        flight = self._flights.get(query)
        if flight is None or flight.min_version < min_version:
            flight = self._begin(query, min_version)
        flight.readers += 1
        try:
            loaded = await asyncio.shield(flight.task)
        finally:
            flight.readers -= 1
            if not flight.readers and not flight.task.done():
                self._abandon(query, flight)
        if loaded.version < min_version:
            raise Unavailable("The store does not have that version yet; try again.", component="store")
        return loaded

    async def close(self) -> None:
        """Cancel the lookups that are still under way."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, query: ContextQuery, min_version: int) -> _Flight:
        task = asyncio.create_task(self._look_up(query), name="context-lookup")
        flight = _Flight(task=task, min_version=min_version)
        self._flights[query] = flight
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._land(query, flight))
        return flight

    def _abandon(self, query: ContextQuery, flight: _Flight) -> None:
        # Taken off at once: a reader that comes before the cancellation has arrived must not share it.
        if self._flights.get(query) is flight:
            del self._flights[query]
        flight.task.cancel()

    def _land(self, query: ContextQuery, flight: _Flight) -> None:
        self._tasks.discard(flight.task)
        if self._flights.get(query) is flight:
            del self._flights[query]
        if not flight.task.cancelled():
            # Every reader may have gone; asyncio would complain that nobody looked at the error.
            flight.task.exception()

    async def _look_up(self, query: ContextQuery) -> Loaded:
        for _ in range(_TRIES):
            loaded = await self._look_up_once(query)
            if loaded is not None:
                return loaded
        raise Unavailable("The conversation changes faster than it can be read; try again.", component="store")

    async def _look_up_once(self, query: ContextQuery) -> Loaded | None:
        """None when a turn was recorded between the lookups, so that they are not of one version."""
        try:
            async with asyncio.TaskGroup() as group:
                lead = group.create_task(self._timed(self._store.find_lead(query)))
                conversation = group.create_task(self._timed(self._store.find_conversation(query)))
                history = group.create_task(self._timed(self._store.recent_messages(query)))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        seen = conversation.result().value
        if not lead.result().value.version == seen.version == history.result().value.version:
            return None
        return Loaded(
            lead=lead.result().value.value,
            conversation=seen.value,
            history=history.result().value.value,
            version=seen.version,
            lead_s=lead.result().seconds,
            conversation_s=conversation.result().seconds,
            history_s=history.result().seconds,
        )

    async def _timed(self, lookup: Awaitable[T]) -> Timed[T]:
        began = self._clock.monotonic()
        value = await lookup
        return Timed(value=value, seconds=self._clock.monotonic() - began)
