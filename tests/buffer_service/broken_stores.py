"""Stores with one thing wrong. Contract and machine must reject each; if they didn't, green would prove nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from buffer_service.store import rows
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking.entities import InboxMessage, Incoming, Lane, Scope, Turn


class DeduplicatesInMemoryOnly(SqliteStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.known: set[tuple[Scope, str]] = set()

    def seen(self, scope: Scope, message_id: str) -> bool:
        return (scope, message_id) in self.known

    def new_message(self, lane: Lane, incoming: Incoming, now: int) -> InboxMessage | None:
        if self.seen(lane.scope, incoming.message_id):
            return None
        self.known.add((lane.scope, incoming.message_id))
        unique = replace(lane, scope=replace(lane.scope, instance=uuid.uuid4().hex))
        return super().new_message(unique, incoming, now)


class ForgetsHandoff(SqliteStore):
    def _save_turn(self, turn: Turn, before: rows.Row | None, parts_before: list[rows.Row]) -> None:
        turn.handoff = False
        super()._save_turn(turn, before, parts_before)


class ForgetsWhoHasTheAttempt(SqliteStore):
    def _save_turn(self, turn: Turn, before: rows.Row | None, parts_before: list[rows.Row]) -> None:
        turn.sender = ""
        super()._save_turn(turn, before, parts_before)


class KeepsFailedSteps(SqliteStore):
    @contextmanager
    def step(self) -> Iterator[None]:
        failure: BaseException | None = None
        with super().step():
            try:
                yield
            except Exception as error:
                failure = error
        if failure:
            raise failure


class CommitsLater(SqliteStore):
    """Answers before anything is durable."""

    def begin(self) -> None:
        if not self.db.in_transaction:
            super().begin()

    def commit(self) -> None:
        """Not before the end."""

    def close(self) -> None:
        if self.db.in_transaction:
            super().commit()
        super().close()


class MarksTooManyRecorded(SqliteStore):
    def mark_recorded(self, lane: Lane, upto_ended_no: int) -> None:
        super().mark_recorded(lane, 1 << 62)


class OrdersByOpening(SqliteStore):
    """A turn that opened first may end last."""

    def _unrecorded_turns(self, lane: Lane) -> Iterator[Turn]:
        yield from sorted(super()._unrecorded_turns(lane), key=lambda turn: turn.number)


class NeverCutsRecords(SqliteStore):
    def unrecorded(self, lane: Lane, max_bytes: int) -> tuple[list[Turn], bool]:
        return super().unrecorded(lane, 1 << 62)


class BlindToItsOwnStep(SqliteStore):
    """Questions are answered from the tables alone."""

    def ask(self, sql: str, args: tuple[object, ...] = ()) -> list[rows.Row]:
        return self.query(sql, args)


class LeavesNamesBehind(SqliteStore):
    def repoint_aliases(self, younger_id: str, older_id: str) -> None:
        """The younger conversation keeps them."""


class PrefersTheYounger(SqliteStore):
    def conversations_of(self, scope: Scope, aliases: Sequence[str]) -> list[str]:
        return super().conversations_of(scope, aliases)[::-1]


class ErasesTheLaneOnly(SqliteStore):
    def erase(self, conversation_id: str) -> int:
        self._save()
        self._lanes.pop(conversation_id, None)
        for table in ("alias", "conversation"):
            self.db.execute(f"DELETE FROM {table} WHERE conversation_id = ?", (conversation_id,))
        return int(self.one("SELECT count(*) FROM message WHERE conversation_id = ?", (conversation_id,))[0])


class SweepsWhatHistoryHasNotGot(SqliteStore):
    def sweep(self, before: int, limit: int = 200) -> int:
        found = self.ask("SELECT turn_id FROM turn WHERE ended_no > 0 AND ended_at < ? LIMIT ?", (before, limit))
        for (turn_id,) in found:
            for table in ("part", "message", "turn"):
                self.db.execute(f"DELETE FROM {table} WHERE turn_id = ?", (turn_id,))
        return len(found)


class NumbersFromOneAgain(SqliteStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._number = 0


class MiscountsWhatIsLive(SqliteStore):
    """Admission would close for ever."""

    def _save_turn(self, turn: Turn, before: rows.Row | None, parts_before: list[rows.Row]) -> None:
        live = self.live_messages, self.live_bytes
        super()._save_turn(turn, before, parts_before)
        self.live_messages, self.live_bytes = live


class KnowsNoSends(SqliteStore):
    def knows_send(self, lane: Lane, provider_message_id: str) -> bool:
        return False


class ForgetsEchoes(SqliteStore):
    """What waits for a part in flight doesn't outlive its step."""

    def _save_echoes(self, lane: Lane) -> None:
        lane.echoes = []


class PagesSkipTies(SqliteStore):
    def list_lanes(self, tenant: str, after: tuple[int, str], limit: int, *, idle_too: bool) -> list[Lane]:
        return super().list_lanes(tenant, (after[0], "~"), limit, idle_too=idle_too)


class LeaksOverScopes(SqliteStore):
    def seen(self, scope: Scope, message_id: str) -> bool:
        return bool(self.query("SELECT 1 FROM message WHERE message_id = ?", (message_id,)))


# The machine must reject these in its short search.
FOUND_IN_SECONDS: list[type[SqliteStore]] = [
    DeduplicatesInMemoryOnly,
    ForgetsHandoff,
    KeepsFailedSteps,
    CommitsLater,
    LeavesNamesBehind,
    NumbersFromOneAgain,
]
# The contract must reject these, too. The machine finds most of them in longer searches; not the last three: it has one
# scope and no ties, and a lane opens no turn before the one before has ended.
BROKEN: list[type[SqliteStore]] = [
    *FOUND_IN_SECONDS,
    MarksTooManyRecorded,
    BlindToItsOwnStep,
    ForgetsWhoHasTheAttempt,
    NeverCutsRecords,
    PrefersTheYounger,
    ErasesTheLaneOnly,
    SweepsWhatHistoryHasNotGot,
    MiscountsWhatIsLive,
    KnowsNoSends,
    ForgetsEchoes,
    OrdersByOpening,
    PagesSkipTies,
    LeaksOverScopes,
]
