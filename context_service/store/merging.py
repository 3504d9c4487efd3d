"""Two conversations that the buffer found to be one person's: the younger one's history and lead go to the older."""

import json
from collections.abc import Mapping
from typing import Any, Final

import apsw

from context_service.domain import LeadField, LeadPatch, TurnRecord
from context_service.store import lead_writes, rows
from service_kit import logs

_MERGED_FIELDS = (
    LeadField.NAME,
    LeadField.EMAIL,
    LeadField.BILL_VALUE,
    LeadField.CURRENT_STAGE,
    LeadField.QUALIFICATION_SCORE,
    LeadField.QUALIFICATION_STATUS,
    LeadField.INTERESTED,
    LeadField.CHOSEN_FLOW,
)
_FLAGS = (LeadField.NEEDS_HUMAN, LeadField.DO_NOT_CONTACT)
# What a lead has of a field that nobody told anything about.
_BLANK: Mapping[LeadField, str | int | None] = {
    LeadField.CURRENT_STAGE: "INITIAL_CONTACT",
    LeadField.QUALIFICATION_SCORE: 0,
    LeadField.QUALIFICATION_STATUS: "PENDING",
}
# Once the conversations are moved; by them, because turns have no index by lead, and everybody waits for a scan.
MOVE_TURNS: Final = (
    "UPDATE turns SET lead_id = :into WHERE conversation_id IN (SELECT id FROM conversations WHERE lead_id = :into) "
    "AND lead_id = :gone"
)
_OF_PREFERENCES: Final = "preferences."
_log = logs.get(__name__)


def absorb(db: apsw.Connection, record: TurnRecord, lead_id: str, now: str) -> None:
    """Everything of the conversations that were merged into this one, once; the inside of one transaction."""
    known = db.execute(
        "SELECT conversation_id FROM merged_conversations WHERE into_id = ?", (record.conversation_id,)
    ).fetchall()
    done = {one for (one,) in known} | {record.conversation_id}
    for younger in record.merged_conversation_ids:
        tenant, other = db.execute("SELECT tenant, lead_id FROM conversations WHERE id = ?", (younger,)).get or ("", "")
        if younger in done or tenant not in ("", record.scope.tenant):
            continue
        _move_conversation(db, younger, record, now)
        if other and other != lead_id:
            merge_leads(db, other, into=lead_id, by=record.turn_id, now=now)


def merge_leads(db: apsw.Connection, lead_id: str, *, into: str, by: str, now: str) -> None:
    """The latest value of each field wins; every difference leaves an audit row. The lead is gone then."""
    patch = LeadPatch(values=_newer_values(db, lead_id, into), preferences=_newer_preferences(db, lead_id, into))
    lead_writes.change(db, into, patch, by=by, now=now)
    lead_writes.audit(db, into, "merged_lead", lead_id, into, by=by, now=now)
    db.execute(
        "UPDATE conversations SET status = 'COMPLETED' WHERE lead_id = ? AND status IN ('ACTIVE', 'PAUSED') "
        "AND EXISTS (SELECT 1 FROM conversations open WHERE open.lead_id = ? AND open.channel = conversations.channel "
        "AND open.instance = conversations.instance AND open.status IN ('ACTIVE', 'PAUSED'))",
        (lead_id, into),
    )
    for table in ("conversations", "lead_aliases", "lead_changes"):
        db.execute(f"UPDATE {table} SET lead_id = ? WHERE lead_id = ?", (into, lead_id))
    db.execute(MOVE_TURNS, {"into": into, "gone": lead_id})
    db.execute(
        "UPDATE leads SET referral = coalesce(referral, (SELECT referral FROM leads WHERE id = :other)), "
        "display_name = coalesce(nullif(display_name, ''), (SELECT display_name FROM leads WHERE id = :other)), "
        "last_interaction = nullif(max(coalesce(last_interaction, ''), "
        "coalesce((SELECT last_interaction FROM leads WHERE id = :other), '')), ''), "
        "created_at = min(created_at, (SELECT created_at FROM leads WHERE id = :other)) WHERE id = :into",
        {"other": lead_id, "into": into},
    )
    db.execute("DELETE FROM leads WHERE id = ?", (lead_id,))
    _log.info("leads_merged", kept=into, gone=lead_id)


