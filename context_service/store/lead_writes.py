"""Changing a lead: only what differs is written, and each difference leaves an audit row."""

import json
import uuid

import apsw

from context_service.domain import LeadField, LeadPatch, TurnRecord
from context_service.privacy import ContactHasher
from context_service.store import reads, rows
from context_service.store.lines import last_from_lead_ms, referral_of
from service_kit import logs
from service_kit.errors import NotFound

_COLUMNS = tuple(LeadField)
_log = logs.get(__name__)


def lead_of(
    db: apsw.Connection, record: TurnRecord, conversation_lead: str | None, hasher: ContactHasher, now: str
) -> str:
    """The lead of a turn, created if nobody has any of its aliases. A conversation keeps the lead it began with."""
    candidates = reads.leads_by_age(db, record.scope.tenant, record.contact.all_aliases)
    return conversation_lead or (candidates[0] if candidates else None) or _create(db, record, hasher, now)


def learn_names(db: apsw.Connection, lead_id: str, record: TurnRecord, hasher: ContactHasher, now: str) -> None:
    """The aliases that came with the turn, and the phone number. An alias stays with the lead that had it first; a new
    one may be of somebody who is never to be contacted."""
    tenant = record.scope.tenant
    if _marked(db, tenant, hasher.hashes(tenant, _unknown_names(db, record))):
        change(
            db,
            lead_id,
            LeadPatch(values={LeadField.DO_NOT_CONTACT: True}, preferences={}),
            by=record.turn_id,
            now=now,
        )
    others = [one for one in reads.leads_by_age(db, tenant, record.contact.all_aliases) if one != lead_id]
    if others:
        # The buffer merges conversations of one place only; whether two leads of two places are one person is not
        # guessed here.
        _log.warning("aliases_of_two_leads_found", kept=lead_id, others=others)
    db.executemany(
        "INSERT INTO lead_aliases (tenant, alias, lead_id, created_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (tenant, alias) DO NOTHING",
        [(tenant, alias, lead_id, now) for alias in record.contact.all_aliases],
    )
    _take_phone_number(db, lead_id, record, now)


def touch(db: apsw.Connection, lead_id: str, record: TurnRecord, *, now: str) -> None:
    """What every turn leaves on its lead."""
    last, referral = last_from_lead_ms(record), referral_of(record)
    db.execute(
        "UPDATE leads SET updated_at = :now, "
        "display_name = coalesce(nullif(:display_name, ''), display_name), referral = coalesce(referral, :referral), "
        "last_interaction = nullif(max(coalesce(last_interaction, ''), :last), '') WHERE id = :lead_id",
        {
            "now": now,
            "display_name": record.contact.display_name,
            "referral": rows.to_json(referral) if referral else None,
            "last": "" if last is None else rows.to_text(last),
            "lead_id": lead_id,
        },
    )


def change(db: apsw.Connection, lead_id: str, patch: LeadPatch, *, by: str, now: str) -> None:
    """Apply a patch; `by` is a turn id or "api". Errors: NotFound."""
    row = db.execute(f"SELECT preferences, {', '.join(_COLUMNS)} FROM leads WHERE id = ?", (lead_id,)).get
    if row is None:
        raise NotFound("There is no such lead.", resource="lead")
    before = dict(zip(_COLUMNS, row[1:], strict=True))
    for field, value in patch.values.items():
        column = rows.to_column(field, value)
        if column != before[field]:
            db.execute(f"UPDATE leads SET {field} = ?, updated_at = ? WHERE id = ?", (column, now, lead_id))
            audit(db, lead_id, field, before[field], column, by=by, now=now)
    _change_preferences(db, lead_id, json.loads(row[0]), patch, by=by, now=now)


def audit(db: apsw.Connection, lead_id: str, field: str, old: object, new: object, *, by: str, now: str) -> None:
    """One line of who changed what."""
    db.execute(
        "INSERT INTO lead_changes (lead_id, field, old_value, new_value, changed_by, changed_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (lead_id, field, None if old is None else str(old), None if new is None else str(new), by, now),
    )


def _create(db: apsw.Connection, record: TurnRecord, hasher: ContactHasher, now: str) -> str:
    lead_id, tenant = str(uuid.uuid4()), record.scope.tenant
    marked = _marked(db, tenant, hasher.hashes(tenant, record.contact.all_aliases))
    db.execute(
        "INSERT INTO leads (id, tenant, phone_number, do_not_contact, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (lead_id, tenant, record.contact.contact, int(marked), now, now),
    )
    return lead_id


def _marked(db: apsw.Connection, tenant: str, hashes: tuple[str, ...]) -> bool:
    """Somebody with one of these hashes was erased and is never to be contacted."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM do_not_contact WHERE tenant = ? "
        "AND contact_hash IN (SELECT value FROM json_each(?)))",
        (tenant, rows.to_json(hashes)),
    ).get
    return bool(found)


def _unknown_names(db: apsw.Connection, record: TurnRecord) -> tuple[str, ...]:
    """The turn's aliases that no lead has."""
    found = db.execute(
        "SELECT value FROM json_each(?) "
        "WHERE NOT EXISTS (SELECT 1 FROM lead_aliases WHERE tenant = ? AND alias = json_each.value)",
        (rows.to_json(record.contact.all_aliases), record.scope.tenant),
    )
    return tuple(alias for (alias,) in found)


def _take_phone_number(db: apsw.Connection, lead_id: str, record: TurnRecord, now: str) -> None:
    """A phone replaces what was known before, which may be a LID; a LID never replaces a phone."""
    contact = record.contact.contact
    if not contact.isdigit():
        return
    old = db.execute("SELECT phone_number FROM leads WHERE id = ?", (lead_id,)).get
    owner = db.execute("SELECT id FROM leads WHERE tenant = ? AND phone_number = ?", (record.scope.tenant, contact)).get
    alias_owner = reads.oldest_lead(db, record.scope.tenant, (record.contact.all_aliases[0],))
    if old != contact and owner is None and alias_owner == lead_id:
        db.execute("UPDATE leads SET phone_number = ? WHERE id = ?", (contact, lead_id))
        db.execute("UPDATE conversations SET phone_number = ? WHERE lead_id = ?", (contact, lead_id))
        audit(db, lead_id, "phone_number", old, contact, by=record.turn_id, now=now)


def _change_preferences(
    db: apsw.Connection, lead_id: str, before: dict[str, str], patch: LeadPatch, *, by: str, now: str
) -> None:
    after = {} if patch.replace_preferences else dict(before)
    after.update(patch.preferences)
    after = {key: value for key, value in after.items() if value}
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    if not changed:
        return
    db.execute("UPDATE leads SET preferences = ?, updated_at = ? WHERE id = ?", (rows.to_json(after), now, lead_id))
    for key in changed:
        audit(db, lead_id, f"preferences.{key}", before.get(key), after.get(key), by=by, now=now)
