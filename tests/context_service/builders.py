"""Requests and records with sensible defaults."""

from typing import Any

from agentic_sdr.common.v1 import message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from context_service import decode
from context_service.domain import Contact, ContextQuery, Scope, TurnRecord

PHONE = "5581999998888"
SECOND_MS = 1_700_000_000


def message(message_id: str, text: str = "oi", **values: Any) -> message_pb2.Message:
    wire = message_pb2.Message(
        message_id=message_id, author=message_pb2.AUTHOR_LEAD, type=message_pb2.MESSAGE_TYPE_TEXT, text=text
    )
    wire.provider_time.FromSeconds(SECOND_MS)
    wire.MergeFrom(message_pb2.Message(**values))
    return wire


def part(index: int, text: str, state: int = turn_pb2.PART_STATE_SENT, **values: Any) -> turn_pb2.Part:
    return turn_pb2.Part(index=index, text=text, state=state, **values)  # type: ignore[arg-type]


def update(**values: Any) -> turn_pb2.Effect:
    return turn_pb2.Effect(lead_update=turn_pb2.LeadUpdate(**values))


def generation(**values: Any) -> turn_pb2.Effect:
    return turn_pb2.Effect(generation=turn_pb2.Generation(**values))


def turn(turn_id: str = "t1", conversation_id: str = "c1", **values: Any) -> turn_pb2.TurnRecord:
    tenant, instance = values.pop("tenant", ""), values.pop("instance", "demo")
    contact, aliases = values.pop("contact", PHONE), values.pop("aliases", ())
    given = {"kind": turn_pb2.TURN_KIND_ANSWER, "messages": [message(f"m-{turn_id}")], "parts": [part(0, "Olá!")]}
    wire = turn_pb2.TurnRecord(
        turn_id=turn_id,
        conversation_id=conversation_id,
        scope=message_pb2.Scope(tenant=tenant, channel="console", instance=instance),
        contact=message_pb2.Contact(contact=contact, aliases=aliases),
        **{**given, **values},
    )
    wire.open_time.FromSeconds(SECOND_MS)
    wire.end_time.FromSeconds(SECOND_MS + 2)
    return wire


def record(turn_id: str = "t1", conversation_id: str = "c1", **values: Any) -> TurnRecord:
    return decode.turn_record(turn(turn_id, conversation_id, **values))


def query(
    conversation_id: str = "c1", *, contact: str = PHONE, tenant: str = "default", limit: int = 40
) -> ContextQuery:
    return ContextQuery(
        conversation_id=conversation_id,
        scope=Scope(tenant=tenant, channel="console", instance="demo"),
        contact=Contact(contact=contact),
        history_limit=limit,
    )


def load(conversation_id: str = "c1", **values: Any) -> pb.LoadContextRequest:
    return pb.LoadContextRequest(
        conversation_id=conversation_id,
        scope=message_pb2.Scope(channel="console", instance=values.pop("instance", "demo")),
        contact=message_pb2.Contact(contact=values.pop("contact", PHONE)),
        **values,
    )
