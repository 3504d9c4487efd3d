import json
import time
from pathlib import Path

import grpc
import pytest

from service_kit import errors
from service_kit.channels import ServiceChannel, client_options, retry_config
from service_kit.interceptors import server_interceptors
from service_kit.server import Server, ServerConfig
from tests.service_kit.dummy import NAME, DummyService


def test_only_named_methods_are_retried() -> None:
    config = json.loads(retry_config(service=NAME, idempotent_methods=["Echo"]))
    (entry,) = config["methodConfig"]
    assert entry["name"] == [{"service": NAME, "method": "Echo"}]
    assert entry["retryPolicy"]["maxAttempts"] == 3
    assert json.loads(retry_config(service=NAME, idempotent_methods=[]))["methodConfig"] == []


def test_dead_peers_are_noticed() -> None:
    """keepalive_timeout_ms alone left a stopped peer unnoticed for as long as the deadline."""
    options = dict(client_options())
    assert options["grpc.http2.ping_timeout_ms"] == 3_000
    assert options["grpc.keepalive_time_ms"] == 20_000


async def test_the_retry_config_is_applied(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    attempts = {"Safe": 0, "Unsafe": 0}

    def flaky(method: str) -> grpc.RpcMethodHandler:  # type: ignore[type-arg]
        async def handler(_: bytes, __: object) -> bytes:
            attempts[method] += 1
            if attempts[method] < 3:
                raise errors.Unavailable
            return b"ok"

        return grpc.unary_unary_rpc_method_handler(handler)

    server = grpc.aio.server(interceptors=server_interceptors())
    handlers = {method: flaky(method) for method in attempts}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
    server.add_insecure_port(address)
    await server.start()
    config = retry_config(service=NAME, idempotent_methods=["Safe"])
    peer = ServiceChannel(address, name="flaky", service_config=config)
    assert await peer.channel.unary_unary(f"/{NAME}/Safe")(b"", timeout=5) == b"ok"
    with pytest.raises(grpc.aio.AioRpcError):
        await peer.channel.unary_unary(f"/{NAME}/Unsafe")(b"", timeout=5)
    assert attempts == {"Safe": 3, "Unsafe": 1}
    await peer.close()
    await server.stop(None)


async def test_a_peer_is_found_soon_after_it_comes_back(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    peer = ServiceChannel(address, name="dummy")
    assert not await peer.warm(0.3)
    for _ in range(2):
        async with Server(DummyService(), ServerConfig(service="d", address=address, grace_s=0.1)):
            began = time.monotonic()
            assert await peer.warm(5)
            echo = peer.channel.unary_unary(f"/{NAME}/Echo")
            assert await echo(b"x", timeout=5, wait_for_ready=True) == b"x"
            assert time.monotonic() - began < 2
    await peer.close()


async def test_messages_larger_than_the_library_default_pass(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    async with Server(DummyService(), ServerConfig(service="d", address=address)):
        peer = ServiceChannel(address, name="dummy")
        big = b"x" * (8 * 1024 * 1024)
        assert len(await peer.channel.unary_unary(f"/{NAME}/Echo")(big, timeout=10)) == len(big)
        await peer.close()
