"""Wire to domain and back; what is malformed is refused here."""

import re
import statistics
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from agent_service.agent import AgentState, Report
from agent_service.conversation import (
    Author,
    Effect,
    End,
    Ended,
    HandOver,
    Kind,
    Lead,
    LeadPatch,
    Line,
    Message,
    Turn,
    UsageToday,
)
from agent_service.models import ModelState, Summary
from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from service_kit.durations import ms_to_duration, ms_to_timestamp, timestamp_to_ms
from service_kit.errors import InvalidArgument

MAX_MESSAGES = 100
MAX_TEXT_BYTES = 128 * 1024
MAX_ID_BYTES = 256
MAX_SAID = 100
MAX_HISTORY = 1_000
MAX_BEGIN_BYTES = 8 << 20
MAX_CONTEXT_BYTES = 4 << 20
MAX_FIRST_TOKENS = 20
_LAST_SECOND = 253_402_300_799
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_AUTHORS = {
    message_pb2.AUTHOR_LEAD: Author.LEAD,
    message_pb2.AUTHOR_HUMAN: Author.HUMAN,
    message_pb2.AUTHOR_ASSISTANT: Author.ASSISTANT,
}
_KINDS = {
    message_pb2.MESSAGE_TYPE_TEXT: Kind.TEXT,
    message_pb2.MESSAGE_TYPE_IMAGE: Kind.IMAGE,
    message_pb2.MESSAGE_TYPE_VIDEO: Kind.VIDEO,
    message_pb2.MESSAGE_TYPE_AUDIO: Kind.AUDIO,
    message_pb2.MESSAGE_TYPE_DOCUMENT: Kind.DOCUMENT,
    message_pb2.MESSAGE_TYPE_STICKER: Kind.STICKER,
    message_pb2.MESSAGE_TYPE_LOCATION: Kind.LOCATION,
    message_pb2.MESSAGE_TYPE_CONTACT_CARD: Kind.CONTACT_CARD,
    message_pb2.MESSAGE_TYPE_CHOICE: Kind.CHOICE,
}
_STATES = {
    AgentState.WARMING: agent_pb.AGENT_STATE_WARMING,
    AgentState.READY: agent_pb.AGENT_STATE_READY,
    AgentState.FAILED: agent_pb.AGENT_STATE_FAILED,
}
_REASONS = {
    End.STOP: agent_pb.Done.REASON_STOP,
    End.LENGTH: agent_pb.Done.REASON_LENGTH,
    End.SILENT: agent_pb.Done.REASON_SILENT,
}


def check_begin(begin: agent_pb.Begin) -> None:
    """Refuse a Begin that no reply can be made from."""
    for field, value in (("turn_id", begin.turn_id), ("conversation_id", begin.conversation_id)):
        _require(len(value.encode()) <= MAX_ID_BYTES, f"longer than {MAX_ID_BYTES} bytes", f"begin.{field}")
        _require(not _CONTROL.search(value), "holds a control character", f"begin.{field}")
    _require(begin.messages, "at least one message is needed", "begin.messages")
    _require(len(begin.messages) <= MAX_MESSAGES, f"more than {MAX_MESSAGES} messages", "begin.messages")
    for index, message in enumerate(begin.messages):
        _check_message(message, f"begin.messages[{index}]")
    _require(len(begin.said) <= MAX_SAID, f"more than {MAX_SAID} parts", "begin.said")
    for index, said in enumerate(begin.said):
        _require(len(said.encode()) <= MAX_TEXT_BYTES, f"longer than {MAX_TEXT_BYTES} bytes", f"begin.said[{index}]")
    for index, effect in enumerate(begin.said_effects):
        _require(effect.WhichOneof("effect"), "empty", f"begin.said_effects[{index}]")
    _require(begin.ByteSize() <= MAX_BEGIN_BYTES, f"longer than {MAX_BEGIN_BYTES} bytes", "begin")


def _check_message(message: message_pb2.Message, field: str) -> None:
    _require(message.author in _AUTHORS, "not a known author", f"{field}.author")
    # A type that only a newer caller knows is read as one that is not supported.
    _require(message.type, "missing", f"{field}.type")
    _require(len(message.text.encode()) <= MAX_TEXT_BYTES, f"longer than {MAX_TEXT_BYTES} bytes", f"{field}.text")
    accepted = message.accept_time
    in_range = 0 <= accepted.seconds <= _LAST_SECOND and 0 <= accepted.nanos < 1_000_000_000
    _require(in_range, "not between 1970 and 9999", f"{field}.accept_time")


