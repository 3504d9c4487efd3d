"""An Evolution API of the fewest instructions: notes when a text's first byte came, and says that it was sent.

It shares the core with what is measured, so it is a bare protocol. The one for tests is `tests/stand_ins`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(kw_only=True)
class Reply:
    """What one contact was sent."""

    first_byte: float
    texts: list[str] = field(default_factory=list)


class StandIn:
    """Listens on the loopback; `replies` is by the digits of the contact."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.last_byte = 0.0
        self.port = 0
        self._answers: dict[str, asyncio.Future[float]] = {}
        self._ids = itertools.count()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self._take), "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    @property
    def url(self) -> str:
        """What belongs into EVOLUTION_API_URL."""
        return f"http://127.0.0.1:{self.port}"

    def expect(self, contact: str) -> asyncio.Future[float]:
        """The instant at which the contact is first written to."""
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._answers[contact] = answer
        return answer

    async def wait_quiet(self, seconds: float) -> None:
        """Replies have several bubbles: return when none came for so long."""
        last = -1.0
        while last != self.last_byte:
            last = self.last_byte
            await asyncio.sleep(seconds)

    def _take(self, path: bytes, body: bytes, first_byte: float) -> bytes:
        if b"/sendText/" not in path:
            return b'{"presence": "composing"}'
        sent = json.loads(body)
        contact = sent["number"].partition("@")[0]
        reply = self.replies.setdefault(contact, Reply(first_byte=first_byte))
        reply.texts.append(sent["text"])
        self.last_byte = first_byte
        waiting = self._answers.pop(contact, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(first_byte)
        return b'{"key": {"id": "3EB0%018X"}, "status": "PENDING"}' % next(self._ids)


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with a length, one request after the other."""

    def __init__(self, take: Callable[[bytes, bytes, float], bytes]) -> None:
        self._take = take
        self._buffer = b""
        self._first_byte = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports derive from nothing.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._first_byte = time.perf_counter()
        self._buffer += data
        head, mark, rest = self._buffer.partition(_END)
        if not mark:
            return
        length = content_length(head)
        if len(rest) < length:
            return
        self._buffer = b""
        answer = self._take(head.partition(b"\r\n")[0], rest, self._first_byte)
        self._transport.write(
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )


def content_length(head: bytes) -> int:
    """The length that a header declares; 0 without one."""
    lowered = head.lower()
    at = lowered.find(_LENGTH)
    return int(lowered[at + len(_LENGTH) :].partition(b"\r\n")[0]) if at >= 0 else 0
