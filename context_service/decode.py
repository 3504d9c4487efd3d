"""From the wire to the nouns of this service; whatever is wrong raises InvalidArgument that names the field."""

from collections.abc import Callable, Mapping

from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from context_service import fields
from context_service.domain import (
    DEFAULT_TENANT,
    Author,
    Contact,
    ContextQuery,
    Delivery,
    Effect,
    FieldValue,
    Generation,
    Handoff,
    IncomingMessage,
    LeadField,
    LeadPatch,
    Media,
    Scope,
    SentPart,
    Summary,
    TurnKind,
    TurnRecord,
    as_alias,
)
from service_kit.errors import InvalidArgument

DEFAULT_HISTORY = 40
MAX_HISTORY = 200
DEFAULT_HISTORY_BYTES = 32 * 1024
MAX_HISTORY_BYTES = 1024 * 1024
# Of tokens and of millionths of a dollar; sums of them stay far from where integers end.
MAX_TOKENS = 10**12
QUALIFICATION_STATUSES = ("PENDING", "QUALIFIED", "NOT_QUALIFIED")
_MAX_BILL_CENTS = 9_999_999_999
# Every name that the buffer ever learned of a person comes with each turn.
_MAX_ALIASES = 1_000
_MAX_FIELD_BYTES = 4096
_MAX_PREFERENCES = 64
_MAX_PREFERENCE_BYTES = 1024
_KINDS = {
    turn_pb2.TURN_KIND_ANSWER: TurnKind.ANSWER,
    turn_pb2.TURN_KIND_APOLOGY: TurnKind.APOLOGY,
    turn_pb2.TURN_KIND_RECORD: TurnKind.RECORD,
}
_AUTHORS = {
    message_pb2.AUTHOR_LEAD: Author.LEAD,
    message_pb2.AUTHOR_HUMAN: Author.HUMAN,
    message_pb2.AUTHOR_ASSISTANT: Author.ASSISTANT,
}
_DELIVERIES = {turn_pb2.PART_STATE_SENT: Delivery.SENT, turn_pb2.PART_STATE_UNKNOWN: Delivery.UNKNOWN}


def tenant(value: str, field: str = "tenant") -> str:
    """The business; empty means the default one."""
    return fields.optional_identifier(value, field) or DEFAULT_TENANT


def alias(value: str, field: str = "contact") -> str:
    """A canonical contact or an alias, in its alias form."""
    return as_alias(fields.identifier(value, field))


def context_query(request: pb.LoadContextRequest) -> ContextQuery:
    """Which context is wanted."""
    fields.number(request.min_version, "min_version")
    return ContextQuery(
        conversation_id=fields.identifier(request.conversation_id, "conversation_id"),
        scope=_scope(request.scope, "scope"),
        contact=_contact(request.contact, "contact"),
        history_limit=fields.number(request.history_limit, "history_limit", most=MAX_HISTORY) or DEFAULT_HISTORY,
        history_bytes=fields.number(request.history_bytes, "history_bytes", most=MAX_HISTORY_BYTES)
        or DEFAULT_HISTORY_BYTES,
    )


def turn_record(wire: turn_pb2.TurnRecord) -> TurnRecord:
    """A turn to store."""
    if wire.kind not in _KINDS:
        raise InvalidArgument("record.kind is missing.", field="record.kind")
    opened_ms = fields.instant(wire.open_time, "record.open_time")
    ended_ms = fields.instant(wire.end_time, "record.end_time") or opened_ms
    return TurnRecord(
        turn_id=fields.identifier(wire.turn_id, "record.turn_id"),
        conversation_id=fields.identifier(wire.conversation_id, "record.conversation_id"),
        scope=_scope(wire.scope, "record.scope"),
        contact=_contact(wire.contact, "record.contact"),
        kind=_KINDS[wire.kind],
        messages=tuple(_message(one, f"record.messages[{n}]", opened_ms) for n, one in enumerate(wire.messages)),
        parts=tuple(_part(one, f"record.parts[{n}]") for n, one in enumerate(wire.parts)),
        effects=tuple(
            _effect(one, f"record.effects[{n}]")
            for n, one in enumerate(wire.effects)
            if one.WhichOneof("effect") != "generation"
        ),
        generation=_generation(wire),
        truncated=wire.truncated,
        needs_human=wire.needs_human,
        handoff=wire.handoff,
        opened_ms=opened_ms,
        ended_ms=ended_ms,
        merged_conversation_ids=tuple(
            fields.identifier(one, f"record.merged_conversation_ids[{n}]")
            for n, one in enumerate(wire.merged_conversation_ids)
        ),
    )


