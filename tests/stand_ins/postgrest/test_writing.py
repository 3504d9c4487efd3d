"""POST, PATCH and DELETE on tables."""

import httpx
import pytest

SHOW = {"Prefer": "return=representation"}
ONE = {"Accept": "application/vnd.pgrst.object+json"}


def prefer(*preferences: str) -> dict[str, str]:
    return {"Prefer": ",".join(preferences)}


async def names(api: httpx.AsyncClient) -> list[tuple[int, str | None]]:
    return [(row["id"], row["name"]) for row in (await api.get("/leads?select=id,name&order=id")).json()]


async def test_an_insert_answers_nothing_unless_asked(api: httpx.AsyncClient) -> None:
    for preference in ({}, prefer("return=minimal")):
        answer = await api.post("/leads", json={"phone": f"1{len(preference)}"}, headers=preference)
        assert (answer.status_code, answer.content) == (201, b"")
    shown = await api.post("/leads?select=id,stage,tags", json={"phone": "2"}, headers=SHOW)
    assert (shown.status_code, shown.json()) == (201, [{"id": 103, "stage": "INITIAL_CONTACT", "tags": []}])
    assert shown.headers["Preference-Applied"] == "return=representation"
    counted = await api.post("/leads", json={"phone": "3"}, headers=prefer("count=exact"))
    assert counted.headers["Content-Range"] == "*/1"


async def test_several_rows_are_all_or_none(api: httpx.AsyncClient) -> None:
    rows = [{"phone": "1", "name": "one"}, {"phone": "5581900000001", "name": "double"}]
    refused = await api.post("/leads", json=rows)
    assert (refused.status_code, refused.json()["code"]) == (409, "23505")
    assert refused.json()["details"] == "Key (phone)=(5581900000001) already exists."
    assert len(await names(api)) == 3
    assert (await api.post("/leads", json=[])).status_code == 201
    assert len(await names(api)) == 3


async def test_typed_values_arrive_as_they_are(api: httpx.AsyncClient) -> None:
    row = {"phone": "1", "bill": 12.5, "preferences": {"a": [1, "é", None]}, "tags": ["x,y", 'q"'], "seen": None}
    created = await api.post("/leads?select=phone,bill,preferences,tags,seen", json=row, headers=SHOW)
    assert created.json() == [row]


async def test_columns_choose_keys_and_what_is_missing_is_null_or_its_default(api: httpx.AsyncClient) -> None:
    rows = [{"phone": "1", "stage": "X", "name": "ignored"}, {"phone": "2"}]
    url = "/leads?columns=phone,stage&select=phone,stage,name"
    as_null = await api.post(url, json=rows, headers=SHOW)
    assert (as_null.status_code, as_null.json()["code"]) == (400, "23502")
    as_default = await api.post(url, json=rows, headers=prefer("return=representation", "missing=default"))
    assert as_default.json() == [
        {"phone": "1", "stage": "X", "name": None},
        {"phone": "2", "stage": "INITIAL_CONTACT", "name": None},
    ]
    one = await api.post(url, json={"phone": "3"}, headers=prefer("return=representation", "missing=default"))
    assert one.json() == [{"phone": "3", "stage": "INITIAL_CONTACT", "name": None}]


async def test_duplicates_are_merged_left_out_or_refused(api: httpx.AsyncClient) -> None:
    row = {"phone": "5581900000001", "name": "Ana Maria"}
    url = "/leads?on_conflict=phone&select=id,name"
    assert (await api.post(url, json=row)).status_code == 409
    left_out = await api.post(url, json=row, headers=prefer("resolution=ignore-duplicates", "return=representation"))
    assert (left_out.status_code, left_out.json()) == (201, [])
    assert (await names(api))[0] == (1, "Ana")
    merged = await api.post(url, json=row, headers=prefer("resolution=merge-duplicates", "return=representation"))
    assert (merged.status_code, merged.json()) == (200, [{"id": 1, "name": "Ana Maria"}])
    mixed = [row, {"phone": "9", "name": "new"}]
    both = await api.post(url, json=mixed, headers=prefer("resolution=merge-duplicates", "return=representation"))
    assert (both.status_code, [one["name"] for one in both.json()]) == (201, ["Ana Maria", "new"])


async def test_a_merge_without_on_conflict_is_by_the_primary_key(api: httpx.AsyncClient) -> None:
    merge = prefer("resolution=merge-duplicates")
    assert (await api.post("/profiles", json={"lead_id": 1, "note": "new"}, headers=merge)).status_code == 200
    assert (await api.get("/profiles")).json() == [{"lead_id": 1, "note": "new"}]


