"""What PostgREST refuses is refused, with its codes; what this stand-in doesn't know is 501, never ignored."""

from typing import Any

import httpx

PARSE = (400, "PGRST100")
UNKNOWN_COLUMN = (400, "42703")
NOT_COVERED = (501, "STANDIN")

READS = {
    # unknown names
    "/nothing": (404, "PGRST205"),
    "/leads?select=nope": UNKNOWN_COLUMN,
    "/leads?nope=eq.1": UNKNOWN_COLUMN,
    "/leads?order=nope": UNKNOWN_COLUMN,
    "/leads?or=(nope.eq.1,id.eq.1)": UNKNOWN_COLUMN,
    "/leads?select=id,conversations(nope)": UNKNOWN_COLUMN,
    "/leads?select=id,messages(id)": (400, "PGRST200"),
    "/leads?select=id,nothing(id)": (400, "PGRST200"),
    "/leads?select=id,conversations!wrong_hint(id)": (400, "PGRST200"),
    "/leads?conversations.id=eq.1": (400, "PGRST108"),
    "/leads?select=id,c:conversations(id)&conversations.limit=1": (400, "PGRST108"),
    "/leads?conversations.order=id": (400, "PGRST108"),
    # syntax
    "/leads?select=id,,name": PARSE,
    "/leads?select=id,": PARSE,
    "/leads?select=conversations(id": PARSE,
    "/leads?select=id)": PARSE,
    "/leads?select=id name!": PARSE,
    "/leads?select=name::": PARSE,
    '/leads?select="id': PARSE,
    "/leads?id=1": PARSE,
    "/leads?id=noop.1": PARSE,
    "/leads?id=equals.1": PARSE,
    "/leads?id=not.noop.1": PARSE,
    "/leads?id=is.maybe": PARSE,
    "/leads?id=in.1,2": PARSE,
    "/leads?id=in.(1,2": PARSE,
    "/leads?or=id.eq.1": PARSE,
    "/leads?or=(id.eq.1": PARSE,
    "/leads?or=()": PARSE,
    "/leads?or=(id.noop.1)": PARSE,
    "/leads?order=id.down": PARSE,
    "/leads?order=id.asc.nullsmiddle": PARSE,
    "/leads?order=id.asc.nullsfirst.more": PARSE,
    "/leads?order=": PARSE,
    # types
    "/leads?id=eq.one": (400, "22P02"),
    "/leads?id=in.(1,two)": (400, "22P02"),
    "/leads?seen=gt.yesterday-ish": (400, "22007"),
    "/leads?bill=like.4*": (404, "42883"),
    "/leads?name=is.true": (400, "42804"),
    "/leads?preferences=cs.{broken": (400, "22P02"),
    "/leads?select=name::nonsense": (400, "42704"),
    "/leads?select=name::int": (400, "22P02"),
    # windows
    "/leads?limit=-1": (416, "PGRST103"),
    "/leads?offset=-1": (416, "PGRST103"),
    # off in a Supabase project
    "/leads?select=count()": (400, "PGRST123"),
    "/leads?select=bill.sum()": (400, "PGRST123"),
    # known to PostgREST, not to this stand-in
    "/leads?name=fts.ana": NOT_COVERED,
    "/leads?name=wfts(portuguese).ana": NOT_COVERED,
    "/leads?name=like(any).{A*,B*}": NOT_COVERED,
    "/leads?name=isdistinct.Ana": NOT_COVERED,
    "/leads?id=sl.(1,2)": NOT_COVERED,
    "/leads?select=id,...conversations(open)": NOT_COVERED,
    "/leads?select=id,conversations()": NOT_COVERED,
    "/leads?select=id,conversations(id)&conversations=not.is.null": NOT_COVERED,
    "/conversations?select=id,leads(id)&order=leads(name)": NOT_COVERED,
    "/leads?limit=many": NOT_COVERED,
    "/leads?select=id&select=name": NOT_COVERED,
    "/leads?on_conflict=id": NOT_COVERED,
    "/leads?columns=id": NOT_COVERED,
    "/": NOT_COVERED,
    "/leads/1": NOT_COVERED,
}


async def test_reads(api: httpx.AsyncClient) -> None:
    for url, expected in READS.items():
        answer = await api.get(url)
        assert (answer.status_code, answer.json().get("code")) == expected, (url, answer.text)
        assert set(answer.json()) == {"code", "message", "details", "hint"}


async def test_the_message_of_a_filter_names_what_is_wrong(api: httpx.AsyncClient) -> None:
    refused = (await api.get("/leads?id=noop.1")).json()
    assert refused["message"] == '"failed to parse filter (noop.1)" (line 1, column 1)'
    unknown = (await api.get("/nothing")).json()
    assert unknown["message"] == "Could not find the table 'public.nothing' in the schema cache"
    column = (await api.get("/leads?select=nope")).json()
    assert column["message"] == "column leads.nope does not exist"


