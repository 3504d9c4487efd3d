"""The parts of a persona, each checked by itself."""

import re
from enum import StrEnum
from string import Formatter
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from agent_service.understanding.text import fold

PLACEHOLDERS = frozenset({"agent", "company", "city", "state", "name", "amount", "greeting", "moment"})


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    fields = [(name, spec, turned) for _, name, spec, turned in Formatter().parse(value) if name is not None]
    unknown = {name for name, _, _ in fields} - PLACEHOLDERS
    if unknown:
        known = ", ".join(sorted(PLACEHOLDERS))
        raise ValueError(f"unknown placeholder {', '.join(sorted(unknown))} (known are {known})")
    if any(spec or turned for _, spec, turned in fields):
        raise ValueError("a placeholder is a name in braces and nothing else")
    return value.strip()


def _pattern(value: Any) -> re.Pattern[str]:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a regular expression")
    if (plain := re.sub(r"\\.", "", value)) != fold(plain):
        raise ValueError("is matched against text in lower case without accents, write it so")
    try:
        return re.compile(rf"(?<!\w)(?:{value})(?!\w)")
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"{value} is not a time zone") from None
    return value


# What goes into the record of a turn may be no longer than the context service takes: it would refuse the whole turn.
Stage = Annotated[str, Field(min_length=1, max_length=50)]
Flow = Annotated[str, Field(min_length=1, max_length=100)]
FieldName = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f]+$")]
Choice = Annotated[str, Field(max_length=200)]
Reason = Annotated[str, Field(max_length=200)]
Text = Annotated[str, AfterValidator(_text)]
Variants = Annotated[tuple[Text, ...], Field(min_length=2)]
# A pattern stands between word boundaries, so that a plain word is one.
Pattern = Annotated[re.Pattern[str], PlainValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1)]
Zone = Annotated[str, AfterValidator(_zone)]


class Part(BaseModel):
    """Frozen, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Reads(StrEnum):
    """How the answer to a step is read."""

    NAME = "name"
    MONEY = "money"
    YES_NO = "yes_no"
    OFFER = "offer"
    CHOICE = "choice"
    TEXT = "text"
    PLACE = "place"
    PERCENT = "percent"
    DAY = "day"
    TIME = "time"


class Outcome(StrEnum):
    """What an answer may lead to besides the next step."""

    DISQUALIFY = "disqualify"
    REFUSE = "refuse"
    OTHER_OFFER = "other_offer"
    HANDOFF = "handoff"


class Condition(Part):
    """Holds when everything that is set holds; amounts are in reais."""

    amount_from: int | None = None
    amount_below: int | None = None
    known: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    equals: dict[str, tuple[str, ...]] = {}
    differs: dict[str, tuple[str, ...]] = {}


class Greetings(Part):
    """By time of day."""

    morning: Text
    afternoon: Text
    evening: Text


class Answered(Part):
    """A question that leads ask, or an objection, and what is said to it."""

    id: str
    patterns: Patterns
    answers: Variants
    stated: tuple[Pattern, ...] = Field((), description="objections: answered also when they are no question")
    general: bool = Field(False, description="gives way to a more specific entry in the same clause")


class Offer(Part):
    """Something that the business sells; the first one whose condition holds is meant."""

    id: str
    flow: Flow
    patterns: Patterns
    pitch: Variants
    when: Condition = Condition()
    instead: str = Field("", description="the flow that is offered, once, to whom this one doesn't appeal")
    handoff: Reason = ""


class Amount(Part):
    """The sum of money that a step asks for: a bill, a rent, a budget. It is kept in cents, in a field of its own."""

    topic: Pattern = Field(description="words that make a number in the same sentence this amount")
    ignore: Pattern | None = Field(None, description="numbers that look like it and are something else")
    noted: Variants
    photo: tuple[Text, ...] = Field((), description="said to a picture that comes instead; else it is no special case")


class Step(Part):
    """One thing to find out, and how to ask for it."""

    id: str
    field: FieldName
    reads: Reads
    stage: str = Field("", description="the stage that asking it means; empty leaves the stage alone")
    tries: int = Field(2, ge=1, le=2)
    ask: Variants
    when: Condition = Condition()
    amount: Amount | None = None
    choices: dict[Choice, tuple[Pattern, ...]] = {}
    heard: dict[str, tuple[Pattern, ...]] = Field(
        {}, description="answers that are recognised without their question; a text step keeps the lead's own words"
    )
    implied: str = Field("", description="the answer that is meant by who answers a later question instead")
    essential: bool = Field(False, description="asked even when the lead already proposed a day")
    replies: dict[str, Variants] = {}
    outcomes: dict[str, Outcome] = {}
    reason: Reason = Field("asked for a human", description="what the colleague reads when an outcome hands over")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.reads is Reads.CHOICE) and not self.choices:
            raise ValueError("choices: a step that reads a choice needs choices")
        if (self.reads is Reads.MONEY) != (self.amount is not None):
            raise ValueError("amount: belongs to a step that reads money, and to no other")
        return self


class Criterion(Part):
    """Something that speaks for the lead: met when one of the conditions holds."""

    id: str
    points: int = Field(ge=0, le=100)
    required: bool = True
    any_of: Annotated[tuple[Condition, ...], Field(min_length=1)]


class Trigger(Part):
    """Words that call for a human at once."""

    patterns: Patterns
    reason: Reason
    say: tuple[Text, ...] = Field((), description="said then; by default what is said to who asks for a human")

    @model_validator(mode="after")
    def _varied(self) -> Self:
        if len(self.say) == 1:
            raise ValueError("say: needs a second variant")
        return self


class Sentences(Part):
    """What is said outside the script. At least two variants each, so that nothing is said twice in a row."""

    opening: Variants
    opening_known: Variants
    nice_to_meet: Variants
    name_changed: Variants
    noted_place: Variants
    noted_location: Variants
    noted: Variants
    hello_again: Variants
    back_again: Variants
    back_again_known: Variants
    thanks: Variants
    later: Variants
    unknown_question: Variants
    neutral: Variants
    idle: Variants
    follow_up: Variants
    handoff: Variants
    handoff_complaint: Variants
    meeting_handoff: Variants
    meeting_noted: Variants
    other_moment: Variants
    other_offer: Variants
    refused: Variants
    disqualified: Variants
    welcome_back: Variants
    sensitive: Variants
    media_again: Variants
