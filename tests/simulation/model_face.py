"""The product's core behind the face of the executable specification, so that its checker judges it."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import Policy, Strategy, TurnTaking
from buffer_service.turn_taking import frames as fr
from buffer_service.turn_taking.entities import (
    EndReason,
    InboxMessage,
    Incoming,
    Lane,
    Part,
    PartState,
    Scope,
    SendOutcome,
    Turn,
    TurnKind,
)
from buffer_service.turn_taking.hold import Cue
from buffer_service.turn_taking.ports import UnknownConversation
from buffer_service.turn_taking.sessions import Commit
from tests.simulation.memory_store import MemoryStore

LEASE, WINDOW = 3_000, 12_000
STORED, ATTEMPTING, SENT, UNKNOWN, REFUSED, DROPPED = "stored", "attempting", "sent", "unknown", "refused", "dropped"
CLOSED = (SENT, UNKNOWN, REFUSED, DROPPED)
WHY = {EndReason.FINISHED: "finished", EndReason.PAUSED: "paused", EndReason.RECORD_ONLY: "record-only"}
Frames = list[tuple[int, dict[str, Any]]]


def any_cue(body: bytes) -> Cue:
    """A cue that depends on the message alone, as the real one does."""
    return list(Cue)[zlib.crc32(body) % len(Cue)]


@dataclass
class MessageView:
    id: int
    conv: str
    seq: int
    at: int
    record_only: bool


@dataclass
class PartView:
    text: str
    state: str
    attempt: int


@dataclass
class TurnView:
    id: int
    conv: str
    kind: str
    msgs: list[MessageView]
    parts: list[PartView]
    last: bool
    truncated: bool
    effects: tuple[Any, ...]
    why: str


@dataclass
class LaneView:
    conv: str
    turn: TurnView | None
    pending: list[MessageView]
    records: list[TurnView]


class Durable:
    """What survives a crash, seen as the checker wants it."""

    def __init__(self) -> None:
        self.store: Any = MemoryStore()
        self.origin: dict[int, str] = {}

    def step(self) -> AbstractContextManager[None]:
        """One transaction."""
        return nullcontext()

    def reopen(self) -> None:
        """A new process opens the store."""

    def all_lanes(self) -> list[Lane]:
        """Every lane, inside a transaction."""
        return list(self.store.lanes.values())

    def message(self, m: InboxMessage) -> MessageView:
        mid = int(m.message_id)
        return MessageView(mid, self.origin[mid], m.sequence, m.accepted_at, m.record_only)

    def turn(self, t: Turn) -> TurnView:
        parts = [PartView(p.text, p.state.name.lower(), p.attempt) for p in t.parts]
        msgs = [self.message(m) for m in t.messages]
        return TurnView(
            int(t.turn_id),
            t.conversation_id,
            t.kind.name,
            msgs,
            parts,
            t.last,
            t.truncated,
            decoded(t.effects),
            WHY.get(t.end_reason, ""),
        )

    @property
    def lanes(self) -> dict[str, LaneView]:
        with self.step():
            return {lane.conversation_id: self.lane(lane) for lane in self.all_lanes()}

    def lane(self, lane: Lane) -> LaneView:
        turn = self.turn(lane.turn) if lane.turn else None
        records = [self.turn(t) for t in self.store.unrecorded_turns(lane)] if lane.unrecorded else []
        return LaneView(lane.conversation_id, turn, [self.message(m) for m in lane.pending], records)

    @property
    def ended(self) -> list[TurnView]:
        with self.step():
            return [self.turn(t) for t in self.store.ended_in_order()]


class SimulatedSqlite(SqliteStore):
    """The real store, with turn ids that tell their order."""

    def new_turn_id(self) -> str:
        return str(self.next_number())

    def open_lane(self, conversation_id: str, now: int = 0) -> Lane:
        try:
            return self.lane(conversation_id)
        except UnknownConversation:
            lane = Lane(conversation_id, Scope("default", "test", "one"), now)
            self._lanes[conversation_id] = (lane, None, [])
            return lane

    def unrecorded_turns(self, lane: Lane) -> list[Turn]:
        return list(self._unrecorded_turns(lane))

    def ended_in_order(self) -> list[Turn]:
        found = self.query("SELECT turn_id FROM turn WHERE ended_no > 0 ORDER BY ended_no")
        return [self.turn(row[0]) for row in found]


class SqliteDurable(Durable):
    """The same over a real file, which a new process opens after every crash."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="simulation-")
        self.store = SimulatedSqlite(Path(self.folder.name) / "buffer.db")

    @contextmanager
    def step(self) -> Iterator[None]:
        with self.store.transaction(), self.store.step():
            yield

    def reopen(self) -> None:
        self.store.close()
        self.store = SimulatedSqlite(Path(self.folder.name) / "buffer.db")

    def all_lanes(self) -> list[Lane]:
        return [self.store.lane(row[0]) for row in self.store.query("SELECT conversation_id FROM conversation")]

    def close(self) -> None:
        self.store.close()
        self.folder.cleanup()


