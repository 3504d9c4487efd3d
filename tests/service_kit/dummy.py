"""A tiny service without a proto: bytes in, bytes out. Run as a script, it is the process that the tests kill."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
from pydantic import Field

from service_kit import errors
from service_kit.server import ServerConfig, run, starting
from service_kit.settings import ConfigurationError, Settings, load

NAME = "test.v1.Dummy"
SECRET = "dsn=postgres://user:hunter2@db"


class Scarce(errors.ServiceError):
    """There is too much going on."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "SCARCE"


class DummyService:
    """Implements `server.Service`, and records what happened to it."""

    def __init__(self, *, ends_streams: bool = True) -> None:
        self.is_ready = True
        self.events: list[str] = []
        self.cleaned = asyncio.Event()
        self._ends_streams = ends_streams
        self._draining = asyncio.Event()

    async def open(self) -> None:
        self.events.append("open")

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
            "Interrupted": grpc.unary_unary_rpc_method_handler(self.interrupted),
            "Abort": grpc.unary_unary_rpc_method_handler(self.abort),
            "Block": grpc.unary_unary_rpc_method_handler(self.block),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Write": grpc.unary_stream_rpc_method_handler(self.write),
            "FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
            "Forever": grpc.unary_stream_rpc_method_handler(self.forever),
            "Join": grpc.stream_unary_rpc_method_handler(self.join),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
        return [NAME]

    async def ready(self) -> bool:
        return self.is_ready

    async def drain(self) -> None:
        self.events.append("drain")
        if self._ends_streams:
            self._draining.set()

    async def close(self) -> None:
        self.events.append("close")

    async def echo(self, request: bytes, _: Any) -> bytes:
        return request

    async def sleep(self, request: bytes, _: Any) -> bytes:
        await asyncio.sleep(float(request))
        return b"slept"

    async def fail(self, _: bytes, __: Any) -> bytes:
        raise ValueError(SECRET)

    async def refuse(self, _: bytes, __: Any) -> bytes:
        raise Scarce(retry_after_ms=1500, limit="7")

    async def interrupted(self, _: bytes, __: Any) -> bytes:
        raise asyncio.CancelledError

    async def abort(self, _: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "twice")
        return b""

    async def block(self, request: bytes, _: Any) -> bytes:
        time.sleep(float(request))
        return b"blocked"

    async def count(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    async def write(self, request: bytes, context: Any) -> None:
        for number in range(int(request)):
            await context.write(str(number).encode())

    async def fail_late(self, _: bytes, __: Any) -> AsyncIterator[bytes]:
        yield b"first"
        raise ValueError(SECRET)

    async def forever(self, _: bytes, __: Any) -> AsyncIterator[bytes]:
        try:
            while not self._draining.is_set():
                yield b"tick"
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._draining.wait(), 0.05)
        finally:
            self.cleaned.set()

    async def join(self, requests: AsyncIterator[bytes], _: Any) -> bytes:
        return b",".join([request async for request in requests])

    async def chat(self, requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()


class _Settings(Settings):
    address: str = Field("127.0.0.1:0", validation_alias="SDR_DUMMY_ADDRESS")
    grace_s: float = Field(5.0, validation_alias="SDR_DUMMY_GRACE_S")


class _ProcessService(DummyService):
    async def open(self) -> None:
        match os.environ.get("DUMMY_OPEN"):
            case "refuse":
                raise ConfigurationError("the store is of another version")
            case "crash":
                raise OSError("disk on fire")
            case "hang":
                sys.stdout.write("opening\n")
                sys.stdout.flush()
                await asyncio.sleep(60)

    async def run_background(self) -> None:
        if os.environ.get("DUMMY_BACKGROUND") == "crash":
            await asyncio.sleep(0.2)
            raise RuntimeError("side task died")


def main() -> None:
    with starting("dummy"):
        settings = load(_Settings, env_file=None)
    ends_streams = os.environ.get("DUMMY_STUBBORN") is None
    run(
        lambda: _ProcessService(ends_streams=ends_streams),
        config=ServerConfig(service="dummy", address=settings.address, grace_s=settings.grace_s),
    )


if __name__ == "__main__":
    main()
