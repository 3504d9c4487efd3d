"""Nobody sees another conversation's context, no call is left open, no secret is compared early."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from ingress.providers import Unauthorized, WebhookRequest
from ingress.providers.evolution import auth
from service_kit.durations import ms_to_timestamp
from tests.ingress.test_turn_runner import SCOPE, Rig, done, rig, text

PEOPLE = 10


async def say(r: Rig, person: int, number: int) -> None:
    """One message of one of many."""
    phone = f"55819900{person:05d}"
    message = message_pb2.Message(
        message_id=f"{person}-{number}",
        author=message_pb2.AUTHOR_LEAD,
        type=message_pb2.MESSAGE_TYPE_TEXT,
        text=f"sou {person}",
        provider_time=ms_to_timestamp(int(time.time() * 1000)),
    )
    contact = message_pb2.Contact(contact=phone, aliases=[f"phone:{phone}"], address=phone)
    await r.services.enqueue([pb.Event(scope=SCOPE, contact=contact, message=message)])


async def test_many_at_once_and_each_is_told_their_own(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        wrong: list[str] = []

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            await asyncio.sleep(0.01)
            shown = r.agent.shown[begin.turn_id]
            if shown.lead.name != begin.contact.contact:
                wrong.append(f"{begin.contact.contact} was answered with what is known of {shown.lead.name}")
            yield text(" ".join(m.text for m in begin.messages))
            yield done()

        r.agent.reply = reply
        for number in range(2):
            await asyncio.gather(*(say(r, person, number) for person in range(PEOPLE)))
        await r.until(lambda: len({h.assign.contact.contact for h in r.finished}) == PEOPLE and not r.runner.held_turns)
        assert not wrong
        for held in r.finished:
            number = int(held.assign.contact.contact[-5:])
            assert all(set(part.split("sou")) <= {"", f" {number}", f" {number} "} for part in held.parts), held.parts


async def test_a_reply_that_is_done_ends_its_call(tmp_path: Path) -> None:
    """Leaving a stream alone lets its server go on, and cost: 133 chunks in 0.3 s were measured."""
    async with rig(tmp_path) as r:

        async def talkative(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("oi")
            yield done()
            await asyncio.sleep(30)

        r.agent.reply = talkative
        await say(r, 1, 1)
        await r.until(lambda: bool(r.finished))
        await r.until(lambda: r.agent.cancelled == 1, seconds=2)


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def compare(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    token = "a-token-of-more-than-24-bytes"
    checked = auth.WebhookAuth(token=token, jwt_key="", now_s=time.time)
    for given in (token, token[:-1] + "x", "x" + token[1:]):
        request = WebhookRequest(headers={"authorization": f"Bearer {given}"}, query={}, path="/")
        if given == token:
            checked.authorize(request)
        else:
            with pytest.raises(Unauthorized):
                checked.authorize(request)
    assert len(compared) >= 3
    assert all(isinstance(side, bytes) for pair in compared for side in pair)
