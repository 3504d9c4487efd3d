"""The composition root: what is opened, in which order, and closed in reverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from agentic_sdr.context.v1 import context_service_pb2, context_service_pb2_grpc
from context_service.cache import ContextCache
from context_service.lookups import Contexts
from context_service.privacy import KEY_FILE, ContactHasher, contact_hasher
from context_service.service import ContextServicer
from context_service.settings import ContextSettings
from context_service.store.opening import Opening
from context_service.store.sqlite import SqliteStore
from context_service.sweeper import Sweeper
from service_kit import logs
from service_kit.backups import Backups
from service_kit.clock import Clock, SystemClock

if TYPE_CHECKING:
    from context_service.store.supabase import SupabaseStore

_log = logs.get(__name__)
SERVICE_NAME = context_service_pb2.DESCRIPTOR.services_by_name["ContextService"].full_name


class ContextApp:
    """The context service as `service_kit.server` runs it."""

    def __init__(self, settings: ContextSettings, *, clock: Clock | None = None) -> None:
        settings.check()
        clock = clock or SystemClock()
        alone = settings.uses_supabase and not settings.privacy_key.get_secret_value()
        self._key_file = settings.data_dir / KEY_FILE if alone else None
        self._opening = _opening(settings, clock)
        self._store = self._opening.store
        self._contexts = Contexts(store=self._store, clock=clock, cache=_cache(settings))
        self._sweeper = Sweeper(store=self._store, clock=clock, retention_days=settings.retention_days)
        self._backups = Backups(data_dir=settings.data_dir, file_name="context.db")

    async def open(self) -> None:
        """Open the store. Raises ConfigurationError."""
        if self._key_file is not None:
            # The marks in the project outlive a folder that does not last; then this key is not to be had again.
            _log.warning("privacy_key_only_in_file", path=str(self._key_file))
        await self._opening.open()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Add the servicer."""
        servicer = ContextServicer(store=self._store, contexts=self._contexts, backups=self._backups)
        context_service_pb2_grpc.add_ContextServiceServicer_to_server(servicer, server)
        return (SERVICE_NAME,)

    async def ready(self) -> bool:
        """The store answers; raises when it does not."""
        await self._store.ping()
        return self._opening.done

    async def run_background(self) -> None:
        """Delete what is too old, once the store is known to be the right one."""
        await self._opening.settled()
        await self._sweeper.run()

    async def drain(self) -> None:
        """There are no long streams; a copy that is being made is given up."""
        self._backups.stop()

    async def close(self) -> None:
        """Lookups first, then the store that they use."""
        await self._contexts.close()
        await self._store.close()


async def check_project(settings: ContextSettings) -> None:
    """Whether the Supabase project fits this version; for tools that look before a service starts. Raises
    ConfigurationError; Unavailable when nobody answers."""
    store = _supabase(settings, SystemClock())
    try:
        await store.check_schema()
    finally:
        await store.close()


def _opening(settings: ContextSettings, clock: Clock) -> Opening:
    if settings.uses_supabase:
        remote = _supabase(settings, clock)
        return Opening(store=remote, check=remote.check, clock=clock)
    file = SqliteStore(path=settings.sqlite_path(), clock=clock, hasher=_hasher(settings))
    return Opening(store=file, check=file.open, clock=clock)


def _supabase(settings: ContextSettings, clock: Clock) -> SupabaseStore:
    # Its client is a third of all that this process would import, and a local file needs none of it.
    from context_service.store.supabase import SupabaseStore
    from context_service.store.supabase_client import SupabaseClient

    client = SupabaseClient(
        url=settings.supabase_url,
        key=settings.supabase_secret_key.get_secret_value(),
        timeout_s=settings.context_db_timeout_ms / 1000,
        connections=settings.context_db_connections,
    )
    return SupabaseStore(client=client, clock=clock, hasher=_hasher(settings))


def _hasher(settings: ContextSettings) -> ContactHasher:
    return contact_hasher(settings.privacy_key.get_secret_value(), settings.data_dir)


def _cache(settings: ContextSettings) -> ContextCache:
    """A local file is as fast as a cache, so there is one only in front of a remote store."""
    wanted = settings.uses_supabase and settings.context_ttl_ms > 0
    return ContextCache(
        max_entries=settings.context_cache_entries if wanted else 0,
        max_bytes=settings.context_cache_bytes,
        ttl_s=settings.context_ttl_ms / 1000,
    )
