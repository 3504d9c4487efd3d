"""Lanes in SQLite: turn-taking's LaneStore.

A transaction (`begin` … `commit`) holds many steps, so that one fsync makes them durable together; a step is one
command of turn-taking, and a failed one leaves nothing behind. Entities that a step was handed are saved when it
ends, by comparing them with the rows they came from; and before a question that only the tables answer (`ask`), so
that a step sees what it has done itself.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from buffer_service.store import rows
from buffer_service.store.connection import Connection
from buffer_service.turn_taking.entities import Echo, InboxMessage, Incoming, Lane, Part, PartState, Scope, Turn
from buffer_service.turn_taking.ports import UnknownConversation


class LaneTables(Connection):
    """Implements LaneStore. Entities live for one step."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lanes: dict[str, tuple[Lane, rows.Row | None, list[Echo]]] = {}
        self._turns: dict[str, tuple[Turn, rows.Row | None, list[rows.Row]]] = {}
        self._messages: dict[int, tuple[InboxMessage, rows.Row]] = {}
        self._number = int(self.one("SELECT max(ifnull(max(number), 0), ifnull(max(ended_no), 0)) FROM turn")[0])
        self.live_messages: int
        self.live_bytes: int
        self.live_messages, self.live_bytes = self.one(
            "SELECT count(*), ifnull(sum(length(body)), 0) FROM message m WHERE turn_id = '' OR EXISTS "
            "(SELECT 1 FROM turn t WHERE t.turn_id = m.turn_id AND t.recorded = 0)"
        )
        # Counted once: a scan for every look at the counts would stop the turns meanwhile.
        self.conversations = Counter(dict(self.query("SELECT tenant, count(*) FROM conversation GROUP BY tenant")))
        self._counted: list[tuple[str, int]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """One command: all of it, or nothing."""
        self.db.execute("SAVEPOINT step")
        before = (self.live_messages, self.live_bytes)
        try:
            yield
            self._save()
        except BaseException:
            self.db.execute("ROLLBACK TO step; RELEASE step")
            self.live_messages, self.live_bytes = before
            for tenant, more in self._counted:
                self.conversations[tenant] -= more
            raise
        else:
            self.db.execute("RELEASE step")
        finally:
            self._lanes.clear()
            self._turns.clear()
            self._messages.clear()
            self._counted.clear()

    def count_conversation(self, tenant: str, more: int) -> None:
        """One more or one less, unless the step fails."""
        self.conversations[tenant] += more
        self._counted.append((tenant, more))

    # ---- lanes

    def lane(self, conversation_id: str) -> Lane:
        """See LaneStore."""
        known = self._lanes.get(conversation_id)
        if known:
            return known[0]
        found = self.query(f"SELECT {rows.LANE} FROM conversation WHERE conversation_id = ?", (conversation_id,))
        if not found:
            raise UnknownConversation(conversation_id)
        row = found[0]
        lane = rows.lane_of(row)
        if row[20]:
            lane.echoes = self._load_echoes(conversation_id)
        self._lanes[conversation_id] = (lane, row, list(lane.echoes))
        if row[17]:
            lane.turn = self.turn(row[17])
        if row[18]:
            lane.pending = self._load_messages("conversation_id = ? AND turn_id = ''", conversation_id)
        return lane

    def create_lane(self, scope: Scope, now: int) -> Lane:
        """A new conversation."""
        lane = Lane(str(uuid.uuid4()), scope, now)
        self._lanes[lane.conversation_id] = (lane, None, [])
        return lane

    def live_lanes(self) -> list[str]:
        """Conversations in which something is to be done or to be awaited."""
        found = self.ask(
            "SELECT conversation_id FROM conversation WHERE turn_id <> '' OR pending > 0 OR unrecorded > 0 "
            "OR pause_since IS NOT NULL OR echoes > 0 ORDER BY activity_at"
        )
        return [row[0] for row in found]

    def _load_messages(self, where: str, *args: object) -> list[InboxMessage]:
        found = self.query(f"SELECT {rows.MESSAGE} FROM message WHERE {where} ORDER BY sequence", args)
        return [self._track(row) for row in found]

    def _track(self, row: rows.Row) -> InboxMessage:
        known = self._messages.get(row[0])
        if known:
            return known[0]
        message = rows.message_of(row)
        self._messages[message.sequence] = (message, row)
        return message

    def _load_echoes(self, conversation_id: str) -> list[Echo]:
        found = self.query(
            "SELECT message_id, text, at, provider_at, body FROM echo WHERE conversation_id = ? ORDER BY position, at",
            (conversation_id,),
        )
        return [
            Echo(text, at, Incoming(message_id=mid, body=body, provider_at=provider_at, human=True))
            for mid, text, at, provider_at, body in found
        ]

    # ---- turns

    def turn(self, turn_id: str) -> Turn:
        """A turn by id; raises KeyError."""
        known = self._turns.get(turn_id)
        if known:
            return known[0]
        found = self.query(f"SELECT {rows.TURN} FROM turn WHERE turn_id = ?", (turn_id,))
        if not found:
            raise KeyError(turn_id)
        return self._load_turn(found[0])

    def _load_turn(self, row: rows.Row) -> Turn:
        known = self._turns.get(row[1])
        if known:
            return known[0]
        messages = self._load_messages("turn_id = ?", row[1])
        found = self.query(f"SELECT {rows.PART} FROM part WHERE turn_id = ? ORDER BY position", (row[1],))
        turn = rows.turn_of(row, messages, [rows.part_of(p) for p in found])
        self._turns[turn.turn_id] = (turn, row, found)
        return turn

    def next_number(self) -> int:
        """See LaneStore."""
        self._number += 1
        return self._number

    def new_turn_id(self) -> str:
        """See LaneStore."""
        return uuid.uuid4().hex

    def add_turn(self, turn: Turn) -> None:
        """See LaneStore."""
        self._turns[turn.turn_id] = (turn, None, [])

    def new_message(self, lane: Lane, incoming: Incoming, now: int) -> InboxMessage | None:
        """See LaneStore."""
        scope = lane.scope
        found = self.query(
            "INSERT INTO message (tenant, channel, instance, message_id, conversation_id, turn_id, accepted_at, "
            "provider_at, human, record_only, body) VALUES (?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING RETURNING sequence",
            (
                scope.tenant,
                scope.channel,
                scope.instance,
                incoming.message_id,
                lane.conversation_id,
                now,
                incoming.provider_at,
                int(incoming.human),
                int(incoming.record_only),
                incoming.body,
            ),
        )
        if not found:
            return None
        self.live_messages += 1
        self.live_bytes += len(incoming.body)
        row = (
            found[0][0],
            incoming.message_id,
            lane.conversation_id,
            now,
            incoming.provider_at,
            incoming.body,
            int(incoming.human),
            int(incoming.record_only),
            "",
        )
        return self._track(row)

    def unrecorded(self, lane: Lane, max_bytes: int) -> tuple[list[Turn], bool]:
        """See LaneStore."""
        turns: list[Turn] = []
        size = 0
        for turn in self._unrecorded_turns(lane):
            size += turn.size + sum(len(p.text) for p in turn.parts)
            if turns and size > max_bytes:
                return turns, True
            turns.append(turn)
        return turns, False

    def _unrecorded_turns(self, lane: Lane) -> Iterator[Turn]:
        stored = self.query(
            f"SELECT {rows.TURN} FROM turn WHERE conversation_id = ? AND ended_no > 0 AND recorded = 0 "
            "ORDER BY ended_no",
            (lane.conversation_id,),
        )
        older = [t for t in (self._load_turn(row) for row in stored) if not t.recorded]
        # Turns that ended in this very step are not stored as ended yet.
        found = {t.turn_id for t in older}
        fresh = [
            t
            for t, *_ in self._turns.values()
            if t.ended_no and not t.recorded and t.conversation_id == lane.conversation_id and t.turn_id not in found
        ]
        yield from sorted([*older, *fresh], key=lambda t: t.ended_no)

    def mark_recorded(self, lane: Lane, upto_ended_no: int) -> None:
        """See LaneStore."""
        for turn in self._unrecorded_turns(lane):
            if turn.ended_no <= upto_ended_no:
                turn.recorded = True
                lane.unrecorded -= 1

    def ended_no(self, lane: Lane, turn_id: str) -> int:
        """See LaneStore."""
        try:
            turn = self.turn(turn_id)
        except KeyError:
            return 0
        return turn.ended_no if turn.conversation_id == lane.conversation_id else 0

    def bury(self, turn: Turn, reason: str, now: int) -> None:
        """See LaneStore."""
        lane = self.lane(turn.conversation_id)
        self.db.execute(
            "INSERT INTO dead_letter (turn_id, conversation_id, tenant, reason, created_at) VALUES (?, ?, ?, ?, ?)",
            (turn.turn_id, turn.conversation_id, lane.scope.tenant, reason, now),
        )

    # ---- evidence

    def merged_into(self, lane: Lane) -> list[str]:
        """See LaneStore."""
        found = self.ask(
            "WITH RECURSIVE merged (name) AS ("
            "SELECT conversation_id FROM conversation WHERE merged_into = ? AND merged_into <> '' UNION "
            "SELECT c.conversation_id FROM conversation c JOIN merged m ON c.merged_into = m.name "
            "AND c.merged_into <> '') SELECT name FROM merged",
            (lane.conversation_id,),
        )
        return [row[0] for row in found]

    def unknown_parts(self, lane: Lane, since: int) -> list[tuple[Turn, Part]]:
        """See LaneStore."""
        found = self.ask(
            "SELECT DISTINCT t.turn_id FROM part p JOIN turn t ON t.turn_id = p.turn_id "
            "WHERE p.state = 4 AND p.closed_at >= ? AND t.conversation_id = ? AND t.ended_no > 0 ORDER BY t.ended_no",
            (since, lane.conversation_id),
        )
        turns = [self.turn(row[0]) for row in found]
        return [(t, p) for t in turns for p in t.parts if p.state is PartState.UNKNOWN and p.closed_at >= since]

    def correct(self, turn_id: str, index: int, attempt: int, provider_message_id: str) -> bool:
        """See LaneStore."""
        try:
            turn = self.turn(turn_id)
        except KeyError:
            return False
        part = turn.parts[index] if 0 <= index < len(turn.parts) else None
        if part is None or part.attempt != attempt or part.state is not PartState.UNKNOWN:
            return False
        part.state, part.provider_message_id = PartState.SENT, provider_message_id
        return True

    def knows_send(self, lane: Lane, provider_message_id: str) -> bool:
        """See LaneStore."""
        found = self.ask(
            "SELECT 1 FROM part p JOIN turn t ON t.turn_id = p.turn_id "
            "WHERE p.provider_message_id = ? AND t.conversation_id = ? LIMIT 1",
            (provider_message_id, lane.conversation_id),
        )
        return bool(found)

    # ---- saving

    def ask(self, sql: str, args: tuple[object, ...] = ()) -> list[rows.Row]:
        """Rows of a question about more than the entities in hand, whose changes are saved first."""
        self._save()
        return self.query(sql, args)

    def _save(self) -> None:
        for lane, before, echoes in list(self._lanes.values()):
            self._save_lane(lane, before, echoes)
        for turn, row, parts in list(self._turns.values()):
            self._save_turn(turn, row, parts)
        for message, row in list(self._messages.values()):
            now = (message.conversation_id, message.accepted_at, int(message.record_only), message.turn_id)
            if now != (row[2], row[3], row[7], row[8]):
                self.db.execute(
                    "UPDATE message SET conversation_id = ?, accepted_at = ?, record_only = ?, turn_id = ? "
                    "WHERE sequence = ?",
                    (*now, message.sequence),
                )
                self._messages[message.sequence] = (message, (*row[:2], *now[:2], *row[4:7], *now[2:]))

    def _save_lane(self, lane: Lane, before: rows.Row | None, echoes_before: list[Echo]) -> None:
        row = rows.lane_row(lane)
        if row != before:
            marks = rows.placeholders(rows.LANE)
            self.db.execute(f"INSERT OR REPLACE INTO conversation ({rows.LANE}) VALUES ({marks})", row)
        if before is None:
            self.count_conversation(lane.scope.tenant, 1)
        if lane.echoes != echoes_before:
            self._save_echoes(lane)
        self._lanes[lane.conversation_id] = (lane, row, list(lane.echoes))

    def _save_echoes(self, lane: Lane) -> None:
        self.db.execute("DELETE FROM echo WHERE conversation_id = ?", (lane.conversation_id,))
        for position, echo in enumerate(lane.echoes):
            incoming = echo.incoming
            self.db.execute(
                "INSERT INTO echo (conversation_id, message_id, text, at, provider_at, body, position) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    lane.conversation_id,
                    incoming.message_id,
                    echo.text,
                    echo.at,
                    incoming.provider_at,
                    incoming.body,
                    position,
                ),
            )

    def _save_turn(self, turn: Turn, before: rows.Row | None, parts_before: list[rows.Row]) -> None:
        row = rows.turn_row(turn)
        if row != before:
            marks = rows.placeholders(rows.TURN)
            self.db.execute(f"INSERT OR REPLACE INTO turn ({rows.TURN}) VALUES ({marks})", row)
            if turn.recorded and not (before and before[19]):
                self.live_messages -= len(turn.messages)
                self.live_bytes -= turn.size
        parts = [rows.part_row(p) for p in turn.parts]
        for position, part in enumerate(parts):
            if position >= len(parts_before) or part != tuple(parts_before[position]):
                self.db.execute(
                    f"INSERT INTO part (turn_id, position, {rows.PART}) VALUES (?, ?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET text = excluded.text, state = excluded.state, "
                    "attempt = excluded.attempt, "
                    "provider_message_id = excluded.provider_message_id, closed_at = excluded.closed_at",
                    (turn.turn_id, position, *part),
                )
        if len(parts) < len(parts_before):
            self.db.execute("DELETE FROM part WHERE turn_id = ? AND position >= ?", (turn.turn_id, len(parts)))
        self._turns[turn.turn_id] = (turn, row, parts)
