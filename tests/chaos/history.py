"""What happened, from everybody's own account: the processes' lines, the stores' rows, the provider, the leads."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tests.chaos.fleet import Fleet
from tests.chaos.load import Person

# The last line of a turn tells in which phase a fault found it.
PHASES = {
    "turn_given": "assigned",
    "turn_taken": "context",
    "context_arrived": "thinking",
    "text_began": "streaming",
    "commit_asked": "held",
    "attempt_allowed": "allowed",
    "send_began": "sending",
    "send_ended": "between parts",
    "reply_completed": "recording",
    "finish_asked": "finishing",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One step of a turn. `at` is wall-clock seconds, `process` whose line it is."""

    at: float
    event: str
    turn_id: str
    epoch: int = 0
    part: int = -1
    attempt: int = 0
    process: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class BookedPart:
    """A bubble in the buffer's books."""

    text: str
    state: int


@dataclass(frozen=True, kw_only=True)
class BookedTurn:
    """A turn in the buffer's books; `number` orders turns of a lane, `ended` is 0 while it runs."""

    turn_id: str
    contact: str
    number: int
    kind: int
    ended: int
    end_reason: int
    truncated: bool
    attempts: int
    recorded: bool
    message_ids: tuple[str, ...]
    parts: tuple[BookedPart, ...]


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault, wall-clock seconds. `until` is when it was over."""

    at: float
    kind: str
    victim: str
    until: float = 0.0


@dataclass(kw_only=True)
class History:
    """Everything that the checker looks at."""

    people: Sequence[Person]
    turns: list[BookedTurn] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    """Ids of messages that belong to no turn."""
    delivered: dict[str, list[str]] = field(default_factory=dict)
    """Texts by contact, in the order in which the provider took them."""
    delivered_at: list[float] = field(default_factory=list)
    remembered: list[str] = field(default_factory=list)
    """Turn ids in the context service's history."""
    lines: list[Line] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    drained: bool = True


def collect(fleet: Fleet, people: Sequence[Person], faults: Sequence[Injected], *, drained: bool) -> History:
    """Reads the files of a fleet that has stopped."""
    delivered: dict[str, list[str]] = defaultdict(list)
    for sent in fleet.provider.delivered:
        if sent.path == "sendText":
            delivered[sent.number.partition("@")[0]].append(sent.text)
    history = History(people=people, delivered=dict(delivered), faults=list(faults), drained=drained)
    history.delivered_at = [s.time_ms / 1000 for s in fleet.provider.delivered if s.path == "sendText"]
    _read_buffer(history, fleet.folder / "buffer.db")
    with sqlite3.connect(fleet.folder / "context.db") as db:
        history.remembered = [row[0] for row in db.execute("SELECT turn_id FROM turns")]
    for name, member in fleet.members.items():
        history.lines += read_lines(name, member.log.read_text(errors="replace").splitlines())
    history.lines.sort(key=lambda line: line.at)
    return history


def _read_buffer(history: History, path: Path) -> None:
    with sqlite3.connect(path) as db:
        contacts = {row[0]: row[1] for row in db.execute("SELECT conversation_id, contact FROM conversation")}
        ids: dict[str, list[str]] = defaultdict(list)
        for turn_id, message_id in db.execute("SELECT turn_id, message_id FROM message WHERE human = 0"):
            ids[turn_id].append(message_id)
        history.waiting = set(ids.pop("", []))
        parts: dict[str, list[BookedPart]] = defaultdict(list)
        for turn_id, text, state in db.execute("SELECT turn_id, text, state FROM part ORDER BY turn_id, position"):
            parts[turn_id].append(BookedPart(text=text, state=state))
        columns = (
            "turn_id, conversation_id, number, kind, ended_at, end_reason, truncated, attempts, recorded "
            "FROM turn ORDER BY number"
        )
        for row in db.execute(f"SELECT {columns}"):
            history.turns.append(
                BookedTurn(
                    turn_id=row[0],
                    contact=contacts[row[1]],
                    number=row[2],
                    kind=row[3],
                    ended=row[4],
                    end_reason=row[5],
                    truncated=bool(row[6]),
                    attempts=row[7],
                    recorded=bool(row[8]),
                    message_ids=tuple(ids[row[0]]),
                    parts=tuple(parts[row[0]]),
                )
            )


def read_lines(process: str, lines: Iterable[str]) -> list[Line]:
    """The steps of turns in a log; a line that a kill cut off is left out."""
    found = []
    for text in lines:
        if '"turn_id"' not in text:
            continue
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found.append(
            Line(
                at=datetime.fromisoformat(line["timestamp"]).timestamp(),
                event=line["event"],
                turn_id=line["turn_id"],
                epoch=line.get("epoch", 0),
                part=line.get("part", -1),
                attempt=line.get("attempt", 0),
                process=process,
                reason=str(line.get("reason", "")),
            )
        )
    return found
