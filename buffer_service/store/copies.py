"""Copies of the buffer's file. A copy is marked: what it holds open may have been answered after it was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from buffer_service.store.connection import Connection

_MARK = "copied_as"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What a copy holds that had not ended."""

    open_turns: int
    pending_messages: int
    unrecorded_turns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """A conversation that was erased on request; `forgotten_at` in epoch milliseconds."""

    conversation_id: str
    tenant: str
    forgotten_at: int


def seal(db: apsw.Connection, name: str) -> Unfinished:
    """Marks a copy and says what is unfinished in it."""
    db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (_MARK, name))
    found: list[tuple[Any, ...]] = db.execute(
        "SELECT count(*) FILTER (WHERE turn_id <> ''), ifnull(sum(pending), 0), ifnull(sum(unrecorded), 0) "
        "FROM conversation"
    ).fetchall()
    turns, pending, unrecorded = found[0]
    return Unfinished(open_turns=turns, pending_messages=pending, unrecorded_turns=unrecorded)


def mark_of(db: apsw.Connection) -> str | None:
    """The backup that this file was copied as; None when nothing has to be done about it."""
    found = db.execute("SELECT value FROM meta WHERE name = ?", (_MARK,)).fetchall()
    return str(found[0][0]) if found else None


def unmark(db: apsw.Connection) -> None:
    """The copy is an ordinary file from now on."""
    db.execute("DELETE FROM meta WHERE name = ?", (_MARK,))


def unmark_file(path: Path) -> None:
    """The same for a file that nobody has open: what it holds open was certainly not answered since."""
    with _opened(path) as db, db:
        unmark(db)


def moved_on(before: Path, after: Path) -> bool:
    """Whether something was accepted, said or forgotten between these states of a file, which nobody may have open."""
    return any(now > then for then, now in zip(_progress(before), _progress(after), strict=True))


def _progress(path: Path) -> tuple[int, ...]:
    with _opened(path) as db:
        found: list[tuple[Any, ...]] = db.execute(
            "SELECT (SELECT ifnull(max(sequence), 0) FROM message), (SELECT ifnull(max(closed_at), 0) FROM part), "
            "(SELECT count(*) FROM part WHERE state = 2)"
        ).fetchall()
    return (*found[0], len(tombstones(path)))


# ---- people who were forgotten after a copy was made; nobody may have the files open


def tombstones(path: Path) -> list[Tombstone]:
    """The conversations that were erased on request."""
    with _opened(path) as db:
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'forgotten'").fetchall():
            return []  # A version that left none.
        found: list[Any] = db.execute("SELECT conversation_id, tenant, forgotten_at FROM forgotten").fetchall()
    return [Tombstone(conversation_id=one, tenant=tenant, forgotten_at=at) for one, tenant, at in found]


def names_of(path: Path, conversation_ids: Iterable[str]) -> set[tuple[str, str]]:
    """Of each of these conversations that the file has: tenant and an alias, a phone if there is one."""
    names: set[tuple[str, str]] = set()
    with _opened(path) as db:
        for conversation_id in conversation_ids:
            found: list[Any] = db.execute(
                "SELECT tenant, alias FROM alias WHERE conversation_id = ? ORDER BY alias DESC LIMIT 1",
                (conversation_id,),
            ).fetchall()
            names.update(found)
    return names


def add_tombstones(path: Path, more: Iterable[Tombstone]) -> None:
    """Add those of another file; the schema is brought up to date for it."""
    file = Connection(path)
    try:
        with file.transaction():
            file.db.executemany(
                "INSERT OR IGNORE INTO forgotten (conversation_id, tenant, forgotten_at) VALUES (?, ?, ?)",
                [(one.conversation_id, one.tenant, one.forgotten_at) for one in more],
            )
    finally:
        file.close()


@contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection]:
    db = apsw.Connection(str(path))
    try:
        yield db
    finally:
        db.close()
