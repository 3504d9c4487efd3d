"""Every row of Evolution's error map, against the stand-in server."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest

from agentic_sdr.buffer.v1.buffer_service_pb2 import (
    SEND_OUTCOME_REFUSED_FINAL,
    SEND_OUTCOME_REFUSED_RETRY,
    SEND_OUTCOME_SENT,
    SEND_OUTCOME_UNKNOWN,
)
from agentic_sdr.common.v1 import message_pb2
from ingress.providers import Destination
from ingress.providers.evolution.errors import read_answer
from ingress.providers.evolution.sender import EvolutionSender
from tests.fixtures.providers_fixtures import send_responses
from tests.stand_ins.evolution_server import EvolutionServer

SENT, RETRY, FINAL, UNKNOWN = (
    SEND_OUTCOME_SENT,
    SEND_OUTCOME_REFUSED_RETRY,
    SEND_OUTCOME_REFUSED_FINAL,
    SEND_OUTCOME_UNKNOWN,
)
BY_CLASS = {"accepted": SENT, "transient": RETRY, "ambiguous": UNKNOWN, "permanent": FINAL, "config_error": RETRY}
LONG, SHORT, LID = "5581999990001@s.whatsapp.net", "558199990001@s.whatsapp.net", "100000000000001@lid"
ROWS = [row for row in send_responses("evolution") if "sendText" in row["call"] and row["http"]]


def to(address: str = LONG, *, instance: str = "loja-demo") -> Destination:
    return Destination(
        scope=message_pb2.Scope(tenant="default", channel="evolution", instance=instance), address=address
    )


@pytest.fixture
async def server() -> AsyncIterator[EvolutionServer]:
    async with EvolutionServer() as running:
        yield running


@pytest.fixture
async def sender(server: EvolutionServer) -> AsyncIterator[EvolutionSender]:
    sender = EvolutionSender(api_url=server.url + "/", api_key="api-key", timeout_s=1.0)
    await sender.open()
    yield sender
    await sender.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['http']}-{row['outcome']}")
async def test_every_known_answer(server: EvolutionServer, sender: EvolutionSender, row: dict[str, Any]) -> None:
    server.fail("refuse_with", status=row["http"], body=row["body"], times=-1)
    result = await sender.send_text(to(), "Olá")
    assert result.outcome == BY_CLASS[row["outcome"]]
    assert result.detail.startswith("config_") == (row["outcome"] == "config_error")
    if result.outcome == SENT:
        assert result.provider_message_id == row["body"]["key"]["id"]


async def test_a_send(server: EvolutionServer, sender: EvolutionSender) -> None:
    result = await sender.send_text(to(LID, instance="loja/ção ?#..%"), "Olá\n👋")
    (sent,) = server.delivered
    assert (result.outcome, result.provider_message_id) == (SENT, sent.message_id)
    assert (sent.instance, sent.number, sent.text, sent.apikey) == ("loja/ção ?#..%", LID, "Olá\n👋", "api-key")


async def test_sends_share_one_connection(server: EvolutionServer, sender: EvolutionSender) -> None:
    for _ in range(5):
        await sender.send_text(to(), "Olá")
    assert (len(server.delivered), server.connections) == (5, 1)


@pytest.mark.parametrize(
    ("fault", "outcome", "delivered"),
    [
        ("hang", UNKNOWN, 0),
        ("reset", UNKNOWN, 0),
        ("accept_then_hang", UNKNOWN, 1),
        ("accept_then_reset", UNKNOWN, 1),
        ("accept_then_500", UNKNOWN, 1),
        ("accept_without_id", UNKNOWN, 1),
        ("bad_gateway", UNKNOWN, 0),
        ("object_object", UNKNOWN, 0),
        ("not_loaded", RETRY, 0),
        ("rate_limited", RETRY, 0),
        ("no_instance", RETRY, 0),
        ("license", RETRY, 0),
        ("text_required", FINAL, 0),
    ],
)
async def test_no_fault_makes_it_send_twice(
    server: EvolutionServer, sender: EvolutionSender, fault: str, outcome: int, delivered: int
) -> None:
    server.fail(fault)
    result = await sender.send_text(to(), "Olá")
    assert result.outcome == outcome
    assert (len(server.texts), len(server.delivered)) == (1, delivered)


@pytest.mark.parametrize(("first", "second"), [(LONG, SHORT), (SHORT, LONG)])
async def test_the_other_form_of_a_brazilian_number_is_tried_once(
    server: EvolutionServer, sender: EvolutionSender, first: str, second: str
) -> None:
    server.fail("exists_false", number=first)
    assert (await sender.send_text(to(first), "Olá")).outcome == SENT
    assert [sent.number for sent in server.texts] == [first, second]


@pytest.mark.parametrize(("address", "tries"), [(LONG, 2), (LID, 1), ("14155550100@s.whatsapp.net", 1)])
async def test_who_is_not_on_whatsapp_is_refused_for_good(
    server: EvolutionServer, sender: EvolutionSender, address: str, tries: int
) -> None:
    server.fail("exists_false", times=-1)
    result = await sender.send_text(to(address), "Olá")
    assert (result.outcome, result.detail, len(server.texts)) == (FINAL, "not_on_whatsapp", tries)


async def test_both_tries_share_one_deadline(server: EvolutionServer, sender: EvolutionSender) -> None:
    server.fail("exists_false", number=LONG, delay_s=0.9)
    server.fail("hang", number=SHORT)
    began = asyncio.get_running_loop().time()
    assert (await sender.send_text(to(), "Olá")).outcome == UNKNOWN
    assert asyncio.get_running_loop().time() - began < 1.8, "one after the other they would take 1.9 s"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid", "https://127.0.0.1:{port}"])
async def test_without_a_connection_nothing_was_sent(server: EvolutionServer, url: str) -> None:
    sender = EvolutionSender(api_url=url.format(port=server.port), api_key="k")
    await sender.open()
    try:
        result = await sender.send_text(to(), "Olá")
    finally:
        await sender.close()
    assert (result.outcome, result.detail) == (RETRY, "unreachable")
    assert server.texts == []


async def test_without_open_nothing_is_sent() -> None:
    sender = EvolutionSender(api_url="http://127.0.0.1:1", api_key="k")
    assert (await sender.send_text(to(), "Olá")).outcome == RETRY
    await sender.show_typing(to())
    await sender.close()


def test_redirects_are_a_mistake_in_the_settings() -> None:
    assert (read_answer(308, b"").outcome, read_answer(308, b"").detail) == (RETRY, "config_redirected")


@pytest.mark.parametrize("status", [200, 201, 204, 400, 402, 418, 500, 503, 599])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"\xff", b'{"response": 3}', b'{"key": {"id": 5}}', b"[" * 9999]
)
def test_no_answer_is_sent_by_mistake(status: int, body: bytes) -> None:
    assert read_answer(status, body).outcome == UNKNOWN


async def test_typing_goes_its_own_way_and_never_raises(server: EvolutionServer, sender: EvolutionSender) -> None:
    server.hold_presence = True
    typing = asyncio.create_task(sender.show_typing(to()))
    async with asyncio.timeout(2):
        while not server.sent:
            await asyncio.sleep(0.01)
    assert (await sender.send_text(to(), "Olá")).outcome == SENT
    assert (server.sent[0].path, server.sent[0].presence, server.connections) == ("sendPresence", "composing", 2)
    server._hanging.set()
    await typing
    broken = EvolutionSender(api_url="http://127.0.0.1:1", api_key="k")
    await broken.open()
    await broken.show_typing(to())
    await broken.close()


async def test_the_stand_in_as_a_process(tmp_path: Path) -> None:
    log = tmp_path / "sent.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.stand_ins.evolution_server", "--log", str(log)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await asyncio.wait_for(process.stdout.readline(), 10)).split()[1].decode()
    sender = EvolutionSender(api_url=url, api_key="k")
    await sender.open()
    result = await sender.send_text(to(), "Olá")
    await sender.close()
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_sent") as answer:
        shown = await answer.json()
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 5) == 0
    written = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert (
        [row["message_id"] for row in written] == [row["message_id"] for row in shown] == [result.provider_message_id]
    )


async def test_the_stand_in_echoes_before_it_answers() -> None:
    echoes: list[tuple[str, Any]] = []

    async def hook(request: aiohttp.web.Request) -> aiohttp.web.Response:
        echoes.append((request.headers["Authorization"], await request.json()))
        return aiohttp.web.Response()

    app = aiohttp.web.Application()
    app.router.add_post("/hook", hook)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    async with EvolutionServer(echo_url=url, echo_token="t") as server:
        sender = EvolutionSender(api_url=server.url, api_key="k")
        await sender.open()
        result = await sender.send_text(to(), "Olá")
        await sender.close()
    await runner.cleanup()
    ((authorization, envelope),) = echoes
    assert (authorization, envelope["event"]) == ("Bearer t", "send.message")
    assert envelope["data"]["key"]["id"] == result.provider_message_id
