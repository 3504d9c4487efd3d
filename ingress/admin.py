"""The admin listener: readiness, metrics, and the console. For people on this machine, or with the token."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import uuid
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from aiohttp import web

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from ingress.providers.console import ConsoleProvider
from ingress.services import NotAccepted, Services
from service_kit import logs
from service_kit.clock import Clock

MAX_TEXT = 4_096
MAX_BODY = 64 << 10
SSE_PING_S = 15.0
FORWARDED = ("Forwarded", "Via", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP")
_CONTACT = re.compile(r"[0-9]{8,15}", re.ASCII)
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_log = logs.get(__name__)


class BadRequest(Exception):
    """The request can't be understood; the text says why."""


class AdminEdge:
    """aiohttp application on its own address."""

    def __init__(
        self,
        *,
        services: Services,
        console: ConsoleProvider,
        clock: Clock,
        token: str,
        readiness: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]],
        status: Callable[[], Awaitable[dict[str, Any]]],
        metrics: Callable[[], bytes],
    ) -> None:
        self._services = services
        self._console = console
        self._clock = clock
        self._token = token.encode()
        self._readiness, self._status, self._metrics = readiness, status, metrics
        self._page = resources.files("ingress.console").joinpath("page.html").read_bytes()
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()
        self.address = ""

    async def open(self, address: str) -> None:
        """Listens."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        app.add_routes(
            [
                web.get("/", self._show_page),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._show_metrics),
                web.get("/console/status", self._show_status),
                web.post("/console/messages", self._post_message),
                web.get("/console/{contact}/events", self._events),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        site = web.TCPSite(self._runner, host.strip("[]") or None, int(port))
        await site.start()
        bound = self._runner.addresses[0]
        self.address = f"{bound[0]}:{bound[1]}"

    async def close(self) -> None:
        """Ends event streams and closes."""
        self._stopping.set()
        if self._runner:
            await self._runner.cleanup()

    # ---- who may

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not self._allowed(request):
            return _error(401, "Give the admin token: Authorization: Bearer …")
        try:
            return await handler(request)
        except BadRequest as error:
            return _error(400, str(error))
        except NotAccepted as error:
            delay = max(1, (error.retry_after_ms or 1_000) // 1_000)
            return _error(503, "The buffer did not take the message; try again.", {"Retry-After": str(delay)})

    def _allowed(self, request: web.Request) -> bool:
        offered = request.headers.get("Authorization", "").removeprefix("Bearer ").encode("utf-8", "replace")
        if self._token and hmac.compare_digest(offered, self._token):
            return True
        forwarded = any(name.lower().startswith("x-forwarded-") for name in request.headers)
        if forwarded or any(name in request.headers for name in FORWARDED):
            return False
        return _is_local(request.remote) and _is_local_host(request.host)

    # ---- what

    async def _show_page(self, request: web.Request) -> web.Response:
        policy = "default-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        return web.Response(body=self._page, content_type="text/html", charset="utf-8", headers=headers)

    async def _readyz(self, request: web.Request) -> web.Response:
        ready, body = await self._readiness()
        return web.json_response(body, status=200 if ready else 503)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _show_status(self, request: web.Request) -> web.Response:
        return web.json_response(await self._status())

    async def _post_message(self, request: web.Request) -> web.Response:
        contact, text, message_id = await _read_message(request)
        event = self._console.event(contact, text, message_id=message_id, now_ms=self._clock.now_ms())
        response = await self._services.enqueue([event])
        result = response.results[0]
        outcome = pb.EventResult.Outcome.Name(result.outcome).removeprefix("OUTCOME_").lower()
        if result.outcome != pb.EventResult.OUTCOME_DUPLICATE:
            # For a page that is opened later, or beside the one that wrote.
            self._console.publish(contact, "lead", {"text": text, "message_id": message_id})
        body = {"message_id": message_id, "conversation_id": result.conversation_id, "outcome": outcome}
        return web.json_response(body, status=202)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        contact = _contact(request.match_info["contact"])
        after = request.headers.get("Last-Event-ID") or request.query.get("after")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        await response.write(b": listening\n\n")
        stopping = asyncio.create_task(self._stopping.wait(), name="console-stop")
        try:
            async with self._console.listen(contact, _event_number(after)) as queue:
                while not stopping.done():
                    getting = asyncio.create_task(queue.get(), name="console-event")
                    await asyncio.wait({getting, stopping}, timeout=SSE_PING_S, return_when=asyncio.FIRST_COMPLETED)
                    if getting.done():
                        await response.write(getting.result().encode())
                    else:
                        getting.cancel()
                        await response.write(b": ping\n\n")
        except ConnectionResetError:
            pass
        finally:
            stopping.cancel()
        return response


async def _read_message(request: web.Request) -> tuple[str, str, str]:
    if request.content_type != "application/json":
        raise BadRequest("Send JSON: content-type: application/json.")
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be an object.")
    text = body.get("text")
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT:
        raise BadRequest(f"text must be 1 to {MAX_TEXT} characters.")
    message_id = body.get("message_id", uuid.uuid4().hex)
    if not isinstance(message_id, str) or not _MESSAGE_ID.fullmatch(message_id):
        raise BadRequest("message_id must be 1 to 64 letters, digits, - or _.")
    clean = text.encode("utf-8", "replace").decode().replace("\x00", "")
    return _contact(body.get("contact")), clean, message_id


def _event_number(value: str | None) -> int | None:
    return int(value) if value and len(value) < 20 and value.isascii() and value.isdecimal() else None


def _contact(value: object) -> str:
    if not isinstance(value, str) or not _CONTACT.fullmatch(value):
        raise BadRequest("contact must be 8 to 15 digits.")
    return value


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": message}, status=status, headers=headers)


def _is_local(peer: str | None) -> bool:
    try:
        return ipaddress.ip_address(peer or "").is_loopback
    except ValueError:
        return False


def _is_local_host(host: str) -> bool:
    # A page of another site that got its name to point here must not read conversations.
    name = re.sub(r":\d+$", "", host).strip("[]")
    return name == "localhost" or _is_local(name)
