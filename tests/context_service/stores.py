"""Every store that has to keep the contract, by name. A new one joins by adding its factory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from context_service.cache import ContextCache
from context_service.store import ContextStore
from context_service.store.sqlite import SqliteStore
from service_kit.clock import ManualClock
from tests.context_service.keys import HASHER
from tests.context_service.supabase_project import supabase_store
from tests.stand_ins.postgres import PostgresCluster

Cluster = Callable[[], PostgresCluster]
Factory = Callable[[Path, ManualClock, Cluster], AbstractAsyncContextManager[ContextStore]]


def sqlite_store(path: Path, clock: ManualClock) -> SqliteStore:
    return SqliteStore(path=path, clock=clock, hasher=HASHER)


@asynccontextmanager
async def sqlite(folder: Path, clock: ManualClock, _: Cluster) -> AsyncIterator[ContextStore]:
    store = sqlite_store(folder / "context.db", clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def supabase(_: Path, clock: ManualClock, cluster: Cluster) -> AsyncIterator[ContextStore]:
    async with supabase_store(cluster(), clock) as (store, _server):
        yield store


def no_cache() -> ContextCache:
    return ContextCache(max_entries=0, max_bytes=0, ttl_s=0)


STORES: dict[str, Factory] = {"sqlite": sqlite, "supabase": supabase}
