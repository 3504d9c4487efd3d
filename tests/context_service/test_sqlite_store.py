"""What only the file has: locks, versions, plans and bytes."""

import asyncio
import random
import stat
from pathlib import Path
from typing import Any

import apsw
import pytest

from context_service.domain import Summary
from context_service.store import reads, schema
from context_service.store.sqlite import SqliteStore
from context_service.store.writer import DatabaseThread
from service_kit.clock import ManualClock
from service_kit.errors import Unavailable
from service_kit.settings import ConfigurationError
from tests.context_service.builders import message, query, record, update
from tests.context_service.keys import HASHER


async def opened(path: Path, scripts: tuple[str, ...] | None = None) -> SqliteStore:
    store = SqliteStore(path=path, clock=ManualClock(), hasher=HASHER, scripts=scripts)
    await store.open()
    return store


async def test_reopening_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "new" / "context.db"
    store = await opened(path)
    first = await store.record_turn(record())
    await store.close()
    store = await opened(path)
    again = await store.record_turn(record())
    seen = await store.recent_messages(query())
    await store.close()
    assert again.duplicate and again.lead_id == first.lead_id
    assert [line.text for line in seen.value] == ["oi", "Olá!"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    store = await opened(tmp_path / "context.db")
    with pytest.raises(ConfigurationError, match="in use by another process"):
        await opened(tmp_path / "context.db")
    await store.record_turn(record())
    await store.close()


async def test_an_older_schema_is_migrated_and_a_newer_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    now = schema.migrations()
    store = await opened(path)
    await store.record_turn(record())
    await store.close()
    store = await opened(path, (*now, "ALTER TABLE leads ADD COLUMN later TEXT NOT NULL DEFAULT 'x'"))
    assert len((await store.recent_messages(query())).value) == 2
    await store.close()
    with pytest.raises(ConfigurationError, match=f"schema version {len(now) + 1}, newer than the {len(now)} "):
        await opened(path)


async def test_a_migration_that_fails_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    await (await opened(path)).close()
    with pytest.raises(ConfigurationError):
        await opened(path, (*schema.migrations(), "ALTER TABLE leads ADD COLUMN later TEXT; SELECT nonsense"))
    store = await opened(path)
    await store.record_turn(record())
    await store.close()


async def test_foreign_files_are_refused(tmp_path: Path) -> None:
    text, other = tmp_path / "text.db", tmp_path / "other.db"
    text.write_bytes(b"this is not a database at all" * 100)
    with apsw.Connection(str(other)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(ConfigurationError, match="not a usable database"):
        await opened(text)
    with pytest.raises(ConfigurationError, match="another program"):
        await opened(other)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await opened(text / "context.db")


def test_the_pragmas_are_what_they_have_to_be(tmp_path: Path) -> None:
    connection = schema.open_database(tmp_path / "context.db", schema.migrations())
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "locking_mode": "exclusive",
        "foreign_keys": 1,
        "secure_delete": 1,
    }
    assert {name: connection.execute(f"PRAGMA {name}").get for name in wanted} == wanted
    connection.close()


@pytest.mark.parametrize("statement", [reads.RECENT_MESSAGES, reads.PAGE_OF_MESSAGES])
def test_history_is_read_by_the_index_in_its_order(tmp_path: Path, statement: str) -> None:
    connection = schema.open_database(tmp_path / "context.db", schema.migrations())
    values = ("c1", 40) if statement is reads.RECENT_MESSAGES else ("c1", 0, 40)
    plan = " ".join(row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))
    connection.close()
    assert "USING INDEX messages_in_order" in plan
    assert "SCAN" not in plan and "TEMP B-TREE" not in plan


async def test_no_byte_of_a_forgotten_person_is_left(tmp_path: Path) -> None:
    """secure_delete alone was not enough: the page rebalancing that follows many inserts left copies behind."""
    store = await opened(tmp_path / "context.db")
    dice = random.Random(1)
    for number in range(300):
        who = "CANARY" if dice.random() < 0.2 else f"other{number % 20}"
        text = f"{who} {number} " + "x" * dice.choice([1, 30, 400, 6000])
        messages = [message(f"{who}-{number}", text)]
        await store.record_turn(record(f"{who}-t{number}", f"c-{who}", contact=f"lid:{who}", messages=messages))
    assert b"CANARY" in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    await store.forget("default", "lid:CANARY", ())
    left = {file.name: file.read_bytes().replace(b"c-CANARY", b"").count(b"CANARY") for file in tmp_path.iterdir()}
    await store.close()
    assert set(left.values()) == {0}, left


