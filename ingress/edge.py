"""The public HTTP listener: verify, parse, accept.

The status code is part of durability. Evolution never repeats 400, 401, 403, 404 and 422, so an authentic body gets
none of them: it is durable and 200, or 503 and comes back.
"""

import asyncio
import math
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from agentic_sdr.buffer.v1 import buffer_service_pb2
from ingress.bodies import BodyReading, Refused, check_head
from ingress.connections import BytesBudget, ConnectionGate, GuardedServer, refusal
from ingress.edge_settings import EdgeSettings
from ingress.providers import NotConfigured, Notice, ParsedWebhook, Provider, Unauthorized, WebhookRequest
from ingress.services import NotAccepted
from service_kit import logs
from service_kit.clock import Clock
from service_kit.enums import label

MiB = 1024 * 1024
_MAX_EVENTS = 1000
_MAX_REQUEST_BYTES = 3 * MiB
_MAX_STATES = 100
_BACKLOG = 512
_ACCEPT_TIMEOUT_S = 20.0
_JSON = re.compile(r"(application|text)/([\w.-]+\+)?json\s*(;.*)?", re.IGNORECASE)
_log = logs.get(__name__)

Accept = Callable[[Sequence[buffer_service_pb2.Event]], Awaitable[buffer_service_pb2.EnqueueResponse]]


@dataclass(frozen=True, kw_only=True)
class EdgeLimits:
    """What one request may cost."""

    body_bytes: Mapping[str, int] = field(default_factory=lambda: {"evolution": 16 * MiB, "whatsapp": 4 * MiB})
    bytes_in_flight: int = 64 * MiB
    header_bytes: int = 32 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    keepalive_s: float = 75.0


@dataclass(frozen=True, kw_only=True)
class EdgeStatus:
    """What the edge has seen since it started."""

    connections: int
    bytes_in_flight: int
    last_webhook_ms: Mapping[str, int]
    handled: Mapping[str, int]
    refused: Mapping[str, int]
    ignored: Mapping[str, int]
    provider_states: Mapping[str, str]


