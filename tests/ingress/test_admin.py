"""The console over HTTP, without the other processes."""

import json
from collections.abc import Sequence
from typing import Any, cast

import aiohttp

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from ingress.admin import AdminEdge
from ingress.providers.console import ConsoleProvider
from ingress.services import Services
from service_kit.clock import SystemClock

CONTACT = "5581999990001"


class Buffer:
    """Accepts a message once."""

    def __init__(self) -> None:
        self._seen = set[str]()

    async def enqueue(self, events: Sequence[pb.Event]) -> pb.EnqueueResponse:
        (event,) = events
        new = event.message.message_id not in self._seen
        self._seen.add(event.message.message_id)
        outcome = pb.EventResult.OUTCOME_ACCEPTED if new else pb.EventResult.OUTCOME_DUPLICATE
        return pb.EnqueueResponse(results=[pb.EventResult(outcome=outcome)])


async def nothing() -> Any:
    raise AssertionError("is not asked")


async def events(session: aiohttp.ClientSession, base: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    kind = ""
    async with session.get(f"{base}/console/{CONTACT}/events?after=0") as response:
        async for raw in response.content:
            name, _, value = raw.decode().strip().partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                found.append((kind, json.loads(value)))
                if len(found) == count:
                    break
    return found


async def test_a_page_that_is_loaded_again_shows_both_sides() -> None:
    """A reload left an empty page, in the middle of a conversation."""
    console = ConsoleProvider()
    edge = AdminEdge(
        services=cast(Services, Buffer()),
        console=console,
        clock=SystemClock(),
        token="",
        readiness=nothing,
        status=nothing,
        metrics=bytes,
    )
    await edge.open("127.0.0.1:0")
    base = f"http://{edge.address}"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            for _ in range(2):  # A repeated message is shown once.
                sent = {"contact": CONTACT, "text": "quanto custa?", "message_id": "m-1"}
                async with session.post(f"{base}/console/messages", json=sent) as response:
                    assert response.status == 202
            console.publish(CONTACT, "part", {"text": "Depende."})
            assert await events(session, base, 2) == [
                ("lead", {"text": "quanto custa?", "message_id": "m-1"}),
                ("part", {"text": "Depende."}),
            ]
            async with session.get(base) as response:
                assert "/events?after=0" in await response.text()
    finally:
        await edge.close()
