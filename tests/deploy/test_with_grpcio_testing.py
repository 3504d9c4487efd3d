"""The tools' questions are plain synchronous calls: here grpcio-testing serves, and plays what a real server does not.

It knows no asyncio, so it cannot serve for the services themselves; see docs/decisions/0006.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import grpc_testing
import pytest
from grpc_health.v1 import health_pb2

from agentic_sdr.agent.v1 import agent_service_pb2
from agentic_sdr.buffer.v1 import buffer_service_pb2
from deploy import probe
from deploy.settings import SystemSettings
from service_kit.settings import load

T = TypeVar("T")
AGENT = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
BUFFER = buffer_service_pb2.DESCRIPTOR.services_by_name["BufferService"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
Serving = health_pb2.HealthCheckResponse


class Peer:
    """The other end of every channel that the probe opens; a question waits in its own thread for our answer."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._channel = grpc_testing.channel((AGENT, BUFFER, HEALTH), grpc_testing.strict_real_time())
        self.dialled: list[str] = []

    def dial(self, address: str, **_: object) -> Any:
        """Stands in for `grpc.insecure_channel`."""
        self.dialled.append(address)
        return self._channel

    def ask(self, question: Callable[[SystemSettings], T], settings: SystemSettings) -> "Future[T]":
        """Begin a question that will not return before it is answered."""
        return self._pool.submit(question, settings)

    def answer(self, method: Any, response: Any, code: grpc.StatusCode = grpc.StatusCode.OK) -> Any:
        """Take the call that is waiting, end it, and give what was asked."""
        _metadata, request, rpc = self._channel.take_unary_unary(method)
        rpc.terminate(response, (), code, "text of the other side")
        return request


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    with ThreadPoolExecutor(1) as pool:
        made = Peer(pool)
        monkeypatch.setattr(grpc, "insecure_channel", made.dial)
        yield made


@pytest.fixture
def settings() -> SystemSettings:
    return load(SystemSettings, environ={"SDR_BUFFER_ADDRESS": "0.0.0.0:7"}, env_file=None)


def test_the_counts_are_those_of_all_tenants(peer: Peer, settings: SystemSettings) -> None:
    asking = peer.ask(probe.stats, settings)
    request = peer.answer(BUFFER.methods_by_name["GetStats"], buffer_service_pb2.GetStatsResponse(dead_letters=3))
    found = asking.result()
    assert found is not None
    assert found.dead_letters == 3
    assert request == buffer_service_pb2.GetStatsRequest(tenant="")
    # A listener on every address is asked on this machine.
    assert peer.dialled == ["127.0.0.1:7"]


@pytest.mark.parametrize(
    ("status", "said"),
    [(Serving.SERVING, "ready"), (Serving.NOT_SERVING, "not ready"), (Serving.SERVICE_UNKNOWN, "not ready")],
)
def test_health_is_told_in_words(peer: Peer, settings: SystemSettings, status: int, said: str) -> None:
    asking = peer.ask(lambda s: probe.health(s, "context_service"), settings)
    request = peer.answer(HEALTH.methods_by_name["Check"], Serving(status=status))
    assert asking.result() == said
    assert request.service == ""


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
    ],
)
def test_no_refusal_stops_the_tools(peer: Peer, settings: SystemSettings, code: grpc.StatusCode) -> None:
    asking = peer.ask(probe.agent, settings)
    peer.answer(AGENT.methods_by_name["GetAgent"], agent_service_pb2.GetAgentResponse(), code)
    assert asking.result() is None
    health = peer.ask(lambda s: probe.health(s, "agent_service"), settings)
    peer.answer(HEALTH.methods_by_name["Check"], Serving(), code)
    assert health.result() == "no answer"
