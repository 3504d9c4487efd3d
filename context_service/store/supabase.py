"""The store in a Supabase project: lookups of one round trip each, and one database function per write."""

import asyncio
from dataclasses import replace
from typing import Any, NoReturn

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
    UsageToday,
)
from context_service.errors import Forgotten, KeptElsewhere
from context_service.migrations import current_version
from context_service.privacy import ContactHasher, refuse_marks_of_others
from context_service.store import ExportPage, ExportSection, LeadFilter, PageAfter, Seen, rows
from context_service.store import supabase_rows as json_rows
from context_service.store.supabase_client import DatabaseRefusal, NoSuchFunction, SupabaseClient
from service_kit.backups import Backups, Copied
from service_kit.clock import Clock
from service_kit.errors import InvalidArgument, NotFound, Unavailable, WrongState
from service_kit.settings import ConfigurationError

EXPORT_ROWS = 200
PING_EVERY_S = 15.0
# As many as a lookup needs at once: a connection that has to be made costs several round trips.
_WARM_CONNECTIONS = 4
_TRIES = 3


class SupabaseStore:
    """Implements `ContextStore`; the docstrings are there."""

    def __init__(self, *, client: SupabaseClient, clock: Clock, hasher: ContactHasher) -> None:
        self._client = client
        self._clock = clock
        self._hasher = hasher
        self._answered_s: float | None = None

    async def check(self) -> None:
        """The schema is that of this version, and the marks are of this privacy key. Raises ConfigurationError;
        Unavailable when nobody answers."""
        await self.check_schema()
        refuse_marks_of_others(await self._client.call("sdr_marks_of_others", p_key=self._hasher.key_id))

    async def check_schema(self) -> None:
        """The schema is that of this version. Raises ConfigurationError; Unavailable when nobody answers."""
        try:
            found = (await self._ask_version())[0]
        except NoSuchFunction:
            found = None
        if found != current_version():
            raise ConfigurationError(
                f"The Supabase project has schema version {found or 0}, this version needs {current_version()}: "
                "make migrate"
            )

    # ---- lookups

    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        found = await self._client.call("sdr_find_lead", **_who(query))
        return Seen(version=found["version"], value=json_rows.lead(found["lead"]) if found["lead"] else None)

    async def find_conversation(self, query: ContextQuery) -> Seen[Conversation | None]:
        found = await self._client.call("sdr_find_conversation", **_who(query))
        known = json_rows.conversation(found) if found else None
        return Seen(version=known.version if known else 0, value=known)

    async def recent_messages(self, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
        found = await self._client.call("sdr_recent_messages", **_who(query), p_limit=query.history_limit)
        if not found:
            return Seen(version=0, value=())
        newest_first = [json_rows.message(one) for one in found["messages"]]
        return Seen(version=found["version"], value=tuple(reversed(newest_first)))

    async def usage_today(self, query: ContextQuery) -> UsageToday:
        day = rows.day(self._clock.now_ms())
        found = await self._client.call(
            "sdr_usage_today", p_tenant=query.scope.tenant, p_conversation=query.conversation_id, p_day=day
        )
        return json_rows.usage(found)

    # ---- writes

    async def record_turn(self, record: TurnRecord) -> Recorded:
        hashes = self._hasher.hashes(record.scope.tenant, record.contact.all_aliases)
        argument = json_rows.turn(record, hashes=hashes, now_ms=self._clock.now_ms())
        answer = await self._call_again_if_changed("sdr_record_turn", record.conversation_id, p=argument)
        duplicate = answer["duplicate"]
        return Recorded(
            version=answer["version"],
            lead_id=answer["lead_id"],
            duplicate=duplicate,
            after=None if duplicate else json_rows.after(answer),
        )

    async def _call_again_if_changed(self, function: str, conversation_id: str, **arguments: Any) -> Any:
        """The call, and again when the people whom it is about were merged or erased before it had them."""
        for _ in range(_TRIES):
            try:
                return await self._client.call(function, **arguments)
            except DatabaseRefusal as refusal:
                if refusal.code != "SDR10":
                    _raise(refusal, conversation_id=conversation_id)
        raise Unavailable("The lead changes faster than it can be written; try again.", component="store")

    async def put_summary(self, conversation_id: str, summary: Summary) -> None:
        try:
            await self._client.call(
                "sdr_put_summary",
                p_conversation=conversation_id,
                p_text=summary.text,
                p_version=summary.version,
                p_through=summary.through,
                p_tokens=summary.tokens,
                p_cost=summary.cost_micros,
                p_now=self._now(),
            )
        except DatabaseRefusal as refusal:
            _raise(refusal, conversation_id=conversation_id)

    async def update_lead(self, lead_id: str, tenant: str, patch: LeadPatch) -> Lead:
        try:
            found = await self._client.call(
                "sdr_update_lead",
                p_lead=lead_id,
                p_tenant=tenant,
                p_values=json_rows.values(patch),
                p_preferences=dict(patch.preferences),
                p_replace=patch.replace_preferences,
                p_now=self._now(),
            )
        except DatabaseRefusal as refusal:
            _raise(refusal)
        return json_rows.lead(found)

    # ---- lists

    async def get_lead(self, lead_id: str) -> Lead:
        request = self._client.table("leads").select(json_rows.LEAD_SELECT).eq("id", lead_id)
        return _one_lead(await self._client.read(request, "leads"))

    async def get_lead_by_alias(self, tenant: str, alias: str) -> Lead:
        request = (
            self._client.table("lead_aliases")
            .select(f"lead:leads({json_rows.LEAD_SELECT})")
            .eq("tenant", tenant)
            .eq("alias", alias)
        )
        return _one_lead([row["lead"] for row in await self._client.read(request, "lead_aliases")])

    async def list_leads(self, wanted: LeadFilter, page: PageAfter) -> tuple[Lead, ...]:
        request = self._client.table("leads").select(json_rows.LEAD_SELECT).eq("tenant", wanted.tenant)
        if wanted.stage:
            request = request.eq("current_stage", wanted.stage)
        if wanted.qualification_status:
            request = request.eq("qualification_status", wanted.qualification_status)
        if wanted.updated_since_ms is not None:
            request = request.gte("updated_at", rows.to_text(wanted.updated_since_ms))
        found = await self._client.read(_latest_first(request, page, "id"), "leads")
        return tuple(json_rows.lead(row) for row in found)

    async def list_conversations(self, tenant: str, lead_id: str, page: PageAfter) -> tuple[Conversation, ...]:
        request = self._client.table("conversations").select(json_rows.CONVERSATION_SELECT).eq("tenant", tenant)
        if lead_id:
            request = request.eq("lead_id", lead_id)
        found = await self._client.read(_latest_first(request, page, "session_id"), "conversations")
        return tuple(json_rows.conversation(row) for row in found)

    async def list_messages(self, conversation_id: str, page: PageAfter) -> tuple[HistoryMessage, ...]:
        after = page.after[0] if page.after else 0
        found = await self._client.call(
            "sdr_list_messages", p_conversation=conversation_id, p_after=after, p_limit=page.size
        )
        if found is None:
            raise NotFound("There is no such conversation.", resource="conversation")
        return tuple(json_rows.message(one) for one in found)

    # ---- people

    async def find_people(self, tenant: str, alias: str, conversation_ids: tuple[str, ...] = ()) -> tuple[str, ...]:
        found = await self._client.call(
            "sdr_people", p_tenant=tenant, p_alias=alias, p_conversations=list(conversation_ids)
        )
        return tuple(found)

    async def export_rows(self, section: ExportSection, lead_ids: tuple[str, ...], after: int) -> ExportPage:
        found = await self._client.call(
            "sdr_export", p_section=section, p_leads=list(lead_ids), p_after=after, p_limit=EXPORT_ROWS
        )
        # Not until a page is short: a project may yield fewer rows than were asked for, and says nothing.
        return ExportPage(rows=tuple(found), next_after=found[-1]["row_id"] if found else None)

    async def forget(
        self, tenant: str, alias: str, conversation_ids: tuple[str, ...], *, do_not_contact: bool = False
    ) -> Erased:
        for _ in range(_TRIES):
            names = tuple({alias, *await self._names_of(tenant, alias, conversation_ids)})
            hashes = self._hashes(tenant, names)
            try:
                gone = await self._client.call(
                    "sdr_forget",
                    p_tenant=tenant,
                    p_alias=alias,
                    p_conversations=list(conversation_ids),
                    p_hashes=hashes,
                    p_do_not_contact=do_not_contact,
                    p_now=self._now(),
                )
            except DatabaseRefusal as refusal:
                if refusal.code != "SDR08":
                    _raise(refusal)
                continue
            return Erased(leads=gone["leads"], conversations=gone["conversations"], messages=gone["messages"])
        raise Unavailable("The person's names change faster than they can be read; try again.", component="store")

    async def _names_of(self, tenant: str, alias: str, conversation_ids: tuple[str, ...]) -> list[str]:
        """Every alias of the people who are meant."""
        found: list[str] = await self._client.call(
            "sdr_names_of", p_tenant=tenant, p_alias=alias, p_conversations=list(conversation_ids)
        )
        return found

    async def sweep(self, before_ms: int, *, limit: int) -> Swept:
        before = rows.to_text(before_ms)
        swept = Swept(**await self._client.call("sdr_sweep", p_before=before, p_limit=limit))
        return replace(swept, leads=swept.leads + await self._sweep_marked(before, limit))

    async def _sweep_marked(self, before: str, limit: int) -> int:
        """The database has no key: who is never to be contacted leaves it with hashes that are made here. How many
        went; those that a row of another table holds stay, and keep no others."""
        gone, held = 0, list[str]()
        while gone < limit and (
            marked := await self._client.call("sdr_marked_and_old", p_before=before, p_held=held, p_limit=limit)
        ):
            for lead in marked:
                if await self._sweep_one(lead, before):
                    gone += 1
                else:
                    held.append(lead["lead"])
        return gone

    async def _sweep_one(self, lead: dict[str, Any], before: str) -> int:
        names = tuple(lead["names"])
        hashes = self._hashes(lead["tenant"], names)
        gone: int = await self._client.call(
            "sdr_sweep_marked", p_lead=lead["lead"], p_before=before, p_hashes=hashes, p_now=self._now()
        )
        return gone

    def _hashes(self, tenant: str, names: tuple[str, ...]) -> dict[str, str]:
        """By name, and the key's id under the empty one."""
        return {"": self._hasher.key_id, **dict(zip(names, self._hasher.hashes(tenant, names), strict=True))}

    async def back_up(self, backups: Backups, name: str) -> Copied:
        raise KeptElsewhere

    async def ping(self) -> None:
        """Asked every half second; the database is asked less often, and over every connection that is kept warm."""
        now_s = self._clock.monotonic()
        if self._answered_s is None or now_s - self._answered_s >= PING_EVERY_S:
            self._answered_s = None
            await self._ask_version()

    async def _ask_version(self) -> list[Any]:
        calls = (self._client.call("sdr_schema_version") for _ in range(_WARM_CONNECTIONS))
        found = await asyncio.gather(*calls)
        self._answered_s = self._clock.monotonic()
        return found

    async def close(self) -> None:
        await self._client.close()

    def _now(self) -> str:
        return rows.to_text(self._clock.now_ms())


def _who(query: ContextQuery) -> dict[str, Any]:
    return {
        "p_tenant": query.scope.tenant,
        "p_conversation": query.conversation_id,
        "p_aliases": list(query.contact.all_aliases),
    }


def _one_lead(found: list[dict[str, Any]]) -> Lead:
    if not found:
        raise NotFound("There is no such lead.", resource="lead")
    return json_rows.lead(found[0])


def _latest_first(request: Any, page: PageAfter, key: str) -> Any:
    """A page after the row that the key names; the limit is explicit, because a missing one is silently 1000."""
    if page.after is not None:
        at, last = rows.to_text(page.after[0]), page.after[1]
        # The first condition says nothing new; it is the one that an index can begin at.
        request = request.lte("updated_at", at).or_(
            f'updated_at.lt.{at},and(updated_at.eq.{at},{key}.lt."{_quoted(last)}")'
        )
    return request.order("updated_at", desc=True).order(key, desc=True).limit(page.size)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _raise(refusal: DatabaseRefusal, *, conversation_id: str = "") -> NoReturn:
    match refusal.code:
        case "SDR01":
            raise Forgotten(conversation_id=conversation_id)
        case "SDR02":
            raise InvalidArgument("This turn belongs to another tenant.", field="record.turn_id")
        case "SDR03":
            raise InvalidArgument("This conversation belongs to another tenant.", field="record.scope.tenant")
        case "SDR04":
            raise NotFound("There is no such lead.", resource="lead")
        case "SDR05":
            raise NotFound("There is no such conversation.", resource="conversation")
        case "SDR06":
            raise WrongState("There is a newer summary.", conversation_id=conversation_id, state="newer_summary")
        case "SDR07":
            raise WrongState("There is no such version yet.", conversation_id=conversation_id, state="older_version")
        case "SDR09":
            raise WrongState(
                "Rows of another table hold this person; docs/howto/supabase.md says how to let go.",
                conversation_id=conversation_id,
                state="held",
            )
        case _:
            raise Unavailable("The database refused; try again.", component="store")
