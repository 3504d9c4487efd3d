"""How the nouns look as columns: instants as ISO text, money as decimal text, lists and maps as JSON."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from context_service.domain import (
    Author,
    Conversation,
    ConversationStatus,
    FieldValue,
    HistoryMessage,
    Lead,
    LeadField,
    Media,
    Scope,
)

Row = tuple[Any, ...]

LEAD_COLUMNS: Final = (
    "id, tenant, phone_number, name, email, bill_value, current_stage, qualification_score, qualification_status, "
    "interested, chosen_flow, preferences, needs_human, do_not_contact, referral, last_interaction, created_at, "
    "updated_at"
)
CONVERSATION_COLUMNS: Final = (
    "id, lead_id, tenant, channel, instance, phone_number, status, current_stage, total_messages, version, summary, "
    "summary_version, summary_through, started_at, updated_at"
)
MESSAGE_COLUMNS: Final = (
    "id, sequence, sender, content, message_type, created_at, turn_id, provider_message_id, media_data, fallback"
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_text(epoch_ms: int) -> str:
    """An instant as it is stored: 2026-01-31T12:00:00.000Z."""
    moment = _EPOCH + timedelta(milliseconds=epoch_ms)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def to_ms(stored: str) -> int:
    """The reverse of `to_text`."""
    return (datetime.fromisoformat(stored) - _EPOCH) // _MILLISECOND


def day(epoch_ms: int) -> str:
    """The day of an instant, UTC: 2026-01-31."""
    return to_text(epoch_ms)[:10]


def to_decimal(cents: int) -> str:
    """Cents as decimal text with two decimals; no float in between."""
    return f"{cents // 100}.{cents % 100:02d}"


def to_cents(stored: str) -> int:
    """The reverse of `to_decimal`."""
    whole, _, fraction = stored.partition(".")
    return int(whole) * 100 + int(fraction)


def to_json(value: object) -> str:
    """Compact JSON with sorted keys, so that equal values are equal texts."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def to_column(field: LeadField, value: FieldValue) -> str | int | None:
    """A lead's value as its column holds it."""
    if field is LeadField.BILL_VALUE and isinstance(value, int):
        return to_decimal(value)
    return int(value) if isinstance(value, bool) else value


def from_column(field: LeadField, column: str | int | None) -> FieldValue:
    """The reverse of `to_column`."""
    if column is None:
        return None
    if field is LeadField.BILL_VALUE:
        return to_cents(str(column))
    return bool(column) if field is LeadField.INTERESTED else column


def lead(row: Row) -> Lead:
    """A row of LEAD_COLUMNS."""
    preferences: Mapping[str, str] = json.loads(row[11])
    return Lead(
        lead_id=row[0],
        tenant=row[1],
        phone_number=row[2],
        name=row[3],
        email=row[4],
        bill_value_cents=None if row[5] is None else to_cents(row[5]),
        current_stage=row[6],
        qualification_score=row[7],
        qualification_status=row[8],
        interested=None if row[9] is None else bool(row[9]),
        chosen_flow=row[10],
        preferences=preferences,
        needs_human=bool(row[12]),
        do_not_contact=bool(row[13]),
        referral=None if row[14] is None else json.loads(row[14]),
        last_interaction_ms=None if row[15] is None else to_ms(row[15]),
        created_ms=to_ms(row[16]),
        updated_ms=to_ms(row[17]),
    )


def conversation(row: Row) -> Conversation:
    """A row of CONVERSATION_COLUMNS."""
    return Conversation(
        conversation_id=row[0],
        lead_id=row[1],
        scope=Scope(tenant=row[2], channel=row[3], instance=row[4]),
        phone_number=row[5],
        status=ConversationStatus(row[6]),
        current_stage=row[7],
        total_messages=row[8],
        version=row[9],
        summary=row[10],
        summary_version=row[11],
        summary_through=row[12],
        started_ms=to_ms(row[13]),
        updated_ms=to_ms(row[14]),
    )


def message(row: Row) -> HistoryMessage:
    """A row of MESSAGE_COLUMNS."""
    media: list[dict[str, Any]] = [] if row[8] is None else json.loads(row[8])
    return HistoryMessage(
        history_id=row[0],
        sequence=row[1],
        author=Author(row[2]),
        text=row[3],
        message_type=row[4],
        created_ms=to_ms(row[5]),
        turn_id=row[6],
        provider_message_id=row[7],
        media=tuple(Media(**item) for item in media),
        fallback=bool(row[9]),
    )
