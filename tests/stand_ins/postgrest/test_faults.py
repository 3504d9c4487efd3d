"""Failures on request, what is counted, and how the stand-in behaves when its database or its client goes."""

import asyncio

import httpx
import pytest

from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import Kind, PostgrestServer
from tests.stand_ins.postgrest.conftest import client_of

RENAME = {"wanted": 1, "new_name": "Zoe"}


async def name_of_one(api: httpx.AsyncClient) -> str:
    return str((await api.get("/leads?select=name&id=eq.1")).json()[0]["name"])


async def test_a_fault_meets_only_the_requests_it_names(server: PostgrestServer, api: httpx.AsyncClient) -> None:
    server.fail("status", method="POST", path="rpc/rename", status=503, times=2)
    assert (await api.get("/leads?select=id")).status_code == 200
    assert (await api.post("/rpc/add", json={"a": 1})).status_code == 200
    for _ in range(2):
        refused = await api.post("/rpc/rename", json=RENAME)
        assert (refused.status_code, refused.json()["code"]) == (503, "STANDIN")
    assert await name_of_one(api) == "Ana"
    assert (await api.post("/rpc/rename", json=RENAME)).status_code == 204


async def test_a_proxy_s_page_is_no_json(server: PostgrestServer, api: httpx.AsyncClient) -> None:
    server.fail(Kind.PAGE, status=520)
    answer = await api.get("/leads")
    assert (answer.status_code, answer.headers["Content-Type"]) == (520, "text/html; charset=utf-8")
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()


async def test_a_delay_only_delays(server: PostgrestServer, api: httpx.AsyncClient) -> None:
    server.fail(Kind.DELAY, delay_s=0.05)
    assert (await api.post("/rpc/rename", json=RENAME)).status_code == 204
    (seen,) = server.seen
    assert seen.ended_s - seen.started_s >= 0.05
    assert await name_of_one(api) == "Zoe"


@pytest.mark.parametrize(("kind", "name"), [("reset", "Ana"), ("commit_then_reset", "Zoe")])
async def test_a_reset_before_or_after_the_commit(
    server: PostgrestServer, api: httpx.AsyncClient, kind: str, name: str
) -> None:
    """The client sees the same; what has happened differs. Why a write must bear being repeated."""
    server.fail(kind, path="rpc/rename")
    with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
        await api.post("/rpc/rename", json=RENAME)
    assert await name_of_one(api) == name
    assert [seen.status for seen in server.seen] == [0, 200]


@pytest.mark.parametrize(("kind", "name"), [("hang", "Ana"), ("commit_then_hang", "Zoe")])
async def test_a_hang_before_or_after_the_commit(
    server: PostgrestServer, api: httpx.AsyncClient, kind: str, name: str
) -> None:
    server.fail(kind, path="rpc/rename")
    with pytest.raises(httpx.ReadTimeout):
        await api.post("/rpc/rename", json=RENAME, timeout=0.3)
    while await name_of_one(api) != name:
        await asyncio.sleep(0.01)


async def test_an_error_after_the_commit(server: PostgrestServer, api: httpx.AsyncClient) -> None:
    server.fail(Kind.COMMIT_THEN_STATUS, status=502)
    assert (await api.post("/rpc/rename", json=RENAME)).status_code == 502
    assert await name_of_one(api) == "Zoe"


async def test_what_nobody_waits_for_is_still_carried_out(
    project: Database, server: PostgrestServer, api: httpx.AsyncClient
) -> None:
    """PostgREST does not stop a statement because its client has gone, so a time-out says nothing about a write."""
    project.execute("""
        CREATE FUNCTION slow_rename() RETURNS void LANGUAGE sql AS
            $$ SELECT pg_sleep(0.4); UPDATE leads SET name = 'late' WHERE id = 1 $$
    """)
    await server.reload_schema()
    with pytest.raises(httpx.ReadTimeout):
        await api.post("/rpc/slow_rename", json={}, timeout=0.1)
    assert await name_of_one(api) == "Ana"
    while await name_of_one(api) != "late":
        await asyncio.sleep(0.02)


