"""What tests of more than one folder share: one PostgreSQL per run, started when the first test asks for it; and logs
that are as they were after each test."""

import logging
from collections.abc import Iterator

import pytest
import structlog

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


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A command that is tried in this process configures them for its own; the next test would see no line."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
