"""Every field of every request, spoilt in every way: the documented code, reason and metadata, nothing stored, and the
server lives on. `requests.py` holds what is valid, `spoiling.py` the ways, and the table below what is taken all the
same. A new method or field fails here until somebody has decided about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.buffer.v1 import buffer_service_pb2 as buffer_pb
from agentic_sdr.common.v1 import lead_pb2, message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from service_kit import errors
from tests.buffer_service.test_service import buffer
from tests.contract.requests import BEGIN, CONTEXT, VALID, event, message
from tests.contract.spoiling import LONG, Spoilt, all_fields, set_fields, spoil
from tests.system.test_errors_contract import CASES, CONTRACT, UNREACHABLE, agent_service, context_service

DESCRIPTORS = {
    service.name: service
    for file in (buffer_pb.DESCRIPTOR, context_pb.DESCRIPTOR, agent_pb.DESCRIPTOR)
    for service in file.services_by_name.values()
}
SERVERS: Mapping[str, Callable[[Path], Any]] = {
    "BufferService": buffer,
    "ContextService": context_service,
    "AgentService": agent_service,
}
RESPOND = "AgentService.Respond"
BIG = 5 << 20
TRIES = 20
# No text of theirs is ever refused for its length: a number alone, nothing at all, not built yet.
NOTHING_IS_LONG = ("BufferService.ReplayDeadLetter", "AgentService.GetAgent", "AgentService.Summarize")
# How a valid request ends: the things that it names need not exist, nor its page.
ENDS: Mapping[str, str] = {
    "BufferService.GetLane 0": "NOT_FOUND",
    "BufferService.GetLane 1": "NOT_FOUND",
    "BufferService.ListLanes 0": "BAD_PAGE_TOKEN",
    "BufferService.PauseConversation 0": "NOT_FOUND",
    "BufferService.ResumeConversation 0": "NOT_FOUND",
    "BufferService.ListDeadLetters 0": "BAD_PAGE_TOKEN",
    "BufferService.ReplayDeadLetter 0": "NOT_FOUND",
    "BufferService.ExportContact 0": "NOT_FOUND",
    "ContextService.LoadContext 0": "UNAVAILABLE",  # nobody has recorded that version
    "ContextService.PutSummary 0": "NOT_FOUND",
    "ContextService.GetLead 0": "NOT_FOUND",
    "ContextService.GetLead 1": "NOT_FOUND",
    "ContextService.ListLeads 0": "BAD_PAGE_TOKEN",
    "ContextService.UpdateLead 0": "NOT_FOUND",
    "ContextService.ListConversations 0": "BAD_PAGE_TOKEN",
    "ContextService.ListMessages 0": "BAD_PAGE_TOKEN",
    "ContextService.ExportContact 0": "NOT_FOUND",
    "AgentService.Summarize 0": "NOT_IMPLEMENTED",
}
AS_VALID, TAKEN = "as valid", "taken"
# What is not refused with INVALID_ARGUMENT and the field's own path, as patterns of "method number field kind"; the
# first that fits decides. AS_VALID: taken like the valid request; a path: refused with that one.
OTHERWISE: tuple[tuple[str, str], ...] = (
    # ---- what may be absent
    ("* tenant empty", AS_VALID),
    ("*.tenant empty", AS_VALID),
    ("*.address empty", AS_VALID),
    ("*.display_name empty", AS_VALID),
    ("*.text empty", AS_VALID),
    ("*.media missing", AS_VALID),
    ("*.location missing", AS_VALID),
    ("*.referral missing", AS_VALID),
    ("*.provider_time missing", AS_VALID),
    ("*.accept_time missing", AS_VALID),
    ("*.reply_to empty", AS_VALID),
    ("*.choice_id empty", AS_VALID),
    ("*.provider_type empty", AS_VALID),
    ("*.referral.* empty", AS_VALID),
    ("*.media?0?.* empty", AS_VALID),
    # ---- any number is as good as another
    ("*.size_bytes huge", AS_VALID),
    ("*Service.*.media?0?.seconds huge", AS_VALID),
    # ---- U+0000 in text for people: kept by the buffer, left out by context
    ("*.text nul", AS_VALID),
    ("*.media?0?.* nul", AS_VALID),
    ("*.reply_to nul", AS_VALID),
    ("*.choice_id nul", AS_VALID),
    ("*.provider_type nul", AS_VALID),
    ("*.referral.* nul", AS_VALID),
    # ---- untrusted and of no consequence: cut
    ("*.display_name *", AS_VALID),
    # ---- Enqueue
    ("BufferService.Enqueue * events?0?.scope missing", "events[0].scope.channel"),
    ("BufferService.Enqueue [012] events?0?.contact missing", "events[0].contact.aliases"),
    ("BufferService.Enqueue 0 *.location.* *", "events[0].message.location"),
    ("BufferService.Enqueue 1 *.location.* *", "events[0].echo.location"),
    *(
        (f"BufferService.Enqueue ? events?0?.{kind} missing", "events[0].event")
        for kind in ("message", "echo", "presence", "receipt", "unparsed")
    ),
    # The buffer sets them itself.
    ("BufferService.Enqueue ? *.accept_time *", AS_VALID),
    ("BufferService.Enqueue ? *.sequence *", AS_VALID),
    # A presence only looks the person up; receipts and unparsed bodies have none.
    ("BufferService.Enqueue 2 events?0?.contact.contact *", AS_VALID),
    ("BufferService.Enqueue 2 events?0?.contact.address *", AS_VALID),
    ("BufferService.Enqueue [34] events?0?.contact*", AS_VALID),
    ("BufferService.Enqueue 4 *.unparsed.reason *", AS_VALID),  # cut
    # ---- the buffer's people
    ("BufferService.GetLane 0 conversation_id empty", "conversation_id"),
    ("BufferService.GetLane 1 scope missing", "scope.channel"),
    ("BufferService.GetLane 1 alias empty", "conversation_id"),
    ("BufferService.PauseConversation 0 reason empty", AS_VALID),
    ("BufferService.PauseConversation 0 reason nul", AS_VALID),
    ("BufferService.ReplayDeadLetter 0 dead_letter_id huge", AS_VALID),
    # ---- pages
    ("BufferService.ListLanes 0 states missing", AS_VALID),
    ("ContextService.ListMessages 0 page_token empty", "NOT_FOUND"),
    ("* page_token empty", TAKEN),
    ("* page_token *", "BAD_PAGE_TOKEN"),
    # ---- context
    ("ContextService.* scope missing", "scope.channel"),
    ("ContextService.* contact missing", "contact.contact"),
    ("ContextService.*.scope missing", "record.scope.channel"),
    ("ContextService.*.contact missing", "record.contact.contact"),
    ("ContextService.*contact.aliases missing", AS_VALID),
    ("ContextService.*contact.address *", AS_VALID),  # the buffer's business
    ("ContextService.LoadContext 0 min_version huge", AS_VALID),
    ("ContextService.RecordTurn * record missing", "record.kind"),
    ("ContextService.RecordTurn * record.messages missing", AS_VALID),
    ("ContextService.RecordTurn * record.messages?0?.message_id empty", AS_VALID),
    ("ContextService.RecordTurn * record.messages?0?.sequence *", AS_VALID),
    ("ContextService.RecordTurn * record.messages?0?.location.* *", "record.messages[0].location"),
    ("ContextService.RecordTurn * record.parts missing", AS_VALID),
    ("ContextService.RecordTurn * record.parts?0?.index huge", AS_VALID),
    ("ContextService.RecordTurn * record.parts?0?.attempt *", AS_VALID),
    ("ContextService.RecordTurn * record.parts?0?.provider_message_id empty", AS_VALID),
    ("ContextService.RecordTurn * record.merged_conversation_ids missing", AS_VALID),
    ("ContextService.RecordTurn * record.effects missing", AS_VALID),
    ("ContextService.RecordTurn 2 record.effects?0?.generation missing", "record.effects[0]"),
    ("ContextService.RecordTurn 2 record.effects?0?.generation.model [en][mu][pl]*", AS_VALID),
    ("ContextService.RecordTurn 0 record.effects?0?.lead_update missing", "record.effects[0]"),
    ("ContextService.RecordTurn 1 record.effects?0?.handoff missing", "record.effects[0]"),
    *(
        (f"ContextService.RecordTurn ? record.effects?0?.{field} {kind}", AS_VALID)
        for field in ("lead_update.name", "lead_update.email", "lead_update.chosen_flow", "handoff.reason")
        for kind in ("empty", "nul")
    ),
    ("ContextService.RecordTurn 0 record.effects?0?.lead_update.stage nul", AS_VALID),
    ("ContextService.RecordTurn * record.open_time missing", AS_VALID),
    ("ContextService.RecordTurn * record.end_time missing", AS_VALID),
    ("ContextService.PutSummary 0 summary nul", AS_VALID),
    ("ContextService.PutSummary 0 version huge", AS_VALID),
    ("ContextService.PutSummary 0 through_sequence huge", AS_VALID),
    ("ContextService.GetLead 1 contact empty", "lead_id"),
    ("ContextService.ListLeads 0 stage empty", AS_VALID),
    ("ContextService.ListLeads 0 qualification_status empty", AS_VALID),
    ("ContextService.ListLeads 0 updated_since missing", AS_VALID),
    ("ContextService.UpdateLead 0 lead missing", "lead.lead_id"),
    ("ContextService.UpdateLead 0 update_mask.paths*", "update_mask"),
    # Not in the mask's reach, so not read.
    ("ContextService.UpdateLead 0 lead.phone_number *", AS_VALID),
    ("ContextService.UpdateLead 0 lead.*_time *", AS_VALID),
    ("ContextService.UpdateLead 0 lead.referral*", AS_VALID),
    *(
        (f"ContextService.UpdateLead 0 lead.{field} {kind}", AS_VALID)
        for field in ("name", "email", "chosen_flow")
        for kind in ("empty", "nul")
    ),
    ("ContextService.UpdateLead 0 lead.current_stage nul", AS_VALID),
    ("ContextService.ListConversations 0 lead_id empty", AS_VALID),
    ("ContextService.*Contact 0 conversation_ids missing", AS_VALID),
    # ---- the agent, which reads little and keeps nothing
    ("AgentService.Summarize *", AS_VALID),
    ("AgentService.Respond 0 *turn_id empty", AS_VALID),
    ("AgentService.Respond 0 *conversation_id empty", AS_VALID),
    ("AgentService.Respond 0 begin.messages missing", "begin.messages"),
    ("AgentService.Respond 0 begin.messages?0?.author *", "begin.messages[0].author"),
    ("AgentService.Respond 0 begin.messages?0?.type unspecified", "begin.messages[0].type"),
    ("AgentService.Respond 0 begin.messages?0?.accept_time *", "begin.messages[0].accept_time"),
    ("AgentService.Respond 0 begin.messages?0?.text long", AS_VALID),  # up to 128 KiB
    ("AgentService.Respond 0 begin.messages*", AS_VALID),
    ("AgentService.Respond 0 begin.said?0? long", AS_VALID),  # up to 128 KiB
    ("AgentService.Respond 0 begin.said?0? *", AS_VALID),
    ("AgentService.Respond 0 begin.said missing", AS_VALID),
    ("AgentService.Respond 0 begin.said_effects?0?.lead_update missing", "begin.said_effects[0]"),
    ("AgentService.Respond 0 begin.said_effects*", AS_VALID),
    ("AgentService.Respond 0 begin.scope*", AS_VALID),
    ("AgentService.Respond 0 begin.contact*", AS_VALID),
    ("AgentService.Respond 0 begin.remaining negative", "DEADLINE_EXCEEDED"),
    ("AgentService.Respond 0 begin.remaining *", AS_VALID),
    ("AgentService.Respond 1 context.conversation_id empty", AS_VALID),
    ("AgentService.Respond 1 context.conversation_id *", "context.conversation_id"),
    ("AgentService.Respond 1 *", AS_VALID),
)


@asynccontextmanager
async def serving(service: str, path: Path) -> AsyncIterator[Any]:
    async with SERVERS[service](path) as served:
        yield served[0] if isinstance(served, tuple) else served


async def ended(call: Awaitable[Any]) -> tuple[str, errors.ParsedError | None]:
    """The reason that a call ended with; "" when it was fine."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        parsed = errors.parse(error)
        return parsed.reason, parsed
    return "", None


