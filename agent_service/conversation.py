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


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of history."""

    author: Author
    text: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, kw_only=True)
class Lead:
    """What is known of the person."""

    name: str = ""
    bill_cents: int | None = None
    stage: str = ""
    interested: bool | None = None
    flow: str = ""
    score: int = 0
    qualification: str = ""
    preferences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LeadPatch:
    """Facts to change; None leaves a field alone."""

    name: str | None = None
    bill_cents: int | None = None
    stage: str | None = None
    interested: bool | None = None
    flow: str | None = None
    score: int | None = None
    qualification: str | None = None
    preferences: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self != LeadPatch()


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """Give the conversation to a human."""

    reason: str


Effect = LeadPatch | HandOver


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Everything from which one reply is made. The same turn gives the same reply."""

    messages: tuple[Message, ...]
    lead: Lead = Lead()
    history: tuple[Line, ...] = ()
    summary: str = ""
    first_contact: bool = False
    degraded: bool = False
    now_ms: int = 0
    said: tuple[str, ...] = ()
    said_effects: tuple[Effect, ...] = ()


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
    """What the reply cost, in tokens."""

    prompt: int
    cached: int
    completion: int


class End(Enum):
    """Why a reply ended."""

    STOP = "stop"
    LENGTH = "length"
    SILENT = "silent"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The last event of a stream, when the model has something to say about its end."""

    why: End


ModelEvent = TextDelta | EffectCalled | UsageReported | Ended
