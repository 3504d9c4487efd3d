"""Copies of the buffer's file. A copy is marked: what it holds open may have been answered after it was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

_MARK = "copied_as"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What a copy holds that had not ended."""

    open_turns: int
    pending_messages: int
    unrecorded_turns: int


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
    db = apsw.Connection(str(path))
    try:
        with db:
            unmark(db)
    finally:
        db.close()


def moved_on(before: Path, after: Path) -> bool:
    """Whether something was accepted or said between these states of a file, which nobody may have open."""
    return any(now > then for then, now in zip(_progress(before), _progress(after), strict=True))


def _progress(path: Path) -> tuple[int, ...]:
    db = apsw.Connection(str(path))
    try:
        found: list[tuple[Any, ...]] = db.execute(
            "SELECT (SELECT ifnull(max(sequence), 0) FROM message), (SELECT ifnull(max(closed_at), 0) FROM part), "
            "(SELECT count(*) FROM part WHERE state = 2)"
        ).fetchall()
        return found[0]
    finally:
        db.close()
