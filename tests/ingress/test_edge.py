"""The public listener over real sockets."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2
from ingress.edge import EdgeLimits, PublicEdge, in_requests
from ingress.edge_settings import EdgeSettings
from ingress.providers.evolution import EvolutionProvider
from ingress.providers.evolution.settings import EvolutionSettings
from ingress.services import NotAccepted
from service_kit.clock import SystemClock
from service_kit.errors import ParsedError
from tests.fixtures.providers_fixtures import MANIFEST, evolution_bodies, malformed_bodies

TOKEN = "a-token-of-good-length"
BEARER = f"Bearer {TOKEN}"
HOOK = "/webhooks/evolution"
FAST = EdgeLimits(
    body_bytes={"evolution": 300_000},
    bytes_in_flight=700_000,
    header_timeout_s=0.3,
    body_timeout_s=0.4,
    keepalive_s=0.6,
)


class Buffer:
    """Takes events as the buffer service would."""

    def __init__(self) -> None:
        self.calls: list[list[buffer_service_pb2.Event]] = []
        self.fail: Exception | None = None
        self.gate: asyncio.Event | None = None

    @property
    def events(self) -> list[buffer_service_pb2.Event]:
        return [event for call in self.calls for event in call]

    async def accept(self, events: Sequence[buffer_service_pb2.Event]) -> buffer_service_pb2.EnqueueResponse:
        if self.gate is not None:
            await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        self.calls.append(list(events))
        accepted = buffer_service_pb2.EventResult(outcome=buffer_service_pb2.EventResult.OUTCOME_ACCEPTED)
        return buffer_service_pb2.EnqueueResponse(results=[accepted] * len(events))


class Answer:
    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.raw = raw
        self.status = int(lines[0].split()[1]) if raw else 0
        self.headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}


class World:
    def __init__(self, edge: PublicEdge, buffer: Buffer) -> None:
        self.edge, self.buffer = edge, buffer
        host, _, port = edge.address.rpartition(":")
        self.host, self.port = host, int(port)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    async def raw(self, data: bytes, *, half_close: bool = False) -> Answer:
        """Send bytes, read until the server closes or is silent."""
        reader, writer = await self.connect()
        writer.write(data)
        if half_close:
            writer.write_eof()
        try:
            return Answer(await asyncio.wait_for(reader.read(), 5))
        except ConnectionError:
            return Answer(b"")
        finally:
            writer.close()

    async def post(
        self, body: bytes, *, path: str = HOOK, method: str = "POST", headers: dict[str, str] | None = None
    ) -> Answer:
        given = {
            "Host": "x",
            "Authorization": BEARER,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        } | (headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        return await self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)


@asynccontextmanager
async def serving(
    *, limits: EdgeLimits = FAST, configured: bool = True, total: int = 50, per_ip: int = 50
) -> AsyncIterator[World]:
    buffer = Buffer()
    evolution = EvolutionSettings.model_validate(
        {
            "EVOLUTION_API_URL": "http://127.0.0.1:1" if configured else "",
            "EVOLUTION_API_KEY": "key" if configured else "",
            "EVOLUTION_WEBHOOK_TOKEN": TOKEN if configured else "",
        }
    )
    settings = EdgeSettings.model_validate(
        {"SDR_INGRESS_MAX_CONNECTIONS": total, "SDR_INGRESS_MAX_CONNECTIONS_PER_IP": per_ip}
    )
    clock = SystemClock()
    provider = EvolutionProvider(settings=evolution, clock=clock)
    edge = PublicEdge(
        providers={"evolution": provider}, accept=buffer.accept, clock=clock, settings=settings, limits=limits
    )
    await edge.open("127.0.0.1:0")
    try:
        yield World(edge, buffer)
    finally:
        await edge.close(0.2)


GOOD = evolution_bodies("01_conversation_text.json")[0]
NOISE = evolution_bodies("45_contacts_update_object.json")[0]


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "path", [HOOK, HOOK + "/messages-upsert", HOOK + "//messages-upsert", "//webhooks/evolution", HOOK + "/"]
)
async def test_an_event_is_accepted_wherever_evolution_posts_it(path: str) -> None:
    async with serving() as world:
        answer = await world.post(GOOD, path=path)
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok", "accepted": 1, "ignored": 0})
        assert [event.message.text for event in world.buffer.events] == ["oi, tudo bem?"]
        assert world.edge.status.last_webhook_ms["evolution"] > 0


async def test_the_token_may_be_in_the_address() -> None:
    async with serving() as world:
        answer = await world.post(GOOD, path=f"{HOOK}?token={TOKEN}", headers={"Authorization": ""})
        assert answer.status == 200


async def test_noise_never_reaches_the_buffer() -> None:
    async with serving() as world:
        answer = await world.post(NOISE)
        assert (answer.status, world.buffer.calls) == (200, [])
        assert world.edge.status.ignored == {"contacts.update": 1}


@pytest.mark.parametrize(
    "authorization", ["", "Bearer wrong-token-of-same", "Basic x", "Bearer", BEARER + "x", "Bearer \xff\xfe"]
)
async def test_a_stranger_is_refused_before_the_body_is_read(authorization: str) -> None:
    async with serving() as world:
        reader, writer = await world.connect()
        head = f"POST {HOOK} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head.encode("latin-1"))
        assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 401")
        writer.close()
        assert world.buffer.calls == []
        assert sum(world.edge.status.refused.values()) == 1


async def test_two_authorization_headers_are_refused() -> None:
    async with serving() as world:
        twice = f"Authorization: {BEARER}\r\n" * 2
        head = f"POST {HOOK} HTTP/1.1\r\nHost: x\r\n{twice}Content-Length: 0\r\nConnection: close\r\n\r\n"
        assert (await world.raw(head.encode())).status == 401


async def test_a_provider_without_settings_says_come_back() -> None:
    async with serving(configured=False) as world:
        for path in (HOOK, "/webhooks/whatsapp"):
            answer = await world.post(GOOD, path=path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert (await world.post(b"", path="/webhooks/whatsapp", method="GET")).status == 503


@pytest.mark.parametrize(
    "path", ["/", "/webhooks", "/console", "/metrics", "/webhooks/evolution/a/b", "/webhooks/other"]
)
async def test_nothing_else_is_served(path: str) -> None:
    async with serving() as world:
        assert (await world.post(GOOD, path=path)).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_told_which_one(method: str) -> None:
    async with serving() as world:
        answer = await world.post(b"", method=method)
        assert (answer.status, answer.headers.get("allow")) == (405, "POST")


async def test_health() -> None:
    async with serving(configured=False) as world:
        for method in ("GET", "HEAD"):
            assert (await world.post(b"", path="/healthz", method=method)).status == 200
        assert (await world.post(b"", path="/healthz")).status == 405


@pytest.mark.parametrize("name", list(MANIFEST["malformed"]))
async def test_no_authentic_body_is_refused_for_good(name: str) -> None:
    async with serving() as world:
        for body in malformed_bodies(name):
            assert (await world.post(body)).status == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
async def test_another_content_type_is_quarantined(content_type: str) -> None:
    async with serving() as world:
        assert (await world.post(GOOD, headers={"Content-Type": content_type})).status == 200
        assert [event.unparsed.reason for event in world.buffer.events] == ["content_type"]


@pytest.mark.parametrize(
    "content_type", ["", "application/json; charset=utf-8", "APPLICATION/JSON", "application/a+json"]
)
async def test_json_by_other_names_is_read(content_type: str) -> None:
    async with serving() as world:
        assert (await world.post(GOOD, headers={"Content-Type": content_type})).status == 200
        assert world.buffer.events[0].message.text


async def test_a_compressed_body_is_refused() -> None:
    async with serving() as world:
        assert (await world.post(GOOD, headers={"Content-Encoding": "gzip"})).status == 415


async def test_a_body_that_is_declared_too_large_is_refused_unread() -> None:
    async with serving() as world:
        head = f"POST {HOOK} HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER}\r\nContent-Length: 999999999\r\n\r\n"
        reader, writer = await world.connect()
        writer.write(head.encode())
        assert (await asyncio.wait_for(reader.readline(), 2)).startswith(b"HTTP/1.1 413")
        writer.close()


def chunked(path: str, *chunks: bytes, last: bool = True) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER}\r\nTransfer-Encoding: chunked\r\n"
    head += "Connection: close\r\n\r\n"
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return head.encode() + b"".join(parts) + (b"0\r\n\r\n" if last else b"")


async def test_a_chunked_body_is_read_and_counted() -> None:
    async with serving() as world:
        assert (await world.raw(chunked(HOOK, GOOD[:100], GOOD[100:]))).status == 200
        assert (await world.raw(chunked(HOOK, *[b"x" * 50_000] * 7))).status == 413
        assert world.edge.status.bytes_in_flight == 0


@pytest.mark.slow
async def test_a_body_that_stalls_is_given_up() -> None:
    async with serving() as world:
        assert (await world.raw(chunked(HOOK, GOOD[:100], last=False))).status == 408
        assert world.edge.status.bytes_in_flight == 0


async def test_a_body_that_breaks_off_is_not_accepted() -> None:
    async with serving() as world:
        await world.raw(chunked(HOOK, GOOD[:100], last=False), half_close=True)
        assert world.buffer.calls == []


@pytest.mark.parametrize("start", [b"", b"P", b"POST /webhooks/evolution HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_header_that_does_not_end_is_given_up(start: bytes) -> None:
    async with serving() as world:
        assert (await world.raw(start)).status == 408
        assert world.edge.status.refused["header_late"] == 1


async def test_a_trickling_header_gains_no_time() -> None:
    async with serving() as world:
        reader, writer = await world.connect()
        try:
            for byte in b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 200:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        assert b"200" not in await asyncio.wait_for(_all_of(reader), 3)
        writer.close()


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_the_second_header_of_a_connection_has_a_deadline_too() -> None:
    async with serving(limits=EdgeLimits(header_timeout_s=0.3, keepalive_s=30)) as world:
        reader, writer = await world.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.5)
        writer.write(b"GET /hea")
        rest = await asyncio.wait_for(reader.read(), 2)
        assert b"HTTP/1.1 408" in rest
        writer.close()


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with serving() as world:
        reader, writer = await world.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 3)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_huge_header_is_refused() -> None:
    """The refusal may be lost to the reset that answers bytes which nobody reads; the connection ends all the same."""
    async with serving() as world:
        lines = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 4000) for n in range(40))
        assert (await world.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + lines)).status in (0, 400, 431)
        assert (await world.raw(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")).status in (0, 400, 431)
        assert sum(world.edge.status.refused.values()) == 2


@pytest.mark.parametrize(
    "head",
    [
        b"POST /webhooks/evolution HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST /webhooks/evolution HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST /webhooks/evolution HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_400_and_closed(head: bytes) -> None:
    async with serving() as world:
        answer = await world.raw(head)
        assert answer.status == 400
        assert b"Traceback" not in answer.raw and b"aiohttp" not in answer.body


async def test_expect_continue_is_answered_only_to_friends() -> None:
    async with serving() as world:
        for bearer, status in ((BEARER, b"HTTP/1.1 100"), ("Bearer nobody-knows-me", b"HTTP/1.1 401")):
            reader, writer = await world.connect()
            head = f"POST {HOOK} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Length: {len(GOOD)}\r\n"
            writer.write(f"{head}Expect: 100-continue\r\nConnection: close\r\n\r\n".encode())
            assert (await asyncio.wait_for(reader.readline(), 2)).startswith(status)
            if bearer == BEARER:
                writer.write(GOOD)
                assert b"HTTP/1.1 200" in await asyncio.wait_for(reader.read(), 2)
            writer.close()


async def test_more_connections_than_allowed_are_told_to_come_back() -> None:
    async with serving(per_ip=2) as world:
        kept = [await world.connect() for _ in range(2)]
        await eventually(lambda: world.edge.status.connections == 2)
        assert (await world.post(GOOD)).status == 503
        assert world.edge.status.refused["connections_of_peer"] == 1
        kept[0][1].close()
        await eventually(lambda: world.edge.status.connections == 1)
        assert (await world.post(GOOD)).status == 200
        kept[1][1].close()


async def test_the_total_counts_too() -> None:
    async with serving(total=1) as world:
        _, writer = await world.connect()
        await eventually(lambda: world.edge.status.connections == 1)
        assert (await world.raw(b"")).status == 503
        writer.close()


async def test_bodies_share_one_budget() -> None:
    async with serving() as world:
        body = b" " * 290_000
        slow = [await world.connect() for _ in range(2)]
        for _, writer in slow:
            head = f"POST {HOOK} HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode())
        await eventually(lambda: world.edge.status.bytes_in_flight == 580_000)
        answer = await world.post(body)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        await eventually(lambda: world.edge.status.bytes_in_flight == 0)
        for _, writer in slow:
            writer.close()


class FullError(Exception):
    retry_after_ms = 2500


async def test_a_buffer_that_refuses_means_503_without_its_words() -> None:
    async with serving() as world:
        world.buffer.fail = RuntimeError("segredo: 5581999990001")
        answer = await world.post(GOOD)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert b"segredo" not in answer.raw
        world.buffer.fail = FullError()
        assert (await world.post(GOOD)).headers["retry-after"] == "3"


async def test_why_the_buffer_refused_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as world:
        world.buffer.fail = NotAccepted(ParsedError(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="BUFFER_FULL"))
        assert (await world.post(GOOD)).status == 503
    assert "BUFFER_FULL" in capsys.readouterr().out


async def test_nothing_of_a_message_or_a_person_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as world:
        await world.post(GOOD)
        await world.post(GOOD, headers={"Authorization": "Bearer 5581999990001-wrong"})
        world.buffer.fail = RuntimeError("oi, tudo bem?")
        await world.post(GOOD)
    written = "".join(capsys.readouterr())
    assert "webhook_handled" in written and "webhook_refused" in written
    for secret in ("oi, tudo", "5581999990001", "100000000000001", TOKEN):
        assert secret not in written


async def test_a_providers_state_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Every notice had its line: a body of a hundred thousand stopped everybody for as long as that took."""
    states = ["connecting", "close"] * 50 + ["open"]
    notices = [{"event": "connection.update", "instance": "x", "data": {"state": state}} for state in states]
    async with serving() as world:
        for _ in range(3):
            assert (await world.post(json.dumps(notices).encode())).status == 200
        assert world.edge.status.provider_states == {"evolution/x/connection": "open"}
        assert (await world.post(json.dumps(notices[1]).encode())).status == 200
    told = [line for line in capsys.readouterr().out.splitlines() if "provider_state_reported" in line]
    assert len(told) == 2 and "open" in told[0] and "close" in told[1]


