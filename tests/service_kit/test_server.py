"""The server without signals: order of steps, health, failures, addresses."""

import asyncio
from pathlib import Path

import grpc
import pytest

from service_kit.server import Server, ServerConfig
from service_kit.settings import ConfigurationError
from service_kit.testing import in_process
from tests.service_kit.dummy import NAME, DummyService


def config(address: str = "127.0.0.1:0", grace_s: float = 0.2) -> ServerConfig:
    return ServerConfig(service="test", address=address, grace_s=grace_s)


async def check(channel: grpc.aio.Channel) -> bytes:
    response: bytes = await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
    return response


async def test_port_zero_is_resolved() -> None:
    service = DummyService()
    async with Server(service, config()) as server:
        assert server.address == f"127.0.0.1:{server.port}"
        async with grpc.aio.insecure_channel(server.address) as channel:
            assert await channel.unary_unary(f"/{NAME}/Echo")(b"x", timeout=5) == b"x"
            assert await check(channel) == b"\x08\x01"
    assert service.events == ["open", "drain", "close"]


async def test_health_is_not_serving_until_ready_and_follows_both_ways() -> None:
    service = DummyService()
    service.is_ready = False
    async with in_process(service) as channel:
        assert await check(channel) == b"\x08\x02"
        for is_ready, answer in ((True, b"\x08\x01"), (False, b"\x08\x02")):
            service.is_ready = is_ready
            async with asyncio.timeout(3):
                while await check(channel) != answer:
                    await asyncio.sleep(0.05)


class Unsure(DummyService):
    async def ready(self) -> bool:
        raise OSError("store gone")


async def test_a_readiness_check_that_raises_means_not_ready() -> None:
    async with in_process(Unsure()) as channel:
        assert await check(channel) == b"\x08\x02"


async def test_a_taken_address_is_found_before_the_service_opens(tmp_path: Path) -> None:
    """A forgotten old process must not share a store with the new one."""
    for address in ("127.0.0.1:0", f"unix:{tmp_path}/s"):
        async with Server(DummyService(), config(address)) as first:
            second = DummyService()
            with pytest.raises(ConfigurationError, match="it is in use by process"):
                await Server(second, config(first.address)).start()
            assert second.events == []


class Unregistrable(DummyService):
    def register(self, server: grpc.aio.Server) -> list[str]:
        raise RuntimeError("no proto")


async def test_what_was_opened_is_closed_when_listening_fails() -> None:
    service = Unregistrable()
    with pytest.raises(RuntimeError, match="no proto"):
        await Server(service, config()).start()
    assert service.events == ["open", "close"]


class Doomed(DummyService):
    async def run_background(self) -> None:
        raise RuntimeError("side task died")


async def test_a_dead_side_task_is_raised() -> None:
    server = Server(Doomed(), config())
    await server.start()
    with pytest.raises(RuntimeError, match="side task died"):
        await server.wait_failed()
    with pytest.raises(RuntimeError, match="side task died"):
        await server.stop()


class Cleaning(DummyService):
    def __init__(self) -> None:
        super().__init__()
        self.running = asyncio.Event()

    async def sleep(self, _: bytes, __: object) -> bytes:
        self.running.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            self.events.append("cleaned")
        return b""


async def test_handlers_clean_up_before_the_service_is_closed() -> None:
    """server.stop returned while handlers were still in their finally blocks (grpc #37239)."""
    service = Cleaning()
    async with in_process(service, grace_s=0.1) as channel:
        call = asyncio.ensure_future(channel.unary_unary(f"/{NAME}/Sleep")(b"", timeout=30))
        await service.running.wait()
    await asyncio.gather(call, return_exceptions=True)
    assert service.events == ["open", "drain", "cleaned", "close"]
