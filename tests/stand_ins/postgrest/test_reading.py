"""GET: columns, filters, order, windows, counts and embedded tables, as PostgREST documents them."""

from typing import Any

import httpx

from tests.stand_ins.postgrest import PostgrestServer

FILTERS = {
    "id=eq.1": [1],
    "id=neq.1": [2, 3],
    "id=gt.1": [2, 3],
    "id=gte.2": [2, 3],
    "id=lt.2": [1],
    "id=lte.2": [1, 2],
    "name=eq.": [],
    "name=like.A*": [1],
    "name=like.a*": [],
    "name=ilike.a%25": [1],
    "name=match.^B": [2],
    "name=imatch.^b": [2],
    "name=is.null": [3],
    "name=not.is.null": [1, 2],
    "name=is.not_null": [1, 2],
    "interested=is.true": [1],
    "interested=is.FALSE": [2],
    "interested=is.unknown": [3],
    "id=in.(1,3)": [1, 3],
    'name=in.("Ana","Bia, a second")': [1],
    "id=in.()": [],
    "id=not.in.(1,3)": [2],
    'preferences=cs.{"city":"Recife"}': [1],
    "tags=cs.{solar}": [1, 3],
    "tags=cd.{solar,other}": [2, 3],
    "tags=ov.{hot,cold}": [1],
    "preferences->>city=eq.Olinda": [2],
    "preferences->roof->>area=eq.40": [1],
    "preferences->roof->area=eq.40": [1],
    "seen=gte.2025-11-02T00:00:00Z": [2],
    "bill=gt.400": [2],
    "or=(id.eq.1,id.eq.3)": [1, 3],
    "and=(id.gt.1,id.lt.3)": [2],
    "or=(name.is.null,and(id.gt.1,bill.gt.1))": [2, 3],
    "not.or=(id.eq.1,id.eq.3)": [2],
    "or=(not.and(id.gt.1,id.lt.3),name.eq.Bia)": [1, 2, 3],
    'or=(name.in.("Ana",x),tags.cs.{solar,hot})': [1],
    'or=(name.eq."An,a",name.eq."Bia")': [2],
    "id=gt.1&name=eq.Bia": [2],
    "id=gt.1&id=lt.3": [2],
}


async def rows(api: httpx.AsyncClient, url: str, **headers: str) -> Any:
    answer = await api.get(url, headers=headers)
    assert answer.is_success, answer.text
    return answer.json()


async def test_filters(api: httpx.AsyncClient) -> None:
    for query, expected in FILTERS.items():
        found = await rows(api, f"/leads?select=id&order=id&{query}")
        assert [row["id"] for row in found] == expected, query


async def test_all_columns_are_the_default(api: httpx.AsyncClient) -> None:
    everything = await rows(api, "/profiles")
    assert everything == [{"lead_id": 1, "note": "sunny"}]
    assert await rows(api, "/profiles?select=*") == everything


async def test_columns_are_renamed_cast_and_taken_out_of_json(api: httpx.AsyncClient) -> None:
    select = "who:name,bill::text,n:id::int,preferences->roof->area,preferences->>city,roof:preferences->roof,tags->0"
    assert await rows(api, f"/leads?id=eq.1&select={select}") == [
        {"who": "Ana", "bill": "400.00", "n": 1, "area": 40, "city": "Recife", "roof": {"area": 40}, "tags": "solar"}
    ]


async def test_values_look_as_postgresql_writes_json(api: httpx.AsyncClient) -> None:
    answer = await api.get("/leads?id=eq.1&select=bill,seen,interested,tags,preferences")
    assert answer.text == (
        '[{"bill":400.00,"seen":"2025-11-01T00:00:00+00:00","interested":true,"tags":["solar","hot"],'
        '"preferences":{"city": "Recife", "roof": {"area": 40}}}]'
    )
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_order(api: httpx.AsyncClient) -> None:
    for order, expected in [
        ("id.desc", [3, 2, 1]),
        ("bill", [1, 2, 3]),
        ("bill.desc", [3, 2, 1]),
        ("bill.desc.nullslast", [2, 1, 3]),
        ("bill.nullsfirst", [3, 1, 2]),
        ("bill.asc.nullsfirst,id", [3, 1, 2]),
        ("preferences->>city.desc.nullslast", [1, 2, 3]),
    ]:
        found = await rows(api, f"/leads?select=id&order={order}")
        assert [row["id"] for row in found] == expected, order


async def test_windows_and_counts(api: httpx.AsyncClient) -> None:
    exact = {"Prefer": "count=exact"}
    for query, headers, status, span, ids in [
        ("", {}, 200, "0-2/*", [1, 2, 3]),
        ("", exact, 200, "0-2/3", [1, 2, 3]),
        ("&limit=2", {}, 200, "0-1/*", [1, 2]),
        ("&limit=2", exact, 206, "0-1/3", [1, 2]),
        ("&limit=2&offset=2", exact, 206, "2-2/3", [3]),
        ("&offset=3", exact, 206, "*/3", []),
        ("&limit=0", exact, 206, "*/3", []),
        ("&id=gt.9", exact, 200, "*/0", []),
        ("", {"Range": "1-1", "Range-Unit": "items", **exact}, 206, "1-1/3", [2]),
        ("", {"Range": "1-"}, 200, "1-2/*", [2, 3]),
        ("&limit=1", {"Range": "1-5"}, 200, "1-1/*", [2]),
    ]:
        answer = await api.get(f"/leads?select=id&order=id{query}", headers=headers)
        seen = (answer.status_code, answer.headers["Content-Range"], [row["id"] for row in answer.json()])
        assert seen == (status, span, ids), (query, headers)