async def call(stub: Any, method: str, request: Message) -> None:
    if method == RESPOND:
        return await _respond(stub, request)
    calling = getattr(stub, method.partition(".")[2])(request, timeout=10, wait_for_ready=True)
    if method.endswith(".ExportContact"):
        async for _ in calling:
            pass
        return None
    await calling
    return None


async def _respond(stub: Any, frame: Message) -> None:
    frames = [agent_pb.RespondRequest(begin=BEGIN), agent_pb.RespondRequest(context=CONTEXT)]
    place = 0 if isinstance(frame, agent_pb.Begin) else 1
    frames[place] = agent_pb.RespondRequest(**{("begin", "context")[place]: frame})
    for _ in range(TRIES):
        try:
            async for _ in stub.Respond(iter(frames), timeout=10, wait_for_ready=True):
                pass
            return
        except grpc.aio.AioRpcError as error:
            # When the server ends the call while the second frame is being written, the client may make up this one.
            if error.details() != "Internal error from Core":
                raise
    raise AssertionError(f"{TRIES} times no status from the server")


def check_documented(found: errors.ParsedError) -> None:
    """The triple is one that the contract shows."""
    assert found.reason, found
    documented = CONTRACT[found.reason]
    keys = [set(example) for example in documented.examples]
    assert (found.code.name, bool(found.message)) == (documented.code, True)
    assert set(found.metadata) in keys, f"{found.reason} with {found.metadata}"


