"""A project is the business's own: rows that others put into our tables, or beside them, stop nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from context_service.domain import Swept
from context_service.store import ExportSection
from context_service.store.supabase import SupabaseStore
from service_kit.clock import ManualClock
from service_kit.errors import WrongState
from tests.context_service.builders import message, query, record, update
from tests.context_service.supabase_project import store_of
from tests.context_service.supabase_sql import rows
from tests.stand_ins.postgres import Database
from tests.stand_ins.postgrest import PostgrestServer

DAY_MS = 86_400_000
IMPORTED = "5581999990077"
MEETINGS = "CREATE TABLE meetings (lead_id uuid PRIMARY KEY REFERENCES leads)"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(server: PostgrestServer, clock: ManualClock) -> AsyncIterator[SupabaseStore]:
    store = store_of(server, clock)
    yield store
    await store.close()


async def sweep(store: SupabaseStore, clock: ManualClock, *, limit: int = 2) -> Swept:
    """All steps of a round; what went in each table."""
    total: dict[str, int] = {}
    while (step := await store.sweep(clock.now_ms() - DAY_MS, limit=limit)).total:
        total = {name: total.get(name, 0) + getattr(step, name) for name in Swept.__dataclass_fields__}
    return Swept(**total)


class TestImportedLeads:
    async def test_a_lead_that_was_imported_is_known_and_its_turn_is_recorded(
        self, project: Database, store: SupabaseStore
    ) -> None:
        """It had no alias, so a second lead was to be made with its number: refused, again with every repeat."""
        project.execute("INSERT INTO leads (phone_number, name) VALUES ('+55 81 99999-0077', 'Ana')")
        asked = query(contact=IMPORTED)
        found = (await store.find_lead(asked)).value
        assert found is not None and found.name == "Ana"
        first = await store.record_turn(record("t1", contact=IMPORTED))
        assert first.lead_id == found.lead_id
        assert (await store.get_lead_by_alias("default", f"phone:{IMPORTED}")).name == "Ana"

    async def test_a_name_that_was_learned_goes_before_a_number(self, project: Database, store: SupabaseStore) -> None:
        known = await store.record_turn(record("t1", contact=IMPORTED))
        project.execute("INSERT INTO leads (phone_number) VALUES ('+55 81 99999-0077')")
        found = (await store.find_lead(query("c2", contact=IMPORTED))).value
        assert found is not None and found.lead_id == known.lead_id

    async def test_an_imported_mark_outlives_retention(
        self, project: Database, store: SupabaseStore, clock: ManualClock
    ) -> None:
        """A list of people who are never to be written to has numbers and no aliases, and went without a trace."""
        project.execute(
            f"INSERT INTO leads (phone_number, do_not_contact, updated_at) VALUES ('{IMPORTED}', true, '2000-01-01')"
        )
        assert (await sweep(store, clock)).leads == 1
        back = await store.record_turn(record("t1", contact=IMPORTED))
        assert (await store.get_lead(back.lead_id)).do_not_contact

    async def test_preferences_are_an_object_and_what_is_null_is_none(
        self, project: Database, store: SupabaseStore
    ) -> None:
        """With a list in its place, every later turn of the lead was refused; a null was told the model as "null"."""
        project.execute(f"""INSERT INTO leads (phone_number, preferences) VALUES ('{IMPORTED}', '{{"a": null}}')""")
        found = (await store.find_lead(query(contact=IMPORTED))).value
        assert found is not None and found.preferences == {}
        with pytest.raises(psycopg.errors.CheckViolation):
            project.execute("UPDATE leads SET preferences = '[]'")


class TestHeldRows:
    async def test_who_is_held_stays_and_everything_else_is_swept(
        self, project: Database, store: SupabaseStore, clock: ManualClock
    ) -> None:
        """One old lead with a row in a table beside refused the step, and so every step: nothing was ever deleted
        again. There are more of them than a step takes, and they are the oldest."""
        project.execute(f"""
            {MEETINGS};
            CREATE TABLE files (message uuid REFERENCES messages);
            INSERT INTO leads (phone_number, updated_at)
            SELECT '55' || n, timestamptz '2000-01-01' + n * interval '1 day' FROM generate_series(1, 9) AS n;
            INSERT INTO meetings SELECT id FROM leads ORDER BY updated_at LIMIT 5;
        """)
        await store.record_turn(record("t1", contact=IMPORTED, messages=[message("a"), message("b")], parts=[]))
        project.execute("INSERT INTO files SELECT id FROM messages WHERE provider_message_id = 'a'")
        clock.advance(3 * DAY_MS)
        swept = await sweep(store, clock)
        assert (swept.leads, swept.messages, swept.turns) == (4, 1, 1)
        assert rows(project, "SELECT count(*) FROM leads JOIN meetings ON lead_id = id") == [(5,)]
        project.execute("DELETE FROM meetings; DELETE FROM files")
        swept = await sweep(store, clock)
        assert (swept.leads, swept.messages, swept.conversations) == (6, 1, 1)

    async def test_a_table_that_may_not_be_read_holds_as_well(
        self, project: Database, store: SupabaseStore, clock: ManualClock
    ) -> None:
        project.execute(f"""
            {MEETINGS}; REVOKE ALL ON meetings FROM service_role;
            INSERT INTO leads (phone_number, do_not_contact, updated_at)
            VALUES ('551', false, '2000-01-01'), ('552', false, '2000-01-01'), ('553', true, '2000-01-01');
            INSERT INTO meetings SELECT id FROM leads WHERE phone_number <> '552';
        """)
        assert await sweep(store, clock) == Swept(leads=1)
        assert rows(project, "SELECT phone_number FROM leads ORDER BY 1") == [("551",), ("553",)]

    async def test_marked_ones_that_are_held_keep_no_other(
        self, project: Database, store: SupabaseStore, clock: ManualClock
    ) -> None:
        """With as many of them as a step takes, each step found the same ones."""
        project.execute(f"""
            {MEETINGS};
            INSERT INTO leads (phone_number, do_not_contact, updated_at)
            SELECT '558199999000' || n, true, timestamptz '2000-01-01' + n * interval '1 day'
            FROM generate_series(1, 8) AS n;
            INSERT INTO meetings SELECT id FROM leads ORDER BY updated_at LIMIT 5;
        """)
        assert await sweep(store, clock) == Swept(leads=3)
        assert rows(project, "SELECT count(*) FROM leads JOIN meetings ON lead_id = id") == [(5,)]
        assert rows(project, "SELECT count(*) FROM do_not_contact") == [(3,)]

    @pytest.mark.parametrize("alias", ["phone:551", "phone:552"])
    async def test_a_merge_that_is_held_is_recorded_and_both_are_found(
        self, project: Database, store: SupabaseStore, alias: str
    ) -> None:
        """Both had a row in a table that takes one for each lead: the turn was refused with every repeat, and all of
        the conversation's turns behind it."""
        project.execute(f"""
            {MEETINGS};
            CREATE TABLE notes (conversation uuid PRIMARY KEY REFERENCES conversations)
        """)
        await store.record_turn(record("t1", "c1", contact="551", messages=[message("1")]))
        await store.record_turn(
            record("t2", "c2", contact="552", messages=[message("2")], effects=[update(name="Ana")])
        )
        project.execute("INSERT INTO meetings SELECT id FROM leads; INSERT INTO notes SELECT id FROM conversations")
        merge = record("t3", "c1", contact="551", messages=[message("3")], merged_conversation_ids=["c2"])
        merged = await store.record_turn(merge)
        assert merged.after is not None and merged.after.conversation.total_messages == 6
        again = record("t4", "c2", contact="552", messages=[message("4")], merged_conversation_ids=["c2"])
        assert (await store.record_turn(again)).version == 3, "the younger one's turns go to the older one"
        people = await store.find_people("default", alias)
        assert len(people) == 2
        assert len((await store.export_rows(ExportSection.LEADS, people, 0)).rows) == 2
        with pytest.raises(WrongState):
            await store.forget("default", alias, ())
        project.execute("DELETE FROM meetings; DELETE FROM notes")
        assert (await store.forget("default", alias, ())).leads == 2
        assert rows(project, "SELECT count(*) FROM messages") == [(0,)]


async def test_an_export_is_complete_whatever_a_project_yields_at_once(
    server: PostgrestServer, store: SupabaseStore
) -> None:
    """With "Max rows" below the page's size the first page was taken for the last one."""
    for n in range(4):
        await store.record_turn(record(f"t{n}", messages=[message(f"m{n}")]))
    server.max_rows = 3
    people = await store.find_people("default", "phone:5581999998888")
    found: list[object] = []
    after: int | None = 0
    while after is not None:
        page = await store.export_rows(ExportSection.MESSAGES, people, after)
        found, after = [*found, *page.rows], page.next_after
    assert len(found) == 8