async def test_on_conflict_needs_a_unique_key(api: httpx.AsyncClient) -> None:
    merge = prefer("resolution=merge-duplicates")
    refused = await api.post("/leads?on_conflict=name", json={"phone": "1", "name": "x"}, headers=merge)
    assert (refused.status_code, refused.json()["code"]) == (400, "42P10")


async def test_a_row_of_defaults(api: httpx.AsyncClient) -> None:
    assert (await api.post("/odd", json={}, headers=SHOW)).json() == [
        {"100%s": None, 'a"b': None, "sp ace": None, "x:y": None}
    ]
    assert (await api.post("/odd?select=100:sp ace", json={'a"b': 1, "100%s": 5}, headers=SHOW)).status_code == 201


async def test_an_update_changes_what_the_filters_let_through(api: httpx.AsyncClient) -> None:
    shown = await api.patch("/leads?id=gt.1&select=id,name", json={"name": "x"}, headers=SHOW)
    assert (shown.status_code, shown.json()) == (200, [{"id": 2, "name": "x"}, {"id": 3, "name": "x"}])
    assert await names(api) == [(1, "Ana"), (2, "x"), (3, "x")]
    silent = await api.patch("/leads?id=eq.1", json={"name": None}, headers=prefer("count=exact"))
    assert (silent.status_code, silent.content, silent.headers["Content-Range"]) == (204, b"", "0-0/1")
    nobody = await api.patch("/leads?id=eq.9", json={"name": "y"}, headers=SHOW)
    assert (nobody.status_code, nobody.json(), nobody.headers["Content-Range"]) == (200, [], "*/*")
    nothing = await api.patch("/leads?id=eq.1&select=id", json={}, headers=SHOW)
    assert (nothing.status_code, nothing.json()) == (200, [])


async def test_a_delete_removes_what_the_filters_let_through(api: httpx.AsyncClient) -> None:
    shown = await api.delete("/messages?id=gt.101&select=id,conversations(id)&order=", headers=SHOW)
    assert shown.status_code == 400, "an empty order is no order"
    shown = await api.delete("/messages?id=gt.101&select=id,conversations(id)", headers=SHOW)
    assert shown.json() == [
        {"id": 102, "conversations": {"id": 10}},
        {"id": 103, "conversations": {"id": 12}},
    ]
    assert (await api.delete("/messages?id=eq.101")).status_code == 204
    assert (await api.get("/messages?select=id")).json() == [{"id": 100}]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_a_write_without_a_filter_is_refused_as_supabases_safeupdate_does(
    api: httpx.AsyncClient, method: str
) -> None:
    refused = await api.request(method, "/leads", json={"name": "everybody"})
    assert (refused.status_code, refused.json()["code"]) == (400, "21000")
    assert (await names(api))[0] == (1, "Ana")


async def test_one_object_or_nothing_happens(api: httpx.AsyncClient) -> None:
    refused = await api.patch("/leads?id=gt.1", json={"name": "x"}, headers=SHOW | ONE)
    assert (refused.status_code, refused.json()["code"]) == (406, "PGRST116")
    assert await names(api) == [(1, "Ana"), (2, "Bia"), (3, None)]
    done = await api.patch("/leads?id=eq.2&select=name", json={"name": "x"}, headers=SHOW | ONE)
    assert done.json() == {"name": "x"}


async def test_max_affected_counts_only_when_handling_is_strict(api: httpx.AsyncClient) -> None:
    strict = prefer("handling=strict", "max-affected=1")
    refused = await api.patch("/leads?id=gt.1", json={"name": "x"}, headers=strict)
    assert (refused.status_code, refused.json()["code"]) == (400, "PGRST124")
    assert (await names(api))[1] == (2, "Bia")
    lenient = await api.patch("/leads?id=gt.1", json={"name": "x"}, headers=prefer("max-affected=1"))
    assert lenient.status_code == 204


async def test_constraints_keep_their_codes(api: httpx.AsyncClient) -> None:
    for table, row, status, code in [
        ("conversations", {"id": 1, "lead_id": 99}, 409, "23503"),
        ("messages", {"id": 1, "conversation_id": 10, "role": "nobody"}, 400, "23514"),
        ("messages", {"id": 1, "conversation_id": 10}, 400, "23502"),
        ("leads", {"phone": "9" * 51}, 400, "22001"),
        ("leads", {"phone": "1", "bill": "much"}, 400, "22P02"),
        ("leads", {"phone": "1", "bill": 123456789.0}, 400, "22003"),
        ("leads", {"phone": "1", "preferences": {"zero": "\0"}}, 400, "22P05"),
    ]:
        refused = await api.post(f"/{table}", json=row)
        assert (refused.status_code, refused.json()["code"]) == (status, code), row