HEADERS = [
    ("GET", {"Accept": "text/html"}, (406, "PGRST107")),
    ("GET", {"Accept": "text/csv"}, NOT_COVERED),
    ("GET", {"Accept": "application/vnd.pgrst.plan+json"}, NOT_COVERED),
    ("GET", {"Accept": "application/vnd.pgrst.array+json;nulls=stripped"}, NOT_COVERED),
    ("GET", {"Accept-Profile": "auth"}, (406, "PGRST106")),
    ("POST", {"Content-Profile": "auth"}, (406, "PGRST106")),
    ("GET", {"Range": "5-1"}, (416, "PGRST103")),
    ("GET", {"Range": "bytes=0-9"}, NOT_COVERED),
    ("GET", {"Range": "9-", "Prefer": "count=exact"}, (416, "PGRST103")),
    ("GET", {"Range-Unit": "bytes"}, NOT_COVERED),
    ("GET", {"Prefer": "handling=strict, anything=goes"}, (400, "PGRST122")),
    ("GET", {"Prefer": "timezone=America/Recife"}, NOT_COVERED),
    ("GET", {"Prefer": "count=estimated"}, NOT_COVERED),
    ("POST", {"Prefer": "return=headers-only"}, NOT_COVERED),
    ("POST", {"Content-Type": "text/csv"}, NOT_COVERED),
    ("POST", {"Content-Type": "image/png"}, (400, "PGRST102")),
    ("PUT", {}, NOT_COVERED),
    ("TRACE", {}, (405, "PGRST117")),
]


async def test_headers_and_methods(api: httpx.AsyncClient) -> None:
    for method, headers, expected in HEADERS:
        body: dict[str, Any] = {} if method in ("GET", "TRACE") else {"content": b'{"phone": "1"}'}
        answer = await api.request(method, "/leads", headers=headers, **body)
        assert (answer.status_code, answer.json()["code"]) == expected, (method, headers, answer.text)


async def test_unknown_and_repeated_preferences_are_ignored(api: httpx.AsyncClient) -> None:
    headers = {"Prefer": "wait=10, count=exact, count=planned, respond-async"}
    answer = await api.get("/leads?select=id", headers=headers)
    assert (answer.status_code, answer.headers["Content-Range"]) == (200, "0-2/3")
    assert answer.headers["Preference-Applied"] == "count=exact"


BODIES = [
    ("POST", "/leads", b"{", (400, "PGRST102")),
    ("POST", "/leads", b"", (400, "PGRST102")),
    ("POST", "/leads", b'{"phone": "\xff"}', (400, "PGRST102")),
    ("POST", "/leads", b'{"phone": "1", "bill": NaN}', (400, "PGRST102")),
    ("POST", "/leads", b"[1]", (400, "PGRST102")),
    ("POST", "/leads", b'[{"phone": "1"}, {"name": "x"}]', (400, "PGRST102")),
    ("POST", "/leads", b'{"phone": "1", "nope": 1}', (400, "PGRST204")),
    ("POST", "/leads?columns=phone,nope", b'{"phone": "1"}', (400, "PGRST204")),
    ("POST", "/leads?on_conflict=nope", b'{"phone": "1"}', (201, None)),
    ("POST", "/leads?id=eq.1", b'{"phone": "1"}', NOT_COVERED),
    ("POST", "/leads?order=id", b'{"phone": "1"}', NOT_COVERED),
    ("POST", "/leads?what=1", b'{"phone": "1"}', PARSE),
    ("POST", "/nothing", b'{"phone": "1"}', (404, "PGRST205")),
    ("POST", "/leads", b'"text"', NOT_COVERED),
    ("PATCH", "/leads?id=eq.1", b"not json", (400, "PGRST102")),
    ("PATCH", "/leads?id=eq.1", b'{"nope": 1}', (400, "PGRST204")),
    ("PATCH", "/leads?nope=eq.1", b'{"name": "x"}', UNKNOWN_COLUMN),
    ("PATCH", "/leads?id=eq.1&limit=1", b'{"name": "x"}', NOT_COVERED),
    ("PATCH", "/leads?id=eq.1", b"[]", NOT_COVERED),
    ("DELETE", "/leads?id=eq.1&order=id", b"", NOT_COVERED),
    ("DELETE", "/leads?conversations.id=eq.1", b"", (400, "PGRST108")),
    ("DELETE", "/leads?conversations.id=eq.1&select=conversations(id)", b"", (400, "21000")),
    ("POST", "/rpc/add", b"{", (400, "PGRST102")),
    ("POST", "/rpc/add", b"[]", (404, "PGRST202")),
    ("POST", "/rpc/add?b=1", b'{"a": 1}', NOT_COVERED),
    ("POST", "/rpc/numbers", b'{"upto": "x"}', (400, "22P02")),
    ("POST", "/rpc/set_status", b"{}", NOT_COVERED),
    ("PATCH", "/rpc/add", b'{"a": 1}', (405, "PGRST101")),
    ("DELETE", "/rpc/add", b"", (405, "PGRST101")),
]


async def test_bodies_and_writes(api: httpx.AsyncClient) -> None:
    for method, url, body, expected in BODIES:
        answer = await api.request(method, url, content=body, headers={"Content-Type": "application/json"})
        code = answer.json()["code"] if answer.content else None
        assert (answer.status_code, code) == expected, (method, url, body, answer.text)