def summary(request: pb.PutSummaryRequest) -> Summary:
    """A summary to store."""
    text = fields.text(request.summary, "summary", most=fields.MAX_SUMMARY_BYTES)
    if not text:
        raise InvalidArgument("summary is missing.", field="summary")
    return Summary(
        text=text,
        version=fields.number(request.version, "version", least=1),
        through=fields.number(request.through_sequence, "through_sequence", least=1),
        tokens=fields.number(request.tokens, "tokens", most=MAX_TOKENS),
        cost_micros=fields.number(request.cost_micros, "cost_micros", most=MAX_TOKENS),
    )


def lead_patch(request: pb.UpdateLeadRequest) -> LeadPatch:
    """What the mask names, with its values."""
    paths = tuple(dict.fromkeys(request.update_mask.paths))
    if not paths:
        raise InvalidArgument("update_mask is empty.", field="update_mask")
    values: dict[LeadField, FieldValue] = {}
    preferences: dict[str, str] = {}
    replace = "preferences" in paths
    if replace:
        preferences = dict(request.lead.preferences)
    for path in paths:
        if path in _MASKABLE:
            column, read = _MASKABLE[path]
            values[column] = read(request.lead, f"lead.{path}")
        elif path.startswith("preferences.") and path != "preferences.":
            key = path.removeprefix("preferences.")
            preferences[key] = request.lead.preferences.get(key, "")
        elif path != "preferences":
            raise InvalidArgument("update_mask names a field that cannot be changed.", field="update_mask")
    return LeadPatch(values=values, preferences=_preferences(preferences, "lead"), replace_preferences=replace)


def _scope(wire: message_pb2.Scope, field: str) -> Scope:
    return Scope(
        tenant=tenant(wire.tenant, f"{field}.tenant"),
        channel=fields.identifier(wire.channel, f"{field}.channel"),
        instance=fields.identifier(wire.instance, f"{field}.instance"),
    )


def _contact(wire: message_pb2.Contact, field: str) -> Contact:
    fields.number(len(wire.aliases), f"{field}.aliases", most=_MAX_ALIASES)
    return Contact(
        contact=fields.identifier(wire.contact, f"{field}.contact"),
        aliases=tuple(fields.identifier(one, f"{field}.aliases[{n}]") for n, one in enumerate(wire.aliases)),
        # Untrusted and of no consequence: cut rather than refused.
        display_name=wire.display_name.replace("\0", "")[:100],
    )


def _message(wire: message_pb2.Message, field: str, opened_ms: int) -> IncomingMessage:
    if wire.author not in _AUTHORS:
        raise InvalidArgument(f"{field}.author is missing.", field=f"{field}.author")
    sent_ms = fields.instant(wire.provider_time, f"{field}.provider_time")
    accepted_ms = fields.instant(wire.accept_time, f"{field}.accept_time")
    return IncomingMessage(
        message_id=fields.optional_identifier(wire.message_id, f"{field}.message_id"),
        author=_AUTHORS[wire.author],
        message_type=_message_type(wire.type, f"{field}.type"),
        text=fields.text(wire.text, f"{field}.text"),
        sent_ms=sent_ms or accepted_ms or opened_ms,
        media=tuple(_media(one, f"{field}.media[{n}]") for n, one in enumerate(wire.media)),
        details=_details(wire, field, accepted_ms),
        referral=_referral(wire.referral, f"{field}.referral") if wire.HasField("referral") else None,
    )