def check_context(begin: agent_pb.Begin, context: lead_pb2.ConversationContext) -> None:
    """Refuse a context that belongs to somebody else: the one mistake that must never be answered."""
    ours, theirs = begin.conversation_id, context.conversation_id
    _require(not (ours and theirs and ours != theirs), "not the conversation of the turn", "context.conversation_id")
    _require(len(context.history) <= MAX_HISTORY, f"more than {MAX_HISTORY} messages", "context.history")
    _require(context.ByteSize() <= MAX_CONTEXT_BYTES, f"longer than {MAX_CONTEXT_BYTES} bytes", "context")


def _require(condition: object, message: str, field: str) -> None:
    if not condition:
        raise InvalidArgument(f"{field}: {message}", field=field)


def decode_turn(begin: agent_pb.Begin, context: lead_pb2.ConversationContext, *, now_ms: int) -> Turn:
    """The turn as the domain knows it. Its time is when the last message was accepted: a repetition is equal."""
    history = decode_history(context.history)
    answered = any(line.author is Author.ASSISTANT for line in history)
    accepted = max((timestamp_to_ms(message.accept_time) for message in begin.messages), default=0)
    usage = context.usage
    return Turn(
        messages=tuple(_message(message) for message in begin.messages),
        conversation_id=begin.conversation_id,
        tenant=begin.scope.tenant or "default",
        contact=begin.contact.contact,
        lead=_lead(context.lead),
        history=history,
        history_cut=context.history_cut,
        summary=context.summary,
        summary_through=context.summary_through,
        usage=UsageToday(
            conversation_tokens=usage.conversation_tokens,
            tenant_tokens=usage.tenant_tokens,
            conversation_cost_micros=usage.conversation_cost_micros,
            tenant_cost_micros=usage.tenant_cost_micros,
        ),
        first_contact=context.version == 0 and not context.degraded and not answered,
        degraded=context.degraded,
        now_ms=accepted or now_ms,
        said=tuple(begin.said),
        said_effects=tuple(
            _effect(effect) for effect in begin.said_effects if effect.WhichOneof("effect") != "generation"
        ),
    )


def encode_effect(effect: Effect) -> turn_pb2.Effect:
    """A tool call on the wire."""
    if isinstance(effect, HandOver):
        return turn_pb2.Effect(handoff=turn_pb2.Handoff(reason=effect.reason))
    return turn_pb2.Effect(
        lead_update=turn_pb2.LeadUpdate(
            name=effect.name,
            email=effect.email,
            bill_value_cents=effect.bill_cents,
            stage=effect.stage,
            qualification_score=effect.score,
            qualification_status=effect.qualification,
            interested=effect.interested,
            chosen_flow=effect.flow,
            do_not_contact=effect.do_not_contact,
            preferences=dict(effect.preferences),
        )
    )


def encode_done(ended: Ended, *, first_token_ms: int | None, total_ms: int) -> agent_pb.Done:
    """The end of a reply; `first_token` is absent when nothing was said."""
    first = None if first_token_ms is None else ms_to_duration(first_token_ms)
    return agent_pb.Done(
        reason=_REASONS[ended.why],
        model=ended.model,
        first_token=first,
        total=ms_to_duration(total_ms),
        fallback=ended.fallback,
        fallback_reason=ended.fallback_reason,
        wants_summary=ended.wants_summary,
    )


def encode_report(report: Report) -> agent_pb.GetAgentResponse:
    """The agent, for people."""
    persona = report.persona
    response = agent_pb.GetAgentResponse(
        state=_STATES[report.state],
        model=report.model,
        costs_money=report.costs_money,
        persona=persona.name if persona else "",
        persona_display_name=persona.agent if persona else "",
        persona_version=report.persona_version,
        warm_up=ms_to_duration(report.warm_up_ms),
        steps=[agent_pb.WarmUpStep(name=step.name, duration=ms_to_duration(step.ms)) for step in report.steps],
        replies=report.replies,
        active_replies=report.active,
        first_token_p50=ms_to_duration(round(statistics.median(report.first_tokens_ms or (0,)))),
        last_first_tokens=[ms_to_duration(ms) for ms in report.first_tokens_ms[-MAX_FIRST_TOKENS:]],
        models=[_model(state) for state in report.models],
        honest_sentence=persona.honest_sentence if persona else "",
        media_sentence=persona.media_sentence if persona else "",
    )
    if report.ready_ms:
        response.ready_time.CopyFrom(ms_to_timestamp(report.ready_ms))
    return response


def decode_history(history: Iterable[lead_pb2.HistoryMessage]) -> tuple[Line, ...]:
    """Lines of the authors that are known."""
    return tuple(_line(line) for line in history if line.author in _AUTHORS)


