"""Queries. Each runs on the store's one connection and sees one instant.

Every result is read to its end: a statement left open (an error's traceback may keep its cursor) would forbid VACUUM.
"""

from typing import Final

import apsw

from context_service.domain import ContextQuery, Conversation, HistoryMessage, Lead, UsageToday
from context_service.store import ExportPage, ExportSection, LeadFilter, PageAfter, Seen, rows
from service_kit.errors import NotFound

EXPORT_ROWS: Final = 25

# Newest first by the index, turned round for the reader.
RECENT_MESSAGES: Final = (
    f"SELECT {rows.MESSAGE_COLUMNS} FROM messages WHERE conversation_id = ? ORDER BY sequence DESC LIMIT ?"
)
PAGE_OF_MESSAGES: Final = (
    f"SELECT {rows.MESSAGE_COLUMNS} FROM messages WHERE conversation_id = ? AND sequence > ? ORDER BY sequence LIMIT ?"
)

# A conversation that was merged away is asked for under its own id.
_SURVIVOR: Final = (
    "coalesce((SELECT into_id FROM merged_conversations WHERE conversation_id = :conversation), :conversation)"
)
_OF_LEADS = "lead_id IN (SELECT value FROM json_each(:leads))"
_OF_CONVERSATIONS = f"conversation_id IN (SELECT id FROM conversations WHERE {_OF_LEADS})"
_EXPORT_FILTERS: Final = {
    ExportSection.LEADS: "id IN (SELECT value FROM json_each(:leads))",
    ExportSection.ALIASES: _OF_LEADS,
    ExportSection.CONVERSATIONS: _OF_LEADS,
    ExportSection.MESSAGES: _OF_CONVERSATIONS,
    ExportSection.TURNS: _OF_CONVERSATIONS,
    ExportSection.CHANGES: _OF_LEADS,
    ExportSection.USAGE: _OF_CONVERSATIONS,
    ExportSection.MERGED: f"into_id IN (SELECT id FROM conversations WHERE {_OF_LEADS})",
}


def find_lead(db: apsw.Connection, query: ContextQuery) -> Seen[Lead | None]:
    """See `ContextStore.find_lead`."""
    known = db.execute(
        f"SELECT version, lead_id FROM conversations WHERE id = {_SURVIVOR} AND tenant = :tenant", _names(query)
    ).get
    version = known[0] if known else 0
    lead_id = known[1] if known else oldest_lead(db, query.scope.tenant, query.contact.all_aliases)
    return Seen(version=version, value=_lead(db, lead_id) if lead_id else None)


def find_conversation(db: apsw.Connection, query: ContextQuery) -> Seen[Conversation | None]:
    """See `ContextStore.find_conversation`."""
    row = db.execute(
        f"SELECT {rows.CONVERSATION_COLUMNS} FROM conversations WHERE id = {_SURVIVOR} AND tenant = :tenant",
        _names(query),
    ).get
    found = rows.conversation(row) if row else None
    return Seen(version=found.version if found else 0, value=found)


