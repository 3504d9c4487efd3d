"""A context, looked up once for all who ask at the same time, and kept for the next turn in front of remote stores."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from context_service.cache import ContextCache, Snapshot, Ticket
from context_service.domain import (
    ContextQuery,
    Conversation,
    Erased,
    HistoryMessage,
    Lead,
    LeadPatch,
    Recorded,
    Summary,
    TurnRecord,
    UsageToday,
)
from context_service.store import ContextStore
from service_kit.clock import Clock
from service_kit.errors import Unavailable

T = TypeVar("T")
MERGES_KEPT = 10_000
_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Timed(Generic[T]):
    """A result and how long it took, in seconds."""

    value: T
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What is known of a conversation at one version: `history` is what follows the summary and fits into the budget.
    The seconds that each lookup took are zeros when it came from the cache."""

    lead: Lead | None
    conversation: Conversation | None
    history: tuple[HistoryMessage, ...]
    history_cut: bool
    usage: UsageToday
    version: int
    cache_hit: bool = False
    lead_s: float = 0.0
    conversation_s: float = 0.0
    history_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Found:
    snapshot: Snapshot
    lead_s: float
    conversation_s: float
    history_s: float


@dataclass(kw_only=True)
class _Flight:
    task: asyncio.Task[_Found]
    min_version: int
    readers: int = 0


