"""A project with this version's schema, and its data API."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.context_service.supabase_project import migrated
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer


@pytest.fixture
def project(postgres_cluster: PostgresCluster) -> Iterator[Database]:
    """The database behind the API, for this test alone."""
    with migrated(postgres_cluster) as database:
        yield database


@pytest.fixture
async def server(project: Database) -> AsyncIterator[PostgrestServer]:
    """Its data API."""
    async with PostgrestServer(database_url=project.url("authenticator")) as opened:
        yield opened