def bases() -> Iterator[tuple[str, int, Message]]:
    for method, valid in {**VALID, RESPOND: (BEGIN, CONTEXT)}.items():
        for number, request in enumerate(valid):
            yield method, number, request


def ways(method: str, request: Message, *, long: int = LONG) -> Iterator[Spoilt]:
    prefix = {"Begin": "begin.", "ConversationContext": "context."} if method == RESPOND else {}
    start = prefix.get(type(request).__name__, "")
    for number, spoilt in enumerate(spoil(request, long=long)):
        fresh(spoilt, number)
        yield Spoilt(field=f"{start}{spoilt.field}", kind=spoilt.kind, request=spoilt.request)


def fresh(spoilt: Spoilt, number: int) -> None:
    """New ids, so that what is taken is not taken for a repetition."""
    request = spoilt.request
    if isinstance(request, buffer_pb.EnqueueRequest) and request.events:
        kind = request.events[0].WhichOneof("event")
        if kind in ("message", "echo") and not spoilt.field.endswith(".message_id"):
            getattr(request.events[0], kind).message_id = f"m{number}"
    if isinstance(request, context_pb.RecordTurnRequest) and spoilt.field not in ("record", "record.turn_id"):
        request.record.turn_id = f"t{number}"


def expected(method: str, number: int, spoilt: Spoilt) -> tuple[str, str]:
    """Reason and field."""
    name = f"{method} {number} {spoilt.name}"
    for pattern, answer in OTHERWISE:
        if not fnmatchcase(name, pattern):
            continue
        if answer in CONTRACT:
            return answer, "page_token" if answer == "BAD_PAGE_TOKEN" else ""
        if answer == AS_VALID:
            reason = ENDS.get(f"{method} {number}", "")
            return reason, "page_token" if reason == "BAD_PAGE_TOKEN" else ""
        return ("", "") if answer == TAKEN else ("INVALID_ARGUMENT", answer)
    return "INVALID_ARGUMENT", spoilt.field


