"""Nothing that a request says becomes SQL: every place of a request is tried with texts that would show it."""

import httpx
import pytest

from tests.stand_ins.postgres import Database

ATTACKS = [
    "'; DROP TABLE leads; --",
    '"; DROP TABLE leads; --',
    "1 OR 1=1",
    "1) OR (1=1",
    "x' UNION SELECT usename FROM pg_user --",
    'x" FROM leads; DELETE FROM leads; --',
    "$$; DELETE FROM leads; $$",
    "%s",
    "%(id)s",
    "%%",
    "{}",
    "\\'; DELETE FROM leads; --",
    "id\0",
    "text); DELETE FROM leads; --",
    "pg_sleep(10)",
    "*/ DELETE FROM leads /*",
]
QUERIES = [
    {"select": "{}"},
    {"select": '"{}"'},
    {"select": 'a:"{}"'},
    {"select": '"{}":id'},
    {"select": "id::{}"},
    {"select": "preferences->{}"},
    {"select": 'preferences->"{}"'},
    {"select": "{}(id)"},
    {"select": '"{}"(id)'},
    {"select": "conversations!{}(id)"},
    {"select": 'x:conversations("{}")'},
    {"select": '"{}":conversations(id)'},
    {"order": "{}"},
    {"order": '"{}".desc'},
    {"order": "id.{}"},
    {"limit": "{}"},
    {"offset": "{}"},
    {"id": "eq.{}"},
    {"name": "eq.{}"},
    {"name": "in.({})"},
    {"name": 'in.("{}")'},
    {"name": "like.{}"},
    {"tags": "cs.{{}}"},
    {"preferences": "cs.{}"},
    {"preferences->>{}": "eq.1"},
    {'"{}"': "eq.1"},
    {"{}": "eq.1"},
    {"or": "({}.eq.1,id.eq.0)"},
    {"or": '(name.eq."{}",id.eq.0)'},
    {"or": "(id.{},id.eq.0)"},
]


@pytest.fixture
def untouched(project: Database) -> Database:
    """Asked afterwards whether anything has happened."""
    return project


def state(project: Database) -> object:
    with project.connect() as owner:
        return owner.execute("SELECT id, phone, name FROM leads ORDER BY id").fetchall()


async def test_reads(api: httpx.AsyncClient, untouched: Database) -> None:
    before = state(untouched)
    for attack in ATTACKS:
        for template in QUERIES:
            query = {_put(key, attack): _put(text, attack) for key, text in template.items()}
            answer = await api.get("/leads", params=query)
            if answer.is_success:
                # A value that no row has, or a name that is only a label: never more rows than there are.
                assert len(answer.json()) <= 3, query
            else:
                assert answer.status_code < 500 or answer.json()["code"] == "STANDIN", (query, answer.text)
                assert "syntax error" not in answer.text, (query, answer.text)
    assert state(untouched) == before


async def test_a_value_is_compared_and_never_run(api: httpx.AsyncClient) -> None:
    for attack in ATTACKS:
        if "\0" not in attack:
            assert (await api.get("/leads", params={"name": f"eq.{attack}"})).json() == []


async def test_writes_store_the_text_itself(api: httpx.AsyncClient, untouched: Database) -> None:
    for number, attack in enumerate(ATTACKS):
        if "\0" in attack:
            continue
        row = {"phone": str(number), "name": attack, "tags": [attack], "preferences": {attack: attack}}
        created = await api.post("/leads?select=name,tags,preferences", json=row, headers=_SHOW)
        assert created.json() == [{key: row[key] for key in ("name", "tags", "preferences")}]
        changed = await api.patch(
            "/leads?select=name", json={"name": attack + attack}, params={"phone": f"eq.{number}"}
        )
        assert changed.status_code == 204
        deleted = await api.delete("/leads", params={"name": f"eq.{attack + attack}"}, headers=_SHOW)
        assert len(deleted.json()) == 1
    assert len(state(untouched)) == 3  # type: ignore[arg-type]


async def test_names_in_bodies_and_parameters_are_looked_up(api: httpx.AsyncClient, untouched: Database) -> None:
    before = state(untouched)
    for attack in ATTACKS:
        refused = [
            await api.post("/leads", json={"phone": "1", attack: 1}),
            await api.patch("/leads?id=eq.1", json={attack: 1}),
            await api.post("/leads", json={"phone": "1"}, params={"columns": f'phone,"{attack}"'}),
            await api.post("/rpc/add", json={"a": 1, attack: 1}),
            await api.get("/rpc/add", params={"a": 1, attack: "1"}),
            await api.get("/" + _in_path(attack)),
            await api.post("/rpc/" + _in_path(attack), json={}),
            await api.post("/leads", json={"phone": "1"}, params={"on_conflict": f'"{attack}"'}, headers=_MERGE),
        ]
        for answer in refused:
            known = answer.json()["code"].startswith(("PGRST", "42", "22021", "STANDIN"))
            assert known, (attack, answer.request.url, answer.text)
            assert "syntax error" not in answer.text
    assert state(untouched) == before


async def test_functions_get_values(api: httpx.AsyncClient) -> None:
    for attack in ATTACKS:
        if "\0" not in attack:
            assert (await api.post("/rpc/record", json={attack: attack})).json() == {"got": {attack: attack}}
            assert (await api.post("/rpc/leads_at", json={"wanted": attack})).json() == []
            assert (await api.get("/rpc/leads_at", params={"wanted": attack})).json() == []


async def test_headers_are_values_too(api: httpx.AsyncClient) -> None:
    for header in ("Range", "Prefer", "Accept", "Accept-Profile", "Content-Type"):
        answer = await api.get("/leads?select=id", headers={header: "'; DROP TABLE leads; --"})
        assert answer.status_code in (200, 400, 406, 501), header


_SHOW = {"Prefer": "return=representation"}
_MERGE = {"Prefer": "resolution=merge-duplicates"}


def _put(template: str, attack: str) -> str:
    return template.replace("{}", attack)


def _in_path(attack: str) -> str:
    return "".join(f"%{byte:02X}" for byte in attack.encode())