def _message_type(value: message_pb2.MessageType.ValueType, field: str) -> str:
    known = value in message_pb2.MessageType.values()
    if not known or value == message_pb2.MESSAGE_TYPE_UNSPECIFIED:
        raise InvalidArgument(f"{field} is missing.", field=field)
    return message_pb2.MessageType.Name(value).removeprefix("MESSAGE_TYPE_").lower()


def _media(wire: message_pb2.Media, field: str) -> Media:
    return Media(
        mime_type=fields.text(wire.mime_type, f"{field}.mime_type", most=1024),
        size_bytes=fields.number(wire.size_bytes, f"{field}.size_bytes"),
        file_name=fields.text(wire.file_name, f"{field}.file_name", most=4096),
        url=fields.text(wire.url, f"{field}.url", most=16_384),
        media_id=fields.text(wire.media_id, f"{field}.media_id", most=4096),
        voice=wire.voice,
        seconds=fields.number(wire.seconds, f"{field}.seconds"),
    )


def _details(wire: message_pb2.Message, field: str, accepted_ms: int) -> Mapping[str, object]:
    """What a message holds that has no column of its own; empty values are left out."""
    details: dict[str, object] = {
        "reply_to": fields.text(wire.reply_to, f"{field}.reply_to", most=_MAX_FIELD_BYTES),
        "choice_id": fields.text(wire.choice_id, f"{field}.choice_id", most=_MAX_FIELD_BYTES),
        "provider_type": fields.text(wire.provider_type, f"{field}.provider_type", most=_MAX_FIELD_BYTES),
        "foreign": wire.foreign,
        "text_cut": wire.text_cut,
        "accepted_ms": accepted_ms,
    }
    if wire.HasField("location"):
        details["location"] = _location(wire.location, f"{field}.location")
    if wire.HasField("referral"):
        details["referral"] = _referral(wire.referral, f"{field}.referral")
    return {key: value for key, value in details.items() if value}


def _location(wire: message_pb2.Location, field: str) -> Mapping[str, float]:
    # Also what is no number at all: JSON has none of those.
    if not (abs(wire.latitude) <= 90 and abs(wire.longitude) <= 180):
        raise InvalidArgument(f"{field} is not on earth.", field=field)
    return {"latitude": wire.latitude, "longitude": wire.longitude}


def _referral(wire: message_pb2.Referral, field: str) -> Mapping[str, str]:
    pairs = {
        "source_id": fields.text(wire.source_id, f"{field}.source_id", most=_MAX_FIELD_BYTES),
        "source_url": fields.text(wire.source_url, f"{field}.source_url", most=_MAX_FIELD_BYTES),
        "headline": fields.text(wire.headline, f"{field}.headline", most=_MAX_FIELD_BYTES),
    }
    return {key: value for key, value in pairs.items() if value}


def _part(wire: turn_pb2.Part, field: str) -> SentPart:
    if wire.state not in _DELIVERIES:
        raise InvalidArgument(f"{field}.state has to be SENT or UNKNOWN.", field=f"{field}.state")
    return SentPart(
        index=fields.number(wire.index, f"{field}.index"),
        text=fields.text(wire.text, f"{field}.text"),
        delivery=_DELIVERIES[wire.state],
        provider_message_id=fields.optional_identifier(wire.provider_message_id, f"{field}.provider_message_id"),
    )


def _effect(wire: turn_pb2.Effect, field: str) -> Effect:
    match wire.WhichOneof("effect"):
        case "lead_update":
            return _lead_update(wire.lead_update, f"{field}.lead_update")
        case "handoff":
            return Handoff(reason=fields.text(wire.handoff.reason, f"{field}.handoff.reason", most=1024))
        case _:
            raise InvalidArgument(f"{field} is empty.", field=field)