def _move_conversation(db: apsw.Connection, younger: str, record: TurnRecord, now: str) -> None:
    """Its messages come after those that are there: history is append-only. Its id stands for the older one then."""
    names = {"younger": younger, "older": record.conversation_id, "tenant": record.scope.tenant, "now": now}
    known = "EXISTS (SELECT 1 FROM conversations WHERE id = :younger AND tenant = :tenant)"
    db.execute(
        "UPDATE messages SET conversation_id = :older, sequence = sequence + "
        f"(SELECT total_messages FROM conversations WHERE id = :older) WHERE conversation_id = :younger AND {known}",
        names,
    )
    db.execute(
        "UPDATE conversations SET total_messages = total_messages + coalesce((SELECT total_messages FROM conversations "
        "WHERE id = :younger AND tenant = :tenant), 0), needs_human = max(needs_human, coalesce((SELECT needs_human "
        "FROM conversations WHERE id = :younger AND tenant = :tenant), 0)) WHERE id = :older",
        names,
    )
    db.execute(f"UPDATE turns SET conversation_id = :older WHERE conversation_id = :younger AND {known}", names)
    db.execute(
        "INSERT INTO usage_days (tenant, day, conversation_id, tokens, cost_micros) "
        "SELECT tenant, day, :older, tokens, cost_micros FROM usage_days "
        "WHERE conversation_id = :younger AND tenant = :tenant "
        "ON CONFLICT (tenant, day, conversation_id) DO UPDATE SET tokens = tokens + excluded.tokens, "
        "cost_micros = cost_micros + excluded.cost_micros",
        names,
    )
    db.execute("DELETE FROM usage_days WHERE conversation_id = :younger AND tenant = :tenant", names)
    # What was merged into the younger one stands for the older one too.
    db.execute(f"UPDATE merged_conversations SET into_id = :older WHERE into_id = :younger AND {known}", names)
    db.execute(
        "INSERT INTO merged_conversations (conversation_id, tenant, into_id, merged_at) "
        "VALUES (:younger, :tenant, :older, :now) ON CONFLICT (conversation_id) DO NOTHING",
        names,
    )
    db.execute("DELETE FROM conversations WHERE id = :younger AND tenant = :tenant", names)


def _newer_values(db: apsw.Connection, lead_id: str, into: str) -> dict[LeadField, str | int | bool | None]:
    """The values of the lead that are newer than those of the one that stays, or that only it has."""
    theirs, ours = _columns(db, lead_id), _columns(db, into)
    when_theirs, when_ours = _changed(db, lead_id), _changed(db, into)
    values: dict[LeadField, str | int | bool | None] = {}
    for field in _MERGED_FIELDS:
        only_theirs = field not in when_ours and _is_blank(field, ours[field]) and not _is_blank(field, theirs[field])
        if when_theirs.get(field, "") > when_ours.get(field, "") or only_theirs:
            values[field] = rows.from_column(field, theirs[field])
    for flag in _FLAGS:
        if theirs[flag] and not ours[flag]:
            values[flag] = True
    return values


def _newer_preferences(db: apsw.Connection, lead_id: str, into: str) -> dict[str, str]:
    theirs, ours = _preferences(db, lead_id), _preferences(db, into)
    when_theirs, when_ours = _changed(db, lead_id), _changed(db, into)
    newer: dict[str, str] = {}
    # One that was erased is told by the audit alone; it wins as an empty value.
    for key in theirs.keys() | {field.removeprefix(_OF_PREFERENCES) for field in when_theirs if _of_one(field)}:
        field = f"{_OF_PREFERENCES}{key}"
        only_theirs = field not in when_ours and key not in ours
        if when_theirs.get(field, "") > when_ours.get(field, "") or only_theirs:
            newer[key] = theirs.get(key, "")
    return newer


def _of_one(field: str) -> bool:
    return field.startswith(_OF_PREFERENCES)


def _preferences(db: apsw.Connection, lead_id: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(db.execute("SELECT preferences FROM leads WHERE id = ?", (lead_id,)).get)
    return found


def _is_blank(field: LeadField, column: str | int | None) -> bool:
    """Nothing is known: the audit may be too old to be there, so it alone cannot say."""
    return column in (None, "") or column == _BLANK.get(field)


def _columns(db: apsw.Connection, lead_id: str) -> dict[LeadField, str | int | None]:
    fields = (*_MERGED_FIELDS, *_FLAGS)
    row: tuple[Any, ...] = db.execute(f"SELECT {', '.join(fields)} FROM leads WHERE id = ?", (lead_id,)).get
    return dict(zip(fields, row, strict=True))


def _changed(db: apsw.Connection, lead_id: str) -> dict[str, str]:
    """When each field was last changed."""
    found: list[Any] = db.execute(
        "SELECT field, max(changed_at) FROM lead_changes WHERE lead_id = ? GROUP BY field", (lead_id,)
    ).fetchall()
    return dict(found)
