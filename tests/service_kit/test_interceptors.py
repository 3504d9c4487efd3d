"""Errors, deadlines, request ids and streams through the standard interceptors, over a real connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service_kit import errors, logs
from service_kit.channels import ServiceChannel
from service_kit.interceptors import server_interceptors
from service_kit.server import Server, ServerConfig
from service_kit.testing import in_process, in_process_servicer
from tests.service_kit.dummy import NAME, SECRET, DummyService


@pytest.fixture
async def service() -> DummyService:
    return DummyService()


@pytest.fixture
async def channel(service: DummyService) -> AsyncIterator[grpc.aio.Channel]:
    logs.configure(service="test", json=True, level="DEBUG")
    async with in_process(service) as opened:
        yield opened


async def unary(channel: grpc.aio.Channel, method: str, request: bytes = b"") -> bytes:
    return await channel.unary_unary(f"/{NAME}/{method}")(request, timeout=5)


async def failure(channel: grpc.aio.Channel, method: str) -> errors.ParsedError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, method)
    return errors.parse(caught.value)


async def lines(capsys: pytest.CaptureFixture[str], event: str, *, count: int) -> list[dict[str, object]]:
    """So many lines of this event: a client may have its answer before the server has written about it."""
    found: list[dict[str, object]] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            await asyncio.sleep(0)
            printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            found += [line for line in printed if line["event"] == event]
    return found


async def test_all_four_kinds_pass_through(channel: grpc.aio.Channel) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for item in (b"a", b"b"):
            yield item

    assert await unary(channel, "Echo", b"x") == b"x"
    for method in ("Count", "Write"):
        stream = channel.unary_stream(f"/{NAME}/{method}")(b"3", timeout=5)
        assert [item async for item in stream] == [b"0", b"1", b"2"]
    assert await channel.stream_unary(f"/{NAME}/Join")(requests(), timeout=5) == b"a,b"
    chat = channel.stream_stream(f"/{NAME}/Chat")(requests(), timeout=5)
    assert [item async for item in chat] == [b"A", b"B"]


async def test_typed_errors_keep_code_reason_metadata_and_delay(channel: grpc.aio.Channel) -> None:
    assert await failure(channel, "Refuse") == errors.ParsedError(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="SCARCE",
        metadata={"limit": "7"},
        retry_after_ms=1500,
        message="There is too much going on.",
    )


@pytest.mark.parametrize("method", ["Fail", "FailLate"])
async def test_exception_text_never_reaches_the_client(
    channel: grpc.aio.Channel, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    """grpc.aio sends `Unexpected <class 'ValueError'>: dsn=…` to the peer when nothing stops it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if method == "Fail":
            await unary(channel, method)
        else:
            _ = [item async for item in channel.unary_stream(f"/{NAME}/{method}")(b"", timeout=5)]
    parsed = errors.parse(caught.value)
    assert (parsed.code, parsed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert SECRET not in str(caught.value)
    (line,) = await lines(capsys, "call_failed", count=1)
    assert line["error_id"] == parsed.metadata["error_id"]
    assert "ValueError" in str(line["exception"])


async def test_an_inner_cancellation_does_not_leave_the_client_waiting(channel: grpc.aio.Channel) -> None:
    """Raised on, a CancelledError that nobody asked for kept the client to its deadline (grpc #29248)."""
    assert (await failure(channel, "Interrupted")).code is grpc.StatusCode.UNAVAILABLE


async def test_a_plain_abort_passes(channel: grpc.aio.Channel, capsys: pytest.CaptureFixture[str]) -> None:
    parsed = await failure(channel, "Abort")
    assert (parsed.code, parsed.reason, parsed.message) == (grpc.StatusCode.ALREADY_EXISTS, "", "twice")
    assert (await lines(capsys, "call_handled", count=1))[0]["code"] == "ALREADY_EXISTS"


async def test_one_line_per_call_with_the_request_id(
    channel: grpc.aio.Channel, capsys: pytest.CaptureFixture[str]
) -> None:
    echo = channel.unary_unary(f"/{NAME}/Echo")
    await echo(b"x", timeout=5, metadata=(("x-request-id", "abc-1"),))
    await echo(b"x", timeout=5, metadata=(("x-request-id", "no good"),))
    await failure(channel, "Refuse")
    first, second, third = await lines(capsys, "call_handled", count=3)
    assert (first["request_id"], first["code"], first["peer"]) == ("abc-1", "OK", "unix")
    assert first["method"] == f"/{NAME}/Echo"
    assert isinstance(first["duration_ms"], float)
    assert len(str(second["request_id"])) == 32
    assert (third["code"], third["reason"], third["level"]) == ("RESOURCE_EXHAUSTED", "SCARCE", "warning")


async def test_a_cancelled_stream_runs_the_handlers_finally(channel: grpc.aio.Channel, service: DummyService) -> None:
    call = channel.unary_stream(f"/{NAME}/Forever")(b"", timeout=30)
    assert await call.read() == b"tick"
    call.cancel()
    async with asyncio.timeout(2):
        await service.cleaned.wait()


async def test_a_call_without_deadline_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    short = server_interceptors(default_deadline_s=0.05)
    monkeypatch.setattr("service_kit.server.server_interceptors", lambda: short)
    async with in_process(DummyService()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{NAME}/Sleep")(b"10")
        assert errors.parse(caught.value).reason == "DEADLINE_EXCEEDED"
        assert await channel.unary_unary(f"/{NAME}/Sleep")(b"0.2", timeout=5) == b"slept"


async def test_health_watch_works_through_the_interceptors(channel: grpc.aio.Channel, service: DummyService) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=NAME))
    seen = [(await watch.read()).status]
    service.is_ready = False
    seen.append((await watch.read()).status)
    overall = await stub.Check(health_pb2.HealthCheckRequest())
    service.is_ready = True
    seen.append((await watch.read()).status)
    assert (seen, overall.status) == ([1, 2, 1], 2)
    watch.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {item.name for item in (await call.read()).list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= listed
    await call.done_writing()


async def test_clients_must_state_a_deadline(service: DummyService, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    async with Server(service, ServerConfig(service="t", address=address)):
        peer = ServiceChannel(address, name="dummy")
        with pytest.raises(ValueError, match="without a timeout"):
            await peer.channel.unary_unary(f"/{NAME}/Echo")(b"")
        with pytest.raises(ValueError, match="without a timeout"):
            _ = [item async for item in peer.channel.unary_stream(f"/{NAME}/Count")(b"1")]
        assert [item async for item in peer.channel.unary_stream(f"/{NAME}/Count")(b"1", timeout=5)] == [b"0"]
        await peer.close()


async def test_the_request_id_is_handed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="test", json=True)
    address = f"unix:{tmp_path}/s"
    async with Server(DummyService(), ServerConfig(service="t", address=address)):
        peer = ServiceChannel(address, name="dummy")
        with structlog.contextvars.bound_contextvars(request_id="outer-1"):
            await peer.channel.unary_unary(f"/{NAME}/Echo")(b"", timeout=5)
            call = peer.channel.unary_stream(f"/{NAME}/Count")(b"1", timeout=5, metadata=(("x-request-id", "mine"),))
            assert [item async for item in call] == [b"0"]
        await peer.close()
    handled = await lines(capsys, "call_handled", count=2)
    assert [line["request_id"] for line in handled] == ["outer-1", "mine"]


async def test_a_plain_servicer_can_be_served() -> None:
    async def echo(request: bytes, _: object) -> bytes:
        return request

    handler = grpc.method_handlers_generic_handler("t.P", {"Echo": grpc.unary_unary_rpc_method_handler(echo)})
    async with in_process_servicer(lambda server: server.add_generic_rpc_handlers((handler,))) as channel:
        assert await channel.unary_unary("/t.P/Echo")(b"x", timeout=5) == b"x"