class Contexts:
    """Reads contexts, and makes every write that changes what they hold, so that the cache knows.

    Lead, conversation, history and usage are looked up together; readers of one conversation share the lookup. Errors
    are shared and never kept. A lookup is not shared with a reader that asks for a higher version than the one it was
    begun for: it may have been begun before that version was recorded.
    """

    def __init__(self, *, store: ContextStore, clock: Clock, cache: ContextCache) -> None:
        self._store = store
        self._clock = clock
        self._cache = cache
        self._flights: dict[ContextQuery, _Flight] = {}
        self._tasks: set[asyncio.Task[_Found]] = set()
        # Conversations whose merge the cache knows of, the oldest first: the buffer names them with every later turn.
        self._merged: dict[str, None] = {}

    # ---- reading

    async def load(self, query: ContextQuery, min_version: int) -> Loaded:
        """The context, at least at that version. Errors: Unavailable when the store is behind or fails."""
        cached = self._cached(query, min_version)
        if cached is not None:
            return _loaded(cached, query, cache_hit=True)
        flight = self._flights.get(query)
        if flight is None or flight.min_version < min_version:
            flight = self._begin(query, min_version)
        flight.readers += 1
        try:
            found = await asyncio.shield(flight.task)
        finally:
            flight.readers -= 1
            if not flight.readers and not flight.task.done():
                self._abandon(query, flight)
        if found.snapshot.version < min_version:
            raise Unavailable("The store does not have that version yet; try again.", component="store")
        loaded = _loaded(found.snapshot, query)
        return replace(loaded, lead_s=found.lead_s, conversation_s=found.conversation_s, history_s=found.history_s)

    async def close(self) -> None:
        """Cancel the lookups that are still under way."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- writing; the verbs are those of the store

    async def record_turn(self, record: TurnRecord) -> Recorded:
        """See `ContextStore.record_turn`."""
        ticket, recorded = self._ticket(), None
        try:
            recorded = await self._store.record_turn(record)
        finally:
            self._turn_recorded(ticket, record, recorded)
            # As in update_lead: a turn may change the lead, whom other conversations show.
            self._flights.clear()
        return recorded

    async def put_summary(self, conversation_id: str, summary: Summary) -> None:
        """See `ContextStore.put_summary`."""
        try:
            await self._store.put_summary(conversation_id, summary)
        finally:
            # Also when it failed: nobody knows then what was written.
            self._cache.drop(conversation_id)
            self._flights.clear()

    async def update_lead(self, lead_id: str, tenant: str, patch: LeadPatch) -> Lead:
        """See `ContextStore.update_lead`."""
        try:
            return await self._store.update_lead(lead_id, tenant, patch)
        finally:
            self._cache.drop_lead(lead_id)
            # Who asks from now on must not share a lookup that was begun before; which of them show this lead is not
            # known before they end.
            self._flights.clear()

    async def forget(
        self, tenant: str, alias: str, conversation_ids: tuple[str, ...], *, do_not_contact: bool
    ) -> Erased:
        """See `ContextStore.forget`."""
        try:
            return await self._store.forget(tenant, alias, conversation_ids, do_not_contact=do_not_contact)
        finally:
            # Which conversations show the person, only the store knew; and it is rare.
            self._cache.clear()
            self._flights.clear()

    def _turn_recorded(self, ticket: Ticket, record: TurnRecord, recorded: Recorded | None) -> None:
        merged, after = set(record.merged_conversation_ids), recorded.after if recorded else None
        if not merged <= self._merged.keys():
            # Which conversations show the leads that have become one, only the store knew; and it is rare.
            self._cache.clear()
            self._merged |= dict.fromkeys(merged if recorded else ())
            # One that is forgotten here costs the cache once more.
            while len(self._merged) > MERGES_KEPT:
                del self._merged[next(iter(self._merged))]
        if recorded is not None and recorded.duplicate:
            # The first answer may have been lost, and with it what it said of the lead.
            self._cache.drop_lead(recorded.lead_id)
            self._cache.drop_strangers(record.contact.all_aliases)
            self._cache.give_up(ticket)
            return
        # A turn of a conversation that was merged away was recorded where that one went.
        where = after.conversation.conversation_id if after else record.conversation_id
        gone = {*merged, *({record.conversation_id} - {where})}
        self._cache.drop(*gone)
        self._cache.recorded(ticket, where, after)
        # Not before: it may go on from the entry that knew nobody.
        self._cache.drop_strangers(record.contact.all_aliases)

    # ---- looking up

    def _cached(self, query: ContextQuery, min_version: int) -> Snapshot | None:
        return self._cache.get(query, min_version=min_version, now_s=self._clock.monotonic(), day=self._today())

    def _begin(self, query: ContextQuery, min_version: int) -> _Flight:
        task = asyncio.create_task(self._look_up_and_keep(query), name="context-lookup")
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

    async def _look_up_and_keep(self, query: ContextQuery) -> _Found:
        ticket = self._ticket()
        try:
            found = await self._look_up(query)
        except BaseException:
            self._cache.give_up(ticket)
            raise
        self._cache.keep(ticket, query, found.snapshot)
        return found

    async def _look_up(self, query: ContextQuery) -> _Found:
        for _ in range(_TRIES):
            found = await self._look_up_once(query)
            if found is not None:
                return found
        raise Unavailable("The conversation changes faster than it can be read; try again.", component="store")

    async def _look_up_once(self, query: ContextQuery) -> _Found | None:
        """None when a turn was recorded between the lookups, so that they are not of one version."""
        try:
            async with asyncio.TaskGroup() as group:
                lead = group.create_task(self._timed(self._store.find_lead(query)))
                conversation = group.create_task(self._timed(self._store.find_conversation(query)))
                history = group.create_task(self._timed(self._store.recent_messages(query)))
                usage = group.create_task(self._store.usage_today(query))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        seen = conversation.result().value
        if not lead.result().value.version == seen.version == history.result().value.version:
            return None
        return _Found(
            snapshot=Snapshot(
                lead=lead.result().value.value,
                conversation=seen.value,
                history=history.result().value.value,
                usage=usage.result(),
                version=seen.version,
            ),
            lead_s=lead.result().seconds,
            conversation_s=conversation.result().seconds,
            history_s=history.result().seconds,
        )

    async def _timed(self, lookup: Awaitable[T]) -> Timed[T]:
        began = self._clock.monotonic()
        value = await lookup
        return Timed(value=value, seconds=self._clock.monotonic() - began)

    def _ticket(self) -> Ticket:
        return self._cache.begin(now_s=self._clock.monotonic(), day=self._today())

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).date().isoformat()


def _loaded(snapshot: Snapshot, query: ContextQuery, *, cache_hit: bool = False) -> Loaded:
    through = snapshot.conversation.summary_through if snapshot.conversation else 0
    history = budgeted([line for line in snapshot.history if line.sequence > through], query.history_bytes)
    total = snapshot.conversation.total_messages if snapshot.conversation else 0
    return Loaded(
        lead=snapshot.lead,
        conversation=snapshot.conversation,
        history=history,
        history_cut=total - through > len(history),
        usage=snapshot.usage,
        version=snapshot.version,
        cache_hit=cache_hit,
    )


def budgeted(history: list[HistoryMessage], most_bytes: int) -> tuple[HistoryMessage, ...]:
    """The latest messages whose texts fit, the latest one in any case."""
    kept: list[HistoryMessage] = []
    for line in reversed(history):
        most_bytes -= len(line.text.encode())
        if kept and most_bytes < 0:
            break
        kept.append(line)
    return tuple(reversed(kept))