def decoded(effects: tuple[bytes, ...]) -> tuple[str, ...]:
    """Effects are opaque bytes to the product, names to the checker."""
    return tuple(e.decode() for e in effects)


class Witnessed(TurnTaking):
    """Tells the checker what it does. Test-only: the product's core knows no observer."""

    log: Callable[..., None]

    def _new_turn(self, now: int, lane: Lane, kind: TurnKind, messages: list[InboxMessage]) -> Turn:
        turn = super()._new_turn(now, lane, kind, messages)
        self.log("open", int(turn.turn_id), lane.conversation_id, kind.name)
        return turn

    def _join(self, now: int, lane: Lane, turn: Turn, message: InboxMessage) -> None:
        super()._join(now, lane, turn, message)
        self.log("join", int(turn.turn_id), turn.revision, turn.kind.name, int(message.message_id))

    def _first_commit(self, now: int, sid: int, lane: Lane, turn: Turn, commit: Commit, *, since: int) -> None:
        super()._first_commit(now, sid, lane, turn, commit, since=since)
        if turn.parts:
            mids = [int(m.message_id) for m in turn.messages]
            text = turn.parts[0].text
            self.log("first", int(turn.turn_id), turn.epoch, commit.revision, turn.revision, mids, text)

    def _attempt(self, now: int, sid: int, turn: Turn, index: int, part: Part) -> fr.Go:
        go = super()._attempt(now, sid, turn, index, part)
        lane = self.raw(turn.conversation_id)
        self.log("attempting", turn.conversation_id, int(turn.turn_id), index, part.attempt, turn.epoch, lane.paused)
        return go

    def close_part(self, now: int, lane: Lane, turn: Turn, part: Part, outcome: SendOutcome) -> None:
        index = turn.parts.index(part)
        self.log("closed", int(turn.turn_id), index, part.attempt, outcome.name)
        super().close_part(now, lane, turn, part, outcome)

    def pause_lane(self, now: int, lane: Lane, reason: str) -> None:
        if not lane.paused:
            self.log("pause", lane.conversation_id)
        super().pause_lane(now, lane, reason)

    def resume_lane(self, now: int, lane: Lane) -> None:
        self.log("resume", lane.conversation_id)
        super().resume_lane(now, lane)

    def merge(self, now: int, older: Lane, younger: Lane) -> None:
        if older is not younger:
            self.log("merge", older.conversation_id, younger.conversation_id)
        super().merge(now, older, younger)