def _generation(wire: turn_pb2.TurnRecord) -> Generation:
    found = [n for n, effect in enumerate(wire.effects) if effect.WhichOneof("effect") == "generation"]
    if not found:
        return Generation()
    if len(found) > 1:
        raise InvalidArgument("A turn has one generation at most.", field=f"record.effects[{found[1]}]")
    one, field = wire.effects[found[0]].generation, f"record.effects[{found[0]}].generation"
    numbers = {
        name: fields.number(getattr(one, name), f"{field}.{name}", most=MAX_TOKENS)
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "discarded_tokens", "cost_micros")
    }
    return Generation(model=fields.text(one.model, f"{field}.model", most=200), fallback=one.fallback, **numbers)


def _lead_update(wire: turn_pb2.LeadUpdate, field: str) -> LeadPatch:
    values = {
        target: read(wire, f"{field}.{name}")
        for name, (target, read) in _UPDATABLE.items()
        if wire.HasField(name)  # type: ignore[arg-type]
    }
    return LeadPatch(values=values, preferences=_preferences(wire.preferences, field))


def _preferences(wire: Mapping[str, str], owner: str) -> Mapping[str, str]:
    fields.number(len(wire), f"{owner}.preferences", most=_MAX_PREFERENCES)
    for key in wire:
        fields.identifier(key, f"{owner}.preferences")
    return {key: fields.text(value, f"{owner}.preferences", most=_MAX_PREFERENCE_BYTES) for key, value in wire.items()}


Facts = turn_pb2.LeadUpdate | lead_pb2.Lead


def _bill(facts: Facts, field: str) -> FieldValue:
    known = facts.HasField("bill_value_cents")
    return fields.number(facts.bill_value_cents, field, most=_MAX_BILL_CENTS) if known else None


def _interested(facts: Facts, _field: str) -> FieldValue:
    return facts.interested if facts.HasField("interested") else None


def _stage(value: str, field: str) -> str:
    if not value:
        raise InvalidArgument(f"{field} is missing.", field=field)
    return fields.short_text(value, field, most=50)


Reader = Callable[..., FieldValue]
_COMMON: dict[str, tuple[LeadField, Reader]] = {
    "name": (LeadField.NAME, lambda facts, field: fields.short_text(facts.name, field)),
    "email": (LeadField.EMAIL, lambda facts, field: fields.short_text(facts.email, field)),
    "bill_value_cents": (LeadField.BILL_VALUE, _bill),
    "qualification_score": (
        LeadField.QUALIFICATION_SCORE,
        lambda facts, field: fields.number(facts.qualification_score, field, most=100),
    ),
    "qualification_status": (
        LeadField.QUALIFICATION_STATUS,
        lambda facts, field: fields.one_of(facts.qualification_status, field, QUALIFICATION_STATUSES),
    ),
    "interested": (LeadField.INTERESTED, _interested),
    "chosen_flow": (LeadField.CHOSEN_FLOW, lambda facts, field: fields.short_text(facts.chosen_flow, field)),
    "do_not_contact": (LeadField.DO_NOT_CONTACT, lambda facts, _field: facts.do_not_contact),
}
_UPDATABLE: dict[str, tuple[LeadField, Reader]] = {
    **_COMMON,
    "stage": (LeadField.CURRENT_STAGE, lambda facts, field: _stage(facts.stage, field)),
}
_MASKABLE: dict[str, tuple[LeadField, Reader]] = {
    **_COMMON,
    "current_stage": (LeadField.CURRENT_STAGE, lambda facts, field: _stage(facts.current_stage, field)),
    "needs_human": (LeadField.NEEDS_HUMAN, lambda facts, _field: facts.needs_human),
}
