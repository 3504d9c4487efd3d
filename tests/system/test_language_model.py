"""A language model through all four processes: words reach the lead, tool calls the record, a correction stops it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.stand_ins.openai_server import MODEL, Called, OpenAIServer, calls, says
from tests.system.harness import System, new_contact, on_the_modules_loop, running, webhook

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
NAME = Called(name="update_lead", arguments='{"name": "Carlos", "bill_value": "4.500,00"}')
KEY = "sk-test-0123456789abcdef"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_system(server: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    settings = {"SDR_AGENT_MODEL": f"openai:{MODEL}", "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY}
    async with running(tmp_path_factory.mktemp("system"), **settings) as system:
        yield system


@on_the_modules_loop
async def test_words_and_facts_of_a_language_model(system: System, server: OpenAIServer) -> None:
    server.script.extend([calls(NAME), says("Prazer, Carlos!\n\nMora em casa ", "ou apartamento?")])
    contact = new_contact()
    await system.deliver(webhook(contact, "sou o Carlos, pago 4.500"))
    await system.settled(contact, 1)
    assert system.heard(contact) == ["Prazer, Carlos!", "Mora em casa ou apartamento?"]
    lead = await system.lead(contact)
    assert (lead.name, lead.bill_value_cents) == ("Carlos", 450_000)
    server.script.append(says("Ótimo, Carlos."))
    await system.deliver(webhook(contact, "casa"))
    await system.settled(contact, 2)
    told = server.turns[-1].messages
    assert "Prazer, Carlos!" in str(told) and "4.500" in str(told), "the next prompt holds history and facts"
    for name in ("ingress", "agent_service", "context_service", "buffer_service"):
        log = system.log(name)
        assert KEY not in log and contact not in log and "Prazer" not in log


@on_the_modules_loop
async def test_a_message_that_joins_stops_the_model_and_is_answered(system: System, server: OpenAIServer) -> None:
    before = len(server.turns)
    server.script.extend([says(*["pensando "] * 2_000, pause_s=0.05), says("São 4 mil, entendi.")])
    contact = new_contact()
    await system.deliver(webhook(contact, "400"))
    async with asyncio.timeout(30):
        while len(server.turns) == before:
            await asyncio.sleep(0.02)
    await system.deliver(webhook(contact, "não, 4 mil"))
    await system.settled(contact, 2)
    assert system.heard(contact) == ["São 4 mil, entendi."]
    first, second = server.turns[before:]
    assert first.left and first.generated < 1_000 and "400" in str(second.messages) and "4 mil" in str(second.messages)
