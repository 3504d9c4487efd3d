"""What the functions and lists do to a large database: auto_explain tells the plan of every statement inside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from context_service import decode
from context_service.store import LeadFilter, PageAfter
from service_kit.clock import ManualClock
from tests.context_service.builders import generation, message, turn, update
from tests.context_service.supabase_project import migrate_database, store_of
from tests.context_service.supabase_sql import Connection, forget, one, put_summary, record_turn, update_lead
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer

MANY = 10_000
# 3 000 people with a conversation of 4 messages each; the first one's has 10 000. Then as many rows beside.
_FILL = f"""
INSERT INTO leads (id, phone_number, name, created_at, updated_at)
SELECT md5('l' || n)::uuid, '5581' || n, 'x', now() - interval '40 days', now() - n * interval '1 minute'
FROM generate_series(1, 3000) AS n;
INSERT INTO lead_aliases (tenant, alias, lead_id, created_at)
SELECT 'default', 'phone:5581' || n, md5('l' || n)::uuid, now() FROM generate_series(1, 3000) AS n;
INSERT INTO conversations (id, lead_id, session_id, phone_number, channel, instance, total_messages, version,
    updated_at)
SELECT md5('c' || n)::uuid, md5('l' || n)::uuid, 'c' || n, '5581' || n, 'console', 'demo', CASE n WHEN 1 THEN {MANY}
    ELSE 4 END, 1, now() - n * interval '1 minute' FROM generate_series(1, 3000) AS n;
INSERT INTO messages (conversation_id, sequence, role, sender, content, created_at)
SELECT md5('c' || n)::uuid, place, 'user', 'lead', 'texto ' || place, now() - n * interval '1 minute'
FROM generate_series(1, 3000) AS n, generate_series(1, CASE n WHEN 1 THEN {MANY} ELSE 4 END) AS place;
INSERT INTO turns (turn_id, tenant, conversation_id, lead_id, version, kind, truncated, needs_human, handoff, opened_at,
    ended_at, created_at, model, fallback, prompt_tokens, cached_tokens, completion_tokens, discarded_tokens,
    cost_micros)
SELECT 't' || n, 'default', md5('c' || n)::uuid, md5('l' || n)::uuid, 1, 'answer', false, false, false, now(), now(),
    now() - n * interval '1 minute', '', false, 0, 0, 0, 0, 0 FROM generate_series(1, 3000) AS n;
