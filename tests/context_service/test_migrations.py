"""`make migrate`: from nothing, and over databases of the system before with all that is in them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import context_service.migrate as program
from context_service.domain import ConversationStatus, LeadField, LeadPatch
from context_service.migrate import MigrationError, migrate, pending, script
from context_service.migrations import Migration, migrations
from context_service.store.supabase import SupabaseStore
from service_kit.clock import SystemClock
from service_kit.errors import WrongState
from tests.context_service.builders import message, query, record, update
from tests.context_service.monolith import GROWN, MONOLITHS, PEOPLE
from tests.context_service.supabase_project import migrate_database, store_of
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer
from tests.stand_ins.supabase_roles import SUPERUSER

TABLES = ("leads", "conversations", "messages")
ANA, BIA, CAIO = "5581999990001", "5581999990002", "5581999990003"
ROOT = Path(__file__).parents[2]


def rows(database: Database, statement: str) -> list[Any]:
    with database.connect() as connection:
        return connection.execute(statement.encode()).fetchall()


def documents(database: Database, table: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for (row,) in rows(database, f"SELECT to_jsonb(one) FROM {table} AS one")}


def same(before: Any, after: Any) -> bool:
    """Instants are told with a zone now, and to the millisecond."""
    if isinstance(before, str) and isinstance(after, str) and after[10:11] == "T":
        return before.removesuffix("+00:00")[:23].rstrip("0") == after.removesuffix("+00:00")[:23].rstrip("0")
    return bool(before == after)


@pytest.fixture(params=MONOLITHS)
def monolith(request: pytest.FixtureRequest, database: Database) -> Database:
    database.execute(MONOLITHS[request.param])
    return database


@pytest.fixture
def grown(database: Database) -> Database:
    database.execute(MONOLITHS["grown"])
    return database


@pytest.fixture
async def store(monolith: Database) -> AsyncIterator[SupabaseStore]:
    migrate_database(monolith)
    async for opened in opened_on(monolith):
        yield opened


async def opened_on(database: Database) -> AsyncIterator[SupabaseStore]:
    async with PostgrestServer(database_url=database.url("authenticator")) as server:
        opened = store_of(server, SystemClock())
        await opened.check_schema()
        yield opened
        await opened.close()


class TestNothingIsLost:
    def test_every_old_value_is_still_there(self, monolith: Database) -> None:
        before = {table: documents(monolith, table) for table in TABLES}
        migrate_database(monolith)
        for table in TABLES:
            after = documents(monolith, table)
            # People whose conversations had no lead get one.
            assert after.keys() >= before[table].keys()
            assert table == "leads" or len(after) == len(before[table])
            for key, row in before[table].items():
                kept = (after[key].get("metadata") or after[key].get("details") or {}).get("before", {})
                after[key].get("metadata", {}).pop("before", None)
                for column, value in row.items():
                    found = [after[key][column], kept.get(column)]
                    # What was not known has a default now, and free-form JSON is an object.
                    free = column in ("preferences", "metadata") and not isinstance(value, dict)
                    assert value is None or free or any(same(value, one) for one in found), (table, key, column)
        leads, conversations = documents(monolith, "leads"), documents(monolith, "conversations")
        assert leads["00000000-0000-0000-0000-000000000004"]["preferences"] == {"before": "x"}
        metadata = conversations["00000000-0000-0000-0001-000000000003"]["metadata"]
        assert metadata["value"] == [1]

    def test_local_times_were_utc(self, grown: Database) -> None:
        migrate_database(grown)
        told = rows(grown, "SELECT last_interaction AT TIME ZONE 'America/Recife' FROM leads WHERE name = 'Ana'")
        assert str(told[0][0]) == "2025-03-01 09:00:00.123000"

    def test_a_trigger_does_not_put_today_over_it_and_works_again_afterwards(self, grown: Database) -> None:
        """It did, over conversations that were linked to a lead by the last step."""
        grown.execute("""
            INSERT INTO conversations (session_id, phone_number, created_at, updated_at)
            VALUES ('old', '5581999990099', '2025-01-01', '2025-01-02')
        """)
        migrate_database(grown)
        linked = (
            "SELECT conversations.updated_at::date::text, leads.updated_at::date::text FROM conversations "
            "JOIN leads ON leads.id = lead_id WHERE session_id = 'old'"
        )
        assert rows(grown, linked) == [("2025-01-02", "2025-01-02")]
        triggers = rows(grown, "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname")
        assert triggers == [("asleep", "D"), ("touch_conversations", "O"), ("touch_leads", "O")]
        grown.execute("UPDATE leads SET name = 'Ana B.' WHERE name = 'Ana'")
        assert rows(grown, "SELECT updated_at > now() - interval '1 minute' FROM leads WHERE name = 'Ana B.'") == [
            (True,)
        ]

    def test_views_come_back_as_they_were(self, grown: Database) -> None:
        grown.execute("GRANT SELECT ON hot_leads TO authenticator")
        migrate_database(grown)
        assert rows(grown, "SELECT who FROM hot_names ORDER BY who") == [("Ana",)]
        assert rows(grown, "SELECT people FROM stages WHERE stage = 'BILL'") == [(1,)]
        grown.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY stages")  # needs its unique index
        options = rows(grown, "SELECT reloptions, obj_description(oid) FROM pg_class WHERE relname = 'hot_leads'")
        assert options == [(["security_barrier=true"], "for the sales team")]
        assert rows(grown, "SELECT has_table_privilege('authenticator', 'hot_leads', 'SELECT')") == [(True,)]

    def test_many_rows_are_joined_not_looked_up_one_by_one(self, database: Database) -> None:
        """Six thousand conversations whose numbers were written unlike their leads' took 13 s, fifty thousand hours:
        for each of them every lead was read."""
        many = 1_000
        database.execute(MONOLITHS["plain"])
        database.execute(f"""
            INSERT INTO leads (phone_number) SELECT (5581900000000 + n)::text FROM generate_series(1, {many}) AS n;
            INSERT INTO conversations (session_id, phone_number)
            SELECT 's-' || n, (5581900000000 + n)::text || '@s.whatsapp.net' FROM generate_series(1, {2 * many}) AS n;
        """)
        migrate_database(database)
        linked = "SELECT count(*), count(lead_id), count(DISTINCT lead_id) FROM conversations WHERE session_id ~ '^s-'"
        assert rows(database, linked) == [(2 * many, 2 * many, 2 * many)]
        read = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables"
        assert rows(database, read)[0][0] < 300 * many

    def test_a_lead_without_a_number_stays(self, database: Database) -> None:
        """Lists and exports failed at it: a number is text."""
        database.execute(MONOLITHS["plain"])
        database.execute("ALTER TABLE leads ALTER phone_number DROP NOT NULL; INSERT INTO leads (name) VALUES ('Ivo')")
        migrate_database(database)
        assert rows(database, "SELECT phone_number = 'unknown:' || id FROM leads WHERE name = 'Ivo'") == [(True,)]

    def test_rows_of_other_tables_stay(self, grown: Database) -> None:
        migrate_database(grown)
        assert rows(grown, "SELECT note FROM follow_ups") == [("ligar amanhã",)]


class TestTheSystemGoesOn:
    async def test_a_known_lead_is_known_before_anything_is_recorded(self, store: SupabaseStore) -> None:
        asked = query("the buffer's", contact=ANA)
        lead, seen = (await store.find_lead(asked)).value, await store.find_conversation(asked)
        assert lead is not None and seen.value is not None
        assert (lead.name, lead.bill_value_cents, lead.chosen_flow) == ("Ana", 450_050, "Aluguel de Lote")
        assert lead.preferences == {"cidade": "Recife", "contas": "[1,2]"}
        assert (seen.value.conversation_id, seen.value.status) == ("the buffer's", ConversationStatus.ACTIVE)
        history = await store.recent_messages(asked)
        assert [line.text for line in history.value] == ["oi", "Oi! Sou a Helen.", "", "a conta"]
        assert [line.author.value for line in history.value] == ["lead", "assistant", "lead", "lead"]
        kinds = [line.message_type for line in history.value]
        assert kinds == ["text", "text", "unsupported", "image"]
        assert [len(line.media) for line in history.value] == [0, 0, 0, 1], "what is not shaped as ours is left out"
        assert history.version == seen.version == 1

    async def test_the_open_conversation_goes_on_under_the_buffers_id(self, store: SupabaseStore) -> None:
        recorded = await store.record_turn(
            record(
                "t1", "the buffer's", contact=ANA, messages=[message("m", "voltei")], effects=[update(name="Ana B.")]
            )
        )
        assert (recorded.version, recorded.lead_id[-1]) == (2, "1")
        assert recorded.after is not None and recorded.after.conversation.total_messages == 7
        asked = query("the buffer's", contact=ANA)
        told = [line.text for line in (await store.recent_messages(asked)).value]
        assert told == ["oi", "Oi! Sou a Helen.", "", "a conta", "voltei", "Olá!"]
        seen = (await store.find_conversation(asked)).value
        assert seen is not None and seen.started_ms == 1_740_700_800_000
        other = await store.record_turn(record("t2", "elsewhere", contact=ANA, instance="two"))
        assert (other.lead_id, other.version) == (recorded.lead_id, 1)

    @pytest.mark.parametrize(
        ("contact", "name", "history"),
        [(BIA, "Bia", ["quanto custa?"]), (CAIO, "Caio", []), ("lid:123456789012345", "Gil", [])],
    )
    async def test_numbers_are_recognised_however_they_were_written(
        self, store: SupabaseStore, contact: str, name: str, history: list[str]
    ) -> None:
        asked = query("new", contact=contact)
        lead = (await store.find_lead(asked)).value
        assert lead is not None and lead.name == name
        assert [line.text for line in (await store.recent_messages(asked)).value] == history
        await store.record_turn(record("t1", "new", contact=contact, messages=[message("m", "oi")], parts=[]))
        assert [line.text for line in (await store.recent_messages(asked)).value] == [*history, "oi"]
        assert (await store.get_lead(lead.lead_id)).phone_number == contact
        assert len(await store.find_people("default", f"phone:{contact}" if contact.isdigit() else contact)) == 1

    async def test_of_several_open_conversations_the_latest_goes_on(self, store: SupabaseStore) -> None:
        asked = query("new", contact="5581999990004")
        assert [line.text for line in (await store.recent_messages(asked)).value] == ["a última"]

    async def test_two_leads_with_one_number_are_one_person_when_it_is_erased(
        self, store: SupabaseStore, monolith: Database
    ) -> None:
        """The younger one has no name of its own; its row would stay, and the number's next lead would be refused."""
        alias = "phone:5581999990005"
        assert len(await store.find_people("default", alias)) == 2
        assert (await store.forget("default", alias, ())).leads == 2
        assert rows(monolith, "SELECT count(*) FROM leads WHERE phone_number LIKE '%990005'") == [(0,)]
        assert not (await store.record_turn(record("t1", "c1", contact="5581999990005"))).duplicate

    async def test_a_new_lead_is_assumed_nothing_and_everything_may_be_stored(self, store: SupabaseStore) -> None:
        long = "phone:1" + "x" * 80
        first = await store.record_turn(record("t1", "c1", contact="5511", effects=[update(name="N" * 100)]))
        await store.record_turn(record("t2", "c2", contact="5512", aliases=[long], messages=[message("2")]))
        lead = await store.get_lead(first.lead_id)
        assert (lead.interested, lead.bill_value_cents, lead.current_stage) == (None, None, "INITIAL_CONTACT")
        values = {
            LeadField.CHOSEN_FLOW: "Carport",
            LeadField.CURRENT_STAGE: "HOUSE_VISIT",
            LeadField.EMAIL: "a@example.com",
        }
        for one in (first.lead_id, (await store.get_lead_by_alias("default", long)).lead_id):
            changed = await store.update_lead(one, "", LeadPatch(values=values, preferences={}))
            assert (changed.chosen_flow, changed.current_stage) == ("Carport", "HOUSE_VISIT")
        photo = message("p", "")
        photo.media.add(mime_type="image/jpeg", url="https://example.com/a.jpg")
        assert (await store.record_turn(record("t3", "c1", contact="5511", messages=[photo]))).version == 2
        elsewhere = await store.record_turn(record("t4", "c4", tenant="other", contact=ANA))
        assert (await store.get_lead(elsewhere.lead_id)).name == ""


