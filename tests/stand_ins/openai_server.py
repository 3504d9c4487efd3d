"""An OpenAI-compatible server that knows what it was asked, and answers well or badly as it is told."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from aiohttp import web

from tests.stand_ins.resetting import reset

MODEL = "scripted"


@dataclass(frozen=True, kw_only=True)
class Called:
    """A tool call that the model makes; `arguments` come in that many pieces, and need not be JSON."""

    name: str
    arguments: str = "{}"
    pieces: int = 3
    call_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the last event says of tokens."""

    prompt: int = 100
    cached: int | None = None
    completion: int = 10


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one request is answered.

    `fault`: "reset" (before a byte), "hang" (before the first token), "hang_after" (all pieces, then nothing),
    "reset_after", "half_json", "eof" (ends without a finish_reason), "no_done", "stays_open" (finished, but the stream
    is not ended), "error_event", "endless" (the pieces again and again), "endless_line" (one event that never ends),
    "endless_arguments", "no_usage", "nonsense".
    """

    pieces: tuple[str, ...] = ()
    calls: tuple[Called, ...] = ()
    wait_s: float = 0.0
    pause_s: float = 0.0
    fault: str = ""
    finish: str = ""
    told: Told = Told()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, int] = field(default_factory=dict)


def says(*pieces: str, **more: Any) -> Answer:
    """Plain text."""
    return Answer(pieces=pieces, **more)


def calls(*calls: Called, **more: Any) -> Answer:
    """Tool calls, in parallel."""
    return Answer(calls=calls, **more)


def refuses(status: int, *, code: str = "", message: str = "refused", param: str = "", **headers: str) -> Answer:
    """An HTTP error; `Retry_After="2"` becomes a header."""
    error = {"message": message, "type": "error", "code": code or None, "param": param or None}
    return Answer(status=status, error=error, headers={name.replace("_", "-"): text for name, text in headers.items()})


@dataclass(kw_only=True)
class Asked:
    """One request, and what became of it."""

    sequence: int
    body: dict[str, Any]
    headers: dict[str, str]
    generated: int = 0
    finished: bool = False
    left: bool = False

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation that it was sent."""
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def is_warm_up(self) -> bool:
        """Whether only one token was asked for."""
        return 1 in (self.body.get("max_tokens"), self.body.get("max_completion_tokens"))


