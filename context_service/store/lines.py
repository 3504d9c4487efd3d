"""What a turn adds to history, for every store: its messages and the bubbles of its reply, in order. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from context_service.domain import Author, IncomingMessage, SentPart, TurnKind, TurnRecord

_ROLES = {Author.LEAD: "user", Author.HUMAN: "assistant", Author.ASSISTANT: "assistant"}


@dataclass(frozen=True, kw_only=True)
class HistoryLine:
    """A message or a bubble on its way into the table; `media` and `details` become JSON there."""

    author: Author
    text: str
    message_type: str
    at_ms: int
    provider_message_id: str
    delivery: str = ""
    media: tuple[Mapping[str, object], ...] = ()
    details: Mapping[str, object] | None = None
    fallback: bool = False

    @property
    def role(self) -> str:
        """ "user" or "assistant"; a human colleague is one too."""
        return _ROLES[self.author]

    @property
    def media_type(self) -> str:
        """The MIME type of the first file."""
        return str(self.media[0]["mime_type"]) if self.media else ""


def history_lines(record: TurnRecord) -> tuple[HistoryLine, ...]:
    """The messages, then the bubbles."""
    return (*map(_of_message, record.messages), *(_of_part(one, record) for one in record.parts))


def by_human(record: TurnRecord) -> bool:
    """A colleague wrote in this turn."""
    return any(message.author is Author.HUMAN for message in record.messages)


def last_from_lead_ms(record: TurnRecord) -> int | None:
    """When the lead wrote last."""
    return max((one.sent_ms for one in record.messages if one.author is Author.LEAD), default=None)


def referral_of(record: TurnRecord) -> Mapping[str, str] | None:
    """The advertisement that a message came from."""
    return next((one.referral for one in record.messages if one.referral), None)


def _of_message(message: IncomingMessage) -> HistoryLine:
    return HistoryLine(
        author=message.author,
        text=message.text,
        message_type=message.message_type,
        at_ms=message.sent_ms,
        provider_message_id=message.message_id,
        media=tuple(asdict(one) for one in message.media),
        details=message.details or None,
    )


def _of_part(part: SentPart, record: TurnRecord) -> HistoryLine:
    return HistoryLine(
        author=Author.ASSISTANT,
        text=part.text,
        message_type="text",
        at_ms=record.ended_ms,
        provider_message_id=part.provider_message_id,
        delivery=part.delivery,
        details={"part": part.index},
        # The honest sentence is no knowledge either.
        fallback=record.generation.fallback or record.kind is TurnKind.APOLOGY,
    )