@pytest.mark.parametrize(("method", "number", "request_"), [pytest.param(*b, id=f"{b[0]}-{b[1]}") for b in bases()])
async def test_every_field_spoilt_gets_its_documented_answer(
    tmp_path: Path, method: str, number: int, request_: Message
) -> None:
    service = method.partition(".")[0]
    every = [(way, *expected(method, number, way)) for way in ways(method, request_)]
    async with serving(service, tmp_path) as stub:
        before = await stored(stub, service)
        wrong = [await differs(stub, method, *row) for row in every if row[1]]
        assert await stored(stub, service) == before, "something refused was stored"
        wrong += [await differs(stub, method, *row) for row in every if not row[1]]
        reason, _ = await ended(call(stub, method, request_))
        assert reason == ENDS.get(f"{method} {number}", ""), "a valid request, afterwards"
    assert not any(wrong), "\n".join(filter(None, wrong))


async def differs(stub: Any, method: str, way: Spoilt, reason: str, field: str) -> str:
    """What is not as documented; "" if nothing."""
    found, error = await ended(call(stub, method, way.request))
    told = error.metadata.get("field", "") if error else ""
    if error:
        check_documented(error)
    return "" if (found, told) == (reason, field) else f"{way.name}: {found} {told}; not {reason} {field}"


