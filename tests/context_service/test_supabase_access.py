"""Who may read and write: the secret key, and nobody else. Lists come from the catalog, so that nothing is missed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service_kit.clock import SystemClock
from tests.context_service.builders import generation, record, update
from tests.context_service.monolith import MONOLITHS
from tests.context_service.supabase_project import migrate_database, store_of
from tests.stand_ins.postgres import Database
from tests.stand_ins.postgrest import PostgrestServer, legacy_key

FOREIGN = {"follow_ups", "meetings"}
"""Tables of the grown system that hang on ours, and are none of ours."""
TABLES = "relnamespace = 'public'::regnamespace AND relkind = 'r'"


@pytest.fixture(params=["", *MONOLITHS])
async def server(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[PostgrestServer]:
    """A project with rows in every table: a new one, or one of the system before, which let everybody in."""
    database.execute(MONOLITHS.get(request.param, "SELECT"))
    migrate_database(database)
    async with PostgrestServer(database_url=database.url("authenticator")) as opened:
        store = store_of(opened, SystemClock())
        await store.record_turn(record("t1", "c1", contact="5511", effects=[generation(prompt_tokens=1)]))
        await store.record_turn(
            record("t2", "c1", contact="5511", effects=[update(name="Ana")], merged_conversation_ids=["c2"])
        )
        await store.forget("default", "phone:5522", ("c9",), do_not_contact=True)
        await store.close()
        yield opened


@pytest.fixture(params=["publishable", "legacy_anonymous", "authenticated", "authenticated_as_key"])
async def outsider(request: pytest.FixtureRequest, server: PostgrestServer) -> AsyncIterator[httpx.AsyncClient]:
    """Everybody who is not the context service."""
    keys, who = server.keys, request.param
    headers = {"apikey": keys.publishable}
    if who == "legacy_anonymous":
        headers = {"apikey": keys.legacy_anonymous, "Authorization": f"Bearer {keys.legacy_anonymous}"}
    elif who != "publishable":
        token = legacy_key("authenticated", sub="00000000-0000-0000-0000-00000000000a", phone="5581999990001")
        headers |= {"Authorization": f"Bearer {token}"}
        if who == "authenticated_as_key":
            headers["apikey"] = keys.legacy_anonymous
    async with httpx.AsyncClient(base_url=f"{server.url}/rest/v1", headers=headers, timeout=30) as client:
        yield client


def names(database: Database, statement: str) -> list[str]:
    with database.connect() as connection:
        return [name for (name,) in connection.execute(statement.encode()).fetchall()]


def relations(database: Database) -> list[str]:
    found = names(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')",
    )
    return [name for name in found if name not in FOREIGN]


async def test_nobody_reads_a_row_of_any_relation(
    server: PostgrestServer, outsider: httpx.AsyncClient, database: Database
) -> None:
    found = relations(database)
    assert {"leads", "turns", "sdr_migrations", "do_not_contact"} <= set(found) and len(found) >= 11
    for name in found:
        answer = await outsider.get(f"/{name}", params={"select": "*"})
        assert answer.status_code in (401, 403) or answer.json() == [], name


async def test_the_secret_key_finds_rows_in_all_of_them(server: PostgrestServer, database: Database) -> None:
    """Otherwise the test above would be as green on empty tables."""
    headers = {"apikey": server.keys.secret}
    async with httpx.AsyncClient(base_url=f"{server.url}/rest/v1", headers=headers, timeout=30) as client:
        for name in names(database, f"SELECT relname FROM pg_class WHERE {TABLES}"):
            if name not in FOREIGN:
                assert len((await client.get(f"/{name}?limit=1")).json()) == 1, name


async def test_nobody_writes(server: PostgrestServer, outsider: httpx.AsyncClient, database: Database) -> None:
    before = contents(database)
    for name in relations(database):
        for method, json in (("POST", {}), ("PATCH", {}), ("DELETE", None)):
            answer = await outsider.request(method, f"/{name}?limit=1", json=json)
            refused = answer.status_code in (400, 401, 403, 404, 405, 409, 501)
            assert refused or answer.json() == [], (method, name, answer.text)
    lead = names(database, "SELECT id FROM leads LIMIT 1")[0]
    for method, path, body in (
        ("POST", "/leads", {"phone_number": "1"}),
        ("PATCH", f"/leads?id=eq.{lead}", {"name": "x"}),
        ("DELETE", f"/leads?id=eq.{lead}", None),
        ("DELETE", "/messages?sequence=gt.0", None),
    ):
        assert (await outsider.request(method, path, json=body)).status_code in (401, 403)
    assert contents(database) == before


async def test_nobody_calls_a_function_of_ours(
    server: PostgrestServer, outsider: httpx.AsyncClient, database: Database
) -> None:
    functions: list[Any] = []
    with database.connect() as connection:
        functions = connection.execute(
            b"SELECT proname, coalesce(proargnames, '{}') FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
            b"AND prorettype <> 'trigger'::regtype"
        ).fetchall()
    assert len(functions) >= 20 and all(name.startswith("sdr_") for name, _ in functions), "something nobody listed"
    for name, arguments in functions:
        answer = await outsider.post(f"/rpc/{name}", json=dict.fromkeys(arguments))
        assert answer.status_code in (401, 403), (name, answer.text)
        assert answer.json()["code"] == "42501", (name, answer.text)


def test_every_table_has_row_level_security_and_no_policy(server: PostgrestServer, database: Database) -> None:
    """Even if somebody grants them again, as the project's default privileges do with new tables."""
    unprotected = names(
        database,
        f"SELECT relname FROM pg_class WHERE {TABLES} AND NOT relrowsecurity",
    )
    assert set(unprotected) <= FOREIGN
    assert names(database, "SELECT policyname FROM pg_policies") == []
    database.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO anon")
    with database.connect("authenticator") as connection:
        connection.execute("SET ROLE anon")
        assert connection.execute("SELECT count(*) FROM leads").fetchone() == (0,)


def test_no_function_has_its_owners_rights(server: PostgrestServer, database: Database) -> None:
    assert names(database, "SELECT proname FROM pg_proc WHERE prosecdef AND proname LIKE 'sdr%'") == []


def contents(database: Database) -> dict[str, str]:
    with database.connect() as connection:
        return {
            name: str(connection.execute(f"SELECT * FROM {name} ORDER BY 1".encode()).fetchall())
            for name in relations(database)
        }