class OpenAIServer:
    """Listens on the loopback. `script` is used up answer by answer; then `otherwise` answers."""

    def __init__(self, *, port: int = 0, otherwise: Answer | Callable[[Asked], Answer] | None = None) -> None:
        self.asked: list[Asked] = []
        self.script: deque[Answer] = deque()
        self.otherwise: Answer | Callable[[Asked], Answer] = otherwise or says("Tudo bem! ", "Como posso te ajudar?")
        self.warm_up: Answer | None = says("o")
        self.models_status = 200
        self.models_wait_s = 0.0
        self.models_body: Any = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        self.models_asked = 0
        self.connections = 0
        self.open_streams = 0
        self.generated = 0
        self.remember = True
        self._port = port
        self._seen: set[asyncio.BaseTransport] = set()
        self._hanging = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What belongs into OPENAI_BASE_URL."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def turns(self) -> list[Asked]:
        """The requests that were no warm-up."""
        return [asked for asked in self.asked if not asked.is_warm_up]

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 << 20)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._complete),
                web.get("/v1/models", self._models),
                web.get("/asked", self._show),
            ]
        )
        # The handler ends when the client leaves, as a server that pays for its tokens does it.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hanging.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def release(self) -> None:
        """Let what hangs go on, now and later."""
        self._hanging.set()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self._count(request)
        self.models_asked += 1
        await asyncio.sleep(self.models_wait_s)
        if self.models_status != 200:
            return _refusal(refuses(self.models_status, code="invalid_api_key"))
        return web.json_response(self.models_body)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self._count(request)
        asked = Asked(sequence=len(self.asked), body=await request.json(), headers=dict(request.headers))
        if self.remember:
            self.asked.append(asked)
        answer = self._answer(asked)
        self.open_streams += 1
        try:
            return await self._play(request, asked, answer)
        except (ConnectionError, asyncio.CancelledError):
            asked.left = True
            raise
        finally:
            self.open_streams -= 1

    def _answer(self, asked: Asked) -> Answer:
        if asked.is_warm_up and self.warm_up is not None:
            return self.warm_up
        if self.script:
            return self.script.popleft()
        return self.otherwise(asked) if callable(self.otherwise) else self.otherwise

    async def _play(self, request: web.Request, asked: Asked, answer: Answer) -> web.StreamResponse:
        await asyncio.sleep(answer.wait_s)
        if answer.fault == "reset":
            return reset(request)
        if answer.status != 200:
            return _refusal(answer)
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **answer.headers})
        await response.prepare(request)
        stream = _Stream(response, asked)
        await stream.delta({"role": "assistant", "content": ""})
        if answer.fault == "hang":
            await self._hanging.wait()
        await self._write(stream, answer)
        if answer.fault in ("hang_after", "reset_after"):
            if answer.fault == "hang_after":
                await self._hanging.wait()
            return reset(request)
        await self._end(stream, answer)
        asked.finished = True
        return response

    async def _write(self, stream: _Stream, answer: Answer) -> None:
        while True:
            for piece in answer.pieces:
                self.generated += 1
                stream.asked.generated += 1
                await stream.delta({"content": piece})
                await asyncio.sleep(answer.pause_s)
            if answer.fault != "endless":
                break
        for index, call in enumerate(answer.calls):
            for delta in _deltas(index, call):
                self.generated += 1
                await stream.delta({"tool_calls": [delta]})
                await asyncio.sleep(answer.pause_s)
        while answer.fault == "endless_arguments":
            await stream.delta({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 1000}}]})
        while answer.fault == "endless_line":
            await stream.raw(b"x" * 65_536)

    async def _end(self, stream: _Stream, answer: Answer) -> None:
        if answer.fault == "half_json":
            await stream.raw(b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "ol\n\n')
        elif answer.fault == "nonsense":
            await stream.raw(b'data: {"choices": 42}\n\ndata: "x"\n\ndata: [1]\n\n')
        elif answer.fault == "error_event":
            await stream.event({"error": {"message": "the engine died", "type": "server_error", "code": 500}})
        elif answer.fault != "eof":
            finish = answer.finish or ("tool_calls" if answer.calls else "stop")
            await stream.delta({}, finish=finish, **({"timings": dict(answer.timings)} if answer.timings else {}))
            if answer.fault == "stays_open":
                await self._hanging.wait()
            if answer.fault != "no_usage" and (stream.asked.body.get("stream_options") or {}).get("include_usage"):
                await stream.event({"id": "x", "choices": [], "usage": _usage(answer.told)})
        if answer.fault not in ("eof", "no_done", "half_json"):
            await stream.raw(b"data: [DONE]\n\n")

    def _count(self, request: web.Request) -> None:
        if request.transport is not None and request.transport not in self._seen:
            self._seen.add(request.transport)
            self.connections += 1

    async def _show(self, _: web.Request) -> web.Response:
        counts = {"connections": self.connections, "open_streams": self.open_streams, "generated": self.generated}
        return web.json_response({**counts, "asked": [asdict(asked) for asked in self.asked]})


class _Stream:
    """Server-sent events in the shape of chat completion chunks."""

    def __init__(self, response: web.StreamResponse, asked: Asked) -> None:
        self._response = response
        self.asked = asked

    async def delta(self, delta: dict[str, Any], *, finish: str | None = None, **more: Any) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        await self.event({"id": "x", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice], **more})

    async def event(self, data: dict[str, Any]) -> None:
        await self.raw(b"data: " + json.dumps(data).encode() + b"\n\n")

    async def raw(self, data: bytes) -> None:
        await self._response.write(data)


def _deltas(index: int, call: Called) -> Sequence[dict[str, Any]]:
    size = max(1, -(-len(call.arguments) // call.pieces))
    cut = [call.arguments[at : at + size] for at in range(0, len(call.arguments), size)]
    head = {"index": index, "id": call.call_id or f"call_{index}", "type": "function"}
    first = {**head, "function": {"name": call.name, "arguments": ""}}
    return [first, *({"index": index, "function": {"arguments": piece}} for piece in cut)]


def _usage(told: Told) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": told.prompt,
        "completion_tokens": told.completion,
        "total_tokens": told.prompt + told.completion,
    }
    if told.cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": told.cached}
    return usage


def _refusal(answer: Answer) -> web.Response:
    return web.json_response({"error": dict(answer.error)}, status=answer.status, headers=dict(answer.headers))


async def _serve(arguments: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = OpenAIServer(port=arguments.port)
    # Its own memory must not grow with the number of turns that are measured.
    server.remember = False
    async with server:
        print(f"ready {server.url}", flush=True)
        await stopped.wait()


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible server.")
    parser.add_argument("--port", type=int, default=0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