@pytest.mark.parametrize("method", [*VALID, RESPOND])
async def test_five_megabytes_are_refused_like_any_text_that_is_too_long(tmp_path: Path, method: str) -> None:
    service = method.partition(".")[0]
    async with serving(service, tmp_path) as stub:
        before = await stored(stub, service)
        for number, request in [(n, r) for m, n, r in bases() if m == method]:
            refused = [w for w in ways(method, request, long=BIG) if w.kind == "long"]
            refused = [w for w in refused if expected(method, number, w)[0] == "INVALID_ARGUMENT"][:2]
            assert refused or method in NOTHING_IS_LONG
            for way in refused:
                reason, field = expected(method, number, way)
                if method == "BufferService.Enqueue":
                    field = "events"  # which is measured first
                assert await differs(stub, method, way, reason, field) == ""
        assert await stored(stub, service) == before


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        pytest.param(*row, id=f"{row[0]} {row[2]}")
        for row in (
            ("BufferService.Enqueue", buffer_pb.EnqueueRequest(), "events"),
            ("BufferService.Enqueue", event("unparsed", buffer_pb.Unparsed(body=b"x" * BIG)), "events"),
            (
                "BufferService.Enqueue",
                buffer_pb.EnqueueRequest(events=[*event("message", message()).events] * 1_001),
                "events",
            ),
            ("BufferService.Enqueue", event("message", message("replay:1:1")), "events[0].message.message_id"),
            ("BufferService.Enqueue", event("message", message("m" * 257)), "events[0].message.message_id"),
            ("BufferService.Enqueue", event("message", message(text="x" * 65_537)), "events[0].message.text"),
            ("BufferService.Enqueue", event("message", message(media=[{}] * 33)), "events[0].message.media"),
            (
                "BufferService.Enqueue",
                event("message", message(author=message_pb2.AUTHOR_ASSISTANT)),
                "events[0].message.author",
            ),
            ("BufferService.GetLane", buffer_pb.GetLaneRequest(), "conversation_id"),
            ("BufferService.ListLanes", buffer_pb.ListLanesRequest(states=[1] * 7), "states"),
            ("BufferService.ListLanes", buffer_pb.ListLanesRequest(page_size=201), "page_size"),
            ("BufferService.ListDeadLetters", buffer_pb.ListDeadLettersRequest(page_size=201), "page_size"),
            ("ContextService.GetLead", context_pb.GetLeadRequest(), "lead_id"),
            ("ContextService.GetLead", context_pb.GetLeadRequest(lead_id="7"), "lead_id"),
            ("ContextService.ListLeads", context_pb.ListLeadsRequest(page_size=201), "page_size"),
            (
                "ContextService.ListMessages",
                context_pb.ListMessagesRequest(conversation_id="c", page_size=501),
                "page_size",
            ),
            (
                "ContextService.ForgetContact",
                context_pb.ForgetContactRequest(contact="1", conversation_ids=["c"] * 1_001),
                "conversation_ids",
            ),
            (
                "ContextService.ExportContact",
                context_pb.ExportContactRequest(contact="1", conversation_ids=["c"] * 1_001),
                "conversation_ids",
            ),
            (RESPOND, agent_pb.Begin(messages=[message()] * 101), "begin.messages"),
            (RESPOND, agent_pb.Begin(messages=[message()], said=["a"] * 101), "begin.said"),
            (RESPOND, agent_pb.Begin(messages=[message(reply_to="x" * (9 << 20))]), "begin"),
            (RESPOND, lead_pb2.ConversationContext(conversation_id="c2"), "context.conversation_id"),
            (RESPOND, lead_pb2.ConversationContext(history=[{}] * 1_001), "context.history"),
            (RESPOND, lead_pb2.ConversationContext(summary="x" * BIG), "context"),
        )
    ],
)
async def test_too_many_too_long_and_too_vague(tmp_path: Path, method: str, request_: Message, field: str) -> None:
    service = method.partition(".")[0]
    async with serving(service, tmp_path) as stub:
        before = await stored(stub, service)
        spoilt = Spoilt(field=field, kind="row", request=request_)
        assert await differs(stub, method, spoilt, "INVALID_ARGUMENT", field) == ""
        assert await stored(stub, service) == before


