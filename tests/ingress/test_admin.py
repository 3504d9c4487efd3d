"""The admin listener over HTTP: the console's events and who may have them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from ingress.admin import AdminEdge
from ingress.providers.console import KEPT_EVENTS, ConsoleProvider
from ingress.services import Services
from service_kit.clock import SystemClock

CONTACT = "5581999990001"


class Buffer:
    """Takes every message once."""

    def __init__(self) -> None:
        self.events: list[pb.Event] = []

    async def enqueue(self, events: Sequence[pb.Event]) -> pb.EnqueueResponse:
        """As `Services.enqueue`."""
        (event,) = events
        known = any(event.message.message_id == one.message.message_id for one in self.events)
        self.events += events
        outcome = pb.EventResult.OUTCOME_DUPLICATE if known else pb.EventResult.OUTCOME_ACCEPTED
        return pb.EnqueueResponse(results=[pb.EventResult(outcome=outcome)])


class World:
    """The listener of one test, and a client that sends `headers`."""

    def __init__(self, session: aiohttp.ClientSession, console: ConsoleProvider, buffer: Buffer) -> None:
        self.session, self.console, self.buffer = session, console, buffer

    @asynccontextmanager
    async def events(self, **headers: str) -> AsyncIterator[aiohttp.StreamReader]:
        """The contact's events."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(f"/console/{CONTACT}/events", headers=named) as response:
            yield response.content


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async def ready() -> tuple[bool, dict[str, Any]]:
        return True, {"status": "ok"}

    async def status() -> dict[str, Any]:
        return {}

    console, buffer = ConsoleProvider(), Buffer()
    admin = AdminEdge(
        services=cast(Services, buffer),
        console=console,
        clock=SystemClock(),
        token="",
        readiness=ready,
        status=status,
        metrics=lambda: b"",
    )
    await admin.open("127.0.0.1:0")
    try:
        async with aiohttp.ClientSession(f"http://{admin.address}") as session:
            yield World(session, console, buffer)
    finally:
        await admin.close()


async def event(reader: aiohttp.StreamReader) -> dict[str, str]:
    """The next event's fields."""
    async with asyncio.timeout(3):
        raw = await reader.readuntil(b"\n\n")
    return dict(line.split(": ", 1) for line in raw.decode().strip().splitlines())


async def test_a_client_that_lost_its_connection_before_the_first_event_misses_nothing(world: World) -> None:
    """A browser repeats the last id that it saw; without one, the first answer was lost between two connections."""
    async with world.events() as before:
        last = (await event(before))["id"]
    world.console.publish(CONTACT, "part", {"text": "oi"})
    async with world.events(Last_Event_ID=last) as after:
        await event(after)
        assert (await event(after))["data"] == '{"text": "oi"}'


async def test_a_new_client_sees_new_events_alone(world: World) -> None:
    world.console.publish(CONTACT, "part", {"text": "antes"})
    async with world.events() as reader:
        await event(reader)
        world.console.publish(CONTACT, "part", {"text": "depois"})
        assert (await event(reader))["data"] == '{"text": "depois"}'


async def test_a_page_that_is_loaded_again_shows_both_sides(world: World) -> None:
    """A reload left an empty page, in the middle of a conversation."""
    for _ in range(2):  # A repeated message is shown once.
        sent = {"contact": CONTACT, "text": "quanto custa?", "message_id": "m-1"}
        async with world.session.post("/console/messages", json=sent) as answer:
            assert answer.status == 202
    world.console.publish(CONTACT, "part", {"text": "Depende."})
    async with world.session.get(f"/console/{CONTACT}/events?after=0") as response:
        await event(response.content)
        shown = [await event(response.content) for _ in range(2)]
    assert [(one["event"], json.loads(one["data"])) for one in shown] == [
        ("lead", {"text": "quanto custa?", "message_id": "m-1"}),
        ("part", {"text": "Depende."}),
    ]
    async with world.session.get("/") as page:
        assert "/events?after=0" in await page.text()


async def test_who_does_not_read_costs_no_more_than_what_is_kept() -> None:
    """A page behind a laptop's closed lid once held every event of its contact in memory."""
    console = ConsoleProvider()
    async with console.listen(CONTACT, None) as queue:
        for number in range(3 * KEPT_EVENTS):
            console.publish(CONTACT, "part", {"text": str(number)})
        assert queue.qsize() == KEPT_EVENTS
        assert queue.get_nowait().data == {"text": str(2 * KEPT_EVENTS)}


async def test_a_number_without_its_ninth_digit_is_the_same_person(world: World) -> None:
    """As for a provider: WhatsApp knows many Brazilian numbers without it."""
    for contact in ("5581999990001", "558199990001"):
        async with world.session.post("/console/messages", json={"contact": contact, "text": "oi"}) as answer:
            assert answer.status == 202
    assert [list(one.contact.aliases) for one in world.buffer.events] == [["phone:5581999990001"]] * 2
    assert [one.contact.address for one in world.buffer.events] == ["5581999990001", "558199990001"]


async def test_no_other_page_may_show_the_console_inside_of_itself(world: World) -> None:
    async with world.session.get("/") as page:
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8089"},
        {"Host": "127.0.0.1.evil.example"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/readyz", "/metrics", "/console/status", f"/console/{CONTACT}/events"])
async def test_a_name_that_was_pointed_here_or_a_proxy_is_a_stranger(
    world: World, path: str, headers: dict[str, str]
) -> None:
    async with world.session.get(path, headers=headers) as answer:
        assert answer.status == 401


async def test_a_form_of_another_site_cannot_send(world: World) -> None:
    async with world.session.post("/console/messages", data='{"contact": "5581999990001", "text": "oi"}') as answer:
        assert answer.status == 400
    assert not world.buffer.events


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b"[" * 30_000, b'{"contact": 5581999990001, "text": "oi"}', b"9" * 5000]
)
async def test_an_odd_body_is_told_what_is_wrong(world: World, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    async with world.session.post("/console/messages", data=body, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]
