"""A gRPC service as a process.

How a `__main__` uses it::

    def main() -> NoReturn:
        with starting("buffer"):
            settings = load(BufferSettings)
        run(lambda: BufferService(settings), config=ServerConfig(service="buffer", address=settings.address))
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self, runtime_checkable

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service_kit import health, logs
from service_kit.channels import KEEPALIVE_OPTIONS, MESSAGE_OPTIONS, Options
from service_kit.interceptors import InFlight, server_interceptors
from service_kit.ports import require_free
from service_kit.process import Application, run_app, starting
from service_kit.settings import ConfigurationError
from service_kit.watchdog import LoopWatchdog

__all__ = ["Application", "Server", "ServerConfig", "Service", "run", "run_app", "starting"]

_POLL_S = 0.5
_READY_TIMEOUT_S = 2.0
_CLEANUP_S = 2.0
_log = logs.get(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How a service listens and how long it may take to stop."""

    service: str
    address: str
    max_concurrent_streams: int = 256
    grace_s: float = 13.0


class Service(Protocol):
    """One per process; the composition root implements it. It may have a `run_background` too, see below."""

    async def open(self) -> None:
        """Open everything; on failure, clean up and raise."""
        ...

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Add the servicers and return their full names, for health and reflection."""
        ...

    async def ready(self) -> bool:
        """The current truth about the service's own store or model; asked every half second."""
        ...

    async def drain(self) -> None:
        """Stop was requested and health says so: end long streams."""
        ...

    async def close(self) -> None:
        """Close what was opened, in reverse."""
        ...


@runtime_checkable
class HasBackground(Protocol):
    """A service with a side task. If the task raises, the process stops."""

    async def run_background(self) -> None:
        """Run beside the server; cancelled when the server has stopped."""
        ...


class Server:
    """A service on its address, without signals: `async with Server(service, config) as server`."""

    def __init__(self, service: Service, config: ServerConfig, *, watchdog: LoopWatchdog | None = None) -> None:
        self._service = service
        self._config = config
        self._watchdog = watchdog
        self._in_flight = InFlight()
        self._health = health.Health()
        self._serving = False
        self._announced = False
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server: grpc.aio.Server | None = None
        self.port = 0
        self.address = config.address

    async def start(self) -> None:
        """Open the service, listen, and report it ready once it is."""
        # Before the store is opened: a forgotten old process must be found out before two of them share it.
        require_free(self._config.address)
        await self._service.open()
        try:
            self._server = await self._listen()
        except BaseException:
            await self._service.close()
            raise
        await self._poll_once()
        self._spawn(self._poll(), name="health")
        if isinstance(self._service, HasBackground):
            self._spawn(self._service.run_background(), name="background")

    async def stop(self) -> None:
        """Drain within the grace and close; raises what a side task died of."""
        await self.drain()
        await self.close()
        if self._failure.done():
            self._failure.result()

    async def drain(self) -> None:
        """Health first, then the service's long streams, then every call, all within the grace."""
        ends_at = time.monotonic() + self._config.grace_s
        self._health.end()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._config.grace_s):
                await self._service.drain()
        except Exception:
            _log.error("drain_failed", exc_info=True)
        if self._server is not None:
            await self._server.stop(max(0.0, ends_at - time.monotonic()))
        await self._in_flight.wait_idle(_CLEANUP_S)
        _log.info("service_drained")

    async def close(self) -> None:
        """Stop the side tasks and close the service."""
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._service.close()

    async def wait_failed(self) -> None:
        """Return never, or raise what a side task died of."""
        await asyncio.shield(self._failure)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _listen(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[self._in_flight, *server_interceptors()], options=_server_options(self._config)
        )
        registered = tuple(self._service.register(server))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection([*registered, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        self._health.set(names=registered, serving=False)
        try:
            port = server.add_insecure_port(self._config.address)
        except RuntimeError:
            require_free(self._config.address)
            raise ConfigurationError(f"cannot listen on {self._config.address}") from None
        if not self._config.address.startswith("unix:"):
            self.port = port
            self.address = f"{self._config.address.rpartition(':')[0]}:{port}"
        await server.start()
        return server

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            await self._poll_once()

    async def _poll_once(self) -> None:
        serving = await self._is_ready() and (self._watchdog is None or self._watchdog.healthy)
        if serving == self._serving and self._announced:
            return
        self._health.set(serving=serving)
        if serving:
            _log.info("service_ready", listening=self.address, port=self.port)
        else:
            _log.warning("service_not_ready", listening=self.address)
        self._serving, self._announced = serving, True

    async def _is_ready(self) -> bool:
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                return await self._service.ready()
        except Exception as error:
            _log.warning("readiness_check_failed", error=type(error).__name__)
            return False

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=f"{self._config.service}-{name}")
        task.add_done_callback(self._on_task_done)
        self._tasks.append(task)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)


def run(service_factory: Callable[[], Service], *, config: ServerConfig) -> NoReturn:
    """Run the service as this process until a signal; see `service_kit.process` for the exit codes."""
    watchdog = LoopWatchdog()
    run_app(lambda: _GrpcApplication(service_factory(), config, watchdog), service=config.service, watchdog=watchdog)


class _GrpcApplication:
    def __init__(self, service: Service, config: ServerConfig, watchdog: LoopWatchdog) -> None:
        self._server = Server(service, config, watchdog=watchdog)

    async def open(self) -> None:
        await self._server.start()

    async def serve_until(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait(), name="stop")
        failing = asyncio.create_task(self._server.wait_failed(), name="failure")
        done, pending = await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for task in done:
            task.result()

    async def drain(self) -> None:
        await self._server.drain()

    async def close(self) -> None:
        await self._server.close()


def _server_options(config: ServerConfig) -> Options:
    return [
        *KEEPALIVE_OPTIONS,
        *MESSAGE_OPTIONS,
        # On by default, and then two processes can share a port without a word.
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.max_concurrent_streams", config.max_concurrent_streams),
        ("grpc.max_metadata_size", 16_384),
    ]
