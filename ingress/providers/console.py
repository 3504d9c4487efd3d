"""The console as a provider: a terminal or a web page on the admin listener talks to the running system. Nothing leaves
this process; what was said lives in the context service, this only shows it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from ingress.providers import Destination, ParsedWebhook, SendResult, Unauthorized, WebhookRequest
from ingress.providers.aliases import canonical_phone
from service_kit.durations import ms_to_timestamp

CHANNEL = "console"
KEPT_EVENTS = 200
KEPT_CONTACTS = 500
TYPING_MS = 5_000


@dataclass(frozen=True, slots=True)
class ConsoleEvent:
    """Something that a console shows."""

    number: int
    kind: str
    data: dict[str, Any]

    def encode(self) -> bytes:
        """As a server-sent event."""
        return f"id: {self.number}\nevent: {self.kind}\ndata: {json.dumps(self.data, ensure_ascii=False)}\n\n".encode()


@dataclass(slots=True)
class _Contact:
    events: deque[ConsoleEvent] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    listeners: set[asyncio.Queue[ConsoleEvent]] = field(default_factory=set)


class ConsoleProvider:
    """Implements Provider; sending means showing."""

    name = CHANNEL

    def __init__(self) -> None:
        self._contacts: OrderedDict[str, _Contact] = OrderedDict()
        # From the clock: after a restart the numbers go on above those that a page has seen.
        self.newest = time.time_ns() // 1_000_000

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def authorize(self, request: WebhookRequest) -> None:
        """The console has no webhook."""
        raise Unauthorized("console")

    def parse(self, body: bytes, now_ms: int) -> ParsedWebhook:
        """The console has no webhook."""
        return ParsedWebhook()

    def quarantine(self, body: bytes, reason: str) -> pb.Event:
        """The console has no webhook."""
        return pb.Event()

    async def send_text(self, to: Destination, text: str, *, part_key: str) -> SendResult:
        """Shows one bubble."""
        provider_id = f"console-{uuid.uuid4().hex}"
        self.publish(to.address, "part", {"text": text, "key": part_key})
        return SendResult(outcome=pb.SEND_OUTCOME_SENT, provider_message_id=provider_id)

    async def show_typing(self, to: Destination) -> None:
        """Shows that somebody is writing."""
        self.publish(to.address, "typing", {"ms": TYPING_MS})

    # ---- for the admin listener

    def event(self, contact: str, text: str, *, message_id: str, now_ms: int) -> pb.Event:
        """What a person typed, as an event for the buffer."""
        phone = canonical_phone(contact)
        return pb.Event(
            scope=message_pb2.Scope(channel=CHANNEL, instance=CHANNEL),
            contact=message_pb2.Contact(contact=phone, aliases=[f"phone:{phone}"], address=contact),
            message=message_pb2.Message(
                message_id=message_id,
                author=message_pb2.AUTHOR_LEAD,
                type=message_pb2.MESSAGE_TYPE_TEXT,
                text=text,
                provider_time=ms_to_timestamp(now_ms),
            ),
        )

    def publish(self, contact: str, kind: str, data: dict[str, Any]) -> None:
        """Shows something to whoever looks at this contact, now or soon."""
        self.newest += 1
        event = ConsoleEvent(self.newest, kind, data)
        entry = self._entry(contact)
        entry.events.append(event)
        for listener in entry.listeners:
            if listener.qsize() >= KEPT_EVENTS:
                listener.get_nowait()
            listener.put_nowait(event)

    @asynccontextmanager
    async def listen(self, contact: str, after: int | None) -> AsyncIterator[asyncio.Queue[ConsoleEvent]]:
        """A queue of events: those after a number, or only new ones. Who does not read it loses the oldest."""
        entry = self._entry(contact)
        queue: asyncio.Queue[ConsoleEvent] = asyncio.Queue()
        if after is not None:
            for event in entry.events:
                if event.number > after:
                    queue.put_nowait(event)
        entry.listeners.add(queue)
        try:
            yield queue
        finally:
            entry.listeners.discard(queue)

    def _entry(self, contact: str) -> _Contact:
        entry = self._contacts.setdefault(contact, _Contact())
        self._contacts.move_to_end(contact)
        if len(self._contacts) > KEPT_CONTACTS:
            for name in [n for n, c in self._contacts.items() if not c.listeners and n != contact]:
                del self._contacts[name]
                if len(self._contacts) <= KEPT_CONTACTS:
                    break
        return entry
