"""Who is who: every alias of a person names one conversation per (tenant, channel, instance)."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_sdr.common.v1 import message_pb2
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import TurnTaking
from buffer_service.turn_taking.entities import Lane, Scope


class Identities:
    """Resolves aliases to conversations, in the transaction of the message that shows them."""

    def __init__(self, *, store: SqliteStore, turns: TurnTaking) -> None:
        self._store = store
        self._turns = turns

    def find(self, scope: Scope, aliases: Sequence[str]) -> Lane | None:
        """The conversation that knows one of these aliases."""
        known = self._store.conversations_of(scope, aliases)
        return self._turns.lane(known[0]) if known else None

    def resolve(self, now: int, scope: Scope, contact: message_pb2.Contact, *, learn_address: bool) -> Lane:
        """The conversation of this contact, made if need be. A set that names several merges them into the oldest."""
        aliases = list(dict.fromkeys(contact.aliases))
        known = self._store.conversations_of(scope, aliases)
        if known:
            lane = self._turns.lane(known[0])
            for younger in known[1:]:
                self._turns.join_lanes(now, lane.conversation_id, younger)
                self._adopt(lane, younger)
        else:
            lane = self._store.create_lane(scope, now)
        self._learn(lane, contact, aliases, learn_address=learn_address)
        return lane

    def _adopt(self, lane: Lane, younger_id: str) -> None:
        younger = self._store.lane(younger_id)
        self._store.repoint_aliases(younger_id, lane.conversation_id)
        lane.aliases = tuple(dict.fromkeys((*lane.aliases, *younger.aliases)))

    def _learn(self, lane: Lane, contact: message_pb2.Contact, aliases: Sequence[str], *, learn_address: bool) -> None:
        new = [a for a in aliases if a not in lane.aliases]
        if new:
            self._store.add_aliases(lane, new)
            lane.aliases = (*lane.aliases, *new)
        if contact.contact and (not lane.contact or (":" in lane.contact and ":" not in contact.contact)):
            # A phone number is a better name for a person than an opaque id.
            lane.contact = contact.contact
        if contact.address and (learn_address or not lane.address):
            lane.address = contact.address
        if contact.display_name and learn_address:
            lane.display_name = contact.display_name[:200]
