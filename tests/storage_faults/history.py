"""The context service's store, and one RecordTurn that dies: at every statement, every write and every sync."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from agentic_sdr.common.v1 import turn_pb2
from context_service.domain import Recorded
from context_service.store import schema
from context_service.store.sqlite import SqliteStore
from service_kit.clock import ManualClock
from service_kit.errors import Unavailable
from tests.context_service.builders import generation, message, part, record, update
from tests.context_service.stores import sqlite_store
from tests.storage_faults.disk import FaultyDisk, Frozen, mounted

NAME = "context.db"
BEFORE = record("t1", effects=[update(name="Bia", bill_value_cents=40_000)])
TURN = record(
    "t2",
    messages=[message("m-2a", "na verdade " + "x" * 3_000), message("m-2b", "são 550")],
    parts=[part(0, "Certo, " + "y" * 3_000), part(1, "550 então.", state=turn_pb2.PART_STATE_UNKNOWN)],
    effects=[
        update(bill_value_cents=55_000, stage="ROUTING", preferences={"roof": "laje"}),
        generation(prompt_tokens=100, completion_tokens=20),
    ],
    needs_human=True,
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
Content = list[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Death:
    """One place to die at, the file that is left, and whether the caller had its answer by then."""

    at: str
    image: Path
    answered: bool


async def opened(path: Path) -> SqliteStore:
    """The store as the service opens it; its clock stands still."""
    store = sqlite_store(path, ManualClock())
    await store.open()
    return store


def content(path: Path) -> Content:
    """Every row of every table, without the random ids. Raises when SQLite finds a fault."""
    db = apsw.Connection(str(path))
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not db.execute("PRAGMA foreign_key_check").fetchall()
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        rows = [(table, *_masked(row)) for table in tables for row in db.execute(f'SELECT * FROM "{table}"')]
    finally:
        db.close()
    return sorted(rows, key=repr)


def _masked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_UUID.sub("ID", value) if isinstance(value, str) else value for value in row)


async def without_a_fault(folder: Path) -> tuple[Content, Content]:
    """What the file holds before the turn and after it."""
    contents = []
    for turns in ([BEFORE], [BEFORE, TURN]):
        path = folder / f"{len(turns)}" / NAME
        store = await opened(path)
        for one in turns:
            await store.record_turn(one)
        await store.close()
        contents.append(content(path))
    return contents[0], contents[1]


async def again(image: Path) -> tuple[Recorded, Content]:
    """The answer to a repeat after a start as the service does it, and what the file holds then."""
    store = await opened(image / NAME)
    recorded = await store.record_turn(TURN)
    repeated = await store.record_turn(TURN)
    await store.close()
    assert repeated.duplicate and repeated.version == recorded.version
    return recorded, content(image / NAME)


async def problem_of(death: Death, before: Content, after: Content) -> str:
    """What is wrong with what is left, or with what a retry makes of it; nothing when it is empty."""
    found = content(death.image / NAME)
    if found not in (before, after):
        return f"{death.at}: torn"
    if death.answered and found != after:
        return f"{death.at}: it was answered, and the file doesn't know"
    recorded, then = await again(death.image)
    if then != after or recorded.version != 2 or recorded.duplicate is not (found == after):
        return f"{death.at}: the retry made something else"
    return ""


async def judge_all(base: Path) -> list[str]:
    """The problem of every death, most of them empty."""
    before, after = await without_a_fault(base / "clean")
    problems = [await problem_of(death, before, after) for death in await at_every_statement(base)]
    return problems + [await problem_of(death, before, after) async for death in at_every_write_and_sync(base)]


async def at_every_statement(base: Path) -> list[Death]:
    """kill -9 before each statement of the transaction: what the kernel holds of the file at that instant stays."""
    folder, deaths = base / "statements", []
    store = await opened(folder / NAME)
    await store.record_turn(BEFORE)

    def trace(cursor: Any, statement: str, bindings: Any) -> bool:
        at = f"statement {len(deaths) + 1}: {' '.join(statement.split())[:60]}"
        image = base / f"statement-{len(deaths) + 1}"
        shutil.copytree(folder, image)
        deaths.append(Death(at=at, image=image, answered=False))
        return True

    def tell(db: apsw.Connection) -> None:
        db.exec_trace = trace

    await store._thread.read(tell)
    await store.record_turn(TURN)
    image = base / "statement-none"
    shutil.copytree(folder, image)
    deaths.append(Death(at="after the answer", image=image, answered=True))
    await store.close()
    return deaths


async def at_every_write_and_sync(base: Path) -> AsyncIterator[Death]:
    """The same by the VFS, each with and without the power failing at that instant."""
    with mounted(base / "count") as disk:
        await _record(base / "count", disk)
        writes, syncs = disk.writes, disk.syncs
    for kind, count in (("write", writes), ("sync", syncs)):
        for number in range(1, count + 1):
            for power in (False, True):
                folder = base / f"{kind}-{number}-{power}"
                with mounted(folder) as disk:
                    answered = await _record(folder, disk, freeze_at=(kind, number), power=power)
                    assert disk.image, "it did not die"
                at = f"{kind} {number} of {count}{' and power' if power else ''}"
                yield Death(at=at, image=_after_power(folder) if power else disk.image, answered=answered)


async def _record(
    folder: Path, disk: FaultyDisk, *, freeze_at: tuple[str, int] | None = None, power: bool = False
) -> bool:
    """One turn until it is answered (True) or dead. The disk has counted what it took."""
    store = await opened(folder / NAME)
    await store.record_turn(BEFORE)
    disk.writes = disk.syncs = 0
    disk.freeze_at = freeze_at
    answered = False
    with contextlib.suppress(Unavailable, Frozen):
        await store.record_turn(TURN)
        answered = True
    counted = disk.writes, disk.syncs
    if power:
        disk.power_loss(random.Random(repr(freeze_at)), _after_power(folder))
    # A dead process closes nothing, but the thread of this one has to end.
    disk.freeze_at = None
    await store.close()
    disk.writes, disk.syncs = counted
    return answered


def _after_power(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-after")


@contextlib.contextmanager
def without_transaction() -> Any:
    """A broken build: each statement is its own transaction."""
    real = schema.open_database

    def open_database(path: Path, scripts: tuple[str, ...]) -> apsw.Connection:
        return _Autocommit(real(path, scripts))  # type: ignore[return-value]

    schema.open_database = open_database
    try:
        yield
    finally:
        schema.open_database = real


class _Autocommit:
    """Does all that a connection does, but for transactions."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.__dict__["connection"] = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.connection, name, value)

    def execute(self, statement: str, *bindings: Any) -> Any:
        if statement.split()[0] in ("BEGIN", "SAVEPOINT", "RELEASE", "COMMIT"):
            return None
        return self.connection.execute(statement, *bindings)
