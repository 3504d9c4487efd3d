"""What keeps the public listener alive under strangers: how many connections, how long a header, how many bytes."""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from service_kit import logs

RETRY_AFTER_S = 5
# How long the rest of a refused body is read and thrown away, so that the client gets to see the refusal.
_LINGER_S = 2.0
_MAX_LINE = 8190
_MAX_HEADERS = 128
_log = logs.get(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ConnectionGate:
    """Counts open connections, all together and by peer address. A proxy's headers are never believed."""

    def __init__(self, *, total: int, per_peer: int) -> None:
        self._total = total
        self._per_peer = per_peer
        self._by_peer: Counter[str] = Counter()
        self.open = 0
        self.refused: Counter[str] = Counter()

    def enter(self, peer: str) -> bool:
        """Whether one more connection of this peer may stay."""
        if self.open >= self._total:
            self.refused["connections"] += 1
            return False
        if self._by_peer[peer] >= self._per_peer:
            self.refused["connections_of_peer"] += 1
            return False
        self.open += 1
        self._by_peer[peer] += 1
        return True

    def leave(self, peer: str) -> None:
        """A connection that was let in has ended."""
        self.open -= 1
        self._by_peer[peer] -= 1
        if self._by_peer[peer] <= 0:
            del self._by_peer[peer]


class BytesBudget:
    """How many bytes of bodies may be in memory at once, over all requests."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Reserve so many bytes; False if they are not there."""
        if self.used + size > self._limit:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        """Release what was taken."""
        self.used -= size


class GuardedConnection(web.RequestHandler):
    """aiohttp's HTTP connection with a place in the gate, and a deadline and a size for the header."""

    __slots__ = ("_admitted", "_gate", "_header_bytes", "_header_limit", "_header_timeout_s", "_header_timer", "_peer",
        "_stall")  # fmt: skip

    def __init__(
        self,
        server: "GuardedServer",
        *,
        gate: ConnectionGate,
        header_timeout_s: float,
        header_limit: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(server, **kwargs)
        self._gate = gate
        self._peer = ""
        self._admitted = False
        self._header_timeout_s = header_timeout_s
        self._header_limit = header_limit
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or tell it to come back later."""
        self._peer = _peer_key(transport.get_extra_info("peername"))
        self._admitted = self._gate.enter(self._peer)
        if not self._admitted:
            self._force_close = True
            _say_and_close(cast(asyncio.Transport, transport), "503 Service Unavailable")
            return
        super().connection_made(transport)
        self._await_header()

    def pause_writing(self) -> None:
        """The peer does not read its answers: it keeps its place for a while, not for ever."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self._loop.call_later(self._header_timeout_s, self._stalled)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self.resume_reading_answers()

    def resume_reading_answers(self) -> None:
        """Nobody is waited for."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _stalled(self) -> None:
        self._gate.refused["answer_not_read"] += 1
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self._header_arrived()
        self.resume_reading_answers()
        if self._admitted:
            self._admitted = False
            self._gate.leave(self._peer)
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; the clock runs from the first byte of a header to its last."""
        if not self._admitted:
            return
        super().data_received(data)
        if not self._is_idle():
            self._header_arrived()
        elif data:
            self._header_bytes += len(data)
            if self._header_bytes > self._header_limit:
                self._refuse_header("431 Request Header Fields Too Large", "header_too_large")
            elif self._header_timer is None:
                self._await_header()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, or what went wrong here, without a word about the inside."""
        del message
        self._gate.refused["not_http" if status < 500 else "internal"] += 1
        if status >= 500:
            _log.error("webhook_failed", cause=type(exc).__name__)
            return refusal(503, "unavailable")
        return refusal(status, "bad_request")

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log the class alone: the text may hold what the peer sent."""
        _log.warning("connection_failed", cause=type(kw.get("exc_info")).__name__)

    def _is_idle(self) -> bool:
        """Nothing is being handled and nothing waits: further bytes belong to a header."""
        if self._waiter is None:
            return self._request_count == 0
        return not self._waiter.done()

    def _await_header(self) -> None:
        self._header_timer = self._loop.call_later(self._header_timeout_s, self._header_is_late)

    def _header_arrived(self) -> None:
        self._header_bytes = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_is_late(self) -> None:
        self._header_timer = None
        if self._is_idle():
            self._refuse_header("408 Request Timeout", "header_late")

    def _refuse_header(self, status_line: str, reason: str) -> None:
        self._gate.refused[reason] += 1
        if self.transport is not None:
            _say_and_close(self.transport, status_line)
        self.force_close()


class GuardedServer(web.Server):
    """Makes a `GuardedConnection` for each connection."""

    def __init__(
        self, handler: Handler, *, gate: ConnectionGate, header_timeout_s: float, header_limit: int, keepalive_s: float
    ) -> None:
        super().__init__(cast(Any, handler))
        self._gate = gate
        self._header_timeout_s = header_timeout_s
        self._header_limit = header_limit
        self._keepalive_s = keepalive_s

    def __call__(self) -> GuardedConnection:
        return GuardedConnection(
            self,
            gate=self._gate,
            header_timeout_s=self._header_timeout_s,
            header_limit=self._header_limit,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._keepalive_s,
            access_log=None,
            auto_decompress=False,
            lingering_time=_LINGER_S,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
        )


def refusal(status: int, reason: str, *, retry_after_s: int | None = None, allow: str = "") -> web.Response:
    """An answer that closes the connection unless the client did nothing wrong but ask."""
    headers = {"Allow": allow} if allow else {}
    if status == 503:
        headers["Retry-After"] = str(retry_after_s or RETRY_AFTER_S)
    response = web.json_response({"status": "refused", "reason": reason}, status=status, headers=headers)
    if status not in (401, 404, 405, 503):
        response.force_close()
    return response


def _say_and_close(transport: asyncio.Transport, status_line: str) -> None:
    retry = f"Retry-After: {RETRY_AFTER_S}\r\n" if status_line.startswith("503") else ""
    transport.write(f"HTTP/1.1 {status_line}\r\n{retry}Content-Length: 0\r\nConnection: close\r\n\r\n".encode("ascii"))
    transport.close()


def _peer_key(peername: object) -> str:
    host = str(peername[0]) if isinstance(peername, tuple) and peername else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        # One subscriber has a whole /64.
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
