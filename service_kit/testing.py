"""Real servers inside the test process, on a unix socket: a start, a call and a stop take a few milliseconds."""

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from service_kit.channels import client_options
from service_kit.server import Server, ServerConfig, Service


@asynccontextmanager
async def in_process(service: Service, *, grace_s: float = 0.5) -> AsyncIterator[grpc.aio.Channel]:
    """Open and serve the service; yields a plain channel to it (without our client interceptors)."""
    with tempfile.TemporaryDirectory(prefix="kit-") as directory:
        address = f"unix:{Path(directory) / 's'}"
        config = ServerConfig(service="test", address=address, grace_s=grace_s)
        async with Server(service, config), grpc.aio.insecure_channel(address, options=client_options()) as channel:
            yield channel


@asynccontextmanager
async def in_process_servicer(add: Callable[[grpc.aio.Server], object]) -> AsyncIterator[grpc.aio.Channel]:
    """Serve what `add` adds to the server, behind the standard interceptors."""
    async with in_process(_Plain(add)) as channel:
        yield channel


class _Plain:
    def __init__(self, add: Callable[[grpc.aio.Server], object]) -> None:
        self._add = add

    async def open(self) -> None:
        return

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        self._add(server)
        return ()

    async def ready(self) -> bool:
        return True

    async def drain(self) -> None:
        return

    async def close(self) -> None:
        return