async def test_a_planned_count_is_postgresqls_estimate(api: httpx.AsyncClient) -> None:
    answer = await api.get("/leads?select=id&id=gt.1", headers={"Prefer": "count=planned"})
    assert int(answer.headers["Content-Range"].partition("/")[2]) > 0
    assert answer.headers["Preference-Applied"] == "count=planned"


async def test_no_read_yields_more_than_max_rows_and_nothing_says_so(
    server: PostgrestServer, api: httpx.AsyncClient
) -> None:
    server.max_rows = 2
    answer = await api.get("/leads?select=id&order=id&limit=50")
    assert (answer.status_code, answer.headers["Content-Range"]) == (200, "0-1/*")
    assert await rows(api, "/leads?select=id&order=id&offset=2") == [{"id": 3}]
    embedded = await rows(api, "/conversations?select=messages(id)&id=eq.10&messages.order=id")
    assert embedded == [{"messages": [{"id": 100}, {"id": 101}]}]
    assert (await api.post("/rpc/numbers", json={"upto": 9})).json() == [1, 2]
    counted = await api.get("/leads?select=id", headers={"Prefer": "count=exact"})
    assert (counted.status_code, counted.headers["Content-Range"]) == (206, "0-1/3")


async def test_head_counts_without_a_body(api: httpx.AsyncClient) -> None:
    answer = await api.head("/leads?select=id", headers={"Prefer": "count=exact"})
    assert (answer.status_code, answer.headers["Content-Range"], answer.content) == (200, "0-2/3", b"")


async def test_one_object(api: httpx.AsyncClient) -> None:
    one = {"Accept": "application/vnd.pgrst.object+json"}
    answer = await api.get("/leads?select=id&id=eq.1", headers=one)
    assert answer.json() == {"id": 1}
    assert answer.headers["Content-Type"].startswith("application/vnd.pgrst.object+json")
    for query, number in (("id=eq.9", 0), ("id=gt.1", 2)):
        refused = await api.get(f"/leads?{query}", headers=one)
        assert refused.status_code == 406
        assert refused.json() == {
            "code": "PGRST116",
            "details": f"The result contains {number} rows",
            "hint": None,
            "message": "Cannot coerce the result to a single JSON object",
        }


async def test_related_tables_are_embedded_along_foreign_keys(api: httpx.AsyncClient) -> None:
    select = "id,conversations(id,messages(id,role))"
    order = "order=id&conversations.order=id.desc&conversations.messages.order=id.desc&conversations.messages.limit=2"
    assert await rows(api, f"/leads?select={select}&{order}") == [
        {
            "id": 1,
            "conversations": [
                {"id": 11, "messages": []},
                {"id": 10, "messages": [{"id": 102, "role": "user"}, {"id": 101, "role": "assistant"}]},
            ],
        },
        {"id": 2, "conversations": [{"id": 12, "messages": [{"id": 103, "role": "user"}]}]},
        {"id": 3, "conversations": []},
    ]


async def test_a_table_that_we_point_to_is_one_object(api: httpx.AsyncClient) -> None:
    select = "id,talk:conversations(id,lead:leads(name))"
    assert await rows(api, f"/messages?select={select}&id=eq.103") == [
        {"id": 103, "talk": {"id": 12, "lead": {"name": "Bia"}}}
    ]
    # A foreign key that is unique makes it one object from the other side too.
    assert await rows(api, "/leads?select=id,profiles(note)&order=id&limit=2") == [
        {"id": 1, "profiles": {"note": "sunny"}},
        {"id": 2, "profiles": None},
    ]


async def test_inner_embeds_filter_their_parents_and_others_do_not(api: httpx.AsyncClient) -> None:
    open_only = "conversations.open=is.true&conversations.id=gt.11&order=id"
    outer = await rows(api, f"/leads?select=id,conversations(id)&{open_only}")
    assert outer == [
        {"id": 1, "conversations": []},
        {"id": 2, "conversations": [{"id": 12}]},
        {"id": 3, "conversations": []},
    ]
    inner = await api.get(f"/leads?select=id,conversations!inner(id)&{open_only}", headers={"Prefer": "count=exact"})
    assert inner.json() == [{"id": 2, "conversations": [{"id": 12}]}]
    assert inner.headers["Content-Range"] == "0-0/1"
    to_one = await rows(api, "/conversations?select=id,leads!inner(name)&leads.name=eq.Bia")
    assert to_one == [{"id": 12, "leads": {"name": "Bia"}}]


async def test_filters_on_an_embed_may_be_logic(api: httpx.AsyncClient) -> None:
    query = "select=id,messages(id)&id=eq.10&messages.or=(id.eq.100,id.eq.102)&messages.order=id"
    assert await rows(api, f"/conversations?{query}") == [{"id": 10, "messages": [{"id": 100}, {"id": 102}]}]


async def test_an_ambiguous_embed_needs_a_hint(api: httpx.AsyncClient) -> None:
    refused = await api.get("/messages?select=id,messages(id)")
    assert refused.status_code == 300
    assert refused.json()["code"] == "PGRST201"
    assert len(refused.json()["details"]) == 2
    by_column = await rows(api, "/messages?select=id,answers_id(id)&id=eq.101")
    assert by_column == [{"id": 101, "answers_id": {"id": 100}}]


async def test_odd_names_are_only_names(api: httpx.AsyncClient) -> None:
    """A column called `100%s` once took the value of the filter behind it: `%` is psycopg's sign for a value."""
    query = {"select": '"100%s","a\\"b",sp ace,"x:y"', '"x:y"': "eq.four", "order": '"100%s".desc'}
    answer = await api.get("/odd", params=query)
    assert answer.json() == [{"100%s": 1, 'a"b': 2, "sp ace": 3, "x:y": "four"}]
