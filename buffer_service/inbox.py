"""From a provider's events to lanes: identity, deduplication, staleness, admission. Runs inside an engine step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from buffer_service.errors import BufferFull
from buffer_service.store.identity import Identities
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import TurnTaking
from buffer_service.turn_taking.entities import Echo, Incoming, Scope
from buffer_service.turn_taking.lanes import RESUME_COMMAND
from service_kit.durations import timestamp_to_ms

Outcome = pb.EventResult.Outcome
RETRY_AFTER_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Global admission: above them nothing new is stored. Never per conversation."""

    messages: int
    bytes: int
    free_disk: int


class Inbox:
    """Makes events durable. One call is one transaction step."""

    def __init__(self, *, store: SqliteStore, turns: TurnTaking, limits: Limits) -> None:
        self._store = store
        self._turns = turns
        self._limits = limits
        self._identities = Identities(store=store, turns=turns)
        self._free_disk = limits.free_disk
        self.last_event_at = 0

    def look_at_disk(self) -> None:
        """Reads the free disk space; called once a second."""
        self._free_disk = shutil.disk_usage(self._store.path.parent).free

    def enqueue(self, now: int, events: Sequence[pb.Event]) -> list[pb.EventResult]:
        """All events of one webhook. Raises BufferFull before anything is stored."""
        if any(e.WhichOneof("event") in ("message", "echo", "unparsed") for e in events):
            self._admit()
        self.last_event_at = now
        return [self._take(now, event) for event in events]

    def _admit(self) -> None:
        over = [
            ("pending_messages", self._store.live_messages >= self._limits.messages),
            ("pending_bytes", self._store.live_bytes >= self._limits.bytes),
            ("free_disk", self._free_disk < self._limits.free_disk),
        ]
        for limit, reached in over:
            if reached:
                raise BufferFull(retry_after_ms=RETRY_AFTER_MS, limit=limit)

    def _take(self, now: int, event: pb.Event) -> pb.EventResult:
        kinds: dict[str, Callable[[int, Scope, pb.Event], pb.EventResult]] = {
            "message": self._message,
            "presence": self._presence,
            "receipt": self._receipt,
            "echo": self._echo,
            "unparsed": self._unparsed,
        }
        return kinds[event.WhichOneof("event") or ""](now, scope_of(event.scope), event)

    def _message(self, now: int, scope: Scope, event: pb.Event) -> pb.EventResult:
        message = event.message
        if self._store.seen(scope, message.message_id):
            return pb.EventResult(outcome=Outcome.OUTCOME_DUPLICATE)
        human = message.author == message_pb2.AUTHOR_HUMAN
        ours = human and self._store.note_delivery(scope, message.message_id, pb.DELIVERY_STATUS_UNSPECIFIED)
        if ours:
            # The provider came back and tells of our own bubble as if it had been written on the phone.
            return pb.EventResult(outcome=Outcome.OUTCOME_NOTED, conversation_id=ours)
        # A backlog may bring what a human wrote long ago, who has not answered here since.
        takes_over = human and not self._older(now, message, self._turns.policy.handoff_quiet)
        lane = self._identities.resolve(now, scope, event.contact, learn_address=not human)
        found = self._turns.enqueue(now, lane.conversation_id, self._incoming(now, message, human=takes_over))
        if found is None:
            return pb.EventResult(outcome=Outcome.OUTCOME_DUPLICATE, conversation_id=lane.conversation_id)
        lane, turn_id = found
        if takes_over and message.text.strip().lower() == RESUME_COMMAND:
            self._turns.resume(now, lane.conversation_id)
        recorded_only = human or lane.paused or self._stale(now, message)
        return pb.EventResult(
            outcome=Outcome.OUTCOME_RECORDED_ONLY if recorded_only else Outcome.OUTCOME_ACCEPTED,
            conversation_id=lane.conversation_id,
            turn_id=turn_id,
        )

    def _incoming(self, now: int, message: message_pb2.Message, *, human: bool) -> Incoming:
        return Incoming(
            message_id=message.message_id,
            body=message.SerializeToString(),
            provider_at=timestamp_to_ms(message.provider_time) if message.HasField("provider_time") else now,
            human=human,
            record_only=message.author == message_pb2.AUTHOR_HUMAN or self._stale(now, message),
        )

    def _stale(self, now: int, message: message_pb2.Message) -> bool:
        return self._older(now, message, self._turns.policy.stale_after)

    @staticmethod
    def _older(now: int, message: message_pb2.Message, age_ms: int) -> bool:
        return message.HasField("provider_time") and now - timestamp_to_ms(message.provider_time) > age_ms

    def _presence(self, now: int, scope: Scope, event: pb.Event) -> pb.EventResult:
        lane = self._identities.find(scope, event.contact.aliases)
        if lane:
            self._turns.presence(now, lane.conversation_id, event.presence.composing)
        return pb.EventResult(outcome=Outcome.OUTCOME_NOTED, conversation_id=lane.conversation_id if lane else "")

    def _receipt(self, now: int, scope: Scope, event: pb.Event) -> pb.EventResult:
        conversation_id = self._store.note_delivery(scope, event.receipt.provider_message_id, int(event.receipt.status))
        return pb.EventResult(outcome=Outcome.OUTCOME_NOTED, conversation_id=conversation_id)

    def _echo(self, now: int, scope: Scope, event: pb.Event) -> pb.EventResult:
        message = event.echo
        if self._store.seen(scope, message.message_id):
            return pb.EventResult(outcome=Outcome.OUTCOME_DUPLICATE)
        known = self._identities.find(scope, event.contact.aliases)
        if known is None and self._turns.recently_forgotten(now, message.text):
            return pb.EventResult(outcome=Outcome.OUTCOME_NOTED)
        lane = self._identities.resolve(now, scope, event.contact, learn_address=False)
        echo = Echo(message.text, now, self._incoming(now, message, human=True))
        foreign = self._turns.echo(now, lane.conversation_id, echo)
        return pb.EventResult(
            outcome=Outcome.OUTCOME_RECORDED_ONLY if foreign else Outcome.OUTCOME_NOTED,
            conversation_id=lane.conversation_id,
        )

    def _unparsed(self, now: int, scope: Scope, event: pb.Event) -> pb.EventResult:
        self._store.quarantine(scope, event.unparsed.reason, event.unparsed.body[: 1 << 20], now)
        return pb.EventResult(outcome=Outcome.OUTCOME_QUARANTINED)


def scope_of(scope: message_pb2.Scope) -> Scope:
    """The contract's scope; an empty tenant is the default one."""
    return Scope(scope.tenant or "default", scope.channel, scope.instance)