def recent_messages(db: apsw.Connection, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
    """See `ContextStore.recent_messages`."""
    known = db.execute(
        f"SELECT version, id FROM conversations WHERE id = {_SURVIVOR} AND tenant = :tenant", _names(query)
    ).get
    if known is None:
        return Seen(version=0, value=())
    newest_first = db.execute(RECENT_MESSAGES, (known[1], query.history_limit)).fetchall()
    return Seen(version=known[0], value=tuple(rows.message(row) for row in reversed(newest_first)))


def usage_today(db: apsw.Connection, query: ContextQuery, now_ms: int) -> UsageToday:
    """See `ContextStore.usage_today`."""
    found = db.execute(
        "SELECT conversation_id <> '', tokens, cost_micros FROM usage_days WHERE tenant = :tenant AND day = :day "
        f"AND conversation_id IN ('', {_SURVIVOR})",
        {**_names(query), "day": rows.day(now_ms)},
    )
    used = {bool(own): (tokens, cost) for own, tokens, cost in found}
    (own_tokens, own_cost), (all_tokens, all_cost) = used.get(True, (0, 0)), used.get(False, (0, 0))
    return UsageToday(
        conversation_tokens=own_tokens,
        tenant_tokens=all_tokens,
        conversation_cost_micros=own_cost,
        tenant_cost_micros=all_cost,
    )


def get_lead(db: apsw.Connection, lead_id: str) -> Lead:
    """See `ContextStore.get_lead`."""
    found = _lead(db, lead_id)
    if found is None:
        raise NotFound("There is no such lead.", resource="lead")
    return found


def get_lead_by_alias(db: apsw.Connection, tenant: str, alias: str) -> Lead:
    """See `ContextStore.get_lead_by_alias`."""
    return get_lead(db, oldest_lead(db, tenant, (alias,)) or "")


def list_leads(db: apsw.Connection, wanted: LeadFilter, page: PageAfter) -> tuple[Lead, ...]:
    """See `ContextStore.list_leads`."""
    where, values = ["tenant = ?"], [wanted.tenant]
    if wanted.stage:
        where.append("current_stage = ?")
        values.append(wanted.stage)
    if wanted.qualification_status:
        where.append("qualification_status = ?")
        values.append(wanted.qualification_status)
    if wanted.updated_since_ms is not None:
        where.append("updated_at >= ?")
        values.append(rows.to_text(wanted.updated_since_ms))
    found = _latest_first(db, f"SELECT {rows.LEAD_COLUMNS} FROM leads", where, values, page)
    return tuple(rows.lead(row) for row in found)


def list_conversations(db: apsw.Connection, tenant: str, lead_id: str, page: PageAfter) -> tuple[Conversation, ...]:
    """See `ContextStore.list_conversations`."""
    where, values = ["tenant = ?"], [tenant]
    if lead_id:
        where.append("lead_id = ?")
        values.append(lead_id)
    found = _latest_first(db, f"SELECT {rows.CONVERSATION_COLUMNS} FROM conversations", where, values, page)
    return tuple(rows.conversation(row) for row in found)


def list_messages(db: apsw.Connection, conversation_id: str, page: PageAfter) -> tuple[HistoryMessage, ...]:
    """See `ContextStore.list_messages`."""
    survivor = db.execute(f"SELECT id FROM conversations WHERE id = {_SURVIVOR}", {"conversation": conversation_id}).get
    if survivor is None:
        raise NotFound("There is no such conversation.", resource="conversation")
    after = page.after[0] if page.after else 0
    found = db.execute(PAGE_OF_MESSAGES, (survivor, after, page.size))
    return tuple(rows.message(row) for row in found)


def find_people(db: apsw.Connection, tenant: str, alias: str, conversation_ids: tuple[str, ...]) -> tuple[str, ...]:
    """See `ContextStore.find_people`."""
    given = (*conversation_ids, *(survivor_of(db, one) for one in conversation_ids))
    found = db.execute(
        "SELECT lead_id FROM lead_aliases WHERE tenant = :tenant AND alias = :alias UNION "
        "SELECT lead_id FROM conversations WHERE +tenant = :tenant AND id IN (SELECT value FROM json_each(:given))",
        {"tenant": tenant, "alias": alias, "given": rows.to_json(given)},
    )
    return tuple(lead_id for (lead_id,) in found)


def export_rows(db: apsw.Connection, section: ExportSection, lead_ids: tuple[str, ...], after: int) -> ExportPage:
    """See `ContextStore.export_rows`."""
    cursor = db.execute(
        f"SELECT * FROM {section} WHERE {_EXPORT_FILTERS[section]} AND row_id > :after ORDER BY row_id LIMIT :limit",
        {"leads": rows.to_json(lead_ids), "after": after, "limit": EXPORT_ROWS},
    )
    found = []
    for row in cursor:
        found.append(dict(zip((column[0] for column in cursor.get_description()), row, strict=True)))
    last = found[-1]["row_id"] if len(found) == EXPORT_ROWS else None
    return ExportPage(rows=tuple(found), next_after=last if isinstance(last, int) else None)


def oldest_lead(db: apsw.Connection, tenant: str, aliases: tuple[str, ...]) -> str | None:
    """The id of the lead that was recorded first, of those with one of these aliases."""
    candidates = leads_by_age(db, tenant, aliases)
    return candidates[0] if candidates else None


def leads_by_age(db: apsw.Connection, tenant: str, aliases: tuple[str, ...]) -> list[str]:
    """The ids of all leads that have one of these aliases, the oldest first."""
    found = db.execute(
        "SELECT DISTINCT leads.row_id, leads.id FROM lead_aliases JOIN leads ON leads.id = lead_aliases.lead_id "
        "WHERE lead_aliases.tenant = ? AND lead_aliases.alias IN (SELECT value FROM json_each(?)) "
        "ORDER BY leads.row_id",
        (tenant, rows.to_json(aliases)),
    )
    return [lead_id for _, lead_id in found]


def survivor_of(db: apsw.Connection, conversation_id: str) -> str:
    """Where this conversation was merged into, or itself."""
    survivor: str = db.execute(f"SELECT {_SURVIVOR}", {"conversation": conversation_id}).get
    return survivor


def _names(query: ContextQuery) -> dict[str, str]:
    return {"conversation": query.conversation_id, "tenant": query.scope.tenant}


def _lead(db: apsw.Connection, lead_id: str) -> Lead | None:
    row = db.execute(f"SELECT {rows.LEAD_COLUMNS} FROM leads WHERE id = ?", (lead_id,)).get
    return rows.lead(row) if row else None


def _latest_first(
    db: apsw.Connection, select: str, where: list[str], values: list[str], page: PageAfter
) -> list[rows.Row]:
    if page.after is not None:
        where = [*where, "(updated_at, id) < (?, ?)"]
        values = [*values, rows.to_text(page.after[0]), page.after[1]]
    statement = f"{select} WHERE {' AND '.join(where)} ORDER BY updated_at DESC, id DESC LIMIT ?"
    return db.execute(statement, (*values, page.size)).fetchall()