async def test_rows_beside_follow_a_merge_and_hold_an_erasure(grown: Database) -> None:
    migrate_database(grown)
    async for store in opened_on(grown):
        await store.record_turn(record("t1", "c1", contact="lid:9"))
        await store.record_turn(record("t2", "c2", contact=ANA, messages=[message("2")]))
        kept = await store.record_turn(
            record("t3", "c1", contact=ANA, aliases=["lid:9"], messages=[message("3")], merged_conversation_ids=["c2"])
        )
        assert rows(grown, "SELECT lead_id::text FROM follow_ups") == [(kept.lead_id,)]
        assert rows(grown, "SELECT conversation_id IS NOT NULL FROM follow_ups") == [(True,)]
        assert rows(grown, "SELECT lead_id::text FROM meetings") == [(kept.lead_id,)]
        assert (await store.get_lead(kept.lead_id)).name == "Ana"
        with pytest.raises(WrongState, match=r"Rows of another table hold this person"):
            await store.forget("default", f"phone:{ANA}", ())
        grown.execute("DELETE FROM meetings")
        assert (await store.forget("default", f"phone:{ANA}", ())).messages == 11
        assert rows(grown, "SELECT count(*) FROM follow_ups") == [(0,)]


async def test_a_row_beside_keeps_its_own_lead_from_the_sweep_and_no_others(grown: Database) -> None:
    """One meeting of one lead, and each step of the sweep was rolled back whole: nothing old ever went, of nobody."""
    migrate_database(grown)
    grown.execute("DELETE FROM meetings; UPDATE leads SET do_not_contact = true WHERE name IN ('Bia', 'Caio')")
    grown.execute("INSERT INTO meetings SELECT id, now() FROM leads WHERE name IN ('Ana', 'Bia')")
    async for store in opened_on(grown):
        before_ms, total = SystemClock().now_ms() + 1, 0
        while (step := await store.sweep(before_ms, limit=2)).total:
            total += step.total
        assert total > 10
    assert rows(grown, "SELECT name FROM leads ORDER BY name") == [("Ana",), ("Bia",)]
    assert rows(grown, "SELECT count(*) FROM messages WHERE conversation_id IS NOT NULL") == [(0,)]
    assert rows(grown, "SELECT count(*) > 0 FROM do_not_contact") == [(True,)], "Caio's wish outlives him"


