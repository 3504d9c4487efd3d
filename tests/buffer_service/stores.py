"""The stores under test, each behind a home that can be opened and killed; and the model they are compared with."""

from __future__ import annotations

import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from buffer_service.store.sqlite import DeadLetter, SqliteStore
from buffer_service.turn_taking.entities import InboxMessage, Lane, Scope, Turn
from buffer_service.turn_taking.ports import LaneStore
from tests.simulation.memory_store import MemoryStore


class BufferStore(LaneStore, Protocol):
    """Everything that engine, inbox, identities, people and housekeeping use of a store. Inside a step every verb sees
    what the step has changed so far."""

    live_messages: int
    live_bytes: int
    erased: bool

    def transaction(self) -> AbstractContextManager[None]: ...
    def step(self) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...
    def live_lanes(self) -> list[str]: ...
    def turn(self, turn_id: str) -> Turn: ...
    def create_lane(self, scope: Scope, now: int) -> Lane: ...
    def conversations_of(self, scope: Scope, aliases: Sequence[str]) -> list[str]: ...
    def add_aliases(self, lane: Lane, aliases: Sequence[str]) -> None: ...
    def repoint_aliases(self, younger_id: str, older_id: str) -> None: ...
    def seen(self, scope: Scope, message_id: str) -> bool: ...
    def note_delivery(self, scope: Scope, provider_message_id: str, status: int) -> str: ...
    def quarantine(self, scope: Scope, reason: str, body: bytes, now: int) -> None: ...
    def ended_turns(self, conversation_id: str, limit: int) -> list[Turn]: ...
    def list_lanes(self, tenant: str, after: tuple[int, str], limit: int, *, idle_too: bool) -> list[Lane]: ...
    def dead_letters(self, tenant: str, before: int, limit: int, *, replayed_too: bool) -> list[DeadLetter]: ...
    def dead_letter(self, dead_letter_id: int) -> DeadLetter | None: ...
    def messages_of(self, turn_id: str) -> list[InboxMessage]: ...
    def turn_of_message(self, scope: Scope, message_id: str) -> str: ...
    def mark_replayed(self, dead_letter_id: int, turn_id: str, now: int, *, handed: bool) -> None: ...
    def stats(self, tenant: str) -> dict[str, Any]: ...
    def conversations_of_person(self, tenant: str, alias: str) -> list[str]: ...
    def erase(self, conversation_id: str) -> int: ...
    def erase_quarantine(self, tenant: str, needles: Sequence[str]) -> int: ...
    def leave_tombstones(self, tenant: str, conversation_ids: Sequence[str], now: int) -> None: ...
    def vacuum(self, *, at_most_bytes: int) -> bool: ...
    def sweep(self, before: int, limit: int = 200) -> int: ...
    def sweep_people(self, before: int, limit: int = 200) -> int: ...


class Home(Protocol):
    """Where one store's data live while processes come and go."""

    def open(self) -> BufferStore:
        """A new process opens the data."""

    def kill(self) -> None:
        """The process that has them open is gone; what was not committed is lost."""


