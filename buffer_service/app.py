"""The composition root of the buffer."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2, buffer_service_pb2_grpc
from buffer_service.cues import read_cue
from buffer_service.engine import Engine
from buffer_service.inbox import Inbox, Limits
from buffer_service.people import People
from buffer_service.service import BufferService
from buffer_service.settings import BufferSettings
from buffer_service.store.sqlite import SqliteStore
from service_kit.backups import Backups
from service_kit.clock import Clock, SystemClock

SERVICE_NAME = buffer_service_pb2.DESCRIPTOR.services_by_name["BufferService"].full_name
SWEEP_EVERY_MS = 600_000
DAY_MS = 86_400_000


class BufferApp:
    """Opens the store, runs the engine, registers the service."""

    def __init__(self, settings: BufferSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._servicer = BufferService()
        self._next_sweep = 0
        self._engine: Engine
        self._inbox: Inbox

    async def open(self) -> None:
        """Opens the store in the engine's thread; refuses what isn't safe."""
        path = self._settings.path
        self._engine = Engine(
            open_store=lambda: SqliteStore(path),
            policy=self._settings.policy,
            read_cue=read_cue,
            clock=self._clock,
            deliver=self._servicer.deliver,
            housekeeping=self._keep_house,
        )
        await self._engine.open()
        store, turns = self._engine.store, self._engine.turns
        limits = Limits(
            messages=self._settings.max_pending_messages,
            bytes=self._settings.max_pending_bytes,
            free_disk=self._settings.min_free_disk_bytes,
        )
        self._inbox = Inbox(store=store, turns=turns, limits=limits)
        self._servicer.attach(
            engine=self._engine,
            inbox=self._inbox,
            people=People(store=store, turns=turns),
            backups=Backups(data_dir=self._settings.data_dir, file_name="buffer.db"),
        )

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicer."""
        buffer_service_pb2_grpc.add_BufferServiceServicer_to_server(self._servicer, server)
        return [SERVICE_NAME]

    async def ready(self) -> bool:
        """The store commits."""
        await self._engine.call(lambda now: None)
        return self._engine.alive

    async def run_background(self) -> None:
        """Stops the process when the engine dies."""
        await self._engine.wait_failed()

    async def drain(self) -> None:
        """Ends the workers' streams."""
        await self._servicer.drain()

    async def close(self) -> None:
        """Closes the store."""
        await self._engine.close()

    def _keep_house(self, store: SqliteStore, now: int) -> None:
        if hasattr(self, "_inbox"):
            self._inbox.look_at_disk()
        if now >= self._next_sweep:
            swept = store.sweep(now - int(self._settings.retention_days * DAY_MS))
            if self._settings.people_retention_days:
                swept += store.sweep_people(now - int(self._settings.people_retention_days * DAY_MS))
            # In small pieces, so that nobody waits for it.
            self._next_sweep = now + (1_000 if swept else SWEEP_EVERY_MS)
