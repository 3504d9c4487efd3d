"""`make forget` and `make export`: how a person is named, what is said, and how it ends. The whole system is in
`tests/system/test_forget.py`."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from agentic_sdr.common.v1 import message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from buffer_service.app import BufferApp
from buffer_service.settings import BufferSettings
from context_service.app import ContextApp
from context_service.settings import ContextSettings
from deploy import export, forget, person
from deploy.person import Erased, PersonError
from deploy.settings import SystemSettings
from service_kit.server import Server, ServerConfig
from service_kit.settings import load
from tests.buffer_service.test_service import BufferServiceStub, enqueue, message
from tests.context_service.builders import turn

PHONE = "5581999990001"


@pytest.mark.parametrize(
    ("given", "alias"),
    [
        ("5581999990001", "phone:5581999990001"),
        ("558199990001", "phone:5581999990001"),
        ("+55 (81) 99999-0001", "phone:5581999990001"),
        ("+55 81 9999-0001", "phone:5581999990001"),
        (" phone:+55 81 9999.0001 ", "phone:5581999990001"),
        ("558133330001", "phone:558133330001"),
        ("+1 415 555 0100", "phone:14155550100"),
        ("lid:123456789012345", "lid:123456789012345"),
        ("LID: 123456789012345", "lid:123456789012345"),
        ("bsuid:BR.9aZ", "bsuid:BR.9aZ"),
        ("5581999990001:3@s.whatsapp.net", "phone:5581999990001"),
        ("123456789012345@lid", "lid:123456789012345"),
    ],
)
def test_a_person_is_named_in_any_spelling(given: str, alias: str) -> None:
    assert person.alias(given) == alias


@pytest.mark.parametrize("given", ["", "Ana", "12", "lid:", "mail:a@example.test", "1" * 20, "phone:Ana", "x@g.us"])
def test_whatever_names_nobody_is_refused(given: str) -> None:
    with pytest.raises(PersonError, match=r"names nobody|no phone number"):
        person.alias(given)


class Services(NamedTuple):
    """Buffer and context in this process, where the tools find them."""

    settings: SystemSettings
    buffer: Any
    context: Any
    stop_context: Any


@pytest.fixture
async def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdr-")))
        addresses = {name: f"unix:{sockets / name}" for name in ("buffer", "context")}
        monkeypatch.chdir(tmp_path)
        for name, address in addresses.items():
            monkeypatch.setenv(f"SDR_{name.upper()}_ADDRESS", address)
        monkeypatch.setenv("SDR_DATA_DIR", str(tmp_path))
        await stack.enter_async_context(
            Server(BufferApp(load(BufferSettings)), ServerConfig(service="test", address=addresses["buffer"]))
        )
        context = await stack.enter_async_context(AsyncExitStack())
        await context.enter_async_context(
            Server(ContextApp(load(ContextSettings)), ServerConfig(service="test", address=addresses["context"]))
        )
        buffer_channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses["buffer"]))
        context_channel = await context.enter_async_context(grpc.aio.insecure_channel(addresses["context"]))
        yield Services(
            load(SystemSettings), BufferServiceStub(buffer_channel), ContextServiceStub(context_channel), context.aclose
        )


async def known(services: Services) -> str:
    """A person with one conversation, in the buffer and in the context, under a phone and a LID."""
    contact = message_pb2.Contact(contact=PHONE, aliases=[f"phone:{PHONE}", "lid:777"])
    [result] = await enqueue(services.buffer, message("m1", contact=contact))
    record = turn("t1", result.conversation_id, contact=PHONE, aliases=["lid:777"])
    await services.context.RecordTurn(context_pb.RecordTurnRequest(record=record), timeout=5)
    return result.conversation_id


async def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["forget", *arguments])
    return await asyncio.to_thread(forget.main)


async def test_both_services_forget_and_a_repeat_finds_nothing(
    services: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation_id = await known(services)
    assert await run(monkeypatch, "--contact=lid:777", "--do-not-contact=yes") == 0
    said = capsys.readouterr().out
    assert "in the buffer: 1 conversation, 1 message\n" in said
    assert "in the context: 1 lead, 1 conversation, 2 messages\n" in said
    assert "Marked" in said and "backups" in said and "Supabase" not in said
    assert await run(monkeypatch, "--contact", "+55 (81) 9999-0001") == 0
    assert "Nothing     was stored" in capsys.readouterr().out
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        late = turn("t2", conversation_id, contact=PHONE)
        await services.context.RecordTurn(context_pb.RecordTurnRequest(record=late), timeout=5)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    back = turn("t3", "another", contact=PHONE)
    await services.context.RecordTurn(context_pb.RecordTurnRequest(record=back), timeout=5)
    lead = (await services.context.GetLead(context_pb.GetLeadRequest(contact=PHONE), timeout=5)).lead
    assert lead.do_not_contact


async def test_with_one_service_down_nothing_is_erased(
    services: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await known(services)
    await services.stop_context()
    assert await run(monkeypatch, "--contact", PHONE) == 1
    captured = capsys.readouterr()
    assert "Erased" not in captured.out and "Remains" not in captured.out
    assert "context_service is needed for it: no answer" in captured.err and "Nothing was erased" in captured.err
    erased = await asyncio.to_thread(_buffer_only, services)
    assert erased == 1


def _buffer_only(services: Services) -> int:
    try:
        person.forget(services.settings, f"phone:{PHONE}")
    except person.HalfErased as error:
        return len(error.conversation_ids)
    return 0


async def test_what_broke_off_between_the_two_is_repeated_with_what_the_buffer_knew(
    services: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The context may know a lead by another name than the one that was given: only the buffer knew that it is they."""
    conversation_id = await known(services)
    other = turn("t9", conversation_id, contact="lid:888", messages=[])
    await services.context.ForgetContact(context_pb.ForgetContactRequest(contact=PHONE), timeout=5)
    other.conversation_id = "theirs-too"
    await services.context.RecordTurn(context_pb.RecordTurnRequest(record=other), timeout=5)
    with monkeypatch.context() as patch:
        patch.setattr(forget, "_check_all_there", lambda _: None)
        patch.setenv("SDR_CONTEXT_ADDRESS", f"unix:{tmp_path}/nobody")
        assert await run(patch, "--contact", PHONE, "--do-not-contact=yes") == 1
    said = capsys.readouterr().err
    assert f"make forget CONTACT='{PHONE}' DO_NOT_CONTACT=yes CONVERSATIONS='{conversation_id}'" in said
    assert await run(monkeypatch, "--contact", PHONE, "--conversations", f"{conversation_id} theirs-too") == 0
    assert "in the context: 1 lead, 1 conversation, 1 message\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [(), ("--contact=",), ("--contact=Ana",), ("--contact", PHONE, "--do-not-contact=no")]
)
async def test_bad_wishes_are_refused(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


async def exported(services: Services, who: str, **more: Any) -> Any:
    pieces: list[bytes] = []
    await asyncio.to_thread(person.export, services.settings, who, pieces.append, **more)
    return json.loads(b"".join(pieces))


async def test_an_export_is_one_document_of_both_services(services: Services) -> None:
    conversation_id = await known(services)
    document = await exported(services, "lid:777")
    assert [one["alias"] for one in document["lead_aliases"]] == [f"phone:{PHONE}", "lid:777"]
    assert [one["id"] for one in document["conversations"]] == [conversation_id]
    # Nobody has answered it yet, so the context does not have it.
    assert [one["body"]["text"] for one in document["buffer"]["message"]] == ["oi"]
    with pytest.raises(PersonError, match=r"^Nothing is stored about this contact\.$"):
        await exported(services, "lid:778")


async def test_an_export_is_whole_when_only_one_service_knows_them(services: Services) -> None:
    conversation_id = await known(services)
    await services.context.ForgetContact(context_pb.ForgetContactRequest(contact=PHONE), timeout=5)
    only_buffer = await exported(services, "lid:777")
    assert set(only_buffer) == {"buffer"} and len(only_buffer["buffer"]["conversation"]) == 1
    # A lead whom the context knows by another name is found by the buffer's conversation, or by one that was named.
    other = turn("t9", "theirs-too", contact="lid:888", messages=[])
    await services.context.RecordTurn(context_pb.RecordTurnRequest(record=other), timeout=5)
    given = await exported(services, "lid:777", conversation_ids=("theirs-too", conversation_id))
    assert [one["id"] for one in given["conversations"]] == ["theirs-too"] and given["buffer"] is not None
    only_context = await exported(services, "lid:888")
    assert only_context["buffer"] is None and len(only_context["leads"]) == 1


async def test_an_export_that_lacks_a_service_is_none(
    services: Services, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await known(services)
    await services.stop_context()
    monkeypatch.setattr(sys, "argv", ["export", "--contact", PHONE])
    monkeypatch.setattr(export.signal, "signal", lambda *_: None)  # Only the main thread may.
    assert await asyncio.to_thread(export.main) == 1
    said = capfd.readouterr().err
    assert "context_service does not answer" in said and "no whole document: delete it" in said


def test_what_remains_is_said_of_supabase_too() -> None:
    erased = Erased(buffer_conversations=0, buffer_messages=0, leads=2, conversations=1, messages=1)
    said = forget.report(erased, marked=False, elsewhere=True)
    assert "2 leads, 1 conversation, 1 message" in said and "Supabase" in said and "Marked" not in said
