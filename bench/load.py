"""The load: Evolution webhooks of always new contacts, in a closed loop."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bench.stand_in import StandIn, content_length

FIXTURE = Path(__file__).parents[1] / "tests/fixtures/providers/evolution/01_conversation_text.json"
ANSWER_TIMEOUT_S = 20.0
_QUIET_S = 0.1
# Everybody has one name in the whole run: no two messages ever meet in one lane.
_numbers = itertools.count()


class NotAnswered(Exception):
    """A webhook was refused, or nothing came back."""


@dataclass(kw_only=True)
class Slice:
    """What one closed loop saw. `seconds` lasts until the last reply has left."""

    messages: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    contacts: list[str] = field(default_factory=list)


class Webhooks:
    """Renders fixture 01 for one new contact after the other."""

    def __init__(self, *, port: int, path: str, token: str) -> None:
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: "
        )
        envelope = json.loads(FIXTURE.read_text(encoding="utf-8"))
        self._written = envelope["data"]["messageTimestamp"]
        self._id = envelope["data"]["key"]["id"]
        self._phone = envelope["data"]["key"]["remoteJid"].partition("@")[0]
        self._lid = envelope["data"]["key"]["remoteJidAlt"].partition("@")[0]
        self._text = envelope["data"]["message"]["conversation"]
        self._body = json.dumps(envelope, ensure_ascii=False)

    def next(self) -> tuple[str, bytes]:
        """A contact, and the request with its message, written now."""
        number = next(_numbers)
        contact = f"55819{90_000_000 + number}"
        return contact, self._request(number, contact, self._text)

    def of(self, contact: str, text: str) -> bytes:
        """The request with a message of this contact, written now."""
        return self._request(next(_numbers), contact, text)

    def _request(self, number: int, contact: str, text: str) -> bytes:
        body = (
            self._body.replace(self._id, f"AC93{number:028X}")
            .replace(self._phone, contact)
            .replace(self._lid, f"1{contact[-9:]:0>14}")
            .replace(str(self._written), str(int(time.time())))
            .replace(json.dumps(self._text, ensure_ascii=False), json.dumps(text, ensure_ascii=False))
            .encode("utf-8")
        )
        return f"{self._head}{len(body)}\r\n\r\n".encode() + body


class Client(asyncio.Protocol):
    """One kept connection of the provider."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport

    @classmethod
    async def connect(cls, port: int) -> Client:
        """Connect to the loopback."""
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports derive from nothing.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NotAnswered("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        if not mark or len(rest) < content_length(head):
            return
        self._buffer = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(int(head.split(b" ", 2)[1]))

    def post(self, request: bytes) -> asyncio.Future[int]:
        """Write it whole; the status comes later."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


async def closed_loop(
    *, port: int, webhooks: Webhooks, stand_in: StandIn, concurrency: int, seconds: float, pause_s: float = 0.0
) -> Slice:
    """So many conversations at a time; each is followed by the next one this long after its first bubble left."""
    clients = [await Client.connect(port) for _ in range(concurrency)]
    seen = Slice()
    started = time.perf_counter()

    async def converse(client: Client) -> None:
        while time.perf_counter() < started + seconds:
            contact, request = webhooks.next()
            answer = stand_in.expect(contact)
            posted = time.perf_counter()
            status = client.post(request)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if await status != 200:
                    raise NotAnswered(f"a webhook got {await status}")
                first_byte = await answer
            seen.latencies_ms.append((first_byte - posted) * 1000)
            seen.contacts.append(contact)
            await asyncio.sleep(pause_s)

    try:
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(converse(client), name=f"conversation-{number}")
    except ExceptionGroup as failures:
        raise NotAnswered(str(failures.exceptions[0]) or "no reply came") from failures
    finally:
        for client in clients:
            client.close()
    await stand_in.wait_quiet(_QUIET_S)
    seen.messages = len(seen.contacts)
    seen.seconds = stand_in.last_byte - started
    return seen
