"""The store in one SQLite file, which belongs to this process alone."""

from pathlib import Path

import apsw

from context_service.domain import (
    ContextQuery,
    Conversation,
    Erased,
    HistoryMessage,
    Lead,
    LeadField,
    LeadPatch,
    Recorded,
    Summary,
    Swept,
    TurnRecord,
    UsageToday,
)
from context_service.privacy import ContactHasher
from context_service.store import (
    ExportPage,
    ExportSection,
    LeadFilter,
    PageAfter,
    Seen,
    erase,
    lead_writes,
    marks,
    reads,
    retention,
    rows,
    schema,
    turn_writes,
)
from context_service.store.writer import DatabaseThread
from service_kit.backups import Backups, Copied
from service_kit.clock import Clock
from service_kit.errors import NotFound


class SqliteStore:
    """Implements `ContextStore`; the docstrings are there."""

    def __init__(
        self, *, path: Path, clock: Clock, hasher: ContactHasher, scripts: tuple[str, ...] | None = None
    ) -> None:
        self._clock = clock
        self._hasher = hasher
        wanted = schema.migrations() if scripts is None else scripts
        self._thread = DatabaseThread(lambda: schema.open_database(path, wanted))

    async def open(self) -> None:
        """Open the file and migrate it. Raises ConfigurationError, also when its marks are of another privacy key."""
        await self._thread.open()
        try:
            await self._thread.write(lambda db: marks.claim(db, self._hasher))
        except BaseException:
            await self._thread.close()
            raise

    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        return await self._thread.read(lambda db: reads.find_lead(db, query))

    async def find_conversation(self, query: ContextQuery) -> Seen[Conversation | None]:
        return await self._thread.read(lambda db: reads.find_conversation(db, query))

    async def recent_messages(self, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
        return await self._thread.read(lambda db: reads.recent_messages(db, query))

    async def usage_today(self, query: ContextQuery) -> UsageToday:
        return await self._thread.read(lambda db: reads.usage_today(db, query, self._clock.now_ms()))

    async def record_turn(self, record: TurnRecord) -> Recorded:
        return await self._thread.write(
            lambda db: turn_writes.record_turn(db, record, self._clock.now_ms(), self._hasher)
        )

    async def put_summary(self, conversation_id: str, summary: Summary) -> None:
        await self._thread.write(lambda db: turn_writes.put_summary(db, conversation_id, summary, self._clock.now_ms()))

    async def get_lead(self, lead_id: str) -> Lead:
        return await self._thread.read(lambda db: reads.get_lead(db, lead_id))

    async def get_lead_by_alias(self, tenant: str, alias: str) -> Lead:
        return await self._thread.read(lambda db: reads.get_lead_by_alias(db, tenant, alias))

    async def list_leads(self, wanted: LeadFilter, page: PageAfter) -> tuple[Lead, ...]:
        return await self._thread.read(lambda db: reads.list_leads(db, wanted, page))

    async def update_lead(self, lead_id: str, tenant: str, patch: LeadPatch) -> Lead:
        return await self._thread.write(lambda db: self._update_lead(db, lead_id, tenant, patch))

    async def list_conversations(self, tenant: str, lead_id: str, page: PageAfter) -> tuple[Conversation, ...]:
        return await self._thread.read(lambda db: reads.list_conversations(db, tenant, lead_id, page))

    async def list_messages(self, conversation_id: str, page: PageAfter) -> tuple[HistoryMessage, ...]:
        return await self._thread.read(lambda db: reads.list_messages(db, conversation_id, page))

    async def find_people(self, tenant: str, alias: str, conversation_ids: tuple[str, ...] = ()) -> tuple[str, ...]:
        return await self._thread.read(lambda db: reads.find_people(db, tenant, alias, conversation_ids))

    async def export_rows(self, section: ExportSection, lead_ids: tuple[str, ...], after: int) -> ExportPage:
        return await self._thread.read(lambda db: reads.export_rows(db, section, lead_ids, after))

    async def forget(
        self, tenant: str, alias: str, conversation_ids: tuple[str, ...], *, do_not_contact: bool = False
    ) -> Erased:
        erased = await self._thread.write(
            lambda db: erase.forget(
                db,
                tenant,
                alias,
                conversation_ids,
                hasher=self._hasher,
                do_not_contact=do_not_contact,
                now_ms=self._clock.now_ms(),
            )
        )
        # Also when nothing was found: the call before may have been cut off here.
        await self._thread.maintain(erase.scrub)
        return erased

    async def sweep(self, before_ms: int, *, limit: int) -> Swept:
        before, now = rows.to_text(before_ms), rows.to_text(self._clock.now_ms())
        return await self._thread.write(lambda db: retention.sweep(db, before, limit, hasher=self._hasher, now=now))

    async def back_up(self, backups: Backups, name: str) -> Copied:
        copied, _ = await backups.make(name, owner=self._thread.maintain, seal=lambda copy: None)
        return copied

    async def ping(self) -> None:
        await self._thread.read(lambda db: db.execute("SELECT count(*) FROM (SELECT 1 FROM turns LIMIT 1)").get)

    async def close(self) -> None:
        await self._thread.close()

    def _update_lead(self, db: apsw.Connection, lead_id: str, tenant: str, patch: LeadPatch) -> Lead:
        lead = reads.get_lead(db, lead_id)
        if tenant and lead.tenant != tenant:
            raise NotFound("There is no such lead.", resource="lead")
        now = rows.to_text(self._clock.now_ms())
        lead_writes.change(db, lead_id, patch, by="api", now=now)
        if LeadField.CURRENT_STAGE in patch.values:
            stage = patch.values[LeadField.CURRENT_STAGE]
            db.execute(
                "UPDATE conversations SET current_stage = ? WHERE lead_id = ? AND status IN ('ACTIVE', 'PAUSED')",
                (stage, lead_id),
            )
        return reads.get_lead(db, lead_id)