class TestRunningIt:
    def test_twice_is_nothing_to_do(self, monolith: Database) -> None:
        with monolith.connect() as connection:
            assert pending(connection) == migrations()
            assert migrate(connection) == migrations()
            assert migrate(connection) == pending(connection) == ()

    def test_two_at_once_wait_for_each_other(self, grown: Database) -> None:
        done: list[int] = []

        def run() -> None:
            with grown.connect() as connection:
                done.append(len(migrate(connection)))

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(done) == len(migrations())

    def test_the_projects_time_limit_does_not_hold(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """A project ends every statement after two minutes, however much there is to bring over."""
        slow = Migration(version=1, name="0001_slow", sql="SELECT pg_sleep(0.3)")
        monkeypatch.setattr(program, "migrations", lambda: (slow,))
        with database.connect() as connection:
            connection.execute("SET statement_timeout = '100ms'")
            assert migrate(connection) == (slow,)

    def test_a_table_that_somebody_holds_is_not_waited_for(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Everybody who came after it waited as well, as long as a report or a copy took."""
        monkeypatch.setattr(program, "_LOCK_LIMIT", "SET LOCAL lock_timeout = '50ms'")
        database.execute(MONOLITHS["plain"])
        with database.connect() as connection, database.connect() as reader:
            reader.execute("BEGIN; SELECT FROM leads")
            with pytest.raises(MigrationError, match=r"0001_tables failed, and nothing of it was kept: .*lock timeout"):
                migrate(connection)
            reader.execute("COMMIT")
            assert migrate(connection) == migrations()

    def test_the_api_is_told_also_when_nothing_was_to_be_done(self, database: Database) -> None:
        """A command that ended between the last migration and the word to the API could not be repeated; only where a
        project has no trigger of its own that tells it."""
        database.execute("DROP EVENT TRIGGER pgrst_ddl_watch; DROP EVENT TRIGGER pgrst_drop_watch", role=SUPERUSER)
        migrate_database(database)
        with database.connect() as connection:
            connection.execute("LISTEN pgrst")
            assert migrate(connection) == ()
            told = {one.payload for one in connection.notifies(timeout=5, stop_after=1)}
        assert told == {"reload schema"}

    def test_an_edited_file_and_a_newer_database_are_refused(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        migrate_database(database)
        known = migrations()
        edited = Migration(version=2, name=known[1].name, sql=known[1].sql + "-- and more")
        with database.connect() as connection:
            monkeypatch.setattr(program, "migrations", lambda: (known[0], edited, *known[2:]))
            with pytest.raises(MigrationError, match=r"Migration 2 .* was applied from another file than"):
                migrate(connection)
            monkeypatch.setattr(program, "migrations", lambda: known[:-1])
            with pytest.raises(MigrationError, match=f"schema version {len(known)}, newer than the {len(known) - 1} "):
                migrate(connection)

    def test_a_failure_in_the_middle_keeps_nothing_of_that_file_and_says_which(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = Migration(version=1, name="0001_good", sql="CREATE TABLE good (a int)")
        bad = Migration(version=2, name="0002_bad", sql="CREATE TABLE bad (a int); SELECT nonsense")
        monkeypatch.setattr(program, "migrations", lambda: (good, bad))
        with (
            database.connect() as connection,
            pytest.raises(MigrationError, match="0002_bad failed, and nothing of it"),
        ):
            migrate(connection)
        made = rows(database, "SELECT relname FROM pg_class WHERE relname IN ('good', 'bad')")
        assert made == [("good",)]
        assert rows(database, "SELECT version FROM sdr_migrations") == [(1,)]

    @pytest.mark.parametrize("existing", ["", GROWN + PEOPLE])
    def test_the_printed_sql_leads_to_the_same(self, postgres_cluster: PostgresCluster, existing: str) -> None:
        catalogs = []
        for way in (migrate_database, lambda one: one.execute(script())):
            with postgres_cluster.database() as database:
                database.execute(existing or "SELECT")
                way(database)
                catalogs.append(catalog(database))
        assert catalogs[0] == catalogs[1]
        assert len(catalogs[0]) > 150

    def test_a_printed_rest_continues_what_was_applied(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = migrations()
        with monkeypatch.context() as patch:
            patch.setattr(program, "migrations", lambda: known[:3])
            migrate_database(database)
        with pytest.raises(psycopg.errors.UniqueViolation):
            database.execute(script(after=2))
        database.execute(script(after=3))
        with database.connect() as connection:
            assert pending(connection) == ()

    def test_a_column_that_nobody_would_fill_is_refused_before_anything_happens(self, database: Database) -> None:
        database.execute(MONOLITHS["plain"])
        database.execute(
            "ALTER TABLE leads ADD source text NOT NULL DEFAULT 'x'; ALTER TABLE leads ALTER source DROP DEFAULT"
        )
        with pytest.raises(MigrationError, match="column source of leads must not be null and has no default"):
            migrate_database(database)
        assert rows(database, "SELECT count(*) FROM information_schema.columns WHERE column_name = 'tenant'") == [(0,)]


def catalog(database: Database) -> set[tuple[Any, ...]]:
    """Everything of `public` that a migration can make, but for what is of an extension."""
    found = rows(
        database,
        """
        SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull::text,
            coalesce(pg_get_expr(adbin, adrelid), '') || attidentity::text
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid
            AND adnum = attnum
        WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'relation', oid::regclass::text, coalesce(relacl::text, ''), relrowsecurity::text,
            coalesce(pg_get_viewdef(oid), ''), coalesce(reloptions::text, '')
        FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT 'index', indrelid::regclass::text, pg_get_indexdef(indexrelid), '', '', ''
        FROM pg_index WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
        UNION ALL SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid), proacl::text, '', ''
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'policy', tablename, policyname, roles::text, coalesce(qual, ''), '' FROM pg_policies
        UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, tgenabled::text, '', '' FROM pg_trigger
        WHERE NOT tgisinternal
        UNION ALL SELECT 'migration', version::text, name, digest, '', '' FROM sdr_migrations
        """,
    )
    return {tuple(row) for row in found}


class TestTheCommand:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Iterator[Any]:
        def begin(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "context_service.migrate", *arguments]
            env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", **environ}
            return subprocess.run(command, env=env, cwd=tmp_path, text=True, capture_output=True, check=False)

        yield begin

    def test_it_says_what_it_did_and_what_it_dropped(self, grown: Database, run: Any) -> None:
        status = run("--status", SUPABASE_DB_URL=grown.url())
        assert status.returncode == 0 and status.stdout.endswith("Schema version 0.\n")
        assert "0001_tables to be applied" in status.stdout
        assert rows(grown, "SELECT to_regclass('public.sdr_migrations')") == [(None,)], "it only looked"
        first = run(SUPABASE_DB_URL=grown.url())
        assert first.returncode == 0 and f"Schema version {len(migrations())}." in first.stdout
        for sentence in (
            'dropped: policy "everybody" on leads',
            'dropped: constraint "leads_email_key" on leads',
            "taken back: anon and authenticated may no longer read the view hot_leads",
        ):
            assert sentence in first.stdout, first.stdout
        again = run(SUPABASE_DB_URL=grown.url())
        assert (again.returncode, again.stdout.splitlines()[0]) == (0, "Nothing to do.")

    def test_what_is_missing_or_away_is_a_sentence(self, run: Any) -> None:
        missing = run()
        assert missing.returncode == 1 and missing.stderr.startswith("SUPABASE_DB_URL is not set.")
        away = run(SUPABASE_DB_URL="postgresql://me:s3cret@127.0.0.1:1/none")
        assert away.returncode == 1 and away.stderr.startswith("The database cannot be reached:")
        assert "s3cret" not in away.stderr and "Traceback" not in away.stderr

    def test_it_prints_without_a_database(self, run: Any) -> None:
        assert run("--print").stdout.strip() == script()
        assert json.dumps(run("--print", "--from", "1").stdout.strip()) == json.dumps(script(after=1))


@pytest.mark.parametrize("readme", ["README.md", "README.pt-BR.md"])
def test_the_readme_shows_what_it_prints(readme: str) -> None:
    """It showed the version before the last one."""
    known = migrations()
    shown = f"{known[0].name} applied\n…\n{known[-1].name} applied\nSchema version {len(known)}.\n"
    assert shown in (ROOT / readme).read_text(encoding="utf-8")
