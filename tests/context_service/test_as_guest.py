"""The contract in a project with other people's data: a real one by `make test-supabase`, otherwise the stand-in's."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from context_service.store.supabase import SupabaseStore
from context_service.store.supabase_client import SupabaseClient
from service_kit.clock import ManualClock
from tests.context_service.builders import record
from tests.context_service.guest import Project, guest_store, real_project
from tests.context_service.keys import HASHER
from tests.context_service.supabase_project import migrated
from tests.context_service.supabase_sql import rows
from tests.context_service.test_store_contract import CONTRACT
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer

ROOT = Path(__file__).parents[2]
OURS = ("leads", "conversations", "messages", "turns", "lead_aliases", "lead_changes", "usage_days", "do_not_contact")


@pytest.fixture
async def project(request: pytest.FixtureRequest) -> AsyncIterator[Project]:
    if (real := real_project()) is not None:
        yield real
        return
    with migrated(request.getfixturevalue("postgres_cluster")) as database:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:
            yield stand_in(server)


def stand_in(server: PostgrestServer) -> Project:
    return Project(url=server.url, secret_key=server.keys.secret, publishable_key=server.keys.publishable)


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
async def test_the_contract(project: Project, check: Callable[..., Any]) -> None:
    clock = ManualClock()
    arguments = {"clock": clock} if "clock" in inspect.signature(check).parameters else {}
    async with guest_store(project, clock) as store:
        await check(store, **arguments)


async def test_the_schema_is_this_versions(project: Project) -> None:
    client = SupabaseClient(url=project.url, key=project.secret_key, timeout_s=20, connections=4)
    store = SupabaseStore(client=client, clock=ManualClock(), hasher=HASHER)
    await store.check_schema()
    await store.close()


async def test_the_publishable_key_reads_nothing(project: Project) -> None:
    if not project.publishable_key:
        pytest.skip("SUPABASE_PUBLISHABLE_KEY is not set")
    async with (
        guest_store(project, ManualClock()) as store,
        httpx.AsyncClient(headers={"apikey": project.publishable_key}, timeout=30) as anybody,
    ):
        await store.record_turn(record())
        for table in OURS:
            answer = await anybody.get(f"{project.url}/rest/v1/{table}?limit=1")
            assert answer.status_code in (401, 403, 404) or answer.json() == [], table
        called = await anybody.post(f"{project.url}/rest/v1/rpc/sdr_schema_version", json={})
        assert called.status_code in (401, 403, 404)


class TestTheGuest:
    """The harness itself, on the stand-in: it must not be able to harm anybody."""

    @pytest.fixture
    def database(self, postgres_cluster: PostgresCluster) -> Any:
        with migrated(postgres_cluster) as opened:
            yield opened

    async def test_it_touches_nothing_of_the_host_and_leaves_nothing(self, database: Database) -> None:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:
            client = SupabaseClient(url=server.url, key=server.keys.secret, timeout_s=20, connections=4)
            host = SupabaseStore(client=client, clock=ManualClock(), hasher=HASHER)
            await host.record_turn(record("t1", "c1"))
            await host.forget("default", "phone:99", ("c9",), do_not_contact=True)
            await host.close()
            before = {table: rows(database, f"SELECT one FROM {table} AS one ORDER BY 1") for table in tables(database)}
            for check in CONTRACT:
                clock = ManualClock()
                arguments = {"clock": clock} if "clock" in inspect.signature(check).parameters else {}
                try:
                    async with guest_store(stand_in(server), clock) as store:
                        await check(store, **arguments)
                except pytest.skip.Exception:
                    continue
        after = {table: rows(database, f"SELECT one FROM {table} AS one ORDER BY 1") for table in tables(database)}
        assert after == before

    def test_it_needs_a_word_of_consent(self) -> None:
        everything = {"SUPABASE_URL": "https://x", "SUPABASE_SECRET_KEY": "k", "SUPABASE_TEST_PROJECT": "yes"}
        assert real_project(everything) is not None
        for name in everything:
            assert real_project({**everything, name: ""}) is None
        assert real_project({**everything, "SUPABASE_TEST_PROJECT": "1"}) is None

    @pytest.mark.parametrize(
        ("environ", "sentence"),
        [
            ({}, "Missing: SUPABASE_URL, SUPABASE_SECRET_KEY, SUPABASE_TEST_PROJECT=yes"),
            ({"SUPABASE_URL": "https://x", "SUPABASE_SECRET_KEY": "k"}, "Missing: SUPABASE_TEST_PROJECT=yes"),
        ],
    )
    def test_the_command_says_what_is_missing(self, environ: dict[str, str], sentence: str) -> None:
        done = command({**environ})
        assert done.returncode == 2 and done.stderr.startswith(sentence)
        assert done.stdout == ""

    @pytest.mark.slow
    @pytest.mark.timeout(120)
    async def test_the_command_migrates_and_runs_the_contract(self, postgres_cluster: PostgresCluster) -> None:
        with postgres_cluster.database() as empty:
            async with PostgrestServer(database_url=empty.url("authenticator")) as server:
                environ = {
                    "SUPABASE_URL": server.url,
                    "SUPABASE_SECRET_KEY": server.keys.secret,
                    "SUPABASE_DB_URL": empty.url(),
                    "SUPABASE_TEST_PROJECT": "yes",
                }
                done = await asyncio.to_thread(command, environ, "-k", "schema or repeat")
                assert done.returncode == 0, done.stdout + done.stderr
                assert "2 passed" in done.stdout and "Schema version" in done.stdout
                assert any(one.path == "rpc/sdr_record_turn" for one in server.seen)
            assert rows(empty, "SELECT count(*) FROM leads") == [(0,)]


def tables(database: Database) -> list[str]:
    listed = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    return [name for (name,) in rows(database, listed)]


def command(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.context_service.against_project", *arguments],
        env={"PATH": os.environ["PATH"], **environ},
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
