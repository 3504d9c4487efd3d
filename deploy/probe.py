"""Asks the running processes how they are. Nothing here raises because a process is down: it answers None."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agentic_sdr.agent.v1 import agent_service_pb2, agent_service_pb2_grpc
from agentic_sdr.buffer.v1 import buffer_service_pb2, buffer_service_pb2_grpc
from deploy.settings import SystemSettings

_TIMEOUT_S = 2.0
# A proxy of the environment is for the outside world.
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}
T = TypeVar("T")


def reachable(address: str) -> str:
    """The address at which a listener on it is found from this machine."""
    if address.startswith("unix:"):
        return address
    host, _, port = address.rpartition(":")
    return f"{_WILDCARDS.get(host, host)}:{port}"


def grpc_addresses(settings: SystemSettings) -> dict[str, str]:
    """By program, the address of its gRPC server."""
    return {
        "buffer_service": settings.buffer_address,
        "context_service": settings.context_address,
        "agent_service": settings.agent_address,
    }


def health(settings: SystemSettings, program: str) -> str:
    """ready, or what it is instead."""
    if program == "ingress":
        return _ingress_health(settings)
    status = _ask(grpc_addresses(settings)[program], _check_health)
    if status is None:
        return "no answer"
    return "ready" if status == health_pb2.HealthCheckResponse.SERVING else "not ready"


def agent(settings: SystemSettings) -> agent_service_pb2.GetAgentResponse | None:
    """The agent's state, model and persona."""
    return _ask(
        settings.agent_address,
        lambda channel: agent_service_pb2_grpc.AgentServiceStub(channel).GetAgent(
            agent_service_pb2.GetAgentRequest(), timeout=_TIMEOUT_S
        ),
    )


def stats(settings: SystemSettings) -> buffer_service_pb2.GetStatsResponse | None:
    """The buffer's counts."""
    return _ask(
        settings.buffer_address,
        lambda channel: buffer_service_pb2_grpc.BufferServiceStub(channel).GetStats(
            buffer_service_pb2.GetStatsRequest(), timeout=_TIMEOUT_S
        ),
    )


def console_status(settings: SystemSettings) -> dict[str, Any] | None:
    """What ingress tells of its webhooks and its worker."""
    answer = _get(settings, "/console/status")
    return answer[1] if answer is not None and answer[0] == 200 else None


def _ingress_health(settings: SystemSettings) -> str:
    answer = _get(settings, "/readyz")
    if answer is None:
        return "no answer"
    code, body = answer
    if code != 200:
        return "not ready"
    degraded = body.get("degraded")
    return f"ready, without {' and '.join(map(str, degraded))}" if isinstance(degraded, list) and degraded else "ready"


def _check_health(channel: grpc.Channel) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S).status)


def _ask(address: str, question: Callable[[grpc.Channel], T]) -> T | None:
    with grpc.insecure_channel(reachable(address), options=CHANNEL_OPTIONS) as channel:
        try:
            return question(channel)
        except grpc.RpcError:
            return None


def _get(settings: SystemSettings, path: str) -> tuple[int, dict[str, Any]] | None:
    request = urllib.request.Request(f"http://{reachable(settings.admin_address)}{path}")
    token = settings.admin_token.get_secret_value()
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
            return answer.status, _object(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _object(error.read())
    except (OSError, ValueError):
        return None


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