class PublicEdge:
    """Serves the providers' webhooks and `/healthz`, and nothing else."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        accept: Accept,
        clock: Clock,
        settings: EdgeSettings,
        limits: EdgeLimits | None = None,
    ) -> None:
        self._providers = providers
        self._accept = accept
        self._clock = clock
        self._limits = limits or EdgeLimits()
        self._gate = ConnectionGate(
            total=settings.ingress_max_connections, per_peer=settings.ingress_max_connections_per_ip
        )
        self._budget = BytesBudget(self._limits.bytes_in_flight)
        self._server: GuardedServer | None = None
        self._listener: asyncio.Server | None = None
        self._last_webhook_ms: dict[str, int] = {}
        self._handled: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._states: dict[str, str] = {}

    async def open(self, where: socket.socket | str) -> None:
        """Listen on a bound socket, or on HOST:PORT."""
        self._server = GuardedServer(
            self._handle,
            gate=self._gate,
            header_timeout_s=self._limits.header_timeout_s,
            header_limit=self._limits.header_bytes,
            keepalive_s=self._limits.keepalive_s,
        )
        loop = asyncio.get_running_loop()
        if isinstance(where, str):
            host, _, port = where.rpartition(":")
            bare = host.strip("[]") or None
            self._listener = await loop.create_server(self._server, bare, int(port), backlog=_BACKLOG)
        else:
            self._listener = await loop.create_server(self._server, sock=where, backlog=_BACKLOG)

    @property
    def address(self) -> str:
        """HOST:PORT as bound."""
        if self._listener is None or not self._listener.sockets:
            return ""
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def status(self) -> EdgeStatus:
        """A copy of the counters."""
        return EdgeStatus(
            connections=self._gate.open,
            bytes_in_flight=self._budget.used,
            last_webhook_ms=dict(self._last_webhook_ms),
            handled=dict(self._handled),
            refused=dict(self._refused + self._gate.refused),
            ignored=dict(self._ignored),
            provider_states=dict(self._states),
        )

    async def close(self, grace_s: float) -> None:
        """Stop listening, let requests in progress end within the grace, close the rest."""
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(grace_s)
        self._listener = self._server = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(request)
        except Refused as error:
            self._count_refusal(error.reason)
            return refusal(error.status, error.reason, retry_after_s=error.retry_after_s, allow=error.allow)
        except Exception as error:
            self._count_refusal("internal")
            _log.error("webhook_failed", cause=type(error).__name__)
            return refusal(503, "unavailable")

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        steps = [step for step in request.rel_url.raw_path.split("/") if step]
        if steps == ["healthz"]:
            _require_method(request, "GET", "HEAD")
            return web.json_response({"status": "ok"})
        if steps[:2] == ["webhooks", "evolution"] and len(steps) <= 3:
            # With webhookByEvents the event is in the path too; only the body's is believed.
            _require_method(request, "POST")
            return await self._webhook(request, "evolution")
        if steps == ["webhooks", "whatsapp"]:
            _require_method(request, "GET", "POST")
            return await self._webhook(request, "whatsapp")
        raise Refused(404, "no_such_path")

    async def _webhook(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        provider = self._providers.get(name)
        if provider is None:
            raise Refused(503, f"{name}_not_configured")
        self._authorize(provider, request)
        body, parsed = await self._read_and_parse(provider, request)
        self._last_webhook_ms[name] = self._clock.now_ms()
        self._ignored.update(parsed.ignored)
        self._note(name, parsed.notices)
        counts = await self._accept_all(parsed.events)
        counts["ignored"] += parsed.ignored.total()
        self._handled[name] += 1
        log = _log.info if parsed.events else _log.debug
        log("webhook_handled", provider=name, bytes=body, **counts)
        return web.json_response({"status": "ok", **counts})

    def _authorize(self, provider: Provider, request: web.BaseRequest) -> None:
        headers: dict[str, str] = {}
        for key, value in request.headers.items():
            known = headers.get(key.lower())
            headers[key.lower()] = value if known is None else f"{known}, {value}"
        try:
            provider.authorize(WebhookRequest(headers=headers, query=request.rel_url.query, path=request.path))
        except NotConfigured:
            raise Refused(503, f"{provider.name}_not_configured") from None
        except Unauthorized as error:
            raise Refused(401, error.reason) from None

    async def _read_and_parse(self, provider: Provider, request: web.BaseRequest) -> tuple[int, ParsedWebhook]:
        limit = self._limits.body_bytes.get(provider.name, 4 * MiB)
        check_head(request, limit)
        reading = BodyReading(request, limit=limit, budget=self._budget)
        try:
            body = await reading.read(self._limits.body_timeout_s)
            if _JSON.fullmatch(request.headers.get("Content-Type", "application/json")):
                return len(body), provider.parse(body, self._clock.now_ms())
            return len(body), ParsedWebhook(events=(provider.quarantine(body, "content_type"),))
        finally:
            reading.release()

    async def _accept_all(self, events: Sequence[buffer_service_pb2.Event]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for some in in_requests(events):
            try:
                async with asyncio.timeout(_ACCEPT_TIMEOUT_S):
                    answer = await self._accept(some)
            except Exception as error:
                cause = str(error) if isinstance(error, NotAccepted) else type(error).__name__
                _log.warning("webhook_not_accepted", cause=cause, events=len(events))
                raise Refused(503, "not_accepted", retry_after_s=_retry_after_s(error)) from None
            for result in answer.results:
                counts[outcome_name(result.outcome)] += 1
        return counts

    def _note(self, name: str, notices: Sequence[Notice]) -> None:
        # The latest of each: a body may hold a hundred thousand, and nobody needs a line for what is known.
        for key, notice in {f"{name}/{one.instance}/{one.kind.value}": one for one in notices}.items():
            room = key in self._states or len(self._states) < _MAX_STATES
            if room and self._states.get(key) != notice.state:
                self._states[key] = notice.state
                _log.info("provider_state_reported", provider=name, kind=notice.kind.value, state=notice.state)

    def _count_refusal(self, reason: str) -> None:
        self._refused[reason] += 1
        count = self._refused[reason]
        # A flood is told at its powers of two, not line by line.
        if count & (count - 1) == 0:
            _log.warning("webhook_refused", reason=reason, count=count)


def in_requests(events: Sequence[buffer_service_pb2.Event]) -> Iterator[list[buffer_service_pb2.Event]]:
    """The events in their order, in as few requests as the buffer's limits allow: nearly always one."""
    some: list[buffer_service_pb2.Event] = []
    size = 0
    for event in events:
        if some and (len(some) >= _MAX_EVENTS or size + event.ByteSize() > _MAX_REQUEST_BYTES):
            yield some
            some, size = [], 0
        some.append(event)
        size += event.ByteSize()
    if some:
        yield some


def _require_method(request: web.BaseRequest, *allowed: str) -> None:
    if request.method not in allowed:
        raise Refused(405, "method", allow=", ".join(allowed))


def outcome_name(outcome: int) -> str:
    """The outcome of an event in lower case; "other" for one of a newer buffer."""
    return label(buffer_service_pb2.EventResult.Outcome.DESCRIPTOR, outcome, "OUTCOME_")


def _retry_after_s(error: BaseException) -> int | None:
    delay_ms = getattr(error, "retry_after_ms", None)
    return max(1, math.ceil(delay_ms / 1000)) if isinstance(delay_ms, int) else None