def decode_lead(lead: lead_pb2.Lead) -> Lead:
    """What is known of the person."""
    return _lead(lead)


def check_summarize(request: agent_pb.SummarizeRequest) -> None:
    """Refuse what no summary can be made from."""
    _require(len(request.history) <= MAX_HISTORY, f"more than {MAX_HISTORY} messages", "history")
    _require(len(request.summary.encode()) <= MAX_TEXT_BYTES, f"longer than {MAX_TEXT_BYTES} bytes", "summary")
    _require(request.ByteSize() <= MAX_CONTEXT_BYTES, f"longer than {MAX_CONTEXT_BYTES} bytes", "history")


def encode_summary(summary: Summary) -> agent_pb.SummarizeResponse:
    """A summary with what it cost."""
    return agent_pb.SummarizeResponse(
        summary=summary.text,
        through_sequence=summary.through_sequence,
        model=summary.model,
        usage=agent_pb.Usage(
            prompt_tokens=summary.prompt_tokens,
            cached_tokens=summary.cached_tokens,
            completion_tokens=summary.completion_tokens,
            cost_micros=summary.cost_micros,
        ),
    )


def _model(state: ModelState) -> agent_pb.ModelState:
    engine = state.engine
    model = agent_pb.ModelState(
        name=state.name,
        available=state.available,
        trouble=state.trouble,
        calls=engine.calls,
        failures=engine.failures,
        prompt_tokens=engine.prompt_tokens,
        cached_tokens=engine.cached_tokens,
        completion_tokens=engine.completion_tokens,
        connections_opened=engine.connections_opened,
        open_streams=engine.open_streams,
        connection_age=None if engine.connection_age_ms is None else ms_to_duration(engine.connection_age_ms),
        cold_start=None if engine.cold_start_ms is None else ms_to_duration(engine.cold_start_ms),
    )
    if state.braked_until_ms:
        model.braked_until.CopyFrom(ms_to_timestamp(state.braked_until_ms))
    return model


def _message(message: message_pb2.Message) -> Message:
    location = (message.location.latitude, message.location.longitude) if message.HasField("location") else None
    kind = _KINDS.get(message.type, Kind.UNSUPPORTED)
    if kind is Kind.UNSUPPORTED and "reaction" in message.provider_type.lower():
        kind = Kind.STICKER  # A thumb on a bubble says no more than a sticker does.
    return Message(text=message.text, kind=kind, location=location, sent_ms=timestamp_to_ms(message.accept_time))


def _line(line: lead_pb2.HistoryMessage) -> Line:
    return Line(
        author=_AUTHORS[line.author],
        text=line.text,
        kind=_KINDS.get(line.type, Kind.UNSUPPORTED),
        sequence=line.sequence,
        sent_ms=_instant_ms(line.create_time),
        fallback=line.fallback,
    )


def _instant_ms(instant: Timestamp) -> int:
    """0 for what is no time: a line of history with a broken clock must not cost the lead an answer."""
    in_range = 0 <= instant.seconds <= _LAST_SECOND and 0 <= instant.nanos < 1_000_000_000
    return timestamp_to_ms(instant) if in_range else 0


def _lead(lead: lead_pb2.Lead) -> Lead:
    return Lead(
        name=lead.name,
        email=lead.email,
        bill_cents=lead.bill_value_cents if lead.HasField("bill_value_cents") else None,
        stage=lead.current_stage,
        interested=lead.interested if lead.HasField("interested") else None,
        flow=lead.chosen_flow,
        score=lead.qualification_score,
        qualification=lead.qualification_status,
        do_not_contact=lead.do_not_contact,
        preferences=dict(lead.preferences),
    )


def _effect(effect: turn_pb2.Effect) -> Effect:
    if effect.HasField("handoff"):
        return HandOver(reason=effect.handoff.reason)
    update = effect.lead_update
    return LeadPatch(
        name=update.name if update.HasField("name") else None,
        email=update.email if update.HasField("email") else None,
        bill_cents=update.bill_value_cents if update.HasField("bill_value_cents") else None,
        stage=update.stage if update.HasField("stage") else None,
        interested=update.interested if update.HasField("interested") else None,
        flow=update.chosen_flow if update.HasField("chosen_flow") else None,
        score=update.qualification_score if update.HasField("qualification_score") else None,
        qualification=update.qualification_status if update.HasField("qualification_status") else None,
        do_not_contact=update.do_not_contact if update.HasField("do_not_contact") else None,
        preferences=dict(update.preferences),
    )