async def test_a_failing_job_takes_nobody_along(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    thread = DatabaseThread(lambda: schema.open_database(path, schema.migrations()))
    await thread.open()

    def insert(db: apsw.Connection, name: str, *, fail: bool) -> None:
        db.execute("INSERT INTO forgotten_conversations VALUES (?, 'default', '')", (name,))
        if fail:
            raise LookupError(name)

    jobs = [thread.write(lambda db, n=n: insert(db, str(n), fail=n % 3 == 0)) for n in range(9)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    kept = await thread.read(lambda db: [row[0] for row in db.execute("SELECT * FROM forgotten_conversations")])
    with pytest.raises(Unavailable) as broken:
        await thread.read(lambda db: db.execute("SELECT * FROM nowhere").fetchall())
    await thread.close()
    assert [isinstance(result, LookupError) for result in results] == [n % 3 == 0 for n in range(9)]
    assert sorted(kept) == [str(n) for n in range(9) if n % 3]
    assert broken.value.metadata == {"component": "store"}
    with pytest.raises(Unavailable):
        await thread.read(lambda db: None)


async def test_a_full_disk_is_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    thread = DatabaseThread(lambda: schema.open_database(path, schema.migrations()))
    await thread.open()

    def insert(db: apsw.Connection, name: str) -> None:
        db.execute("INSERT INTO forgotten_conversations VALUES (?, 'default', '')", (name,))

    await thread.write(lambda db: insert(db, "before"))
    pages = await thread.read(lambda db: db.execute("PRAGMA page_count").get)
    await thread.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").get)
    together = (thread.write(lambda db: insert(db, "small")), thread.write(lambda db: insert(db, "x" * 100_000)))
    results = await asyncio.gather(*together, return_exceptions=True)
    await thread.read(lambda db: db.execute("PRAGMA max_page_count = 100000").get)
    await thread.write(lambda db: insert(db, "after"))
    kept = await thread.read(lambda db: [row[0] for row in db.execute("SELECT * FROM forgotten_conversations")])
    await thread.close()
    assert isinstance(results[1], Unavailable) and isinstance(results[1].__cause__, apsw.FullError)
    assert ("small" in kept) == (results[0] is None)
    assert {"before", "after"} <= set(kept)


async def test_nothing_reads_a_whole_table(tmp_path: Path) -> None:
    """A merge looked at every turn that was ever recorded, and each step of the retention sweeper at all conversations
    and leads, in the thread that everybody waits for."""
    asked: list[tuple[str, Any]] = []

    def note(_: apsw.Cursor, statement: str, values: Any) -> bool:
        asked.append((statement, values))
        return True

    def listen(connection: apsw.Connection) -> None:
        connection.exec_trace = note

    store = await opened(tmp_path / "context.db")
    await store._thread.maintain(listen)
    await store.record_turn(record("t1", "c1", contact="lid:1"))
    await store.record_turn(record("t2", "c2", messages=[message("b")], effects=[update(name="Ana")]))
    merged = record("t3", "c1", contact="lid:1", messages=[message("c")], merged_conversation_ids=["c2"])
    await store.record_turn(merged)
    await store.put_summary("c1", Summary(text="s", version=1, through=1, tokens=1))
    for lookup in (store.find_lead, store.find_conversation, store.recent_messages, store.usage_today):
        await lookup(query())
    await store.forget("default", "lid:1", ("c1",), do_not_contact=True)
    await store.find_people("default", "lid:1", ("c1",))
    await store.sweep(1 << 40, limit=9)
    await store.close()
    connection = schema.open_database(tmp_path / "context.db", schema.migrations())
    steps = [
        (row[-1], statement)
        for statement, values in asked
        if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"))
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
    ]
    connection.close()
    assert len(steps) > 100
    own = ("json_each", "value", "CONSTANT ROW", "tenants")
    assert [
        step for step in steps if step[0].startswith("SCAN") and not step[0].removeprefix("SCAN ").startswith(own)
    ] == []
