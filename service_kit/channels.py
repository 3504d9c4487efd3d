"""The client's side of a connection between services: one channel per peer for the life of the process."""

import asyncio
import json
from collections.abc import Sequence

import grpc

from service_kit.interceptors import client_interceptors

MAX_MESSAGE_BYTES = 16 * 1024 * 1024

Options = list[tuple[str, int | str]]

# Without ping_timeout_ms a stopped peer is not noticed: keepalive_timeout_ms alone does not bound it (grpcio 1.85).
KEEPALIVE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
MESSAGE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)


class ServiceChannel:
    """A persistent channel with our options and interceptors; create it inside the running loop."""

    def __init__(self, target: str, *, name: str, service_config: str | None = None) -> None:
        self.target = target
        self.name = name
        self.channel: grpc.aio.Channel = grpc.aio.insecure_channel(
            target, options=client_options(service_config=service_config), interceptors=client_interceptors()
        )

    async def warm(self, timeout_s: float) -> bool:
        """Connect ahead of the first call; False when the peer is not there in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.channel.channel_ready()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close the connection; calls still running are cancelled."""
        await self.channel.close()


def client_options(*, service_config: str | None = None) -> Options:
    """Channel options for talking to another service."""
    options: Options = [
        *KEEPALIVE_OPTIONS,
        *MESSAGE_OPTIONS,
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 1),
        # A proxy for the outside world is none for our own services.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        # A restarted peer is found within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if service_config is not None:
        options.append(("grpc.service_config", service_config))
    return options


def retry_config(*, service: str, idempotent_methods: Sequence[str]) -> str:
    """A gRPC service config that retries those methods and no other: a retry may run a handler twice."""
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [{"service": service, "method": method} for method in idempotent_methods]
    # An empty list of names would be the default for every method.
    methods = [{"name": names, "retryPolicy": policy}] if names else []
    return json.dumps({"methodConfig": methods, "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}})
