"""Turns that the context service doesn't have yet, laid over what it knows: the buffer keeps them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2

# The budget of a lookup (LoadContextRequest): a long outage must not make prompts long, and replies late.
MAX_LINES = 40
MAX_BYTES = 32 * 1024
# What context_service makes of a hand-over.
HUMAN_STAGE = "HUMAN_HANDOFF"
PLAIN = (
    "name",
    "email",
    "bill_value_cents",
    "qualification_score",
    "qualification_status",
    "interested",
    "chosen_flow",
    "do_not_contact",
)


def with_unrecorded(
    context: lead_pb2.ConversationContext, unrecorded: Sequence[turn_pb2.TurnRecord]
) -> lead_pb2.ConversationContext:
    """The context as it will be when these turns, oldest first, are recorded. The argument is not changed."""
    out = lead_pb2.ConversationContext()
    out.CopyFrom(context)
    missing = unrecorded[_known(context, unrecorded) :]
    latest, all_of_them = _latest_lines(missing)
    if not all_of_them:
        # History has no holes: what is older than a line that does not fit is left out too.
        del out.history[:]
        out.history_cut = True
    out.history.extend(latest)
    for record in missing:
        out.total_messages += len(record.messages) + len(record.parts)
        _change(out.lead, record)
        _count(out.usage, record)
    return out


def _known(context: lead_pb2.ConversationContext, unrecorded: Sequence[turn_pb2.TurnRecord]) -> int:
    """How many of them the store has after all. They are recorded in order: what is older than a known one is known,
    though its lines may have been left out of a long history."""
    seen = {line.turn_id for line in context.history}
    return max((n for n, record in enumerate(unrecorded, 1) if record.turn_id in seen), default=0)


def _latest_lines(records: Sequence[turn_pb2.TurnRecord]) -> tuple[list[lead_pb2.HistoryMessage], bool]:
    """As many as fit, oldest first, at least one; and whether these are all."""
    lines: list[lead_pb2.HistoryMessage] = []
    size = 0
    for line in (line for record in reversed(records) for line in reversed(_lines(record))):
        size += len(line.text.encode())
        if lines and (len(lines) == MAX_LINES or size > MAX_BYTES):
            return lines[::-1], False
        lines.append(line)
    return lines[::-1], True


def _lines(record: turn_pb2.TurnRecord) -> list[lead_pb2.HistoryMessage]:
    fallback = any(effect.generation.fallback for effect in record.effects)
    heard = [
        lead_pb2.HistoryMessage(
            author=message.author,
            text=message.text,
            type=message.type,
            create_time=message.provider_time if message.HasField("provider_time") else message.accept_time,
            turn_id=record.turn_id,
            provider_message_id=message.message_id,
            media=message.media,
        )
        for message in record.messages
    ]
    said = [
        lead_pb2.HistoryMessage(
            author=message_pb2.AUTHOR_ASSISTANT,
            text=part.text,
            type=message_pb2.MESSAGE_TYPE_TEXT,
            create_time=record.end_time if record.HasField("end_time") else record.open_time,
            turn_id=record.turn_id,
            fallback=fallback or record.kind == turn_pb2.TURN_KIND_APOLOGY,
        )
        for part in record.parts
    ]
    return heard + said


def _change(lead: lead_pb2.Lead, record: turn_pb2.TurnRecord) -> None:
    """In order; the latest value wins."""
    for effect in record.effects:
        if effect.WhichOneof("effect") == "lead_update":
            _apply(lead, effect.lead_update)
    if record.handoff or any(effect.HasField("handoff") for effect in record.effects):
        lead.current_stage = HUMAN_STAGE
        lead.needs_human = True
    elif record.needs_human:
        lead.needs_human = True


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


def _count(usage: lead_pb2.UsageToday, record: turn_pb2.TurnRecord) -> None:
    """Else a long outage would have no budget. The store counts a turn on the day on which it is recorded."""
    for made in (effect.generation for effect in record.effects if effect.HasField("generation")):
        tokens = made.prompt_tokens + made.completion_tokens + made.discarded_tokens
        usage.conversation_tokens += tokens
        usage.tenant_tokens += tokens
        usage.conversation_cost_micros += made.cost_micros
        usage.tenant_cost_micros += made.cost_micros
