"""Stores with one thing wrong. Contract and machine must reject each; if they didn't, green would prove nothing."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

from context_service.domain import (
    ContextQuery,
    Conversation,
    Erased,
    HistoryMessage,
    Lead,
    LeadPatch,
    Recorded,
    Summary,
    Swept,
    TurnRecord,
)
from context_service.store import LeadFilter, PageAfter, Seen, turn_writes
from context_service.store.sqlite import SqliteStore
from service_kit.errors import Unavailable, WrongState


class RecordsRepeatsAgain(SqliteStore):
    async def record_turn(self, record: TurnRecord) -> Recorded:
        return await super().record_turn(replace(record, turn_id=uuid.uuid4().hex))


class ReadsErrorsAsNewCustomers(SqliteStore):
    """The system before did; its agent introduced itself to people it had known for weeks."""

    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        try:
            return await super().find_lead(query)
        except Unavailable:
            return Seen(version=0, value=None)


class SkipsVersions(SqliteStore):
    async def record_turn(self, record: TurnRecord) -> Recorded:
        recorded = await super().record_turn(record)
        return replace(recorded, version=recorded.version * 2)


class TellsAnOlderVersion(SqliteStore):
    """As a replica does that is behind."""

    async def find_conversation(self, query: ContextQuery) -> Seen[Conversation | None]:
        seen = await super().find_conversation(query)
        return replace(seen, version=max(seen.version - 1, 0))


class LosesConcurrentUpdates(SqliteStore):
    """Reads the whole row, and writes the whole row."""

    async def update_lead(self, lead_id: str, tenant: str, patch: LeadPatch) -> Lead:
        before = await self.get_lead(lead_id)
        await asyncio.sleep(0.01)
        everything = {**before.preferences, **patch.preferences}
        return await super().update_lead(
            lead_id, tenant, replace(patch, preferences=everything, replace_preferences=True)
        )


class ForgetsNoTombstones(SqliteStore):
    async def forget(
        self, tenant: str, alias: str, conversation_ids: tuple[str, ...], *, do_not_contact: bool = False
    ) -> Erased:
        erased = await super().forget(tenant, alias, conversation_ids, do_not_contact=do_not_contact)
        await self._thread.write(lambda db: db.execute("DELETE FROM forgotten_conversations").fetchall())
        return erased


class ForgetsTheAliasOnly(SqliteStore):
    async def forget(
        self, tenant: str, alias: str, conversation_ids: tuple[str, ...], *, do_not_contact: bool = False
    ) -> Erased:
        erase = "DELETE FROM lead_aliases WHERE tenant = ? AND alias = ?"
        await self._thread.write(lambda db: db.execute(erase, (tenant, alias)).fetchall())
        return Erased(leads=1, conversations=1, messages=2)


class ForgetsWhoMustNotBeContacted(SqliteStore):
    async def forget(
        self, tenant: str, alias: str, conversation_ids: tuple[str, ...], *, do_not_contact: bool = False
    ) -> Erased:
        erased = await super().forget(tenant, alias, conversation_ids)
        await self._thread.write(lambda db: db.execute("DELETE FROM do_not_contact").fetchall())
        return erased


class CountsUsageOfRepeats(SqliteStore):
    async def record_turn(self, record: TurnRecord) -> Recorded:
        recorded = await super().record_turn(record)
        if recorded.duplicate:
            made, now_ms = record.generation, self._clock.now_ms()
            where = record.scope.tenant, record.conversation_id
            await self._thread.write(
                lambda db: turn_writes.count_usage(db, *where, made.tokens, made.cost_micros, now_ms)
            )
        return recorded


class OrdersByClock(SqliteStore):
    async def recent_messages(self, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
        seen = await super().recent_messages(query)
        return replace(seen, value=tuple(sorted(seen.value, key=lambda line: line.created_ms)))


class ForgetsWhatWasMerged(SqliteStore):
    async def record_turn(self, record: TurnRecord) -> Recorded:
        return await super().record_turn(replace(record, merged_conversation_ids=()))


class OneLeadPerInstance(SqliteStore):
    async def record_turn(self, record: TurnRecord) -> Recorded:
        contact = replace(record.contact, contact=f"bsuid:{record.scope.instance}-{record.contact.contact}", aliases=())
        return await super().record_turn(replace(record, contact=contact))


class SeesOtherTenants(SqliteStore):
    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        return await super().find_lead(replace(query, scope=replace(query.scope, tenant="default")))


class PagesSkipTies(SqliteStore):
    async def list_leads(self, wanted: LeadFilter, page: PageAfter) -> tuple[Lead, ...]:
        return await super().list_leads(wanted, replace(page, after=(page.after[0], "")) if page.after else page)


class TakesOlderSummaries(SqliteStore):
    async def put_summary(self, conversation_id: str, summary: Summary) -> None:
        try:
            await super().put_summary(conversation_id, summary)
        except WrongState:
            change = "UPDATE conversations SET summary = ?, summary_through = ? WHERE id = ?"
            values = (summary.text, summary.through, conversation_id)
            await self._thread.write(lambda db: db.execute(change, values).fetchall())


class SweepsTheLiving(SqliteStore):
    async def sweep(self, before_ms: int, *, limit: int) -> Swept:
        return await super().sweep(self._clock.now_ms() + 86_400_000, limit=limit)


# The machine must reject these in its short search.
FOUND_IN_SECONDS: list[type[SqliteStore]] = [
    RecordsRepeatsAgain,
    SkipsVersions,
    TellsAnOlderVersion,
    ForgetsNoTombstones,
    ForgetsWhoMustNotBeContacted,
    CountsUsageOfRepeats,
    ForgetsWhatWasMerged,
    OneLeadPerInstance,
]
# The contract must reject these, too. The machine has one tenant, one writer at a time, no clocks that go back, no
# failures, and lists that fit on a page.
BROKEN: list[type[SqliteStore]] = [
    *FOUND_IN_SECONDS,
    ReadsErrorsAsNewCustomers,
    LosesConcurrentUpdates,
    ForgetsTheAliasOnly,
    OrdersByClock,
    SeesOtherTenants,
    PagesSkipTies,
    TakesOlderSummaries,
    SweepsTheLiving,
]