class Core:
    """The specification's interface: every method is one transaction and returns frames as dictionaries."""

    def __init__(self, durable: Durable, now: int, cfg: dict[str, Any], log: Callable[..., None]) -> None:
        self.d, self.log = durable, log
        durable.reopen()
        policy = Policy(strategy=Strategy(cfg["strategy"]), **{"max_messages": 8, **cfg.get("policy", {})})
        self.core = cfg.get("core", Witnessed)(store=durable.store, policy=policy, read_cue=any_cue)
        self.core.log = log
        with durable.step():
            self.core.restore(now, durable.all_lanes())
        self.core.take_frames()

    def frames(self) -> Frames:
        return [(sid, self.translate(f)) for sid, f in self.core.take_frames()]

    def translate(self, f: fr.Frame) -> dict[str, Any]:
        match f:
            case fr.Assign():
                parts = [(p.text, p.state.name.lower(), p.attempt) for p in f.parts]
                self.log("assign", int(f.turn_id), f.epoch, "", f.kept)
                return {
                    "f": "Assign", "turn": int(f.turn_id), "conv": f.who.conversation_id, "epoch": f.epoch,
                    "revision": f.revision, "kind": f.kind.name, "msgs": self.messages(f.messages), "last": f.last,
                    "handoff": False, "effects": decoded(f.effects), "truncated": f.truncated, "parts": parts,
                    "unrecorded": [self.record(r) for r in f.unrecorded], "more": f.more_unrecorded,
                    "remaining": f.remaining, "keep": f.kept,
                }  # fmt: skip
            case fr.Joined():
                return {"f": "Joined", **self.joined(f)}
            case fr.Committed():
                out = {
                    "f": "Committed", "turn": int(f.turn_id), "epoch": f.epoch, "ask": f.ask, "parked": f.parked,
                    "refused": str(f.refusal or ""), "have": f.stored_parts, "complete": f.complete,
                    "go": (f.go.index, f.go.part.attempt, f.go.part.text) if f.go else None,
                    "record": self.record(f.record) if f.record else None,
                }  # fmt: skip
                if f.refusal:
                    self.log("refused", int(f.turn_id), f.epoch, str(f.refusal))
                return {**out, **(self.joined(f.superseded) if f.superseded else {})}
            case fr.Revoke():
                return {"f": "Revoke", "turn": int(f.turn_id), "epoch": f.epoch or -1}
            case fr.Record():
                return {"f": "Record", "conv": f.conversation_id, "turns": [self.record(r) for r in f.turns]}
            case fr.Drain():
                return {"f": "Drain"}

    def joined(self, f: fr.Joined) -> dict[str, Any]:
        return {"turn": int(f.turn_id), "revision": f.revision, "msgs": self.messages(f.messages)}

    def messages(self, messages: tuple[InboxMessage, ...]) -> list[MessageView]:
        return [self.d.message(m) for m in sorted(messages, key=lambda m: m.sequence)]

    def record(self, r: fr.RecordedTurn) -> tuple[Any, ...]:
        t = r.turn
        said = tuple(p.text for p in t.parts if p.state in (PartState.SENT, PartState.UNKNOWN))
        mids = tuple(int(m.message_id) for m in t.messages)
        return t.conversation_id, int(t.turn_id), mids, said, decoded(t.effects)

    # ---- the specification's transactions

    def enqueue(self, now: int, mid: int, conv: str, human: bool = False, stale: bool = False) -> Frames:
        with self.d.step():
            self.d.store.open_lane(conv, now)
            self.d.origin.setdefault(mid, self.core.lane(conv).conversation_id)
            incoming = Incoming(message_id=str(mid), body=b"", provider_at=0, human=human, record_only=stale)
            self.core.enqueue(now, conv, incoming)
        return self.frames()

    def presence(self, now: int, conv: str) -> Frames:
        with self.d.step():
            self.d.store.open_lane(conv, now)
            self.core.presence(now, conv, True)
        return self.frames()

    def pause(self, now: int, conv: str) -> Frames:
        with self.d.step():
            self.d.store.open_lane(conv, now)
            self.core.pause(now, conv, "rpc")
        return self.frames()

    def resume(self, now: int, conv: str) -> Frames:
        with self.d.step():
            self.d.store.open_lane(conv, now)
            self.core.resume(now, conv)
        return self.frames()

    def merge(self, now: int, older: str, younger: str) -> Frames:
        with self.d.step():
            for conv in (older, younger):
                self.d.store.open_lane(conv, now)
            self.core.join_lanes(now, older, younger)
        return self.frames()

    def hello(self, now: int, sid: int, worker: str, capacity: int, holding: Any) -> Frames:
        with self.d.step():
            named = [(str(t), e) for t, e in dict(holding).items()]
            self.core.hello(now, sid, worker=worker, capacity=capacity, holding=named)
        return self.frames()

    def heartbeat(self, now: int, sid: int) -> Frames:
        with self.d.step():
            self.core.heartbeat(now, sid)
        return []

    def stream_lost(self, now: int, sid: int) -> Frames:
        with self.d.step():
            self.core.stream_lost(sid)
        return self.frames()

    def commit(self, now: int, sid: int, turn: int, epoch: int, ask: int, revision: int, parts: list[str], last: bool,
               effects: Any, handoff: bool = False, truncated: bool = False) -> Frames:  # fmt: skip
        with self.d.step():
            self.core.commit(
                now,
                sid,
                Commit(
                    ask=ask,
                    turn_id=str(turn),
                    epoch=epoch,
                    revision=revision,
                    parts=tuple(parts),
                    last=last,
                    effects=tuple(e.encode() for e in effects),
                    handoff=handoff,
                    truncated=truncated,
                ),
            )
            self.core.settle(now)
        return self.frames()

    def result(
        self, now: int, sid: int, turn: int, epoch: int, ask: int, part: int, attempt: int, outcome: str
    ) -> Frames:
        with self.d.step():
            self.core.result(
                now,
                sid,
                ask=ask,
                turn_id=str(turn),
                epoch=epoch,
                part=part,
                attempt=attempt,
                outcome=SendOutcome[outcome],
            )
            self.core.settle(now)
        return self.frames()

    def finish(self, now: int, sid: int, turn: int, epoch: int, ask: int, recorded: bool) -> Frames:
        with self.d.step():
            version = 1 if recorded else None
            self.core.finish(now, sid, ask=ask, turn_id=str(turn), epoch=epoch, version=version)
            self.core.settle(now)
        return self.frames()

    def release(self, now: int, sid: int, turn: int, epoch: int, failed: bool) -> Frames:
        with self.d.step():
            self.core.release(now, turn_id=str(turn), epoch=epoch, failed=failed)
            self.core.settle(now)
        return self.frames()

    def recorded(self, now: int, conv: str, upto: int) -> Frames:
        with self.d.step():
            self.core.recorded(now, conversation_id=conv, turn_id=str(upto), version=1)
            self.core.settle(now)
        return self.frames()

    def woke(self, now: int) -> Frames:
        with self.d.step():
            self.core.woke(now)
        return self.frames()

    def tick(self, now: int) -> Frames:
        with self.d.step():
            self.core.tick(now)
        return self.frames()

    def due(self, now: int) -> int:
        """Earliest time at which tick() may have something to do; the engine never sleeps over 200 ms."""
        return max(now + 1, min(self.core.timers.next() or now + 200, now + 200))


__all__ = ["Core", "Durable", "SqliteDurable", "Witnessed"]
