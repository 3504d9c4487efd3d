"""What turn-taking tells a worker. Frames hold copies: they outlive the transaction that made them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from buffer_service.turn_taking.entities import InboxMessage, Part, Scope, Turn, TurnKind


class Reason(enum.StrEnum):
    """Refusals of RunTurns; the names are the contract's error reasons."""

    SUPERSEDED = "SUPERSEDED"
    STALE_EPOCH = "STALE_EPOCH"
    PAUSED = "PAUSED"
    WRONG_STATE = "WRONG_STATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Where the turn takes place and with whom."""

    conversation_id: str
    scope: Scope
    contact: str
    address: str
    display_name: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTurn:
    """An ended (or complete) turn as it goes into history."""

    turn: Turn
    who: Who
    merged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """A turn is the worker's."""

    turn_id: str
    epoch: int
    revision: int
    kind: TurnKind
    who: Who
    messages: tuple[InboxMessage, ...]
    parts: tuple[Part, ...]
    last: bool
    effects: tuple[bytes, ...]
    min_version: int
    unrecorded: tuple[RecordedTurn, ...]
    more_unrecorded: bool
    kept: bool
    truncated: bool
    remaining: int
    waited: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Messages joined the worker's turn."""

    turn_id: str
    revision: int
    messages: tuple[InboxMessage, ...]
    wait: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """Permission to send one part."""

    index: int
    part: Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Answer to a request about a turn."""

    ask: int
    turn_id: str
    epoch: int
    refusal: Reason | None = None
    superseded: Joined | None = None
    go: Go | None = None
    parked: int = 0
    stored_parts: int = 0
    complete: bool = False
    record: RecordedTurn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """A turn is no longer the worker's; epoch 0 means any."""

    turn_id: str
    epoch: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Ended turns to be recorded, oldest first."""

    conversation_id: str
    turns: tuple[RecordedTurn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The buffer stops."""


Frame = Assign | Joined | Committed | Revoke | Record | Drain
