"""A guest in a project that holds other people's data: everything happens in tenants of its own, and is removed."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

import pytest

from context_service.domain import (
    ContextQuery,
    Conversation,
    Erased,
    HistoryMessage,
    Lead,
    LeadPatch,
    Recorded,
    Scope,
    Summary,
    Swept,
    TurnRecord,
    UsageToday,
)
from context_service.store import ContextStore, ExportPage, ExportSection, LeadFilter, PageAfter, Seen
from context_service.store.supabase import SupabaseStore
from context_service.store.supabase_client import SupabaseClient
from service_kit.backups import Backups, Copied
from service_kit.clock import Clock
from tests.context_service.keys import HASHER

CONSENT: Final = "SUPABASE_TEST_PROJECT"
NEEDED: Final = ("SUPABASE_URL", "SUPABASE_SECRET_KEY")
# What has a tenant and hangs on no lead; the foreign keys take the rest along.
_TABLES: Final = ("leads", "usage_days", "forgotten_conversations", "do_not_contact")


@dataclass(frozen=True, kw_only=True)
class Project:
    """How to reach one. `publishable_key` is empty where nobody told it."""

    url: str
    secret_key: str
    publishable_key: str = ""


def real_project(environ: Mapping[str, str] = os.environ) -> Project | None:
    """The one of the environment, if it says that it may be used; never what `.env` says, which may be production."""
    if environ.get(CONSENT) != "yes" or not all(environ.get(name) for name in NEEDED):
        return None
    url, key = (environ[name] for name in NEEDED)
    return Project(url=url, secret_key=key, publishable_key=environ.get("SUPABASE_PUBLISHABLE_KEY", ""))


@asynccontextmanager
async def guest_store(project: Project, clock: Clock) -> AsyncIterator[ContextStore]:
    """A store in tenants that nobody else has; whatever is in them at the end is removed."""
    client = SupabaseClient(url=project.url, key=project.secret_key, timeout_s=20, connections=20)
    guest = GuestStore(SupabaseStore(client=client, clock=clock, hasher=HASHER))
    try:
        yield guest
    finally:
        await guest.close()
        await remove(project, guest.prefix)


async def remove(project: Project, prefix: str) -> None:
    """Everything in the tenants whose names begin with the prefix."""
    client = SupabaseClient(url=project.url, key=project.secret_key, timeout_s=60, connections=4)
    try:
        for table in _TABLES:
            await client.read(client.table(table).delete().like("tenant", f"{prefix}*"), table)
    finally:
        await client.close()


class GuestStore:
    """Implements `ContextStore`: names of tenants, conversations and turns get a prefix on their way in, and lose it on
    their way out."""

    def __init__(self, store: ContextStore) -> None:
        self._store = store
        self.prefix = f"guest{secrets.token_hex(8)}."

    # ---- lookups

    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        return self._out(await self._store.find_lead(self._query(query)))

    async def find_conversation(self, query: ContextQuery) -> Seen[Conversation | None]:
        return self._out(await self._store.find_conversation(self._query(query)))

    async def recent_messages(self, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
        return self._out(await self._store.recent_messages(self._query(query)))

    async def usage_today(self, query: ContextQuery) -> UsageToday:
        return await self._store.usage_today(self._query(query))

    # ---- writes

    async def record_turn(self, record: TurnRecord) -> Recorded:
        renamed = replace(
            record,
            turn_id=self._in(record.turn_id),
            conversation_id=self._in(record.conversation_id),
            scope=self._scope(record.scope),
            merged_conversation_ids=self._all(record.merged_conversation_ids),
        )
        return self._out(await self._store.record_turn(renamed))

    async def put_summary(self, conversation_id: str, summary: Summary) -> None:
        await self._store.put_summary(self._in(conversation_id), summary)

    async def update_lead(self, lead_id: str, tenant: str, patch: LeadPatch) -> Lead:
        return self._out(await self._store.update_lead(lead_id, self._in(tenant), patch))

    # ---- lists

    async def get_lead(self, lead_id: str) -> Lead:
        return self._out(await self._store.get_lead(lead_id))

    async def get_lead_by_alias(self, tenant: str, alias: str) -> Lead:
        return self._out(await self._store.get_lead_by_alias(self._in(tenant), alias))

    async def list_leads(self, wanted: LeadFilter, page: PageAfter) -> tuple[Lead, ...]:
        return self._out(await self._store.list_leads(replace(wanted, tenant=self._in(wanted.tenant)), page))

    async def list_conversations(self, tenant: str, lead_id: str, page: PageAfter) -> tuple[Conversation, ...]:
        if page.after is not None:
            page = replace(page, after=(page.after[0], self._in(page.after[1])))
        return self._out(await self._store.list_conversations(self._in(tenant), lead_id, page))

    async def list_messages(self, conversation_id: str, page: PageAfter) -> tuple[HistoryMessage, ...]:
        return self._out(await self._store.list_messages(self._in(conversation_id), page))

    # ---- people

    async def find_people(self, tenant: str, alias: str, conversation_ids: tuple[str, ...] = ()) -> tuple[str, ...]:
        return await self._store.find_people(self._in(tenant), alias, self._all(conversation_ids))

    async def export_rows(self, section: ExportSection, lead_ids: tuple[str, ...], after: int) -> ExportPage:
        return self._out(await self._store.export_rows(section, lead_ids, after))

    async def forget(
        self, tenant: str, alias: str, conversation_ids: tuple[str, ...], *, do_not_contact: bool = False
    ) -> Erased:
        given = self._all(conversation_ids)
        return await self._store.forget(self._in(tenant), alias, given, do_not_contact=do_not_contact)

    async def sweep(self, before_ms: int, *, limit: int) -> Swept:
        """It would sweep the host's tenants too."""
        pytest.skip("a sweep knows no tenants")

    async def back_up(self, backups: Backups, name: str) -> Copied:
        return await self._store.back_up(backups, name)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()

    # ---- names

    def _in(self, name: str) -> str:
        return self.prefix + name if name else name

    def _all(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self._in(name) for name in names)

    def _scope(self, scope: Scope) -> Scope:
        return replace(scope, tenant=self._in(scope.tenant))

    def _query(self, query: ContextQuery) -> ContextQuery:
        return replace(query, conversation_id=self._in(query.conversation_id), scope=self._scope(query.scope))

    def _out(self, value: Any) -> Any:
        return _each_text(value, lambda text: text.removeprefix(self.prefix))


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if type(value) is str:
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _each_text(getattr(value, one.name), change) for one in fields(value)})
    if isinstance(value, Mapping):
        return {key: _each_text(one, change) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_each_text(one, change) for one in value)
    return value
