"""Who may ask, and what the anonymous key sees."""

import time

import httpx

from tests.stand_ins.postgres import Database
from tests.stand_ins.postgrest import PostgrestServer, legacy_key
from tests.stand_ins.postgrest.conftest import client_of

TABLES = ("leads", "conversations", "messages")


async def test_the_anonymous_key_reads_no_row_of_a_table_with_row_level_security(anonymous: httpx.AsyncClient) -> None:
    for table in TABLES:
        answer = await anonymous.get(f"/{table}", headers={"Prefer": "count=exact"})
        assert (answer.json(), answer.headers["Content-Range"]) == ([], "*/0")
    assert (await anonymous.get("/profiles")).json() == [{"lead_id": 1, "note": "sunny"}], "the one without"


async def test_the_anonymous_key_writes_nothing(anonymous: httpx.AsyncClient, api: httpx.AsyncClient) -> None:
    refused = await anonymous.post("/leads", json={"phone": "1"})
    assert (refused.status_code, refused.json()["code"]) == (401, "42501")
    show = {"Prefer": "return=representation"}
    assert (await anonymous.patch("/leads?id=eq.1", json={"name": "x"}, headers=show)).json() == []
    assert (await anonymous.delete("/leads?id=eq.1", headers=show)).json() == []
    assert (await api.get("/leads?select=name&id=eq.1")).json() == [{"name": "Ana"}]


async def test_a_revoked_privilege_is_401_for_the_anonymous_and_403_for_others(
    project: Database, anonymous: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    project.execute("REVOKE ALL ON leads FROM anon, service_role")
    for client, status in ((anonymous, 401), (api, 403)):
        answer = await client.get("/leads")
        assert (answer.status_code, answer.json()["code"]) == (status, "42501")
        assert answer.json()["message"] == "permission denied for table leads"
    assert (await anonymous.get("/leads")).headers["WWW-Authenticate"] == "Bearer"


async def test_legacy_keys_are_the_same_roles(server: PostgrestServer) -> None:
    for key, role in ((server.keys.legacy_service, "service_role"), (server.keys.legacy_anonymous, "anon")):
        async with client_of(server, key) as client:
            assert (await client.post("/rpc/whoami", json={})).json()["role"] == role


async def test_no_key_and_a_wrong_key(server: PostgrestServer) -> None:
    async with httpx.AsyncClient(base_url=f"{server.url}/rest/v1", timeout=30) as client:
        absent = await client.get("/leads")
        assert (absent.status_code, absent.json()["message"]) == (401, "No API key found in request")
        assert set(absent.json()) == {"message", "hint"}, "the gateway's own body, without a code"
        for key in ("sb_secret_wrong", legacy_key("service_role", secret="x" * 40), "x"):
            wrong = await client.get("/leads", headers={"apikey": key, "Authorization": f"Bearer {key}"})
            assert (wrong.status_code, wrong.json()["message"]) == (401, "Invalid API key")


async def test_a_bad_token_beside_a_good_key(server: PostgrestServer) -> None:
    for token, code in [
        (legacy_key("authenticated", exp=int(time.time()) - 60), "PGRST303"),
        (legacy_key("service_role", secret="y" * 40), "PGRST301"),
        ("sb_secret_other", "PGRST301"),
        ("a.b.c", "PGRST301"),
    ]:
        headers = {"apikey": server.keys.publishable, "Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(headers=headers, timeout=30) as client:
            answer = await client.get(f"{server.url}/rest/v1/leads")
        assert (answer.status_code, answer.json()["code"]) == (401, code), token


async def test_a_users_token_decides_the_role_and_its_claims_reach_the_policies(
    project: Database, server: PostgrestServer
) -> None:
    project.execute("CREATE POLICY own ON leads TO authenticated USING (phone = auth.jwt() ->> 'phone')")
    token = legacy_key("authenticated", phone="5581900000002")
    async with client_of(server, server.keys.secret) as client:
        mine = await client.get("/leads?select=id", headers={"Authorization": f"Bearer {token}"})
        assert mine.json() == [{"id": 2}], "though the key is the secret one: pitfall S1"
        nobody = legacy_key("nobody_s_role")
        refused = await client.get("/leads", headers={"Authorization": f"Bearer {nobody}"})
        assert (refused.status_code, refused.json()["code"]) == (401, "22023")


async def test_a_role_ends_with_its_transaction(project: Database) -> None:
    """Both clients get the same connection of a pool of one."""
    async with (
        PostgrestServer(database_url=project.url("authenticator"), pool_size=1) as narrow,
        client_of(narrow, narrow.keys.secret) as secret,
        client_of(narrow, narrow.keys.publishable) as anonymous,
    ):
        for _ in range(3):
            assert len((await secret.get("/leads")).json()) == 3
            assert (await anonymous.get("/leads")).json() == []
            limits = [(await one.post("/rpc/whoami", json={})).json()["timeout"] for one in (anonymous, secret)]
            assert limits == ["3s", "8s"], "nor does the role's time limit stay"
