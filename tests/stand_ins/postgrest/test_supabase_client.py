"""The same through the client that the product uses: `supabase`'s asynchronous one."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError
from supabase import AsyncClientOptions, acreate_client

from tests.stand_ins.postgrest import PostgrestServer


@pytest.fixture
async def supabase(server: PostgrestServer) -> AsyncIterator[Any]:
    async for client in supabase_with(server, server.keys.secret):
        yield client


@pytest.fixture
async def supabase_anonymous(server: PostgrestServer) -> AsyncIterator[Any]:
    async for client in supabase_with(server, server.keys.publishable):
        yield client


async def supabase_with(server: PostgrestServer, key: str) -> AsyncIterator[Any]:
    async with httpx.AsyncClient(timeout=30) as http:
        options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
        yield await acreate_client(server.url, key, options=options)


async def test_reads(supabase: Any) -> None:
    leads = supabase.table("leads")
    found = await leads.select("id, name", count="exact").gt("id", 0).order("id", desc=True).limit(2).execute()
    assert (found.data, found.count) == ([{"id": 3, "name": None}, {"id": 2, "name": "Bia"}], 3)
    nested = (
        await leads.select("id, conversations!inner(id, messages(id, content))")
        .eq("id", 1)
        .eq("conversations.open", True)
        .order("id", desc=True, foreign_table="conversations.messages")
        .limit(1, foreign_table="conversations.messages")
        .single()
        .execute()
    )
    assert nested.data == {
        "id": 1,
        "conversations": [{"id": 10, "messages": [{"id": 102, "content": "quanto custa?"}]}],
    }
    paged = await leads.select("id").order("id").range(1, 1).execute()
    assert paged.data == [{"id": 2}]
    counted = await leads.select("*", count="exact", head=True).execute()
    assert (counted.data, counted.count) == ([], 3)


async def test_filters(supabase: Any) -> None:
    def leads() -> Any:
        return supabase.table("leads").select("id").order("id")

    for query, expected in [
        (leads().eq("name", "Ana"), [1]),
        (leads().eq("interested", True), [1]),
        (leads().neq("name", "Ana"), [2]),
        (leads().is_("name", None), [3]),
        (leads().not_.is_("name", "null"), [1, 2]),
        (leads().in_("name", ["Ana", 'with "quotes", and comma', "Bia"]), [1, 2]),
        (leads().in_("name", []), []),
        (leads().like("name", "A%"), [1]),
        (leads().ilike("name", "a%"), [1]),
        (leads().contains("preferences", {"city": "Recife"}), [1]),
        (leads().contains("tags", ["solar"]), [1, 3]),
        (leads().overlaps("tags", ["hot", "x y"]), [1]),
        (leads().or_("name.eq.Ana,and(id.gt.2,name.is.null)"), [1, 3]),
        (leads().not_.or_("id.eq.1,id.eq.2"), [3]),
        (leads().gte("seen", "2025-11-02T00:00:00+00:00").lt("seen", "2025-11-03"), [2]),
        (leads().match({"name": "Bia", "stage": "INITIAL_CONTACT"}), [2]),
        (leads().filter("preferences->>city", "eq", "Olinda"), [2]),
    ]:
        assert [row["id"] for row in (await query.execute()).data] == expected, str(query.request.params)


async def test_a_value_keeps_its_commas_quotes_and_backslashes(supabase: Any) -> None:
    """In a list each element is quoted twice: for PostgREST's grammar, then for PostgreSQL's array."""
    leads = supabase.table("leads")
    awkward = ["a,b", 'say "oi"', "back\\slash", "(in) {braces}", "a.b:c", "", "null", " spaces "]
    await leads.insert([{"phone": str(n), "name": name} for n, name in enumerate(awkward)]).execute()
    for name in awkward:
        assert [row["name"] for row in (await leads.select("name").eq("name", name).execute()).data] == [name]
        if name:
            in_list = await leads.select("name").in_("name", [name, "other"]).execute()
            assert [row["name"] for row in in_list.data] == [name], name
    everything = await leads.select("name").in_("name", awkward).order("id").execute()
    assert [row["name"] for row in everything.data] == awkward


async def test_writes(supabase: Any) -> None:
    leads = supabase.table("leads")
    created = await leads.insert({"phone": "1", "name": "N", "preferences": {"a": [1]}}).execute()
    assert created.data[0]["preferences"] == {"a": [1]}
    two = [{"phone": "2", "name": "x"}, {"phone": "3"}]
    several = await leads.insert(two, default_to_null=False).execute()
    assert [row["name"] for row in several.data] == ["x", None]
    merged = await leads.upsert({"phone": "1", "name": "M"}, on_conflict="phone").execute()
    assert [(row["phone"], row["name"]) for row in merged.data] == [("1", "M")]
    left = await leads.upsert({"phone": "1", "name": "Z"}, on_conflict="phone", ignore_duplicates=True).execute()
    assert left.data == []
    chosen = await leads.update({"name": "U"}).eq("phone", "1").select("phone", "name").execute()
    assert chosen.data == [{"phone": "1", "name": "U"}]
    silent = await leads.update({"name": "U"}, returning="minimal").eq("phone", "2").execute()
    assert silent.data == []
    with pytest.raises(APIError) as refused:
        await leads.update({"name": "everybody"}).gt("id", 0).max_affected(1).execute()
    assert refused.value.code == "PGRST124"
    assert len((await leads.delete().eq("phone", "1").execute()).data) == 1


async def test_functions(supabase: Any) -> None:
    assert (await supabase.rpc("add", {"a": 1}).execute()).data == 11
    assert (await supabase.rpc("add", {"a": 1}, get=True).execute()).data == 11
    assert (await supabase.rpc("total", {"numbers": [1, 2]}, get=True).execute()).data == 3
    assert (await supabase.rpc("record", {"turn": "t"}).execute()).data == {"got": {"turn": "t"}}
    assert (await supabase.rpc("rename", {"wanted": 1, "new_name": "Zoe"}).execute()).data == []
    rows = await supabase.rpc("leads_at", {"wanted": "INITIAL_CONTACT"}).select("id").gt("id", 1).order("id").execute()
    assert rows.data == [{"id": 2}, {"id": 3}]


async def test_errors_reach_the_caller_with_their_codes(supabase: Any) -> None:
    for query, code in [
        (supabase.table("leads").select("nope"), "42703"),
        (supabase.table("nothing").select("*"), "PGRST205"),
        (supabase.table("leads").insert({"nope": 1}), "PGRST204"),
        (supabase.table("leads").insert({"phone": "5581900000001"}), "23505"),
        (supabase.table("leads").select("*").eq("id", 9).single(), "PGRST116"),
        (supabase.rpc("refuse", {"state": "P0001", "text": "no"}), "P0001"),
        (supabase.rpc("nothing", {}), "PGRST202"),
    ]:
        with pytest.raises(APIError) as refused:
            await query.execute()
        assert refused.value.code == code


async def test_the_anonymous_key_reads_nothing(supabase_anonymous: Any) -> None:
    for table in ("leads", "conversations", "messages"):
        found = await supabase_anonymous.table(table).select("*", count="exact").execute()
        assert (found.data, found.count) == ([], 0)


async def test_a_wrong_key_is_no_empty_answer(server: PostgrestServer) -> None:
    async for client in supabase_with(server, "sb_secret_wrong"):
        with pytest.raises(APIError, match="Invalid API key"):
            await client.table("leads").select("*").execute()


async def test_a_read_is_repeated_by_the_client_unless_told_not_to(server: PostgrestServer, supabase: Any) -> None:
    """Pitfall S4: it repeats GETs on 503 and 520, with sleeps of 1, 2, 4 s; the product must say `.retry(False)`."""
    server.fail("page", status=520)
    with pytest.raises(APIError) as refused:
        await supabase.table("leads").select("id").retry(False).execute()
    assert refused.value.code == "520"
    assert len(server.seen) == 1


async def test_one_connection_serves_requests_in_a_row(server: PostgrestServer, supabase: Any) -> None:
    for _ in range(5):
        await supabase.table("leads").select("id").execute()
    assert server.connections == 1