class ModelStore(MemoryStore):
    """A whole store in dictionaries: the reference. Slow and obvious; undoing is going back to a copy."""

    BOOKS = ("lanes", "turns", "messages", "aliases", "letters", "quarantined")

    def __init__(self) -> None:
        super().__init__()
        self.aliases: dict[tuple[Scope, str], str] = {}
        self.letters: list[DeadLetter] = []
        self.quarantined: list[tuple[Scope, bytes, int]] = []
        self.erased = False

    # ---- transactions

    def copy(self) -> bytes:
        return pickle.dumps([getattr(self, name) for name in self.BOOKS])

    def go_back(self, copy: bytes) -> None:
        for name, value in zip(self.BOOKS, pickle.loads(copy), strict=True):
            setattr(self, name, value)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        before = self.copy()
        try:
            yield
        except BaseException:
            self.go_back(before)
            raise

    step = transaction

    def close(self) -> None:
        """Nothing to close."""

    # ---- lanes, turns, messages

    def create_lane(self, scope: Scope, now: int) -> Lane:
        lane = Lane(str(uuid.uuid4()), scope, now)
        self.lanes[lane.conversation_id] = lane
        return lane

    @staticmethod
    def _live(lane: Lane) -> bool:
        return bool(lane.turn or lane.pending or lane.unrecorded or lane.pause)

    def live_lanes(self) -> list[str]:
        live = [lane for lane in self.lanes.values() if self._live(lane) or lane.echoes]
        return [lane.conversation_id for lane in sorted(live, key=lambda lane: lane.activity_at)]

    def turn(self, turn_id: str) -> Turn:
        return self.turns[turn_id]

    def unrecorded(self, lane: Lane, max_bytes: int) -> tuple[list[Turn], bool]:
        fitting: list[Turn] = []
        size = 0
        for turn in self.unrecorded_turns(lane):
            size += turn.size + sum(len(p.text) for p in turn.parts)
            if fitting and size > max_bytes:
                return fitting, True
            fitting.append(turn)
        return fitting, False

    def _unfinished(self) -> list[InboxMessage]:
        return [m for m in self.messages.values() if not m.turn_id or not self.turns[m.turn_id].recorded]

    @property
    def live_messages(self) -> int:
        return len(self._unfinished())

    @property
    def live_bytes(self) -> int:
        return sum(len(m.body) for m in self._unfinished())

    def ended_turns(self, conversation_id: str, limit: int) -> list[Turn]:
        return self._ended(self.lanes[conversation_id])[::-1][:limit]

    def messages_of(self, turn_id: str) -> list[InboxMessage]:
        return sorted((m for m in self.messages.values() if m.turn_id == turn_id), key=lambda m: m.sequence)

    def turn_of_message(self, scope: Scope, message_id: str) -> str:
        message = self.messages.get((scope, message_id))
        return message.turn_id if message else ""

    # ---- identity

    def conversations_of(self, scope: Scope, aliases: Sequence[str]) -> list[str]:
        known = {self.aliases[scope, alias] for alias in aliases if (scope, alias) in self.aliases}
        return sorted(known, key=lambda name: (self.lanes[name].created_at, name))

    def add_aliases(self, lane: Lane, aliases: Sequence[str]) -> None:
        self.aliases.update({(lane.scope, alias): lane.conversation_id for alias in aliases})

    def repoint_aliases(self, younger_id: str, older_id: str) -> None:
        self.aliases = {key: older_id if name == younger_id else name for key, name in self.aliases.items()}

    def seen(self, scope: Scope, message_id: str) -> bool:
        return (scope, message_id) in self.messages

    def conversations_of_person(self, tenant: str, alias: str) -> list[str]:
        mine = {(a, n) for (scope, a), n in self.aliases.items() if scope.tenant == tenant}
        found: set[str] = set()
        more = {n for a, n in mine if a == alias}
        while more - found:
            found |= more
            names = {a for a, n in mine if n in found}
            merged = {m for n in found if n in self.lanes for m in self.merged_into(self.lanes[n])}
            more = {n for a, n in mine if a in names} | merged
        return sorted(found)

    # ---- evidence, dead letters, counts

    def note_delivery(self, scope: Scope, provider_message_id: str, status: int) -> str:
        for turn in self.turns.values():
            if self.lanes[turn.conversation_id].scope != scope:
                continue
            if any(p.provider_message_id == provider_message_id for p in turn.parts):
                return turn.conversation_id
        return ""

    def quarantine(self, scope: Scope, reason: str, body: bytes, now: int) -> None:
        self.quarantined.append((scope, body, now))

    def bury(self, turn: Turn, reason: str, now: int) -> None:
        letter = DeadLetter(
            dead_letter_id=max((d.dead_letter_id for d in self.letters), default=0) + 1,
            turn_id=turn.turn_id,
            conversation_id=turn.conversation_id,
            reason=reason,
            created_at=now,
            replayed_at=0,
            replay_turn_id="",
            handed=False,
        )
        self.letters.append(letter)

    def _letters(self, tenant: str) -> list[DeadLetter]:
        return [d for d in self.letters if tenant in ("", self.lanes[d.conversation_id].scope.tenant)]

    def dead_letters(self, tenant: str, before: int, limit: int, *, replayed_too: bool) -> list[DeadLetter]:
        wanted = [d for d in self._letters(tenant) if d.dead_letter_id < before and (replayed_too or not d.replayed_at)]
        return wanted[::-1][:limit]

    def dead_letter(self, dead_letter_id: int) -> DeadLetter | None:
        return next((d for d in self.letters if d.dead_letter_id == dead_letter_id), None)

    def mark_replayed(self, dead_letter_id: int, turn_id: str, now: int, *, handed: bool) -> None:
        self.letters = [
            replace(d, replayed_at=now, replay_turn_id=turn_id, handed=handed)
            if d.dead_letter_id == dead_letter_id
            else d
            for d in self.letters
        ]

    def list_lanes(self, tenant: str, after: tuple[int, str], limit: int, *, idle_too: bool) -> list[Lane]:
        def place(lane: Lane) -> tuple[int, str]:
            return lane.activity_at, lane.conversation_id

        mine = [lane for lane in self.lanes.values() if lane.scope.tenant == tenant and not lane.merged_into]
        wanted = [lane for lane in mine if place(lane) > after and (idle_too or self._live(lane))]
        return sorted(wanted, key=place)[:limit]

    def stats(self, tenant: str) -> dict[str, Any]:
        mine = [lane for lane in self.lanes.values() if tenant in ("", lane.scope.tenant)]
        names = {lane.conversation_id for lane in mine}
        pauses = [lane.pause.since for lane in mine if lane.pause]
        parts = [p for t in self.turns.values() if t.conversation_id in names for p in t.parts]
        return {
            "turns": sum(lane.turn is not None for lane in mine),
            "paused": len(pauses),
            "oldest_pause": min(pauses, default=None),
            "pending": sum(len(lane.pending) for lane in mine),
            "unrecorded": sum(lane.unrecorded for lane in mine),
            "conversations": len(mine),
            "needs_human": sum(lane.needs_human for lane in mine),
            "dead_letters": sum(not d.replayed_at for d in self._letters(tenant)),
            "quarantined": sum(tenant in ("", scope.tenant) for scope, *_ in self.quarantined),
            "unknown_parts": sum(p.state.name == "UNKNOWN" for p in parts),
        }

    # ---- erasing

    def erase(self, conversation_id: str) -> int:
        turns = {t.turn_id for t in self.turns.values() if t.conversation_id == conversation_id}
        found = sum(m.conversation_id == conversation_id for m in self.messages.values())
        self.messages = {
            k: m for k, m in self.messages.items() if m.conversation_id != conversation_id and m.turn_id not in turns
        }
        self.turns = {k: t for k, t in self.turns.items() if k not in turns}
        self.aliases = {k: name for k, name in self.aliases.items() if name != conversation_id}
        self.letters = [d for d in self.letters if d.conversation_id != conversation_id]
        self.lanes.pop(conversation_id, None)
        self.erased = True
        return found

    def erase_quarantine(self, tenant: str, needles: Sequence[str]) -> int:
        gone = [q for q in self.quarantined if q[0].tenant == tenant and any(n.encode() in q[1] for n in needles)]
        self.quarantined = [q for q in self.quarantined if q not in gone]
        self.erased = self.erased or bool(gone)
        return len(gone)

    def leave_tombstones(self, tenant: str, conversation_ids: Sequence[str], now: int) -> None:
        """They are for copies of a file."""

    def vacuum(self, *, at_most_bytes: int) -> bool:
        self.erased = False
        return True

    def sweep(self, before: int, limit: int = 200) -> int:
        kept = {d.turn_id for d in self.letters if not d.replayed_at}
        old = [t.turn_id for t in self.turns.values() if t.recorded and t.ended_at < before and t.turn_id not in kept]
        for turn_id in old[:limit]:
            del self.turns[turn_id]
            self.messages = {k: m for k, m in self.messages.items() if m.turn_id != turn_id}
        self.quarantined = [q for q in self.quarantined if q[2] >= before]
        return len(old[:limit])

    def sweep_people(self, before: int, limit: int = 200) -> int:
        letters = [d for d in self.letters if d.created_at < before][:limit]
        self.letters = [d for d in self.letters if d not in letters]
        busy = {t.conversation_id for t in self.turns.values()} | {lane.merged_into for lane in self.lanes.values()}
        silent = [
            lane.conversation_id
            for lane in self.lanes.values()
            if max(lane.activity_at, lane.created_at) < before
            and not (self._live(lane) or lane.echoes or lane.conversation_id in busy)
        ][:limit]
        erased = self.erased
        for name in silent:
            self.erase(name)
        self.erased = erased
        return len(letters) + len(silent)


class MemoryHome:
    """The model survives its process."""

    def __init__(self, folder: Path) -> None:
        self.store = ModelStore()

    def open(self) -> BufferStore:
        return self.store

    def kill(self) -> None:
        """Nothing is lost but what a transaction rolls back by itself."""


class SqliteHome:
    """A file. Killing leaves it as kill -9 would: the log is not written back, an open transaction is in it half."""

    def __init__(self, folder: Path, kind: type[SqliteStore] = SqliteStore) -> None:
        self.folder, self.kind = folder / "0", kind
        self.store: SqliteStore | None = None
        self.deaths = 0

    def open(self) -> BufferStore:
        self.store = self.kind(self.folder / "buffer.db")
        return self.store

    def kill(self) -> None:
        if self.store is None:
            return
        self.deaths += 1
        left = self.folder.with_name(str(self.deaths))
        shutil.copytree(self.folder, left)
        self.store.db.close(True)
        shutil.rmtree(self.folder)
        self.folder, self.store = left, None


STORES: dict[str, Callable[[Path], Home]] = {"sqlite": SqliteHome, "memory": MemoryHome}