async def test_requests_and_connections_are_counted(server: PostgrestServer, api: httpx.AsyncClient) -> None:
    await api.get("/leads?select=id")
    await api.post("/rpc/add", json={"a": 1})
    assert [(seen.method, seen.path, seen.query, seen.role, seen.status) for seen in server.seen] == [
        ("GET", "leads", "select=id", "service_role", 200),
        ("POST", "rpc/add", "", "service_role", 200),
    ]
    assert (server.connections, server.most_at_once) == (1, 1)
    await asyncio.gather(*(api.post("/rpc/wait", json={"seconds": 0.2}) for _ in range(3)))
    assert (server.connections, server.most_at_once) == (3, 3)


async def test_the_plan_of_a_request_can_be_seen(server: PostgrestServer, api: httpx.AsyncClient) -> None:
    """As the request had it: with its role's policies, and without running it again."""
    await api.get("/leads?select=name&phone=eq.5581900000001")
    await api.delete("/messages?id=eq.103")
    read, deletion = server.seen
    assert "Index Scan using leads_phone_key" in await server.plan_of(read)
    assert "Delete on messages" in await server.plan_of(deletion)
    assert len((await api.get("/messages?select=id")).json()) == 3


async def test_a_request_waits_for_a_connection_and_then_gives_up(project: Database) -> None:
    narrow = PostgrestServer(database_url=project.url("authenticator"), pool_size=1, pool_patience_s=0.05)
    async with narrow, client_of(narrow, narrow.keys.secret) as api:
        slow = asyncio.create_task(api.post("/rpc/wait", json={"seconds": 0.5}))
        while not narrow.most_at_once:
            await asyncio.sleep(0.01)
        refused = await api.get("/leads?select=id")
        assert (refused.status_code, refused.json()["code"]) == (504, "PGRST003")
        assert (await slow).status_code == 204
        assert (await api.get("/leads?select=id")).status_code == 200


async def test_a_lost_database_connection_is_503_once(project: Database, api: httpx.AsyncClient) -> None:
    assert (await api.get("/leads?select=id")).status_code == 200
    with project.connect("supabase_admin") as administrator:
        administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'authenticator'")
    lost = await api.get("/leads?select=id")
    assert (lost.status_code, lost.json()["code"]) in ((503, "57P01"), (503, "PGRST001"))
    assert (await api.get("/leads?select=id")).status_code == 200


async def test_no_database_is_503(postgres_cluster: PostgresCluster) -> None:
    with postgres_cluster.database() as database:
        database.execute("CREATE TABLE leads (id int)")
        server = PostgrestServer(database_url=database.url("authenticator"))
        await server.__aenter__()
    try:
        async with client_of(server, server.keys.secret) as api:
            answers = [await api.get("/leads") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {503}
        assert answers[-1].json()["code"] == "PGRST000"
    finally:
        await server.__aexit__()


async def test_a_taken_port_leaves_nothing_open(project: Database, server: PostgrestServer) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await PostgrestServer(database_url=project.url("authenticator"), port=server.port).__aenter__()
    assert [task.get_name() for task in asyncio.all_tasks()].count("postgrest-schema-listener") == 1, "the first one's"


async def test_a_changed_schema_is_noticed(project: Database, api: httpx.AsyncClient) -> None:
    project.execute("CREATE TABLE news (id int); INSERT INTO news VALUES (1)")
    while (answer := await api.get("/news")).status_code == 404:
        await asyncio.sleep(0.01)
    assert answer.json() == [{"id": 1}]


async def test_a_deferred_constraint_fails_at_the_commit(
    project: Database, server: PostgrestServer, api: httpx.AsyncClient
) -> None:
    project.execute("""
        CREATE TABLE notes (id int PRIMARY KEY, lead_id int REFERENCES leads DEFERRABLE INITIALLY DEFERRED)
    """)
    await server.reload_schema()
    refused = await api.post("/notes", json={"id": 1, "lead_id": 99})
    assert (refused.status_code, refused.json()["code"]) == (409, "23503")
    assert (await api.get("/notes")).json() == []


async def test_concurrent_merges_make_one_row(api: httpx.AsyncClient) -> None:
    merge = {"Prefer": "resolution=merge-duplicates"}
    answers = await asyncio.gather(
        *(api.post("/leads?on_conflict=phone", json={"phone": "1", "name": str(n)}, headers=merge) for n in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len((await api.get("/leads?phone=eq.1")).json()) == 1