async def test_one_bad_event_among_good_ones_stores_none(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        before = await stored(stub, "BufferService")
        events = [one for name in ("m1", "", "m3") for one in event("message", message(name)).events]
        reason, error = await ended(stub.Enqueue(buffer_pb.EnqueueRequest(events=events), timeout=5))
        assert error and (reason, error.metadata["field"]) == ("INVALID_ARGUMENT", "events[1].message.message_id")
        assert await stored(stub, "BufferService") == before


async def test_what_grpc_itself_refuses_leaves_the_server_alive(tmp_path: Path) -> None:
    too_much = buffer_pb.EnqueueRequest(events=[buffer_pb.Event(unparsed=buffer_pb.Unparsed(body=b"x" * (17 << 20)))])
    async with buffer(tmp_path) as stub:
        reason, error = await ended(stub.Enqueue(too_much, timeout=10))
        assert error and (reason, error.code) == ("", grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert (await ended(stub.Enqueue(event("message", message()), timeout=5)))[0] == ""


def test_every_reason_is_provoked_by_a_row() -> None:
    here = {expected(m, n, way)[0] for m, n, request in bases() for way in ways(m, request)}
    assert {"INVALID_ARGUMENT", "NOT_FOUND", "BAD_PAGE_TOKEN", "NOT_IMPLEMENTED", "UNAVAILABLE"} < here
    there = {case.values[0] for case in CASES}
    assert here - {""} | there == set(CONTRACT) - set(UNREACHABLE)


async def stored(stub: Any, service: str) -> bytes:
    """What the service tells of what it holds."""
    if service == "AgentService":
        return b"nothing"
    if service == "BufferService":
        stats = await stub.GetStats(buffer_pb.GetStatsRequest(), timeout=5, wait_for_ready=True)
        stats.ClearField("counters")
        states = [state for state in buffer_pb.LaneState.values() if state]
        lanes = await stub.ListLanes(buffer_pb.ListLanesRequest(states=states, page_size=200), timeout=5)
        return bytes(stats.SerializeToString(deterministic=True) + lanes.SerializeToString(deterministic=True))
    leads = await stub.ListLeads(context_pb.ListLeadsRequest(page_size=200), timeout=5, wait_for_ready=True)
    conversations = await stub.ListConversations(context_pb.ListConversationsRequest(page_size=200), timeout=5)
    return bytes(leads.SerializeToString() + conversations.SerializeToString()) or b"nothing"


def test_there_is_a_valid_request_for_every_method_and_every_field() -> None:
    streams = {RESPOND, "BufferService.RunTurns"}  # the latter: test_bad_frames.py
    methods = {f"{name}.{m.name}": m for name, service in DESCRIPTORS.items() for m in service.methods}
    assert set(methods) == set(VALID) | streams
    for name, valid in VALID.items():
        if name != "AgentService.Summarize":  # not built yet
            covered = set().union(*(set_fields(one) for one in valid))
            assert all_fields(methods[name].input_type) - covered == set(), name
    for frame in (BEGIN, CONTEXT):
        assert all_fields(frame.DESCRIPTOR) - set_fields(frame) - _of_media(frame) == set()


def _of_media(frame: Message) -> set[str]:
    return all_fields(message_pb2.Media.DESCRIPTOR) if frame is CONTEXT else set()


def test_every_exception_is_needed() -> None:
    names = [f"{method} {number} {way.name}" for method, number, request in bases() for way in ways(method, request)]
    unused = [pattern for pattern, _ in OTHERWISE if not any(fnmatchcase(name, pattern) for name in names)]
    assert not unused
