"""Recording a turn, and putting a summary: each function is the inside of one transaction."""

import uuid
from dataclasses import replace

import apsw

from context_service.domain import (
    ConversationStatus,
    FieldValue,
    Handoff,
    LeadField,
    LeadPatch,
    Recorded,
    Summary,
    TurnKind,
    TurnRecord,
)
from context_service.errors import Forgotten
from context_service.privacy import ContactHasher
from context_service.store import lead_writes, merging, reads, rows
from context_service.store.lines import by_human, history_lines
from service_kit.errors import InvalidArgument, NotFound, WrongState

HUMAN_STAGE = "HUMAN_HANDOFF"
_INSERT_MESSAGE = (
    "INSERT INTO messages (id, conversation_id, sequence, tenant, channel, instance, role, sender, content, "
    "message_type, media_type, media_data, details, turn_id, provider_message_id, delivery_state, fallback, "
    "created_at) "
    "VALUES (:id, :conversation_id, (SELECT total_messages + 1 FROM conversations WHERE id = :conversation_id), "
    ":tenant, :channel, :instance, :role, :sender, :content, :message_type, :media_type, :media_data, :details, "
    ":turn_id, :provider_message_id, :delivery_state, :fallback, :created_at) "
    "ON CONFLICT (tenant, channel, instance, provider_message_id) WHERE provider_message_id <> '' DO NOTHING"
)


def record_turn(db: apsw.Connection, record: TurnRecord, now_ms: int, hasher: ContactHasher) -> Recorded:
    """See `ContextStore.record_turn`."""
    _refuse_forgotten(db, record)
    record = replace(record, conversation_id=reads.survivor_of(db, record.conversation_id))
    first = db.execute("SELECT tenant, version, lead_id FROM turns WHERE turn_id = ?", (record.turn_id,)).get
    if first is not None:
        if first[0] != record.scope.tenant:
            raise InvalidArgument("This turn belongs to another tenant.", field="record.turn_id")
        return Recorded(version=first[1], lead_id=first[2], duplicate=True)
    now = rows.to_text(now_ms)
    lead_id = lead_writes.lead_of(db, record, _lead_of_conversation(db, record), hasher, now)
    _open_conversation(db, record, lead_id, now)
    if record.merged_conversation_ids:
        merging.absorb(db, record, lead_id, now)
    lead_writes.learn_names(db, lead_id, record, hasher, now)
    _append(db, record)
    handed_over = _apply_effects(db, record, lead_id, now)
    lead_writes.touch(db, lead_id, record, now=now)
    version = _close_turn(db, record, lead_id, handed_over=handed_over, now=now)
    generation = record.generation
    count_usage(db, record.scope.tenant, record.conversation_id, generation.tokens, generation.cost_micros, now_ms)
    return Recorded(version=version, lead_id=lead_id, duplicate=False)


def put_summary(db: apsw.Connection, conversation_id: str, summary: Summary, now_ms: int) -> None:
    """See `ContextStore.put_summary`."""
    conversation_id = reads.survivor_of(db, conversation_id)
    known = db.execute(
        "SELECT tenant, version, total_messages, summary_through FROM conversations WHERE id = ?", (conversation_id,)
    ).get
    if known is None:
        raise NotFound("There is no such conversation.", resource="conversation")
    tenant, version, total, through = known
    if summary.through < through:
        raise WrongState("There is a newer summary.", conversation_id=conversation_id, state="newer_summary")
    if summary.version > version or summary.through > total:
        raise WrongState("There is no such version yet.", conversation_id=conversation_id, state="older_version")
    db.execute(
        "UPDATE conversations SET summary = ?, summary_version = ?, summary_through = ? WHERE id = ?",
        (summary.text, summary.version, summary.through, conversation_id),
    )
    count_usage(db, tenant, conversation_id, summary.tokens, summary.cost_micros, now_ms)


def count_usage(
    db: apsw.Connection, tenant: str, conversation_id: str, tokens: int, cost_micros: int, now_ms: int
) -> None:
    """Add to today's counters of the conversation and of the tenant (an empty conversation_id)."""
    if not tokens and not cost_micros:
        return
    db.executemany(
        "INSERT INTO usage_days (tenant, day, conversation_id, tokens, cost_micros) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (tenant, day, conversation_id) DO UPDATE SET tokens = tokens + excluded.tokens, "
        "cost_micros = cost_micros + excluded.cost_micros",
        [(tenant, rows.day(now_ms), one, tokens, cost_micros) for one in (conversation_id, "")],
    )


def _refuse_forgotten(db: apsw.Connection, record: TurnRecord) -> None:
    found = db.execute("SELECT 1 FROM forgotten_conversations WHERE conversation_id = ?", (record.conversation_id,))
    if found.get:
        raise Forgotten(conversation_id=record.conversation_id)


def _lead_of_conversation(db: apsw.Connection, record: TurnRecord) -> str | None:
    known = db.execute("SELECT tenant, lead_id FROM conversations WHERE id = ?", (record.conversation_id,)).get
    if known is None:
        return None
    if known[0] != record.scope.tenant:
        raise InvalidArgument("This conversation belongs to another tenant.", field="record.scope.tenant")
    lead_id: str = known[1]
    return lead_id