INSERT INTO lead_changes (lead_id, field, changed_by, changed_at)
SELECT md5('l' || n)::uuid, 'name', 'api', now() - n * interval '1 minute' FROM generate_series(1, 3000) AS n;
INSERT INTO usage_days (tenant, day, conversation_id, tokens, cost_micros)
SELECT 'default', date '2023-11-14' - n % 30, 'c' || n, 1, 1 FROM generate_series(1, 3000) AS n;
INSERT INTO merged_conversations (conversation_id, tenant, into_id, merged_at)
SELECT 'm' || n, 'default', md5('c' || n)::uuid, now() FROM generate_series(1, 3000) AS n;
INSERT INTO forgotten_conversations SELECT 'f' || n, 'default', now() FROM generate_series(1, 3000) AS n;
INSERT INTO do_not_contact SELECT 'default', 'h' || n, now() FROM generate_series(1, 3000) AS n;
ANALYZE;
"""


def fill(database: Database) -> None:
    migrate_database(database)
    database.execute(_FILL)


@pytest.fixture(scope="module")
def large(postgres_cluster: PostgresCluster) -> Iterator[Database]:
    with postgres_cluster.database(template=postgres_cluster.template("large", fill)) as database:
        yield database


class Explained:
    """A connection in the service's role that tells the plan of each statement, the nested ones too."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.plans: list[dict[str, Any]] = []
        connection.add_notice_handler(lambda notice: self._take(notice.message_primary or ""))
        connection.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; "
            "SET auto_explain.log_analyze = on; SET auto_explain.log_timing = off; SET auto_explain.log_format = json; "
            "SET auto_explain.log_level = notice; SET ROLE service_role"
        )

    def _take(self, told: str) -> None:
        _, mark, plan = told.partition("plan:\n")
        if mark:
            self.plans.append(json.loads(plan))

    def scans(self, plan: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Every node that reads a table."""
        found: list[dict[str, Any]] = []
        nodes = [one["Plan"] for one in self.plans] if plan is None else [plan]
        for node in nodes:
            found += [node] if "Relation Name" in node and "Scan" in node["Node Type"] else []
            for child in node.get("Plans", []):
                found += self.scans(child)
        return found

    @property
    def most_rows(self) -> float:
        """The most rows that one node read, what it threw away included."""
        return max(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in self.scans()
            if not node["Relation Name"].startswith("pg_")
        )


@pytest.fixture
def explained(large: Database) -> Iterator[Explained]:
    """Whatever it changes is undone."""
    with large.connect("supabase_admin") as connection:
        connection.execute("BEGIN")
        yield Explained(connection)
        connection.execute("ROLLBACK")


def assert_by_index(explained: Explained, *, most_rows: int) -> None:
    assert explained.scans(), "no plan was told"
    whole = {node["Relation Name"] for node in explained.scans() if node["Node Type"] == "Seq Scan"}
    assert {name for name in whole if not name.startswith("pg_")} == set(), "read from one end to the other"
    assert explained.most_rows <= most_rows


LOOKUPS = {
    "lead": "SELECT sdr_find_lead('default', 'c1', '{phone:55811}')",
    "lead of a new conversation": "SELECT sdr_find_lead('default', 'new', '{phone:55811,lid:1}')",
    "conversation": "SELECT sdr_find_conversation('default', 'c1', '{phone:55811}')",
    "merged conversation": "SELECT sdr_find_conversation('default', 'm1', '{phone:55811}')",
    "history": "SELECT sdr_recent_messages('default', 'c1', '{phone:55811}', 40)",
    "usage": "SELECT sdr_usage_today('default', 'c1', '2023-11-14')",
    "page of messages": "SELECT sdr_list_messages('c1', 5000, 40)",
    "people": "SELECT sdr_people('default', 'phone:55811', '{c1}')",
}


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_lookup_reads_what_it_tells_and_no_more(explained: Explained, lookup: str) -> None:
    answer = one(explained.connection, LOOKUPS[lookup])
    assert answer
    assert_by_index(explained, most_rows=40)


def test_the_history_is_read_backwards_by_its_index(explained: Explained) -> None:
    answer = one(explained.connection, LOOKUPS["history"])
    assert [line["sequence"] for line in answer["messages"]] == list(range(MANY, MANY - 40, -1))
    [scan] = [node for node in explained.scans() if node["Relation Name"] == "messages"]
    assert (scan["Index Name"], scan["Scan Direction"]) == ("messages_in_order", "Backward")
    assert scan["Actual Rows"] == 40


def test_a_turn_is_recorded_by_index(explained: Explained) -> None:
    wire = turn(
        "new",
        "c1",
        contact="55811",
        aliases=["lid:1"],
        messages=[message("new")],
        effects=[update(name="Ana"), generation(prompt_tokens=1)],
    )
    answer = record_turn(explained.connection, decode.turn_record(wire))
    assert answer["conversation"]["total_messages"] == MANY + 2
    assert_by_index(explained, most_rows=4)


@pytest.mark.parametrize("work", ["merge", "forget", "edit", "summary", "sweep"])
def test_other_writes_are_by_index(explained: Explained, work: str) -> None:
    connection = explained.connection
    match work:
        case "merge":
            merged = turn("new", "c1", contact="55811", messages=[message("new")], merged_conversation_ids=["c2"])
            record_turn(connection, decode.turn_record(merged))
        case "forget":
            assert forget(connection, "phone:55812", "c3")["messages"] == 8
        case "edit":
            update_lead(connection, one(connection, "SELECT md5('l1')::uuid"), current_stage="OFFER")
        case "summary":
            put_summary(connection, "c1")
        case "sweep":
            swept = one(connection, "SELECT sdr_sweep(now() - interval '2000 minutes', 50)")
            assert swept["messages"] == swept["turns"] == swept["lead_changes"] == 50
            # A conversation stays while one of its messages does: the old ones are looked at, and nothing else.
            old = one(connection, "SELECT count(*) FROM leads WHERE updated_at < now() - interval '2000 minutes'")
            explained.plans.pop()
            assert_by_index(explained, most_rows=old + 50)
            return
    assert_by_index(explained, most_rows=200)


async def test_the_pages_of_lists_are_by_index(large: Database) -> None:
    async with PostgrestServer(database_url=large.url("authenticator")) as server:
        store = store_of(server, ManualClock())
        lead = await store.get_lead_by_alias("default", "phone:55811500")
        page = PageAfter(size=50, after=(lead.updated_ms, lead.lead_id))
        leads = await store.list_leads(LeadFilter(tenant="default"), page)
        recent = await store.list_leads(LeadFilter(tenant="default", updated_since_ms=lead.updated_ms), page)
        conversations = await store.list_conversations("default", "", PageAfter(size=50, after=page.after))
        own = await store.list_conversations("default", lead.lead_id, PageAfter(size=50))
        await store.get_lead(lead.lead_id)
        plans = [await server.plan_of(seen) for seen in server.seen]
        await store.close()
    assert (len(leads), len(recent), len(conversations), len(own)) == (50, 0, 50, 1)
    assert [plan for plan in plans if "Seq Scan" in plan] == []
    for begins_there in (plans[1], plans[2], plans[3]):
        assert re.search(r"Index Cond: .*updated_at <= ", begins_there), begins_there
    assert "conversations_of_lead" in plans[4]


async def test_ten_thousand_messages_cost_as_much_as_four(large: Database) -> None:
    """In pages of the database that are touched, which no other process disturbs; the bench tells the time."""
    touched = []
    for conversation in ("c1", "c2"):
        with large.connect("supabase_admin") as connection:
            told = Explained(connection)
            told.connection.execute("RESET ROLE; SET auto_explain.log_buffers = on; SET ROLE service_role")
            one(connection, "SELECT sdr_recent_messages('default', %s, '{}', 4)", conversation)
            touched.append(
                max(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] for plan in told.plans)
            )
    assert touched[0] <= touched[1] + 4
