"""Between the nouns of this service and the JSON of the database's functions and tables."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from context_service.domain import (
    After,
    Author,
    Conversation,
    ConversationStatus,
    FieldValue,
    Handoff,
    HistoryMessage,
    Lead,
    LeadField,
    LeadPatch,
    Media,
    Scope,
    TurnRecord,
    UsageToday,
)
from context_service.store import rows
from context_service.store.lines import by_human, history_lines, last_from_lead_ms, referral_of

LEAD_SELECT: Final = (
    "id,tenant,phone_number,name,email,bill_value::text,current_stage,qualification_score,qualification_status,"
    "interested,chosen_flow,preferences,needs_human,do_not_contact,referral,last_interaction,created_at,updated_at"
)
CONVERSATION_SELECT: Final = (
    "session_id,lead_id,tenant,channel,instance,phone_number,status,current_stage,total_messages,version,summary,"
    "summary_version,summary_through,started_at,updated_at"
)
_TYPES: Final = frozenset(
    ("text", "image", "video", "audio", "document", "sticker", "location", "contact_card", "choice", "unsupported")
)
_MEDIA_TYPES: Final = {name: type(field.default) for name, field in Media.__dataclass_fields__.items()}


def lead(row: Mapping[str, Any]) -> Lead:
    """A row of LEAD_SELECT, or what `sdr_lead_json` makes. Columns of the system before may be null."""
    return Lead(
        lead_id=row["id"],
        tenant=row["tenant"],
        phone_number=row["phone_number"],
        name=row["name"] or "",
        email=row["email"] or "",
        bill_value_cents=None if row["bill_value"] is None else int(Decimal(row["bill_value"]) * 100),
        current_stage=row["current_stage"],
        qualification_score=row["qualification_score"],
        qualification_status=row["qualification_status"],
        interested=row["interested"],
        chosen_flow=row["chosen_flow"] or "",
        preferences={key: _plain(value) for key, value in row["preferences"].items() if value is not None},
        needs_human=row["needs_human"],
        do_not_contact=row["do_not_contact"],
        referral=row["referral"],
        last_interaction_ms=None if row["last_interaction"] is None else rows.to_ms(row["last_interaction"]),
        created_ms=rows.to_ms(row["created_at"]),
        updated_ms=rows.to_ms(row["updated_at"]),
    )


def conversation(row: Mapping[str, Any]) -> Conversation:
    """A row of CONVERSATION_SELECT, or what `sdr_conversation_json` makes."""
    return Conversation(
        conversation_id=row["session_id"],
        lead_id=row["lead_id"] or "",
        scope=Scope(tenant=row["tenant"], channel=row["channel"], instance=row["instance"]),
        phone_number=row["phone_number"],
        status=ConversationStatus(row["status"]),
        current_stage=row["current_stage"],
        total_messages=row["total_messages"],
        version=row["version"],
        summary=row["summary"],
        summary_version=row["summary_version"],
        summary_through=row["summary_through"],
        started_ms=rows.to_ms(row["started_at"]),
        updated_ms=rows.to_ms(row["updated_at"]),
    )


def message(row: Mapping[str, Any]) -> HistoryMessage:
    """What `sdr_message_json` makes. Lines of the system before have words of their own for type and sender."""
    media = _media(row["media_data"])
    kind = str(row["message_type"] or "text").lower()
    return HistoryMessage(
        history_id=row["id"],
        sequence=row["sequence"],
        author=_author(row),
        text=row["content"],
        message_type=kind if kind in _TYPES else ("unsupported" if row["media_data"] else "text"),
        created_ms=rows.to_ms(row["created_at"]),
        turn_id=row["turn_id"],
        provider_message_id=row["provider_message_id"],
        media=media,
        fallback=row["fallback"],
    )


def usage(row: Mapping[str, Any]) -> UsageToday:
    """What `sdr_usage_today` makes."""
    return UsageToday(**row)


def after(answer: Mapping[str, Any]) -> After:
    """What `sdr_record_turn` says that it left behind."""
    return After(
        lead=lead(answer["lead"]),
        conversation=conversation(answer["conversation"]),
        messages=tuple(message(one) for one in answer["messages"]),
        usage=usage(answer["usage"]),
    )


def values(patch: LeadPatch) -> dict[str, FieldValue]:
    """The columns that a patch names."""
    return {field.value: _column(field, value) for field, value in patch.values.items()}


def turn(record: TurnRecord, *, hashes: tuple[str, ...], now_ms: int) -> dict[str, Any]:
    """The argument of `sdr_record_turn`."""
    last, made = last_from_lead_ms(record), record.generation
    return {
        "turn_id": record.turn_id,
        "conversation_id": record.conversation_id,
        "tenant": record.scope.tenant,
        "channel": record.scope.channel,
        "instance": record.scope.instance,
        "contact": record.contact.contact,
        "aliases": list(record.contact.all_aliases),
        "hashes": list(hashes),
        "display_name": record.contact.display_name,
        "kind": record.kind,
        "by_human": by_human(record),
        "handoff": record.handoff,
        "needs_human": record.needs_human,
        "truncated": record.truncated,
        "opened_at": rows.to_text(record.opened_ms),
        "ended_at": rows.to_text(record.ended_ms),
        "now": rows.to_text(now_ms),
        "last_interaction": None if last is None else rows.to_text(last),
        "referral": referral_of(record),
        "merged": list(record.merged_conversation_ids),
        "effects": [_effect(one) for one in record.effects],
        "generation": {
            "model": made.model,
            "fallback": made.fallback,
            "prompt_tokens": made.prompt_tokens,
            "cached_tokens": made.cached_tokens,
            "completion_tokens": made.completion_tokens,
            "discarded_tokens": made.discarded_tokens,
            "cost_micros": made.cost_micros,
            "tokens": made.tokens,
        },
        "lines": [
            {
                "role": line.role,
                "sender": line.author,
                "content": line.text,
                "message_type": line.message_type,
                "media_type": line.media_type,
                "media_data": list(line.media) or None,
                "details": line.details,
                "provider_message_id": line.provider_message_id,
                "delivery_state": line.delivery,
                "fallback": line.fallback,
                "created_at": rows.to_text(line.at_ms),
            }
            for line in history_lines(record)
        ],
    }


def _effect(effect: LeadPatch | Handoff) -> dict[str, Any]:
    if isinstance(effect, Handoff):
        return {"handoff": effect.reason}
    return {"values": values(effect), "preferences": dict(effect.preferences)}


def _column(field: LeadField, value: FieldValue) -> FieldValue:
    return rows.to_decimal(value) if field is LeadField.BILL_VALUE and isinstance(value, int) else value


def _plain(value: object) -> str:
    return value if isinstance(value, str) else rows.to_json(value)


def _author(row: Mapping[str, Any]) -> Author:
    try:
        return Author(row["sender"])
    except ValueError:
        return Author.LEAD if row["role"] == "user" else Author.ASSISTANT


def _media(stored: object) -> tuple[Media, ...]:
    """Files as this product stores them; anything else was another system's."""
    if not isinstance(stored, list):
        return ()
    return tuple(Media(**one) for one in stored if _is_media(one))


def _is_media(one: object) -> bool:
    # By exact type: a true is no number of seconds.
    return isinstance(one, dict) and all(type(value) is _MEDIA_TYPES.get(name) for name, value in one.items())
