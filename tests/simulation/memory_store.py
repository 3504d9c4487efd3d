"""A LaneStore in memory, for the pure core: what it holds is durable by definition, so every step is a transaction."""

from __future__ import annotations

import itertools

from buffer_service.turn_taking.entities import InboxMessage, Incoming, Lane, Part, PartState, Scope, Turn
from buffer_service.turn_taking.ports import UnknownConversation


class MemoryStore:
    """Lanes, turns and dead letters in dictionaries."""

    def __init__(self, *, record_batch: int = 2) -> None:
        self.lanes: dict[str, Lane] = {}
        self.turns: dict[str, Turn] = {}
        self.ended: list[Turn] = []
        self.messages: dict[tuple[Scope, str], InboxMessage] = {}
        self.dead: list[tuple[str, str]] = []
        self.record_batch = record_batch
        self._numbers = itertools.count(1)
        self._turn_ids = itertools.count(1)
        self._sequences = itertools.count(1)

    def open_lane(self, conversation_id: str, now: int = 0) -> Lane:
        """The lane, made if need be."""
        scope = Scope("default", "test", "one")
        return self.lanes.setdefault(conversation_id, Lane(conversation_id, scope, now))

    def lane(self, conversation_id: str) -> Lane:
        if conversation_id not in self.lanes:
            raise UnknownConversation(conversation_id)
        return self.lanes[conversation_id]

    def next_number(self) -> int:
        return next(self._numbers)

    def new_turn_id(self) -> str:
        return str(next(self._turn_ids))

    def new_message(self, lane: Lane, incoming: Incoming, now: int) -> InboxMessage | None:
        key = (lane.scope, incoming.message_id)
        if key in self.messages:
            return None
        message = self.messages[key] = InboxMessage(
            sequence=next(self._sequences),
            message_id=incoming.message_id,
            conversation_id=lane.conversation_id,
            accepted_at=now,
            provider_at=incoming.provider_at,
            body=incoming.body,
            human=incoming.human,
            record_only=incoming.record_only,
        )
        return message

    def add_turn(self, turn: Turn) -> None:
        self.turns[turn.turn_id] = turn

    def _ended(self, lane: Lane) -> list[Turn]:
        mine = [t for t in self.turns.values() if t.ended_no and t.conversation_id == lane.conversation_id]
        return sorted(mine, key=lambda t: t.ended_no)

    def ended_in_order(self) -> list[Turn]:
        """Every ended turn in the order of their ends."""
        return sorted((t for t in self.turns.values() if t.ended_no), key=lambda t: t.ended_no)

    def unrecorded_turns(self, lane: Lane) -> list[Turn]:
        return [t for t in self._ended(lane) if not t.recorded]

    def unrecorded(self, lane: Lane, max_bytes: int) -> tuple[list[Turn], bool]:
        turns = self.unrecorded_turns(lane)
        return turns[: self.record_batch], len(turns) > self.record_batch

    def mark_recorded(self, lane: Lane, upto_ended_no: int) -> None:
        for turn in self.unrecorded_turns(lane):
            if turn.ended_no <= upto_ended_no:
                turn.recorded = True
        lane.unrecorded = len(self.unrecorded_turns(lane))

    def ended_no(self, lane: Lane, turn_id: str) -> int:
        turn = self.turns.get(turn_id)
        return turn.ended_no if turn and turn.conversation_id == lane.conversation_id else 0

    def bury(self, turn: Turn, reason: str, now: int) -> None:
        self.dead.append((turn.turn_id, reason))

    def merged_into(self, lane: Lane) -> list[str]:
        direct = [x for x in self.lanes.values() if x.merged_into == lane.conversation_id]
        return [x.conversation_id for x in direct] + [y for x in direct for y in self.merged_into(x)]

    def unknown_parts(self, lane: Lane, since: int) -> list[tuple[Turn, Part]]:
        return [
            (t, p) for t in self._ended(lane) for p in t.parts if p.state is PartState.UNKNOWN and p.closed_at >= since
        ]

    def correct(self, turn_id: str, index: int, attempt: int, provider_message_id: str) -> bool:
        turn = self.turns.get(turn_id)
        part = turn.parts[index] if turn and 0 <= index < len(turn.parts) else None
        if part is None or part.attempt != attempt or part.state is not PartState.UNKNOWN:
            return False
        part.state, part.provider_message_id = PartState.SENT, provider_message_id
        return True

    def knows_send(self, lane: Lane, provider_message_id: str) -> bool:
        mine = [t for t in self.turns.values() if t.conversation_id == lane.conversation_id]
        return any(p.provider_message_id == provider_message_id for t in mine for p in t.parts)
