"""What a model is given and what it gives back; the domain's own words, no wire format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Author(Enum):
    """Who wrote a line."""

    LEAD = "lead"
    HUMAN = "human"
    ASSISTANT = "assistant"


class Kind(Enum):
    """What a message holds besides its words."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    DOCUMENT = "document"
    STICKER = "sticker"
    LOCATION = "location"
    CONTACT_CARD = "contact_card"
    CHOICE = "choice"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of the lead in this turn."""

    text: str
    kind: Kind = Kind.TEXT
    location: tuple[float, float] | None = None
    sent_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of history. `sequence` is its place in the conversation, 0 while it is not recorded; a `fallback` is a
    sentence that was said because no model could answer: no knowledge."""

    author: Author
    text: str
    kind: Kind = Kind.TEXT
    sequence: int = 0
    sent_ms: int = 0
    fallback: bool = False


@dataclass(frozen=True, kw_only=True)
class Lead:
    """What is known of the person."""

    name: str = ""
    email: str = ""
    bill_cents: int | None = None
    stage: str = ""
    interested: bool | None = None
    flow: str = ""
    score: int = 0
    qualification: str = ""
    do_not_contact: bool = False
    preferences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LeadPatch:
    """Facts to change; None leaves a field alone."""

    name: str | None = None
    email: str | None = None
    bill_cents: int | None = None
    stage: str | None = None
    interested: bool | None = None
    flow: str | None = None
    score: int | None = None
    qualification: str | None = None
    do_not_contact: bool | None = None
    preferences: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self != LeadPatch()


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """Give the conversation to a human."""

    reason: str


Effect = LeadPatch | HandOver


@dataclass(frozen=True, kw_only=True)
class UsageToday:
    """What models cost today so far, by the store's account: tokens, and millionths of a US dollar."""

    conversation_tokens: int = 0
    tenant_tokens: int = 0
    conversation_cost_micros: int = 0
    tenant_cost_micros: int = 0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Everything from which one reply is made. The same turn gives the same reply."""

    messages: tuple[Message, ...]
    conversation_id: str = ""
    tenant: str = "default"
    contact: str = ""
    lead: Lead = Lead()
    history: tuple[Line, ...] = ()
    history_cut: bool = False
    summary: str = ""
    summary_through: int = 0
    usage: UsageToday = UsageToday()
    first_contact: bool = False
    degraded: bool = False
    now_ms: int = 0
    said: tuple[str, ...] = ()
    said_effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FirstToken:
    """A model began to write; its words follow when they may be said."""


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """A piece of the reply."""

    text: str


@dataclass(frozen=True, kw_only=True)
class EffectCalled:
    """A tool that the model called."""

    effect: Effect


@dataclass(frozen=True, kw_only=True)
class UsageReported:
    """What the reply cost: tokens, and millionths of a US dollar (0 when no price is known)."""

    prompt: int
    cached: int
    completion: int
    cost_micros: int = 0


class End(Enum):
    """Why a reply ended."""

    STOP = "stop"
    LENGTH = "length"
    SILENT = "silent"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The last event of a stream, when the model has something to say about its end. `fallback`: no model could answer,
    and what was said is a sentence of the persona."""

    why: End
    model: str = ""
    fallback: bool = False
    fallback_reason: str = ""
    wants_summary: bool = False


ModelEvent = FirstToken | TextDelta | EffectCalled | UsageReported | Ended
