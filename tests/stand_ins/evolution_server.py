"""A stand-in for the Evolution API: the ground truth of what reached the provider.

In process: `async with EvolutionServer() as server: …`. As a process:
`python -m tests.stand_ins.evolution_server --port P --log FILE [--echo-url URL --echo-token TOKEN]`, with `GET /_sent`
for the log and `POST /_faults` (a list of faults as JSON) to make it misbehave.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4
from weakref import WeakSet

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from tests.stand_ins.evolution_answers import Fault, Sent, message, refusal_of, refused
from tests.stand_ins.resetting import reset


@dataclass(kw_only=True)
class EvolutionServer:
    """Answers sendText and sendPresence on the loopback and remembers everything."""

    port: int = 0
    log_path: Path | None = None
    echo_url: str = ""
    echo_token: str = ""
    hold_presence: bool = False
    sent: list[Sent] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    connections: int = 0
    """How many TCP connections have carried a request."""
    on_delivered: Callable[[Sent], None] | None = None

    def __post_init__(self) -> None:
        self._runner: web.AppRunner | None = None
        self._echoes: ClientSession | None = None
        self._hanging = asyncio.Event()
        self._seen: WeakSet[asyncio.BaseTransport] = WeakSet()

    @property
    def url(self) -> str:
        """What belongs into EVOLUTION_API_URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def delivered(self) -> list[Sent]:
        """What people got, in order."""
        return [sent for sent in self.sent if sent.delivered]

    @property
    def texts(self) -> list[Sent]:
        """Every sendText that arrived, delivered or not."""
        return [sent for sent in self.sent if sent.path == "sendText"]

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**27)
        app.router.add_post("/message/sendText/{instance}", self._send_text)
        app.router.add_post("/chat/sendPresence/{instance}", self._send_presence)
        app.router.add_get("/_sent", self._show_sent)
        app.router.add_post("/_faults", self._set_faults)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        self._echoes = ClientSession(timeout=ClientTimeout(total=5))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hanging.set()
        if self._echoes is not None:
            await self._echoes.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def fail(self, kind: str, **how: Any) -> None:
        """Let the next matching request suffer."""
        self.faults.append(Fault(kind=kind, **how))

    async def _send_text(self, request: web.Request) -> web.StreamResponse:
        sent, body = await self._note(request, "sendText")
        if not isinstance(body.get("text"), str) or not body["text"] or not isinstance(body.get("number"), str):
            return refused(400, [['instance requires property "text"']])
        fault = next((fault for fault in self.faults if fault.matches(sent)), None)
        if fault is None:
            return await self._deliver(sent)
        fault.times -= 1
        sent.fault = fault.kind
        return await self._misbehave(request, sent, fault)

    async def _misbehave(self, request: web.Request, sent: Sent, fault: Fault) -> web.StreamResponse:
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.kind.startswith("accept_then_") or fault.kind in ("delay", "accept_without_id"):
            answer = await self._deliver(sent)
            if fault.kind == "accept_then_500":
                return refused(500, "Internal error after the send")
            if fault.kind == "accept_without_id":
                return web.json_response({"status": "PENDING"}, status=201)
            if fault.kind == "delay":
                return answer
        self._write(sent)
        if fault.kind.endswith("hang"):
            await self._hanging.wait()
        if fault.kind.endswith(("hang", "reset")):
            return reset(request)
        return refusal_of(fault, sent)

    async def _deliver(self, sent: Sent) -> web.Response:
        sent.delivered = True
        sent.message_id = f"3EB0{uuid4().hex[:18].upper()}"
        self._write(sent)
        if self.on_delivered is not None:
            self.on_delivered(sent)
        answer = message(sent)
        await self._echo(sent, answer)
        return web.json_response(answer, status=201)

    async def _send_presence(self, request: web.Request) -> web.StreamResponse:
        sent, body = await self._note(request, "sendPresence")
        sent.presence = str(body.get("presence", ""))
        if not isinstance(body.get("delay"), int):
            return refused(400, [['instance requires property "delay"']])
        self._write(sent)
        if self.hold_presence:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(body["delay"] / 1000):
                    await self._hanging.wait()
        return web.json_response({"presence": sent.presence}, status=201)

    async def _note(self, request: web.Request, path: str) -> tuple[Sent, dict[str, Any]]:
        first_byte_ms = _now_ms()
        if request.transport is not None and request.transport not in self._seen:
            self._seen.add(request.transport)
            self.connections += 1
        body = await request.json()
        sent = Sent(
            sequence=len(self.sent),
            path=path,
            instance=request.match_info["instance"],
            number=str(body.get("number", "")),
            text=str(body.get("text", "")),
            time_ms=_now_ms(),
            first_byte_ms=first_byte_ms,
            apikey=request.headers.get("apikey", ""),
        )
        self.sent.append(sent)
        return sent, body

    async def _echo(self, sent: Sent, answer: dict[str, Any]) -> None:
        # As Evolution does it: before the answer to the send.
        if not self.echo_url or self._echoes is None:
            return
        envelope = {"event": "send.message", "instance": sent.instance, "data": answer, "apikey": None}
        headers = {"Authorization": f"Bearer {self.echo_token}"}
        with contextlib.suppress(ClientError, TimeoutError, OSError):
            async with self._echoes.post(self.echo_url, json=envelope, headers=headers):
                pass

    async def _show_sent(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(sent) for sent in self.sent])

    async def _set_faults(self, request: web.Request) -> web.Response:
        self.faults[:] = [Fault(**fault) for fault in await request.json()]
        return web.json_response({"faults": len(self.faults)})

    def _write(self, sent: Sent) -> None:
        if self.log_path is None:
            return
        with self.log_path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(sent), ensure_ascii=False) + "\n")
            log.flush()
            os.fsync(log.fileno())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _serve(arguments: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = EvolutionServer(
        port=arguments.port,
        log_path=arguments.log,
        echo_url=arguments.echo_url,
        echo_token=arguments.echo_token,
        hold_presence=True,
    )
    async with server:
        print(f"ready {server.url}", flush=True)
        await stopped.wait()


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description="A stand-in for the Evolution API.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, default=None)
    parser.add_argument("--echo-url", default="")
    parser.add_argument("--echo-token", default="")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
