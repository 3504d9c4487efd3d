"""The HTTP client of an engine: what its connections really are is counted, and no answer can be without end."""

import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

from agent_service.chat import ModelTrouble, Trouble
from agent_service.models.places import is_private

MAX_EVENT_BYTES = 256 * 1024
MAX_REPLY_BYTES = 4 << 20
# Below the 60 s after which common gateways drop an idle connection without a word.
KEEPALIVE_S = 55.0
_KEPT = 64


class Connections:
    """Counts TCP connections as the transport opens them; which of them are open is known by who still holds them."""

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._opened_at: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self.opened = 0

    def client(self, base_url: str, *, connect_s: float, read_s: float) -> httpx2.AsyncClient:
        """A client whose requests are traced and whose answers are capped."""
        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(connect=connect_s, read=read_s, write=5.0, pool=connect_s),
            # Without a limit: how many replies are under way at once is limited where they come in.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=_KEPT, keepalive_expiry=KEEPALIVE_S),
            follow_redirects=False,
            # A proxy of the environment is for the way out, never for an engine on this machine.
            trust_env=not is_private(base_url),
            event_hooks={"request": [self._trace], "response": [_cap]},
        )

    def oldest_age_s(self) -> float | None:
        """Age of the oldest connection that is open; None without one."""
        opened = min(self._opened_at.values(), default=None)
        return None if opened is None else self._monotonic() - opened

    async def _trace(self, request: httpx2.Request) -> None:
        request.extensions = {**request.extensions, "trace": _Trace(self)}

    def note(self, event: str, info: dict[str, Any]) -> None:
        """One step of the transport."""
        if event == "connection.connect_tcp.complete":
            self.opened += 1
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._opened_at[info["return_value"]] = self._monotonic()


class _Trace:
    """What happened to the connection of one request."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.fresh = False

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        self.fresh = self.fresh or event == "connection.connect_tcp.started"
        self._connections.note(event, info)


def was_kept_alive(request: httpx2.Request) -> bool:
    """Whether the request went out on a connection that an earlier one had opened."""
    trace = request.extensions.get("trace")
    return isinstance(trace, _Trace) and not trace.fresh


async def _cap(response: httpx2.Response) -> None:
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Capped(response.stream)


class _Capped(httpx2.AsyncByteStream):
    """The client's decoder of events collects without limit what has no line end; this one stops it."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = event = 0
        async for chunk in self._stream:
            total += len(chunk)
            line_end = chunk.rfind(b"\n")
            event = event + len(chunk) if line_end < 0 else len(chunk) - line_end
            if total > MAX_REPLY_BYTES or event > MAX_EVENT_BYTES:
                raise ModelTrouble(Trouble.ENDLESS, "the answer is longer than any reply")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
