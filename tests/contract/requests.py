"""A valid request for every unary method, with every field set somewhere, and what is taken although it looks odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.buffer.v1 import buffer_service_pb2 as buffer_pb
from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb

PHONE = "5581999990001"
LEAD_ID = "00000000-0000-4000-8000-000000000000"
TIME = Timestamp(seconds=1_700_000_000)
SCOPE = message_pb2.Scope(tenant="default", channel="evolution", instance="shop")
CONTACT = message_pb2.Contact(
    contact=PHONE, aliases=[f"phone:{PHONE}"], address=f"{PHONE}@s.whatsapp.net", display_name="Ana"
)


def message(message_id: str = "m1", **more: Any) -> message_pb2.Message:
    """A message with everything."""
    return message_pb2.Message(
        **{
            "message_id": message_id,
            "author": message_pb2.AUTHOR_LEAD,
            "type": message_pb2.MESSAGE_TYPE_DOCUMENT,
            "text": "oi",
            "text_cut": True,
            "media": [
                message_pb2.Media(
                    mime_type="a/b", size_bytes=1, file_name="f", url="https://x", media_id="i", voice=True, seconds=1
                )
            ],
            "location": message_pb2.Location(latitude=1, longitude=1),
            "reply_to": "m0",
            "choice_id": "c",
            "referral": message_pb2.Referral(source_id="s", source_url="https://x", headline="h"),
            "provider_time": TIME,
            "accept_time": TIME,
            "sequence": 1,
            "provider_type": "t",
            "foreign": True,
            **more,
        }
    )


def effects() -> list[turn_pb2.Effect]:
    """Both kinds, whole."""
    update = turn_pb2.LeadUpdate(
        name="Ana",
        email="ana@example.com",
        bill_value_cents=1,
        stage="BILL",
        qualification_score=1,
        qualification_status="PENDING",
        interested=True,
        chosen_flow="f",
        preferences={"a": "b"},
        do_not_contact=True,
    )
    made = turn_pb2.Generation(
        model="m",
        fallback=True,
        prompt_tokens=3,
        cached_tokens=2,
        completion_tokens=1,
        discarded_tokens=1,
        cost_micros=1,
    )
    return [
        turn_pb2.Effect(lead_update=update),
        turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="r")),
        turn_pb2.Effect(generation=made),
    ]


def event(kind: str, what: Any) -> buffer_pb.EnqueueRequest:
    """One event of this kind."""
    return buffer_pb.EnqueueRequest(events=[buffer_pb.Event(scope=SCOPE, contact=CONTACT, **{kind: what})])


def record(turn_id: str = "t1", effect: int = 0) -> turn_pb2.TurnRecord:
    """A turn with everything; of the effects the one with this number."""
    return turn_pb2.TurnRecord(
        turn_id=turn_id,
        conversation_id="c1",
        scope=SCOPE,
        contact=CONTACT,
        kind=turn_pb2.TURN_KIND_ANSWER,
        messages=[message(f"m-{turn_id}")],
        parts=[turn_pb2.Part(index=1, text="Olá!", state=turn_pb2.PART_STATE_SENT, attempt=1, provider_message_id="p")],
        effects=[effects()[effect]],
        truncated=True,
        needs_human=True,
        handoff=True,
        open_time=TIME,
        end_time=TIME,
        merged_conversation_ids=["c0"],
    )


LEAD = lead_pb2.Lead(
    lead_id=LEAD_ID,
    tenant="default",
    phone_number=PHONE,
    name="Ana",
    email="ana@example.com",
    bill_value_cents=1,
    current_stage="BILL",
    qualification_score=1,
    qualification_status="PENDING",
    interested=True,
    chosen_flow="f",
    preferences={"a": "b"},
    last_interaction_time=TIME,
    create_time=TIME,
    update_time=TIME,
    needs_human=True,
    do_not_contact=True,
    referral=message_pb2.Referral(source_id="s", source_url="u", headline="h"),
)
MASK = FieldMask(
    paths=[
        "name",
        "email",
        "bill_value_cents",
        "current_stage",
        "qualification_score",
        "qualification_status",
        "interested",
        "chosen_flow",
        "preferences",
        "preferences.k",
        "needs_human",
        "do_not_contact",
    ]
)

# By method; several where a oneof asks for it. What they name need not exist: a field is looked at before its thing is.
VALID: Mapping[str, Sequence[Message]] = {
    "BufferService.Enqueue": [
        event("message", message()),
        event("echo", message("e1", author=message_pb2.AUTHOR_HUMAN)),
        event("presence", buffer_pb.Presence(composing=True)),
        event("receipt", buffer_pb.Receipt(provider_message_id="p", status=buffer_pb.DELIVERY_STATUS_READ)),
        event("unparsed", buffer_pb.Unparsed(body=b"{", reason="json")),
    ],
    "BufferService.GetLane": [
        buffer_pb.GetLaneRequest(conversation_id="c1"),
        buffer_pb.GetLaneRequest(scope=SCOPE, alias=f"phone:{PHONE}"),
    ],
    "BufferService.ListLanes": [
        buffer_pb.ListLanesRequest(tenant="default", states=[buffer_pb.LANE_STATE_IDLE], page_size=1, page_token="t")
    ],
    "BufferService.PauseConversation": [buffer_pb.PauseConversationRequest(conversation_id="c1", reason="r")],
    "BufferService.ResumeConversation": [buffer_pb.ResumeConversationRequest(conversation_id="c1")],
    "BufferService.ListDeadLetters": [
        buffer_pb.ListDeadLettersRequest(tenant="default", include_replayed=True, page_size=1, page_token="t")
    ],
    "BufferService.ReplayDeadLetter": [buffer_pb.ReplayDeadLetterRequest(dead_letter_id=1, answer_stale=True)],
    "BufferService.Backup": [buffer_pb.BackupRequest(name="one")],
    "BufferService.ForgetContact": [buffer_pb.ForgetContactRequest(tenant="default", contact=PHONE)],
    "BufferService.ExportContact": [buffer_pb.ExportContactRequest(tenant="default", contact=PHONE)],
    "BufferService.GetStats": [buffer_pb.GetStatsRequest(tenant="default")],
    "ContextService.LoadContext": [
        context_pb.LoadContextRequest(
            conversation_id="c1", scope=SCOPE, contact=CONTACT, min_version=1, history_limit=1, history_bytes=1
        )
    ],
    "ContextService.RecordTurn": [
        context_pb.RecordTurnRequest(record=record()),
        context_pb.RecordTurnRequest(record=record("t2", 1)),
        context_pb.RecordTurnRequest(record=record("t3", 2)),
    ],
    "ContextService.PutSummary": [
        context_pb.PutSummaryRequest(
            conversation_id="c1", summary="s", version=1, through_sequence=1, tokens=1, cost_micros=1
        )
    ],
    "ContextService.GetLead": [
        context_pb.GetLeadRequest(lead_id=LEAD_ID),
        context_pb.GetLeadRequest(contact=PHONE, tenant="default"),
    ],
    "ContextService.ListLeads": [
        context_pb.ListLeadsRequest(
            tenant="default",
            stage="BILL",
            qualification_status="PENDING",
            updated_since=TIME,
            page_size=1,
            page_token="t",
        )
    ],
    "ContextService.UpdateLead": [context_pb.UpdateLeadRequest(lead=LEAD, update_mask=MASK)],
    "ContextService.ListConversations": [
        context_pb.ListConversationsRequest(tenant="default", lead_id=LEAD_ID, page_size=1, page_token="t")
    ],
    "ContextService.ListMessages": [context_pb.ListMessagesRequest(conversation_id="c1", page_size=1, page_token="t")],
    "ContextService.ExportContact": [
        context_pb.ExportContactRequest(tenant="default", contact=PHONE, conversation_ids=["c9"])
    ],
    "ContextService.Backup": [context_pb.BackupRequest(name="one")],
    "ContextService.ForgetContact": [
        context_pb.ForgetContactRequest(tenant="default", contact="550", conversation_ids=["c9"], do_not_contact=True)
    ],
    "AgentService.Summarize": [
        agent_pb.SummarizeRequest(
            conversation_id="c1", summary="s", history=[lead_pb2.HistoryMessage(history_id="h", text="oi")], lead=LEAD
        )
    ],
    "AgentService.GetAgent": [agent_pb.GetAgentRequest()],
}

# Frames of Respond, without the frame around them.
BEGIN = agent_pb.Begin(
    turn_id="t1",
    conversation_id="c1",
    scope=SCOPE,
    contact=CONTACT,
    messages=[message()],
    said=["Oi!"],
    said_effects=effects(),
    remaining=Duration(seconds=5),
)
CONTEXT = lead_pb2.ConversationContext(
    conversation_id="c1",
    version=1,
    lead=LEAD,
    history=[
        lead_pb2.HistoryMessage(
            history_id="h",
            author=message_pb2.AUTHOR_LEAD,
            text="oi",
            type=message_pb2.MESSAGE_TYPE_TEXT,
            create_time=TIME,
            turn_id="t0",
            provider_message_id="p",
            media=[message_pb2.Media(mime_type="a/b", size_bytes=1)],
            sequence=1,
            fallback=True,
        )
    ],
    summary="s",
    degraded=True,
    total_messages=1,
    summary_through=1,
    history_cut=True,
    usage=lead_pb2.UsageToday(conversation_tokens=1, tenant_tokens=1, conversation_cost_micros=1, tenant_cost_micros=1),
)
