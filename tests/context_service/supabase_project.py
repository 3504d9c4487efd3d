"""A Supabase project with this version's schema, behind the PostgREST stand-in."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from context_service.migrate import migrate
from context_service.privacy import ContactHasher
from context_service.store.supabase import SupabaseStore
from context_service.store.supabase_client import SupabaseClient
from service_kit.clock import Clock
from tests.context_service.keys import HASHER
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer


@contextmanager
def migrated(cluster: PostgresCluster) -> Iterator[Database]:
    """A fresh database with all migrations."""
    with cluster.database(template=cluster.template("migrated", migrate_database)) as database:
        yield database


def migrate_database(database: Database) -> None:
    with database.connect() as connection:
        migrate(connection)


def store_of(
    server: PostgrestServer, clock: Clock, *, timeout_s: float = 20.0, hasher: ContactHasher = HASHER
) -> SupabaseStore:
    client = SupabaseClient(url=server.url, key=server.keys.secret, timeout_s=timeout_s, connections=20)
    return SupabaseStore(client=client, clock=clock, hasher=hasher)


@asynccontextmanager
async def supabase_store(
    cluster: PostgresCluster, clock: Clock
) -> AsyncIterator[tuple[SupabaseStore, PostgrestServer]]:
    """The store, and the project that it speaks to."""
    with migrated(cluster) as database:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:
            store = store_of(server, clock)
            try:
                yield store, server
            finally:
                await store.close()
