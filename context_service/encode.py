"""From the nouns of this service to the wire."""

from google.protobuf.duration_pb2 import Duration

from agentic_sdr.common.v1 import lead_pb2, message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from context_service import paging
from context_service.domain import Author, Conversation, HistoryMessage, Lead, Media, Scope, UsageToday
from context_service.lookups import Loaded
from service_kit.durations import ms_to_timestamp

_AUTHORS = {
    Author.LEAD: message_pb2.AUTHOR_LEAD,
    Author.HUMAN: message_pb2.AUTHOR_HUMAN,
    Author.ASSISTANT: message_pb2.AUTHOR_ASSISTANT,
}


def context(conversation_id: str, loaded: Loaded) -> pb.LoadContextResponse:
    """What is known of a conversation. History that would not fit into a gRPC message loses its oldest lines."""
    known = loaded.conversation
    newest_first = paging.encode_within(reversed(loaded.history), message)
    answer = lead_pb2.ConversationContext(
        conversation_id=conversation_id,
        version=loaded.version,
        history=reversed(newest_first),
        summary=known.summary if known else "",
        total_messages=known.total_messages if known else 0,
        summary_through=known.summary_through if known else 0,
        history_cut=loaded.history_cut or len(newest_first) < len(loaded.history),
    )
    if loaded.usage != UsageToday():
        answer.usage.CopyFrom(_usage(loaded.usage))
    if loaded.lead is not None:
        answer.lead.CopyFrom(lead(loaded.lead))
    times = pb.LookupTimes(
        lead=_duration(loaded.lead_s),
        conversation=_duration(loaded.conversation_s),
        history=_duration(loaded.history_s),
    )
    return pb.LoadContextResponse(context=answer, times=times, cache_hit=loaded.cache_hit)


def lead(known: Lead) -> lead_pb2.Lead:
    """A lead."""
    wire = lead_pb2.Lead(
        lead_id=known.lead_id,
        tenant=known.tenant,
        phone_number=known.phone_number,
        name=known.name,
        email=known.email,
        bill_value_cents=known.bill_value_cents,
        current_stage=known.current_stage,
        qualification_score=known.qualification_score,
        qualification_status=known.qualification_status,
        interested=known.interested,
        chosen_flow=known.chosen_flow,
        preferences=known.preferences,
        create_time=ms_to_timestamp(known.created_ms),
        update_time=ms_to_timestamp(known.updated_ms),
        needs_human=known.needs_human,
        do_not_contact=known.do_not_contact,
    )
    if known.referral:
        wire.referral.CopyFrom(message_pb2.Referral(**known.referral))
    if known.last_interaction_ms is not None:
        wire.last_interaction_time.CopyFrom(ms_to_timestamp(known.last_interaction_ms))
    return wire


def conversation(known: Conversation) -> pb.Conversation:
    """A conversation, for people."""
    return pb.Conversation(
        conversation_id=known.conversation_id,
        lead_id=known.lead_id,
        scope=_scope(known.scope),
        phone_number=known.phone_number,
        status=known.status,
        current_stage=known.current_stage,
        total_messages=known.total_messages,
        version=known.version,
        start_time=ms_to_timestamp(known.started_ms),
        update_time=ms_to_timestamp(known.updated_ms),
    )


def message(known: HistoryMessage) -> lead_pb2.HistoryMessage:
    """A line of history."""
    return lead_pb2.HistoryMessage(
        history_id=known.history_id,
        author=_AUTHORS[known.author],
        text=known.text,
        type=message_pb2.MessageType.Value(f"MESSAGE_TYPE_{known.message_type.upper()}"),
        create_time=ms_to_timestamp(known.created_ms),
        turn_id=known.turn_id,
        provider_message_id=known.provider_message_id,
        media=[_media(one) for one in known.media],
        sequence=known.sequence,
        fallback=known.fallback,
    )


def _usage(known: UsageToday) -> lead_pb2.UsageToday:
    return lead_pb2.UsageToday(
        conversation_tokens=known.conversation_tokens,
        tenant_tokens=known.tenant_tokens,
        conversation_cost_micros=known.conversation_cost_micros,
        tenant_cost_micros=known.tenant_cost_micros,
    )


def _media(known: Media) -> message_pb2.Media:
    return message_pb2.Media(
        mime_type=known.mime_type,
        size_bytes=known.size_bytes,
        file_name=known.file_name,
        url=known.url,
        media_id=known.media_id,
        voice=known.voice,
        seconds=known.seconds,
    )


def _scope(known: Scope) -> message_pb2.Scope:
    return message_pb2.Scope(tenant=known.tenant, channel=known.channel, instance=known.instance)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
