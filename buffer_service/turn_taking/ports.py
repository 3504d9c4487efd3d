"""What turn-taking asks of a store."""

from __future__ import annotations

from typing import Protocol

from buffer_service.turn_taking.entities import InboxMessage, Incoming, Lane, Part, Turn


class UnknownConversation(LookupError):
    """No conversation has this id."""


class LaneStore(Protocol):
    """Lanes inside the transaction that is open now. A lane, turn or message that was handed out is the store's to
    save: what the core changes on it is durable when the transaction commits."""

    def lane(self, conversation_id: str) -> Lane:
        """The lane itself, also when it was merged away. Raises UnknownConversation."""

    def next_number(self) -> int:
        """A number above all that are stored or were given since the store was opened: the order of turns and of their
        ends."""

    def new_turn_id(self) -> str:
        """A globally unique id."""

    def new_message(self, lane: Lane, incoming: Incoming, now: int) -> InboxMessage | None:
        """Writes the inbox row and the deduplication mark; None when the scope knows the message id already."""

    def add_turn(self, turn: Turn) -> None:
        """A new turn; it may be ended already."""

    def unrecorded(self, lane: Lane, max_bytes: int) -> tuple[list[Turn], bool]:
        """Ended turns that are not in history, oldest first, and whether some were left out for size."""

    def mark_recorded(self, lane: Lane, upto_ended_no: int) -> None:
        """Those up to this one are in history. Lowers lane.unrecorded."""

    def ended_no(self, lane: Lane, turn_id: str) -> int:
        """The end number of an ended turn; 0 when unknown."""

    def bury(self, turn: Turn, reason: str, now: int) -> None:
        """Writes a dead letter."""

    def merged_into(self, lane: Lane) -> list[str]:
        """Conversations that were merged into this one, directly or not."""

    def unknown_parts(self, lane: Lane, since: int) -> list[tuple[Turn, Part]]:
        """Parts of ended turns that were closed as UNKNOWN at or after this instant."""

    def correct(self, turn_id: str, index: int, attempt: int, provider_message_id: str) -> bool:
        """Books an UNKNOWN part of an ended turn as SENT after all."""

    def knows_send(self, lane: Lane, provider_message_id: str) -> bool:
        """The provider's id belongs to a part of this lane."""