def _open_conversation(db: apsw.Connection, record: TurnRecord, lead_id: str, now: str) -> None:
    """The recorded conversation is the open one of its lead, channel and instance; another one is completed first."""
    scope = record.scope
    db.execute(
        "UPDATE conversations SET status = 'COMPLETED', updated_at = ? WHERE lead_id = ? AND channel = ? "
        "AND instance = ? AND status IN ('ACTIVE', 'PAUSED') AND id <> ?",
        (now, lead_id, scope.channel, scope.instance, record.conversation_id),
    )
    db.execute(
        "INSERT INTO conversations (id, tenant, channel, instance, lead_id, session_id, phone_number, current_stage, "
        "started_at, created_at, updated_at) SELECT :id, :tenant, :channel, :instance, id, :id, phone_number, "
        "current_stage, :started, :now, :now FROM leads WHERE id = :lead_id ON CONFLICT (id) DO NOTHING",
        {
            "id": record.conversation_id,
            "tenant": scope.tenant,
            "channel": scope.channel,
            "instance": scope.instance,
            "lead_id": lead_id,
            "started": rows.to_text(record.opened_ms),
            "now": now,
        },
    )
    # Open before the merges: those complete what would be a second open one.
    db.execute(
        "UPDATE conversations SET status = 'ACTIVE' WHERE id = ? AND status NOT IN ('ACTIVE', 'PAUSED')",
        (record.conversation_id,),
    )


def _append(db: apsw.Connection, record: TurnRecord) -> None:
    scope = record.scope
    for line in history_lines(record):
        columns = {
            "id": str(uuid.uuid4()),
            "conversation_id": record.conversation_id,
            "tenant": scope.tenant,
            "channel": scope.channel,
            "instance": scope.instance,
            "role": line.role,
            "sender": line.author,
            "content": line.text,
            "message_type": line.message_type,
            "media_type": line.media_type,
            "media_data": rows.to_json(line.media) if line.media else None,
            "details": rows.to_json(line.details) if line.details else None,
            "turn_id": record.turn_id,
            "provider_message_id": line.provider_message_id,
            "delivery_state": line.delivery,
            "fallback": int(line.fallback),
            "created_at": rows.to_text(line.at_ms),
        }
        db.execute(_INSERT_MESSAGE, columns)
        if db.changes():
            db.execute(
                "UPDATE conversations SET total_messages = total_messages + 1 WHERE id = ?", (record.conversation_id,)
            )


def _apply_effects(db: apsw.Connection, record: TurnRecord, lead_id: str, now: str) -> bool:
    """Apply in order, the latest value wins; true when the conversation was given to a human."""
    handed_over = record.handoff
    for effect in record.effects:
        if isinstance(effect, Handoff):
            handed_over = True
            lead_writes.audit(db, lead_id, "handoff", None, effect.reason, by=record.turn_id, now=now)
        else:
            lead_writes.change(db, lead_id, effect, by=record.turn_id, now=now)
    consequences: dict[LeadField, FieldValue] = {}
    if handed_over:
        consequences[LeadField.CURRENT_STAGE] = HUMAN_STAGE
    if handed_over or record.needs_human:
        consequences[LeadField.NEEDS_HUMAN] = True
    lead_writes.change(db, lead_id, LeadPatch(values=consequences, preferences={}), by=record.turn_id, now=now)
    return handed_over


def _close_turn(db: apsw.Connection, record: TurnRecord, lead_id: str, *, handed_over: bool, now: str) -> int:
    """Raise the version and keep the answer for a repeat."""
    version: int = db.execute(
        "UPDATE conversations SET version = version + 1, updated_at = :now, "
        "status = coalesce(:status, iif(status IN ('ACTIVE', 'PAUSED'), status, 'ACTIVE')), "
        "needs_human = max(needs_human, :needs_human), "
        "current_stage = (SELECT current_stage FROM leads WHERE id = lead_id) WHERE id = :id RETURNING version",
        {
            "now": now,
            "status": _status(record, handed_over=handed_over),
            "needs_human": int(record.needs_human or handed_over),
            "id": record.conversation_id,
        },
    ).get
    db.execute(
        "INSERT INTO turns (turn_id, tenant, conversation_id, lead_id, version, kind, truncated, needs_human, handoff, "
        "opened_at, ended_at, created_at, model, fallback, prompt_tokens, cached_tokens, completion_tokens, "
        "discarded_tokens, cost_micros) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.turn_id,
            record.scope.tenant,
            record.conversation_id,
            lead_id,
            version,
            record.kind,
            int(record.truncated),
            int(record.needs_human),
            int(handed_over),
            rows.to_text(record.opened_ms),
            rows.to_text(record.ended_ms),
            now,
            record.generation.model,
            int(record.generation.fallback),
            record.generation.prompt_tokens,
            record.generation.cached_tokens,
            record.generation.completion_tokens,
            record.generation.discarded_tokens,
            record.generation.cost_micros,
        ),
    )
    return version


def _status(record: TurnRecord, *, handed_over: bool) -> ConversationStatus | None:
    """A copy of the buffer's pause as far as a turn shows it; None: as it was, but open."""
    if handed_over or by_human(record):
        return ConversationStatus.PAUSED
    return ConversationStatus.ACTIVE if record.kind is TurnKind.ANSWER else None
