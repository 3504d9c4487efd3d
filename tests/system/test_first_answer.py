"""The whole path, once: a webhook goes in, a Portuguese answer comes out at the provider."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fixtures import providers_fixtures
from tests.system.harness import System, new_contact, on_the_modules_loop, webhook

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
# A model that thinks long enough for what is written meanwhile.
SETTINGS = {"SDR_AGENT_PLAYBOOK_DELAY_MS": "2000", "SDR_ADMIN_TOKEN": "admin-token-0123456789"}


@on_the_modules_loop
async def test_a_real_webhook_gets_a_sensible_answer(system: System) -> None:
    import time

    body = providers_fixtures.evolution("01_conversation_text.json", now_s=int(time.time()))
    await system.deliver(body)
    lane = await system.settled("5581999990001", 1)
    heard = system.heard("5581999990001")
    assert "Helen" in heard[0]
    assert "?" in " ".join(heard), "the first answer asks how to call the person"
    assert [p.text for t in lane.ended_turns for p in t.parts] == heard
    assert (await system.lead("5581999990001")).current_stage
    for name in ("buffer_service", "context_service", "agent_service", "ingress"):
        for line in system.log(name).splitlines():
            assert "5581999990001" not in line, "no phone number in any log"
            assert "tudo bem" not in line, "no message text in any log"


@on_the_modules_loop
async def test_a_slow_model_shows_typing_first(system: System) -> None:
    contact = new_contact()
    await system.deliver(webhook(contact, "oi"))
    await system.settled(contact, 1)
    kinds = [s.path for s in system.provider.sent if s.number.startswith(contact)]
    assert kinds[0] == "sendPresence" and kinds.count("sendPresence") == 1
    assert kinds[1] == "sendText"


BURST = ["400", "não, 4 mil", "4.500", "às vezes 5 mil", "quero saber como funciona", "pode me explicar?"]


@on_the_modules_loop
async def test_the_recorded_burst_survives(system: System) -> None:
    """Six messages while the agent answers the first: the monolith lost five, stored 400 and asked the name again."""
    contact = new_contact()
    await system.deliver(webhook(contact, "oi, me chamo Carlos"))
    await system.settled(contact, 1)
    before = len(system.heard(contact))
    for text in BURST:
        await system.deliver(webhook(contact, text))
        await asyncio.sleep(0.25)
    lane = await system.settled(contact, 1 + len(BURST))
    turns = list(reversed(lane.ended_turns))
    assert len(turns) <= 3, "the greeting, and at most two turns for the burst"
    assert [m.text for t in turns for m in t.messages][1:] == BURST
    lead = await system.lead(contact)
    assert lead.bill_value_cents in (450_000, 500_000)
    assert lead.name == "Carlos"
    answers = " ".join(system.heard(contact)[before:]).lower()
    assert "como posso te chamar" not in answers and "seu nome" not in answers
    assert len(answers) > 80, "both questions are answered"


@on_the_modules_loop
async def test_messages_during_a_turn_are_all_answered(system: System) -> None:
    contact = new_contact()
    texts = [f"mensagem {n}" for n in range(1, 26)]
    await system.deliver(webhook(contact, "oi"))
    await asyncio.gather(*(system.deliver(webhook(contact, t)) for t in texts))
    lane = await system.settled(contact, 26)
    seen = sorted(m.text for t in lane.ended_turns for m in t.messages)
    assert seen == sorted(["oi", *texts])
    assert all(t.parts for t in lane.ended_turns)

    photo = new_contact()
    picture = webhook(photo, "")
    picture["data"]["message"] = {"imageMessage": {"mimetype": "image/jpeg", "fileLength": 1234}}
    await system.deliver(picture)
    await system.deliver(webhook(photo, "essa é a minha conta"))
    lane = await system.settled(photo, 2)
    kept = [m for t in reversed(lane.ended_turns) for m in t.messages]
    assert kept[0].media[0].mime_type == "image/jpeg" and kept[1].text == "essa é a minha conta"


@on_the_modules_loop
async def test_the_admin_listener_keeps_strangers_out(system: System) -> None:
    base = f"http://{system.address['admin']}"
    forwarded = {"X-Forwarded-For": "203.0.113.9"}
    async with system.http.get(f"{base}/console/status", headers=forwarded) as response:
        assert response.status == 401
    with_token = {**forwarded, "Authorization": "Bearer admin-token-0123456789"}
    async with system.http.get(f"{base}/console/status", headers=with_token) as response:
        assert response.status == 200
    async with system.http.get(f"{base}/", headers={"Host": "evil.example"}) as response:
        assert response.status == 401
    async with system.http.post(f"{base}/console/messages", data="{}") as response:
        assert response.status == 400
    async with system.http.post(f"{base}/console/messages", json={"contact": "1", "text": "x"}) as response:
        assert "contact" in json.loads(await response.text())["error"]
