"""What tests of more than one folder share: one PostgreSQL per run, started when the first test asks for it."""

from collections.abc import Iterator

import pytest

from tests.stand_ins.postgres import Database, PostgresCluster


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """The run's server. Whatever a test makes in it, it makes in a database of its own."""
    with PostgresCluster.running() as cluster:
        yield cluster


@pytest.fixture
def database(postgres_cluster: PostgresCluster) -> Iterator[Database]:
    """An empty Supabase project's database, for this test alone."""
    with postgres_cluster.database() as database:
        yield database
