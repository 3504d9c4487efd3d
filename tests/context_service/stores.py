"""Every store that has to keep the contract, by name. A new one joins by adding its home."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from context_service.cache import ContextCache
from context_service.store import ContextStore
from context_service.store.sqlite import SqliteStore
from service_kit.clock import ManualClock
from tests.context_service.keys import HASHER
from tests.context_service.supabase_project import migrated, store_of
from tests.stand_ins.postgres import PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer

Cluster = Callable[[], PostgresCluster]
Open = Callable[[], Awaitable[ContextStore]]
"""A store over the same data, as a new process has it."""
Home = Callable[[Path, ManualClock, Cluster], AbstractAsyncContextManager[Open]]
Factory = Callable[[Path, ManualClock, Cluster], AbstractAsyncContextManager[ContextStore]]


def sqlite_store(path: Path, clock: ManualClock, kind: type[SqliteStore] = SqliteStore) -> SqliteStore:
    return kind(path=path, clock=clock, hasher=HASHER)


def sqlite_home(kind: type[SqliteStore] = SqliteStore) -> Home:
    """Where a file is; `kind` may be a broken one."""

    @asynccontextmanager
    async def home(folder: Path, clock: ManualClock, _: Cluster) -> AsyncIterator[Open]:
        async def opened() -> ContextStore:
            store = sqlite_store(folder / "context.db", clock, kind)
            await store.open()
            return store

        yield opened

    return home


@asynccontextmanager
async def supabase_home(_: Path, clock: ManualClock, cluster: Cluster) -> AsyncIterator[Open]:
    with migrated(cluster()) as database:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:

            async def opened() -> ContextStore:
                return store_of(server, clock)

            yield opened


def once(home: Home) -> Factory:
    """One store in a home of its own."""

    @asynccontextmanager
    async def factory(folder: Path, clock: ManualClock, cluster: Cluster) -> AsyncIterator[ContextStore]:
        async with home(folder, clock, cluster) as opened:
            store = await opened()
            try:
                yield store
            finally:
                await store.close()

    return factory


def no_cache() -> ContextCache:
    return ContextCache(max_entries=0, max_bytes=0, ttl_s=0)


HOMES: dict[str, Home] = {"sqlite": sqlite_home(), "supabase": supabase_home}
STORES: dict[str, Factory] = {name: once(home) for name, home in HOMES.items()}
