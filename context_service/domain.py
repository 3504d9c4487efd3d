"""The nouns of this service. Instants are milliseconds since the epoch, UTC; money is cents of BRL."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_TENANT = "default"


class Author(StrEnum):
    """Who wrote a message."""

    LEAD = "lead"
    HUMAN = "human"
    ASSISTANT = "assistant"


class TurnKind(StrEnum):
    """What a turn was for."""

    ANSWER = "answer"
    APOLOGY = "apology"
    RECORD = "record"


class Delivery(StrEnum):
    """What is known about an outgoing message."""

    SENT = "sent"
    UNKNOWN = "unknown"


class ConversationStatus(StrEnum):
    """Life of a conversation; ACTIVE and PAUSED are open. PAUSED is a copy of the buffer's truth."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    ARCHIVED = "ARCHIVED"


class LeadField(StrEnum):
    """What can be changed on a lead; the values are the column names."""

    NAME = "name"
    EMAIL = "email"
    BILL_VALUE = "bill_value"
    CURRENT_STAGE = "current_stage"
    QUALIFICATION_SCORE = "qualification_score"
    QUALIFICATION_STATUS = "qualification_status"
    INTERESTED = "interested"
    CHOSEN_FLOW = "chosen_flow"
    NEEDS_HUMAN = "needs_human"
    DO_NOT_CONTACT = "do_not_contact"


FieldValue = str | int | bool | None


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where a conversation takes place."""

    tenant: str
    channel: str
    instance: str


@dataclass(frozen=True, kw_only=True)
class Contact:
    """Who: the canonical contact and every alias, canonical too."""

    contact: str
    aliases: tuple[str, ...] = ()
    display_name: str = ""

    @property
    def all_aliases(self) -> tuple[str, ...]:
        """The contact in its alias form first, then the others, each once."""
        return tuple(dict.fromkeys(as_alias(name) for name in (self.contact, *self.aliases)))


@dataclass(frozen=True, kw_only=True)
class Lead:
    """One person who talks to one tenant. `interested` and `bill_value_cents` are None while unknown; `referral` is the
    advertisement that brought them."""

    lead_id: str
    tenant: str
    phone_number: str
    name: str
    email: str
    bill_value_cents: int | None
    current_stage: str
    qualification_score: int
    qualification_status: str
    interested: bool | None
    chosen_flow: str
    preferences: Mapping[str, str]
    needs_human: bool
    do_not_contact: bool
    referral: Mapping[str, str] | None
    last_interaction_ms: int | None
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One lead on one channel and instance; `version` rises with every recorded turn. The summary covers the messages
    up to the sequence `summary_through`."""

    conversation_id: str
    lead_id: str
    scope: Scope
    phone_number: str
    status: ConversationStatus
    current_stage: str
    total_messages: int
    version: int
    summary: str
    summary_version: int
    summary_through: int
    started_ms: int
    updated_ms: int


@dataclass(frozen=True, kw_only=True)
class Media:
    """A file of a message; the bytes stay with the provider."""

    mime_type: str = ""
    size_bytes: int = 0
    file_name: str = ""
    url: str = ""
    media_id: str = ""
    voice: bool = False
    seconds: int = 0


@dataclass(frozen=True, kw_only=True)
class HistoryMessage:
    """One stored line of history; `sequence` is its exact place in the conversation, from 1. A `fallback` was said
    because no model could answer."""

    history_id: str
    sequence: int
    author: Author
    text: str
    message_type: str
    created_ms: int
    turn_id: str
    provider_message_id: str
    media: tuple[Media, ...]
    fallback: bool


@dataclass(frozen=True, kw_only=True)
class IncomingMessage:
    """A message of a turn. `details` is what has no column of its own (quote, choice, place, advertisement)."""

    message_id: str
    author: Author
    message_type: str
    text: str
    sent_ms: int
    media: tuple[Media, ...] = ()
    details: Mapping[str, object] | None = None
    referral: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class SentPart:
    """One bubble of the reply that the lead saw or may have seen."""

    index: int
    text: str
    delivery: Delivery
    provider_message_id: str = ""


@dataclass(frozen=True, kw_only=True)
class LeadPatch:
    """A change of a lead: only what is named changes. Preferences are merged (an empty value erases its key), or
    replaced as a whole first."""

    values: Mapping[LeadField, FieldValue]
    preferences: Mapping[str, str]
    replace_preferences: bool = False


@dataclass(frozen=True, kw_only=True)
class Handoff:
    """The conversation goes to a human."""

    reason: str


Effect = LeadPatch | Handoff


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How a reply was made: tokens, and millionths of a US dollar. `fallback`: no model could answer."""

    model: str = ""
    fallback: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    discarded_tokens: int = 0
    cost_micros: int = 0

    @property
    def tokens(self) -> int:
        """Everything that counts against a budget."""
        return self.prompt_tokens + self.completion_tokens + self.discarded_tokens


@dataclass(frozen=True, kw_only=True)
class TurnRecord:
    """A turn that ended, as the buffer tells it."""

    turn_id: str
    conversation_id: str
    scope: Scope
    contact: Contact
    kind: TurnKind
    messages: tuple[IncomingMessage, ...]
    parts: tuple[SentPart, ...]
    effects: tuple[Effect, ...]
    generation: Generation
    truncated: bool
    needs_human: bool
    handoff: bool
    opened_ms: int
    ended_ms: int
    merged_conversation_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UsageToday:
    """What models cost today so far (UTC): tokens, and millionths of a US dollar."""

    conversation_tokens: int = 0
    tenant_tokens: int = 0
    conversation_cost_micros: int = 0
    tenant_cost_micros: int = 0


@dataclass(frozen=True, kw_only=True)
class After:
    """What a recorded turn left behind: lead, conversation and usage as the next lookup finds them, and the messages
    that it added. A remote store tells it in the same answer, for the cache."""

    lead: Lead
    conversation: Conversation
    messages: tuple[HistoryMessage, ...]
    usage: UsageToday


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The answer to a recorded turn; the same for every repeat, except `duplicate` and `after`, which only a store with
    a cache in front of it gives, and not for a repeat."""

    version: int
    lead_id: str
    duplicate: bool
    after: After | None = None


@dataclass(frozen=True, kw_only=True)
class ContextQuery:
    """Which context is wanted."""

    conversation_id: str
    scope: Scope
    contact: Contact
    history_limit: int
    history_bytes: int = 32 * 1024


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came up to the sequence `through`, in a few sentences, made from the conversation at `version`; what making
    it cost."""

    text: str
    version: int
    through: int
    tokens: int = 0
    cost_micros: int = 0


@dataclass(frozen=True, kw_only=True)
class Swept:
    """How many rows a step of the retention sweeper deleted."""

    messages: int = 0
    turns: int = 0
    lead_changes: int = 0
    usage_days: int = 0
    conversations: int = 0
    leads: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.messages + self.turns + self.lead_changes + self.usage_days + self.conversations + self.leads


@dataclass(frozen=True, kw_only=True)
class Erased:
    """How much was erased."""

    leads: int
    conversations: int
    messages: int


def as_alias(contact: str) -> str:
    """The alias form of a canonical contact: bare digits are a phone."""
    return f"phone:{contact}" if contact.isascii() and contact.isdigit() else contact
