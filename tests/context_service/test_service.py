"""Every method through a real server in this process."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from context_service.app import ContextApp
from context_service.settings import ContextSettings
from service_kit.clock import ManualClock
from service_kit.errors import parse
from service_kit.settings import load as load_settings
from service_kit.testing import in_process
from tests.context_service.builders import PHONE, load, message, part, turn, update

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Any]:
    settings = load_settings(ContextSettings, environ={"SDR_DATA_DIR": str(tmp_path)}, env_file=None)
    async with in_process(ContextApp(settings, clock=ManualClock())) as channel:
        yield ContextServiceStub(channel)


async def record(stub: Any, *args: Any, **values: Any) -> pb.RecordTurnResponse:
    answer: pb.RecordTurnResponse = await stub.RecordTurn(pb.RecordTurnRequest(record=turn(*args, **values)))
    return answer


async def export(stub: Any, contact: str = PHONE) -> tuple[dict[str, Any], list[bytes]]:
    chunks = [answer.chunk async for answer in stub.ExportContact(pb.ExportContactRequest(contact=contact))]
    return json.loads(b"".join(chunks)), chunks


async def test_an_unknown_conversation_is_an_empty_context(stub: Any) -> None:
    answer = await stub.LoadContext(load())
    assert answer.context == lead_pb2.ConversationContext(conversation_id="c1")
    assert not answer.cache_hit and answer.times.HasField("history")


async def test_what_was_recorded_is_loaded(stub: Any) -> None:
    photo = message(
        "m2", "conta", type=message_pb2.MESSAGE_TYPE_IMAGE, media=[message_pb2.Media(mime_type="image/jpeg")]
    )
    recorded = await record(
        stub, messages=[message("m1", "o\0i"), photo], effects=[update(name="Ana", interested=False)]
    )
    again = await record(stub)
    assert (again.version, again.lead_id, again.duplicate) == (1, recorded.lead_id, True)
    await stub.PutSummary(
        pb.PutSummaryRequest(conversation_id="c1", summary="Ana quer saber.", version=1, through_sequence=1)
    )
    context = (await stub.LoadContext(load(min_version=1))).context
    assert (context.version, context.total_messages, context.summary) == (1, 3, "Ana quer saber.")
    assert (context.summary_through, context.history_cut) == (1, False)
    assert [(line.text, line.sequence) for line in context.history] == [("conta", 2), ("Olá!", 3)]
    assert context.history[0].media[0].mime_type == "image/jpeg"
    assert context.history[0].type == message_pb2.MESSAGE_TYPE_IMAGE
    assert (context.lead.name, context.lead.HasField("interested"), context.lead.interested) == ("Ana", True, False)
    assert not context.lead.HasField("bill_value_cents")


async def test_a_lead_is_found_by_id_contact_and_alias(stub: Any) -> None:
    lead_id = (await record(stub, aliases=["lid:9"])).lead_id
    for request in ({"lead_id": lead_id}, {"contact": PHONE}, {"contact": "lid:9"}, {"contact": f"phone:{PHONE}"}):
        assert (await stub.GetLead(pb.GetLeadRequest(**request))).lead.lead_id == lead_id


async def test_the_mask_says_what_changes(stub: Any) -> None:
    lead_id = (await record(stub, effects=[update(name="Ana", bill_value_cents=5, preferences={"a": "1"})])).lead_id
    lead = lead_pb2.Lead(lead_id=lead_id, name="Eva", email="eva@example.com", preferences={"b.c": "2"})
    paths = ["email", "bill_value_cents", "preferences.b.c", "preferences.a", "needs_human"]
    changed = (await stub.UpdateLead(pb.UpdateLeadRequest(lead=lead, update_mask=FieldMask(paths=paths)))).lead
    assert (changed.name, changed.email, dict(changed.preferences)) == ("Ana", "eva@example.com", {"b.c": "2"})
    assert not changed.HasField("bill_value_cents")
    assert (await stub.GetLead(pb.GetLeadRequest(lead_id=lead_id))).lead == changed


async def test_lists_are_read_page_by_page(stub: Any) -> None:
    for number in range(5):
        await record(stub, f"t{number}", f"c{number}", contact=f"55{number}")
    await record(stub, "t9", "c0", contact="550")
    leads, conversations, messages = [], [], []
    async for page in pages(stub.ListLeads, pb.ListLeadsRequest(page_size=2)):
        leads += [lead.phone_number for lead in page.leads]
    async for page in pages(stub.ListConversations, pb.ListConversationsRequest(page_size=2)):
        conversations += [one.conversation_id for one in page.conversations]
    async for page in pages(stub.ListMessages, pb.ListMessagesRequest(conversation_id="c0", page_size=1)):
        messages += [line.text for line in page.messages]
    assert sorted(leads) == [f"55{number}" for number in range(5)]
    assert sorted(conversations) == [f"c{number}" for number in range(5)]
    assert messages == ["oi", "Olá!", "oi", "Olá!"]


async def pages(method: Callable[[Any], Any], request: Any) -> AsyncIterator[Any]:
    for _ in range(20):
        page = await method(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
    raise AssertionError("the pages do not end")


async def test_long_texts_never_make_an_answer_too_long(stub: Any) -> None:
    texts = [f"{number}" + "x" * 65_000 for number in range(48)]
    await record(stub, messages=[message(f"m{n}", text) for n, text in enumerate(texts)], parts=[part(0, "fim")])
    answer = await stub.LoadContext(load(history_limit=200))
    assert answer.ByteSize() < 1_200_000
    assert answer.context.history[-1].text == "fim" and answer.context.total_messages == 49
    found: list[str] = []
    async for page in pages(stub.ListMessages, pb.ListMessagesRequest(conversation_id="c1", page_size=500)):
        assert page.ByteSize() < 1_200_000
        found += [line.text for line in page.messages]
    assert found == [*texts, "fim"]


async def test_a_lead_of_another_business_is_not_shown_under_this_ones_name(stub: Any) -> None:
    lead_id = (await record(stub, tenant="other")).lead_id
    assert (await stub.GetLead(pb.GetLeadRequest(lead_id=lead_id, tenant="other"))).lead.lead_id == lead_id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetLead(pb.GetLeadRequest(lead_id=lead_id, tenant="default"))
    assert parse(refused.value).reason == "NOT_FOUND"


async def test_an_export_holds_everything_in_small_chunks(stub: Any) -> None:
    for number in range(60):
        await record(
            stub, f"t{number}", messages=[message(f"m{number}", "é" * 3000)], effects=[update(name=f"n{number}")]
        )
    await record(stub, "x", "cx", contact="5511")
    document, chunks = await export(stub)
    assert {key: len(rows) for key, rows in document.items() if key != "tenant"} == {
        "leads": 1,
        "lead_aliases": 1,
        "conversations": 1,
        "messages": 120,
        "turns": 60,
        "lead_changes": 60,
        "usage_days": 0,
        "merged_conversations": 0,
    }
    assert len(chunks) > 5 and max(map(len, chunks)) <= 65_536
    assert document["leads"][0]["phone_number"] == PHONE


async def test_a_forgotten_person_is_gone(stub: Any) -> None:
    await record(stub)
    answer = await stub.ForgetContact(pb.ForgetContactRequest(contact=PHONE, conversation_ids=["c1", "c2"]))
    assert (answer.leads, answer.conversations, answer.messages) == (1, 1, 2)
    assert (await stub.LoadContext(load())).context == lead_pb2.ConversationContext(conversation_id="c1")
    assert (await stub.ForgetContact(pb.ForgetContactRequest(contact=PHONE))).leads == 0


def recording(**values: Any) -> pb.RecordTurnRequest:
    return pb.RecordTurnRequest(record=turn(**values))


def masked(path: str, **values: Any) -> pb.UpdateLeadRequest:
    lead = lead_pb2.Lead(lead_id=values.pop("lead_id", UNKNOWN_ID), **values)
    return pb.UpdateLeadRequest(lead=lead, update_mask=FieldMask(paths=[path] if path else []))


INVALID: list[tuple[str, Any, str]] = [
    ("LoadContext", load(""), "conversation_id"),
    ("LoadContext", load("x" * 257), "conversation_id"),
    ("LoadContext", load("a\0b"), "conversation_id"),
    ("LoadContext", load(instance=""), "scope.instance"),
    ("LoadContext", load(contact=""), "contact.contact"),
    ("LoadContext", load(min_version=-1), "min_version"),
    ("LoadContext", load(history_limit=201), "history_limit"),
    ("RecordTurn", recording(turn_id=""), "record.turn_id"),
    ("RecordTurn", recording(conversation_id=""), "record.conversation_id"),
    ("RecordTurn", recording(kind=turn_pb2.TURN_KIND_UNSPECIFIED), "record.kind"),
    ("RecordTurn", recording(contact=""), "record.contact.contact"),
    ("RecordTurn", recording(aliases=["lid:1", ""]), "record.contact.aliases[1]"),
    ("RecordTurn", recording(messages=[message_pb2.Message()]), "record.messages[0].author"),
    ("RecordTurn", recording(messages=[message_pb2.Message(author=1)]), "record.messages[0].type"),
    ("RecordTurn", recording(messages=[message("m", "x" * 65_537)]), "record.messages[0].text"),
    (
        "RecordTurn",
        recording(messages=[message("m", provider_time=Timestamp(seconds=-1))]),
        "record.messages[0].provider_time",
    ),
    ("RecordTurn", recording(parts=[part(0, "x", turn_pb2.PART_STATE_STORED)]), "record.parts[0].state"),
    ("RecordTurn", recording(effects=[turn_pb2.Effect()]), "record.effects[0]"),
    ("RecordTurn", recording(effects=[update(name="x" * 101)]), "record.effects[0].lead_update.name"),
    (
        "RecordTurn",
        recording(effects=[update(bill_value_cents=10**10)]),
        "record.effects[0].lead_update.bill_value_cents",
    ),
    (
        "RecordTurn",
        recording(effects=[update(qualification_status="MAYBE")]),
        "record.effects[0].lead_update.qualification_status",
    ),
    ("PutSummary", pb.PutSummaryRequest(conversation_id="c1", version=1, through_sequence=1), "summary"),
    ("PutSummary", pb.PutSummaryRequest(conversation_id="c1", version=1, summary="x" * 8193), "summary"),
    ("PutSummary", pb.PutSummaryRequest(conversation_id="c1", summary="x", through_sequence=1), "version"),
    ("PutSummary", pb.PutSummaryRequest(conversation_id="c1", summary="x", version=1), "through_sequence"),
    ("LoadContext", load(history_bytes=1 << 21), "history_bytes"),
    ("GetLead", pb.GetLeadRequest(), "lead_id"),
    ("GetLead", pb.GetLeadRequest(lead_id=UNKNOWN_ID, contact=PHONE), "lead_id"),
    ("GetLead", pb.GetLeadRequest(lead_id="not-a-uuid"), "lead_id"),
    ("ListLeads", pb.ListLeadsRequest(page_size=201), "page_size"),
    ("ListLeads", pb.ListLeadsRequest(page_size=-1), "page_size"),
    ("ListLeads", pb.ListLeadsRequest(qualification_status="MAYBE"), "qualification_status"),
    ("ListLeads", pb.ListLeadsRequest(updated_since=Timestamp(seconds=10**12)), "updated_since"),
    ("UpdateLead", masked("name", lead_id=""), "lead.lead_id"),
    ("UpdateLead", masked(""), "update_mask"),
    ("UpdateLead", masked("phone_number"), "update_mask"),
    ("UpdateLead", masked("preferences."), "update_mask"),
    ("UpdateLead", masked("current_stage"), "lead.current_stage"),
    ("UpdateLead", masked("qualification_score", qualification_score=101), "lead.qualification_score"),
    ("ListConversations", pb.ListConversationsRequest(lead_id="x"), "lead_id"),
    ("ListConversations", pb.ListConversationsRequest(page_size=201), "page_size"),
    ("ListMessages", pb.ListMessagesRequest(), "conversation_id"),
    ("ListMessages", pb.ListMessagesRequest(conversation_id="c1", page_size=501), "page_size"),
    ("ExportContact", pb.ExportContactRequest(), "contact"),
    ("ExportContact", pb.ExportContactRequest(contact=PHONE, conversation_ids=[""]), "conversation_ids[0]"),
    ("ForgetContact", pb.ForgetContactRequest(), "contact"),
    ("ForgetContact", pb.ForgetContactRequest(contact=PHONE, conversation_ids=[""]), "conversation_ids[0]"),
]
MISSING: list[tuple[str, Any, str]] = [
    (
        "PutSummary",
        pb.PutSummaryRequest(conversation_id="c1", version=1, through_sequence=1, summary="x"),
        "conversation",
    ),
    ("GetLead", pb.GetLeadRequest(lead_id=UNKNOWN_ID), "lead"),
    ("GetLead", pb.GetLeadRequest(contact=PHONE), "lead"),
    ("GetLead", pb.GetLeadRequest(contact=PHONE, tenant="other"), "lead"),
    ("UpdateLead", masked("name"), "lead"),
    ("ListMessages", pb.ListMessagesRequest(conversation_id="c1"), "conversation"),
    ("ExportContact", pb.ExportContactRequest(contact=PHONE), "contact"),
]


async def refused(stub: Any, method: str, request: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    call = getattr(stub, method)(request)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        if method == "ExportContact":
            await call.read()
        else:
            await call
    error = parse(failure.value)
    return error.code, error.reason, error.metadata


@pytest.mark.parametrize(("method", "request_", "field"), INVALID)
async def test_invalid_requests_name_the_field(stub: Any, method: str, request_: Any, field: str) -> None:
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", {"field": field})
    assert await refused(stub, method, request_) == expected


@pytest.mark.parametrize(("method", "request_", "resource"), MISSING)
async def test_what_is_not_there_is_not_found(stub: Any, method: str, request_: Any, resource: str) -> None:
    expected = (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", {"resource": resource})
    assert await refused(stub, method, request_) == expected


async def test_the_other_refusals(stub: Any) -> None:
    for number in (1, 2):
        await record(stub, f"t{number}")
    await stub.PutSummary(pb.PutSummaryRequest(conversation_id="c1", version=2, through_sequence=4, summary="x"))
    older = pb.PutSummaryRequest(conversation_id="c1", version=2, through_sequence=3, summary="x")
    wrong = (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", {"conversation_id": "c1", "state": "newer_summary"})
    assert await refused(stub, "PutSummary", older) == wrong
    ahead = (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", {"component": "store"})
    assert await refused(stub, "LoadContext", load(min_version=3)) == ahead
    await stub.ForgetContact(pb.ForgetContactRequest(contact=PHONE))
    late = (grpc.StatusCode.FAILED_PRECONDITION, "FORGOTTEN", {"conversation_id": "c1"})
    assert await refused(stub, "RecordTurn", recording()) == late


async def test_page_tokens_are_good_for_their_own_list_only(stub: Any) -> None:
    for number in range(3):
        await record(stub, f"t{number}", f"c{number}", contact=f"55{number}")
    token = (await stub.ListLeads(pb.ListLeadsRequest(page_size=1))).next_page_token
    bad = (grpc.StatusCode.INVALID_ARGUMENT, "BAD_PAGE_TOKEN", {"field": "page_token"})
    for method, request in (
        ("ListConversations", pb.ListConversationsRequest(page_token=token)),
        ("ListLeads", pb.ListLeadsRequest(page_token=token, stage="BILL")),
        ("ListLeads", pb.ListLeadsRequest(page_token=token[:-4] + "AAAA")),
        ("ListLeads", pb.ListLeadsRequest(page_token="não é")),
        ("ListMessages", pb.ListMessagesRequest(conversation_id="c1", page_token="x" * 2000)),
    ):
        assert await refused(stub, method, request) == bad
    assert (await stub.ListLeads(pb.ListLeadsRequest(page_token=token, page_size=7))).leads


async def test_no_personal_data_is_logged(stub: Any, capfd: pytest.CaptureFixture[str]) -> None:
    await record(stub, "t1", "c1", contact="lid:778899001122", messages=[message("m", "segredo")])
    await record(stub, "t2", "c2")
    await record(stub, "t3", "c3", contact="lid:778899001122", aliases=[f"phone:{PHONE}"])
    await refused(stub, "RecordTurn", recording(turn_id="t4", parts=[part(0, "segredo", 1)]))
    output = "".join(capfd.readouterr())
    assert "aliases_of_two_leads_found" in output
    assert not [word for word in ("segredo", PHONE, "778899001122") if word in output]