async def test_close_lets_a_request_end() -> None:
    async with serving() as world:
        world.buffer.gate = asyncio.Event()
        asking = asyncio.create_task(world.post(GOOD))
        await eventually(lambda: world.edge.status.connections == 1)
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(world.edge.close(2))
        await asyncio.sleep(0.05)
        world.buffer.gate.set()
        assert (await asking).status == 200
        await closing


def test_only_what_exceeds_the_buffers_limits_is_split() -> None:
    small = [buffer_service_pb2.Event() for _ in range(2500)]
    assert [len(some) for some in in_requests(small)] == [1000, 1000, 500]
    big = buffer_service_pb2.Event(unparsed=buffer_service_pb2.Unparsed(body=b"x" * 1_000_000))
    assert [len(some) for some in in_requests([big] * 7)] == [3, 3, 1]
    assert list(in_requests([])) == []


@pytest.mark.slow
async def test_a_peer_that_reads_no_answers_loses_its_place() -> None:
    """It sent requests and read nothing: the handler hung, and the place was taken for ever."""
    async with serving() as world:
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            peer.setblocking(False)
            await asyncio.get_running_loop().sock_connect(peer, (world.host, world.port))
            request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 200
            async with asyncio.timeout(20):
                while not world.edge.status.refused.get("answer_not_read"):
                    with contextlib.suppress(BlockingIOError, ConnectionError):
                        peer.send(request)
                    await asyncio.sleep(0.005)
                while world.edge.status.connections:
                    await asyncio.sleep(0.01)
