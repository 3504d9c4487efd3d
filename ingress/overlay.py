"""Turns that the context service doesn't have yet, laid over what it knows: the buffer keeps them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2

MAX_HISTORY = 200
PLAIN = (
    "name",
    "email",
    "bill_value_cents",
    "qualification_score",
    "qualification_status",
    "interested",
    "chosen_flow",
)


def with_unrecorded(
    context: lead_pb2.ConversationContext, unrecorded: Iterable[turn_pb2.TurnRecord]
) -> lead_pb2.ConversationContext:
    """The context after these turns, oldest first. The argument is not changed."""
    out = lead_pb2.ConversationContext()
    out.CopyFrom(context)
    known = {line.turn_id for line in out.history}
    for record in unrecorded:
        if record.turn_id in known:
            continue
        out.history.extend(_lines(record))
        for effect in record.effects:
            if effect.WhichOneof("effect") == "lead_update":
                _apply(out.lead, effect.lead_update)
    del out.history[:-MAX_HISTORY]
    return out


def _lines(record: turn_pb2.TurnRecord) -> Iterable[lead_pb2.HistoryMessage]:
    for message in record.messages:
        yield lead_pb2.HistoryMessage(
            author=message.author,
            text=message.text,
            type=message.type,
            create_time=message.accept_time,
            turn_id=record.turn_id,
            provider_message_id=message.message_id,
            media=message.media,
        )
    for part in record.parts:
        yield lead_pb2.HistoryMessage(
            author=message_pb2.AUTHOR_ASSISTANT,
            text=part.text,
            type=message_pb2.MESSAGE_TYPE_TEXT,
            create_time=record.open_time,
            turn_id=record.turn_id,
        )


def _apply(lead: lead_pb2.Lead, update: turn_pb2.LeadUpdate) -> None:
    for field in PLAIN:
        if update.HasField(field):  # type: ignore[arg-type]
            setattr(lead, field, getattr(update, field))
    if update.HasField("stage"):
        lead.current_stage = update.stage
    for key, value in update.preferences.items():
        if value:
            lead.preferences[key] = value
        else:
            lead.preferences.pop(key, None)
