"""The standard health service, not serving until told otherwise, whose watches end when the server does."""

import asyncio
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_kit.errors import NotFound

SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """Replaces the library's servicer, which starts as SERVING and whose open watches eat the whole grace of a stop."""

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset({""})
        self._serving = False
        self._ended = False
        self._changed = asyncio.Event()

    def set(self, *, names: Iterable[str] | None = None, serving: bool) -> None:
        """Change the status of all services, and first what they are called."""
        if names is not None:
            self._names = frozenset({"", *names})
        self._serving = serving and not self._ended
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self) -> None:
        """Not serving from now on; every watch says so and ends."""
        self._ended = True
        self.set(serving=False)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        if request.service not in self._names:
            raise NotFound(f"no service {request.service}")
        return self._response(request.service)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        told = None
        while True:
            # All three before the write: what changes during it is seen in the next round.
            changed, ended = self._changed, self._ended
            now = self._response(request.service)
            if now != told:
                await context.write(now)
            told = now
            if ended:
                return
            await changed.wait()

    def _response(self, name: str) -> health_pb2.HealthCheckResponse:
        if name not in self._names:
            return _Response(status=_Response.SERVICE_UNKNOWN)
        return _Response(status=_Response.SERVING if self._serving else _Response.NOT_SERVING)
