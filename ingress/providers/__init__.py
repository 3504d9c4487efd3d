"""The seam to messaging providers: what the edge and the turn runner may know of them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.common.v1 import message_pb2


class Unauthorized(Exception):
    """The webhook does not prove that it comes from the provider."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotConfigured(Exception):
    """This provider has no credentials here; nothing of it can be accepted yet."""


class NoticeKind(Enum):
    """What a provider tells about itself rather than about a conversation."""

    CONNECTION = "connection"
    PAIRING = "pairing"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """The provider's own state, for people who watch over the system. Never a secret, never personal."""

    kind: NoticeKind
    instance: str
    state: str


@dataclass(frozen=True, kw_only=True)
class WebhookRequest:
    """What is known of a webhook before its body is read. Header names are in lower case."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    path: str


@dataclass(frozen=True, kw_only=True)
class ParsedWebhook:
    """What a body says: events for the buffer, a count of what needs no attention, and notices."""

    events: tuple[buffer_service_pb2.Event, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Whom to write to: the business's own account, and the person in the form that the provider uses."""

    scope: message_pb2.Scope
    address: str


@dataclass(frozen=True, kw_only=True)
class SendResult:
    """What became of a send. `detail` is a class for people, never a raw body."""

    outcome: buffer_service_pb2.SendOutcome.ValueType
    provider_message_id: str = ""
    detail: str = ""


class Provider(Protocol):
    """One messaging provider."""

    @property
    def name(self) -> str:
        """The channel of its scopes: "evolution", "whatsapp"."""
        ...

    async def open(self) -> None:
        """Open what sending needs. Called once, before anything else."""
        ...

    async def close(self) -> None:
        """Close it again; safe to call without `open`."""
        ...

    def authorize(self, request: WebhookRequest) -> None:
        """Return if the webhook is authentic; raises `Unauthorized` or `NotConfigured`."""
        ...

    def parse(self, body: bytes, now_ms: int) -> ParsedWebhook:
        """Read an authentic body. Pure, and never raises: what cannot be read becomes an `unparsed` event."""
        ...

    def quarantine(self, body: bytes, reason: str) -> buffer_service_pb2.Event:
        """Keep an authentic body that is not even to be parsed, without the secrets that it may carry."""
        ...

    async def send_text(self, to: Destination, text: str, *, part_key: str) -> SendResult:
        """Send one bubble, once. Never raises for what the network or the provider does."""
        ...

    async def show_typing(self, to: Destination) -> None:
        """Show that somebody is writing. Never raises; may take as long as the indicator is shown."""
        ...
