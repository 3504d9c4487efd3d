"""The SQLite store of the buffer: lanes, and what people and providers ask about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from buffer_service.store import rows
from buffer_service.store.lane_tables import LaneTables
from buffer_service.turn_taking.entities import InboxMessage, Lane, Scope, Turn

LIVE = "(turn_id <> '' OR pending > 0 OR unrecorded > 0 OR pause_since IS NOT NULL)"
SILENT = "turn_id = '' AND pending = 0 AND unrecorded = 0 AND pause_since IS NULL AND echoes = 0"
_TO_SCRUB = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A turn that no worker could finish."""

    dead_letter_id: int
    turn_id: str
    conversation_id: str
    reason: str
    created_at: int
    replayed_at: int
    replay_turn_id: str
    handed: bool


class SqliteStore(LaneTables):
    """What the service asks of its store besides lanes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # A process before this one may have erased and never have come to the rest.
        self.erased = bool(self.query("SELECT 1 FROM meta WHERE name = ?", (_TO_SCRUB,)))
        self._in_log = self.erased

    # ---- identity

    def conversations_of(self, scope: Scope, aliases: Sequence[str]) -> list[str]:
        """Conversations that these aliases name, the oldest first."""
        marks = ", ".join("?" * len(aliases))
        found = self.ask(
            f"SELECT DISTINCT a.conversation_id FROM alias a LEFT JOIN conversation c USING (conversation_id) "
            f"WHERE a.tenant = ? AND a.channel = ? AND a.instance = ? AND a.alias IN ({marks}) "
            "ORDER BY c.created_at, c.conversation_id",
            (scope.tenant, scope.channel, scope.instance, *aliases),
        )
        return [row[0] for row in found]

    def add_aliases(self, lane: Lane, aliases: Sequence[str]) -> None:
        """New names of this conversation."""
        scope = lane.scope
        for alias in aliases:
            self.db.execute(
                "INSERT OR REPLACE INTO alias (tenant, channel, instance, alias, conversation_id) "
                "VALUES (?, ?, ?, ?, ?)",
                (scope.tenant, scope.channel, scope.instance, alias, lane.conversation_id),
            )

    def repoint_aliases(self, younger_id: str, older_id: str) -> None:
        """All names of the younger conversation name the older one from now on."""
        self.db.execute("UPDATE alias SET conversation_id = ? WHERE conversation_id = ?", (older_id, younger_id))

    def seen(self, scope: Scope, message_id: str) -> bool:
        """The scope knows this message id."""
        found = self.query(
            "SELECT 1 FROM message WHERE tenant = ? AND channel = ? AND instance = ? AND message_id = ?",
            (scope.tenant, scope.channel, scope.instance, message_id),
        )
        return bool(found)

    # ---- evidence and quarantine

    def note_delivery(self, scope: Scope, provider_message_id: str, status: int) -> str:
        """Notes how far a sent part came; never goes back. The conversation's id, or "" for a part that is not ours."""
        found = self.ask(
            "SELECT p.turn_id, p.position, c.conversation_id FROM part p JOIN turn t ON t.turn_id = p.turn_id "
            "JOIN conversation c ON c.conversation_id = t.conversation_id "
            "WHERE p.provider_message_id = ? AND c.tenant = ? AND c.channel = ? AND c.instance = ?",
            (provider_message_id, scope.tenant, scope.channel, scope.instance),
        )
        for turn_id, position, _ in found:
            self.db.execute(
                "UPDATE part SET delivery = max(delivery, ?) WHERE turn_id = ? AND position = ?",
                (status, turn_id, position),
            )
        return found[0][2] if found else ""

    def quarantine(self, scope: Scope, reason: str, body: bytes, now: int) -> None:
        """Keeps an authentic body that could not be understood."""
        self.db.execute(
            "INSERT INTO quarantine (tenant, channel, instance, reason, body, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (scope.tenant, scope.channel, scope.instance, reason[:200], body, now),
        )

    # ---- lists

    def ended_turns(self, conversation_id: str, limit: int) -> list[Turn]:
        """Ended turns, latest first."""
        found = self.ask(
            f"SELECT {rows.TURN} FROM turn WHERE conversation_id = ? AND ended_no > 0 ORDER BY ended_no DESC LIMIT ?",
            (conversation_id, limit),
        )
        return [self._load_turn(row) for row in found]

    def list_lanes(self, tenant: str, after: tuple[int, str], limit: int, *, idle_too: bool) -> list[Lane]:
        """Lanes after this (activity, id), oldest activity first."""
        live = "" if idle_too else f"AND {LIVE}"
        found = self.ask(
            f"SELECT conversation_id FROM conversation WHERE tenant = ? AND merged_into = '' {live} "
            "AND (activity_at, conversation_id) > (?, ?) ORDER BY activity_at, conversation_id LIMIT ?",
            (tenant, *after, limit),
        )
        return [self.lane(row[0]) for row in found]

    def dead_letters(self, tenant: str, before: int, limit: int, *, replayed_too: bool) -> list[DeadLetter]:
        """Dead letters with a smaller id than this, newest first."""
        fresh = "" if replayed_too else "AND replayed_at = 0"
        found = self.query(
            "SELECT dead_letter_id, turn_id, conversation_id, reason, created_at, replayed_at, replay_turn_id, handed "
            f"FROM dead_letter WHERE tenant = ? AND dead_letter_id < ? {fresh} ORDER BY dead_letter_id DESC LIMIT ?",
            (tenant, before, limit),
        )
        return [_dead_letter(row) for row in found]

    def dead_letter(self, dead_letter_id: int) -> DeadLetter | None:
        """One dead letter."""
        found = self.query(
            "SELECT dead_letter_id, turn_id, conversation_id, reason, created_at, replayed_at, replay_turn_id, handed "
            "FROM dead_letter WHERE dead_letter_id = ?",
            (dead_letter_id,),
        )
        return _dead_letter(found[0]) if found else None

    def messages_of(self, turn_id: str) -> list[InboxMessage]:
        """The messages of a turn."""
        self._save()
        return self._load_messages("turn_id = ?", turn_id)

    def turn_of_message(self, scope: Scope, message_id: str) -> str:
        """The turn that a message belongs to; "" while it waits."""
        found = self.ask(
            "SELECT turn_id FROM message WHERE tenant = ? AND channel = ? AND instance = ? AND message_id = ?",
            (scope.tenant, scope.channel, scope.instance, message_id),
        )
        return found[0][0] if found else ""

    def mark_replayed(self, dead_letter_id: int, turn_id: str, now: int, *, handed: bool) -> None:
        """A dead letter was dealt with."""
        self.db.execute(
            "UPDATE dead_letter SET replayed_at = ?, replay_turn_id = ?, handed = ? WHERE dead_letter_id = ?",
            (now, turn_id, int(handed), dead_letter_id),
        )

    def stats(self, tenant: str) -> dict[str, Any]:
        """Counts; all of them from small indexes, or kept."""
        self._save()
        who = "tenant = ?" if tenant else "? = ''"
        turns, paused, oldest, pending, unrecorded = self.one(
            "SELECT count(*) FILTER (WHERE turn_id <> ''), count(*) FILTER (WHERE pause_since IS NOT NULL), "
            "min(pause_since), ifnull(sum(pending), 0), ifnull(sum(unrecorded), 0) "
            f"FROM conversation WHERE {LIVE} AND {who}",
            (tenant,),
        )
        return {
            "turns": turns,
            "paused": paused,
            "oldest_pause": oldest,
            "pending": pending,
            "unrecorded": unrecorded,
            "conversations": self.conversations[tenant] if tenant else self.conversations.total(),
            "needs_human": self.one(f"SELECT count(*) FROM conversation WHERE needs_human = 1 AND {who}", (tenant,))[0],
            "dead_letters": self.one(f"SELECT count(*) FROM dead_letter WHERE replayed_at = 0 AND {who}", (tenant,))[0],
            "quarantined": self.one(f"SELECT count(*) FROM quarantine WHERE {who}", (tenant,))[0],
            "unknown_parts": self.one(
                "SELECT count(*) FROM part p JOIN turn t USING (turn_id) JOIN conversation c USING (conversation_id) "
                f"WHERE p.state = 4 AND {who}",
                (tenant,),
            )[0],
        }

    # ---- erasing

    def conversations_of_person(self, tenant: str, alias: str) -> list[str]:
        """Conversations of a person over all channels and instances: under this name, under any other name that one of
        them knows, and those that were merged away."""
        found = self.ask(
            "WITH RECURSIVE person (name) AS ("
            "SELECT conversation_id FROM alias WHERE tenant = ?1 AND alias = ?2 UNION "
            "SELECT c.conversation_id FROM person p JOIN conversation c ON c.merged_into = p.name "
            "AND c.merged_into <> '' UNION "
            "SELECT other.conversation_id FROM person p JOIN alias mine ON mine.conversation_id = p.name "
            "JOIN alias other ON other.tenant = ?1 AND other.alias = mine.alias) SELECT name FROM person",
            (tenant, alias),
        )
        return [row[0] for row in found]

    def erase(self, conversation_id: str) -> int:
        """Deletes everything of a conversation; the number of messages."""
        messages = self._delete_conversation(conversation_id)
        self._has_erased()
        return messages

    def _delete_conversation(self, conversation_id: str) -> int:
        # By what has an index: with one scan for each of many conversations nobody else would get their turn.
        tenant = self.lane(conversation_id).scope.tenant
        self._save()
        messages = self._delete_messages("conversation_id = ? AND turn_id = ''", conversation_id, live=True)
        for turn_id, recorded in self._turns_of(conversation_id):
            messages += self._delete_messages("turn_id = ?", turn_id, live=not recorded)
            for table in ("part", "turn"):
                self.db.execute(f"DELETE FROM {table} WHERE turn_id = ?", (turn_id,))
            self._turns.pop(turn_id, None)
        for table in ("echo", "dead_letter", "alias", "conversation"):
            self.db.execute(f"DELETE FROM {table} WHERE conversation_id = ?", (conversation_id,))
        for message in [m for m, _ in self._messages.values() if m.conversation_id == conversation_id]:
            del self._messages[message.sequence]
        del self._lanes[conversation_id]
        self.count_conversation(tenant, -1)
        return messages

    def _turns_of(self, conversation_id: str) -> list[tuple[str, bool]]:
        """Its turns, and whether they are in history: those that ended, and those in hand, of which this very step may
        have taken one from its lane."""
        ended = self.query(
            "SELECT turn_id, recorded FROM turn WHERE conversation_id = ? AND ended_no > 0", (conversation_id,)
        )
        in_hand = [(t.turn_id, t.recorded) for t, *_ in self._turns.values() if t.conversation_id == conversation_id]
        return list(dict([*ended, *in_hand]).items())

    def _delete_messages(self, where: str, name: str, *, live: bool) -> int:
        count, size = self.one(f"SELECT count(*), ifnull(sum(length(body)), 0) FROM message WHERE {where}", (name,))
        self.db.execute(f"DELETE FROM message WHERE {where}", (name,))
        if live:
            self.live_messages -= count
            self.live_bytes -= size
        return int(count)

    def erase_quarantine(self, tenant: str, needles: Sequence[str]) -> int:
        """Deletes a business's quarantined bodies in which one of these occurs; how many."""
        deleted = 0
        for needle in needles:
            self.db.execute(
                "DELETE FROM quarantine WHERE tenant = ? AND instr(body, CAST(? AS BLOB)) > 0", (tenant, needle)
            )
            deleted += self.db.changes()
        if deleted:
            self._has_erased()
        return deleted

    def _has_erased(self) -> None:
        self.erased = self._in_log = True
        self.db.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, '')", (_TO_SCRUB,))

    def leave_tombstones(self, tenant: str, conversation_ids: Sequence[str], now: int) -> None:
        """Notes that these conversations were erased on request: a copy of the file that still has them is told so."""
        for conversation_id in conversation_ids:
            self.db.execute(
                "INSERT OR IGNORE INTO forgotten (conversation_id, tenant, forgotten_at) VALUES (?, ?, ?)",
                (conversation_id, tenant, now),
            )

    def vacuum(self, *, at_most_bytes: int) -> bool:
        """Leaves nothing of what was erased in the file or its log; True when done. Copies the file, so a large one has
        to wait for a quiet moment. Outside a transaction only. Raises FullError when the disk has no room for it."""
        if self._in_log:
            self.query("PRAGMA wal_checkpoint(TRUNCATE)")
            self._in_log = False
        if self.path.stat().st_size > at_most_bytes:
            return False
        # secure_delete misses the copies that page rebalancing leaves behind.
        try:
            self.query("VACUUM")
        except apsw.FullError:
            # What it wrote until then would keep the disk full.
            self.query("PRAGMA wal_checkpoint(TRUNCATE)")
            raise
        self.query("DELETE FROM meta WHERE name = ?", (_TO_SCRUB,))
        self.query("PRAGMA wal_checkpoint(TRUNCATE)")
        self.erased = False
        return True

    def sweep(self, before: int, limit: int = 200) -> int:
        """Deletes recorded turns that ended before this instant, with messages and parts; the number of turns."""
        found = self.ask(
            "SELECT turn_id FROM turn t WHERE recorded = 1 AND ended_at < ? AND NOT EXISTS "
            "(SELECT 1 FROM dead_letter d WHERE d.turn_id = t.turn_id AND d.replayed_at = 0) LIMIT ?",
            (before, limit),
        )
        for (turn_id,) in found:
            for table in ("part", "message", "turn"):
                self.db.execute(f"DELETE FROM {table} WHERE turn_id = ?", (turn_id,))
        self.db.execute("DELETE FROM quarantine WHERE created_at < ?", (before,))
        return len(found)

    def sweep_people(self, before: int, limit: int = 200) -> int:
        """Deletes dead letters from before this instant, and conversations that are silent since then and of which no
        turn is left, with their names; the number of rows. A conversation goes after those that were merged into it."""
        self._save()
        self.db.execute(
            "DELETE FROM dead_letter WHERE dead_letter_id IN "
            "(SELECT dead_letter_id FROM dead_letter WHERE created_at < ? LIMIT ?)",
            (before, limit),
        )
        letters = self.db.changes()
        found = self.query(
            f"SELECT conversation_id FROM conversation c WHERE {SILENT} AND activity_at < ?1 AND created_at < ?1 "
            "AND NOT EXISTS (SELECT 1 FROM turn t WHERE t.conversation_id = c.conversation_id AND t.ended_no > 0) "
            "AND NOT EXISTS (SELECT 1 FROM conversation m WHERE m.merged_into = c.conversation_id "
            "AND m.merged_into <> '') LIMIT ?2",
            (before, limit),
        )
        for (conversation_id,) in found:
            self._delete_conversation(conversation_id)
        return letters + len(found)


def _dead_letter(row: rows.Row) -> DeadLetter:
    return DeadLetter(
        dead_letter_id=row[0],
        turn_id=row[1],
        conversation_id=row[2],
        reason=row[3],
        created_at=row[4],
        replayed_at=row[5],
        replay_turn_id=row[6],
        handed=bool(row[7]),
    )
