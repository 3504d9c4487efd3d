"""Functions under /rpc."""

import httpx

from tests.stand_ins.postgrest import PostgrestServer

ONE = {"Accept": "application/vnd.pgrst.object+json"}


RESULTS: list[tuple[str, object, object]] = [
    ("add", {"a": 1}, 11),
    ("add", {"b": 2, "a": 1}, 3),
    ("numbers", {"upto": 3}, [1, 2, 3]),
    ("numbers", {"upto": 0}, []),
    ("table_of", {"upto": 2}, [{"n": 1, "square": 1}, {"n": 2, "square": 4}]),
    ("total", {"numbers": [1, 2, 3]}, 6),
    ("record", {"any": {"thing": [1]}}, {"got": {"any": {"thing": [1]}}}),
    ("record", [1, "two"], {"got": [1, "two"]}),
    ("one_lead?select=id,name", {"wanted": 2}, {"id": 2, "name": "Bia"}),
]


async def test_results_have_the_shape_of_what_is_returned(api: httpx.AsyncClient) -> None:
    for function, arguments, expected in RESULTS:
        answer = await api.post(f"/rpc/{function}", json=arguments)
        assert (answer.status_code, answer.json()) == (200, expected), function


async def test_nothing_returned_is_204(api: httpx.AsyncClient) -> None:
    answer = await api.post("/rpc/rename", json={"wanted": 1, "new_name": "Zoe"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await api.get("/leads?select=name&id=eq.1")).json() == [{"name": "Zoe"}]


async def test_rows_of_a_function_are_filtered_ordered_counted_and_embed(api: httpx.AsyncClient) -> None:
    query = "select=id,conversations(id)&id=gt.1&order=id.desc&limit=1"
    answer = await api.post(
        f"/rpc/leads_at?{query}", json={"wanted": "INITIAL_CONTACT"}, headers={"Prefer": "count=exact"}
    )
    assert (answer.status_code, answer.headers["Content-Range"]) == (206, "0-0/2")
    assert answer.json() == [{"id": 3, "conversations": []}]
    one = await api.post("/rpc/leads_at?select=id&id=eq.2", json={"wanted": "INITIAL_CONTACT"}, headers=ONE)
    assert one.json() == {"id": 2}
    several = await api.post("/rpc/leads_at", json={"wanted": "INITIAL_CONTACT"}, headers=ONE)
    assert (several.status_code, several.json()["code"]) == (406, "PGRST116")


async def test_get_takes_arguments_from_the_query(api: httpx.AsyncClient) -> None:
    assert (await api.get("/rpc/add?a=1&b=5")).json() == 6
    rows = await api.get("/rpc/leads_at?wanted=INITIAL_CONTACT&select=id&id=lt.3&order=id")
    assert rows.json() == [{"id": 1}, {"id": 2}]
    assert (await api.get("/rpc/total?numbers={1,2}")).json() == 3
    assert (await api.head("/rpc/add?a=1")).content == b""


async def test_reads_happen_in_a_read_only_transaction(api: httpx.AsyncClient) -> None:
    """By GET whatever the function, by POST when it is declared STABLE or IMMUTABLE."""
    for answer in (
        await api.get("/rpc/rename?wanted=1&new_name=Zoe"),
        await api.post("/rpc/claims_to_be_stable", json={}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (405, "25006")
    assert (await api.get("/leads?select=name&id=eq.1")).json() == [{"name": "Ana"}]


async def test_a_function_knows_who_calls(server: PostgrestServer, api: httpx.AsyncClient) -> None:
    answer = (await api.post("/rpc/whoami", json={})).json()
    assert answer["role"] == "service_role"
    assert answer["claims"] == {"role": "service_role"}
    assert answer["path"] == "/rpc/whoami"


async def test_two_overloads_that_fit_are_refused(api: httpx.AsyncClient) -> None:
    refused = await api.post("/rpc/twice", json={"n": 1})
    assert (refused.status_code, refused.json()["code"]) == (300, "PGRST203")


async def test_unknown_functions_and_arguments(api: httpx.AsyncClient) -> None:
    for function, arguments, asked in [
        ("nothing", {}, "public.nothing without parameters"),
        ("add", {}, "public.add without parameters"),
        ("add", {"a": 1, "c": 2}, "public.add(a, c)"),
        ("add", {"b": 2}, "public.add(b)"),
    ]:
        refused = await api.post(f"/rpc/{function}", json=arguments)
        assert refused.status_code == 404, arguments
        assert refused.json()["code"] == "PGRST202"
        assert refused.json()["message"] == f"Could not find the function {asked} in the schema cache"
    assert (await api.get("/rpc/add?a=1&zzz=1")).json()["code"] == "PGRST202"
    assert (await api.post("/rpc/add", json={"a": "many"})).json()["code"] == "22P02"


async def test_filters_on_what_has_no_columns(api: httpx.AsyncClient) -> None:
    for url, arguments in (
        ("/rpc/rename?name=eq.x", {"wanted": 1, "new_name": "Zoe"}),
        ("/rpc/add?select=sum", {"a": 1}),
        ("/rpc/numbers?order=n", {"upto": 2}),
    ):
        refused = await api.post(url, json=arguments)
        assert (refused.status_code, refused.json()["code"]) == (400, "42703"), url
    assert (await api.get("/leads?select=name&id=eq.1")).json() == [{"name": "Ana"}], "and it has not happened"


STATUS_BY_STATE = [
    ("P0001", 400),
    ("PT409", 409),
    ("PT422", 422),
    ("23505", 409),
    ("40001", 500),
    ("40P01", 500),
    ("42501", 403),
    ("42883", 404),
    ("42P01", 404),
    ("22023", 400),
    ("25006", 405),
    ("28000", 403),
    ("53300", 503),
    ("53400", 500),
    ("54001", 500),
    ("57014", 500),
    ("57P01", 503),
    ("P0002", 500),
    ("XX000", 500),
    ("08006", 503),
    ("ZZ001", 400),
]


async def test_a_raised_state_decides_the_status(api: httpx.AsyncClient) -> None:
    for state, status in STATUS_BY_STATE:
        refused = await api.post("/rpc/refuse", json={"state": state, "text": "not now"})
        assert refused.status_code == status, state
        assert refused.json() == {"code": state, "message": "not now", "details": "why", "hint": "what now"}
        assert refused.headers["Proxy-Status"] == f"PostgREST; error={state}"


async def test_a_role_s_statement_timeout_applies(server: PostgrestServer, anonymous: httpx.AsyncClient) -> None:
    """`anon` has 3 s in a Supabase project; PostgREST sets it in the transaction."""
    assert server.role_settings("anon") == {"statement_timeout": "3s"}
    answer = (await anonymous.post("/rpc/whoami", json={})).json()
    assert (answer["role"], answer["timeout"]) == ("anon", "3s")
