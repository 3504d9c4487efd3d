"""What a lane is made of. The numbers of the enums are those of the contract."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class TurnKind(enum.IntEnum):
    """What a turn is for."""

    ANSWER = 1
    APOLOGY = 2
    RECORD = 3


class PartState(enum.IntEnum):
    """Life of one bubble."""

    STORED = 1
    ATTEMPTING = 2
    SENT = 3
    UNKNOWN = 4
    REFUSED = 5
    DROPPED = 6


CLOSED = frozenset({PartState.SENT, PartState.UNKNOWN, PartState.REFUSED, PartState.DROPPED})
SAID = frozenset({PartState.SENT, PartState.UNKNOWN})


class SendOutcome(enum.IntEnum):
    """What became of a send, by the provider's error map."""

    SENT = 1
    REFUSED_RETRY = 2
    REFUSED_FINAL = 3
    UNKNOWN = 4
    NOT_STARTED = 5


class EndReason(enum.IntEnum):
    """How a turn ended; RUNNING means that it hasn't."""

    RUNNING = 0
    FINISHED = 1
    PAUSED = 2
    RECORD_ONLY = 3
    FORGOTTEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A message at the door; `record_only` comes set for stale ones."""

    message_id: str
    body: bytes
    provider_at: int
    human: bool = False
    record_only: bool = False


@dataclass(slots=True)
class InboxMessage:
    """One accepted message; `body` is the serialised contract message, which turn-taking never reads."""

    sequence: int
    message_id: str
    conversation_id: str
    accepted_at: int
    provider_at: int
    body: bytes
    human: bool = False
    record_only: bool = False
    turn_id: str = ""


@dataclass(slots=True)
class Part:
    """One bubble of a reply."""

    text: str
    state: PartState = PartState.STORED
    attempt: int = 0
    provider_message_id: str = ""
    closed_at: int = 0


@dataclass(slots=True)
class Turn:
    """A claimed batch of messages and the reply to them. `epoch` is the fencing token, reserved by the opening commit
    for the first assignment; `attempt_no` counts sends over the whole turn and never restarts."""

    number: int
    turn_id: str
    conversation_id: str
    kind: TurnKind
    messages: list[InboxMessage]
    opened_at: int
    epoch: int = 1
    revision: int = 1
    parts: list[Part] = field(default_factory=list)
    last: bool = False
    truncated: bool = False
    handoff: bool = False
    needs_human: bool = False
    effects: tuple[bytes, ...] = ()
    attempts: int = 0
    attempt_no: int = 0
    tries: int = 0
    sender: str = ""
    ended_at: int = 0
    ended_no: int = 0
    end_reason: EndReason = EndReason.RUNNING
    recorded: bool = False

    @property
    def silent(self) -> bool:
        """The agent chose to say nothing: the turn is complete, and perhaps in history already, as it is."""
        return self.last and not self.parts

    @property
    def open(self) -> bool:
        """Nothing of the reply is, or may be, with the provider, and a message may still join."""
        return not self.silent and all(p.state is PartState.STORED for p in self.parts)

    @property
    def in_flight(self) -> Part | None:
        """The part whose send may have begun."""
        return next((p for p in self.parts if p.state is PartState.ATTEMPTING), None)

    @property
    def complete(self) -> bool:
        """The reply is whole and every part is closed."""
        return self.last and all(p.state in CLOSED for p in self.parts)

    @property
    def size(self) -> int:
        """Bytes of its messages."""
        return sum(len(m.body) for m in self.messages)


@dataclass(frozen=True, slots=True)
class Pause:
    """A human answers. `renewed_at` is their latest sign of life."""

    since: int
    renewed_at: int
    reason: str


@dataclass(frozen=True, slots=True)
class Echo:
    """A copy of something sent through the business's account, not judged yet."""

    text: str
    at: int
    incoming: Incoming


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a conversation takes place."""

    tenant: str
    channel: str
    instance: str


@dataclass(slots=True)
class Lane:
    """One conversation: at most one turn in flight, and what waits behind it."""

    conversation_id: str
    scope: Scope
    created_at: int
    contact: str = ""
    address: str = ""
    display_name: str = ""
    aliases: tuple[str, ...] = ()
    turn: Turn | None = None
    pending: list[InboxMessage] = field(default_factory=list)
    echoes: list[Echo] = field(default_factory=list)
    unrecorded: int = 0
    pause: Pause | None = None
    needs_human: bool = False
    merged_into: str = ""
    waits_for: tuple[str, ...] = ()
    recorded_version: int = 0
    activity_at: int = 0
    average_gap: int = 0

    @property
    def paused(self) -> bool:
        """A human answers."""
        return self.pause is not None
