"""A persona file: everything of a business, checked when it is loaded."""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from agent_service.understanding.text import fold
from service_kit.settings import ConfigurationError

PLACEHOLDERS = frozenset({"agent", "company", "city", "state", "name", "bill", "greeting", "moment"})

MAX_SCORE = 100


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    unknown = {name for _, name, _, _ in Formatter().parse(value) if name is not None} - PLACEHOLDERS
    if unknown:
        known = ", ".join(sorted(PLACEHOLDERS))
        raise ValueError(f"unknown placeholder {', '.join(sorted(unknown))}; known are {known}")
    return value.strip()


def _pattern(value: Any) -> re.Pattern[str]:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a regular expression")
    if (plain := re.sub(r"\\.", "", value)) != fold(plain):
        raise ValueError("is matched against text in lower case without accents, write it so")
    try:
        return re.compile(rf"(?<!\w)(?:{value})(?!\w)")
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"{value} is not a time zone") from None
    return value


Text = Annotated[str, AfterValidator(_text)]
Variants = Annotated[tuple[Text, ...], Field(min_length=2)]
Pattern = Annotated[re.Pattern[str], PlainValidator(_pattern)]
Zone = Annotated[str, AfterValidator(_zone)]


class _Part(BaseModel):
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


class Condition(_Part):
    """Holds when everything that is set holds."""

    bill_from: int | None = None
    bill_below: int | None = None
    known: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    equals: dict[str, tuple[str, ...]] = {}
    differs: dict[str, tuple[str, ...]] = {}


class Greetings(_Part):
    """By time of day."""

    morning: Text
    afternoon: Text
    evening: Text


class Answered(_Part):
    """A question that leads ask, and what is said to it."""

    id: str
    patterns: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    answers: Variants
    stated: tuple[Pattern, ...] = Field((), description="objections: answered also when they are no question")
    general: bool = Field(False, description="gives way to a more specific entry in the same clause")


class Offer(_Part):
    """Something that the business sells; the first one whose condition holds is meant."""

    id: str
    flow: str
    patterns: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    pitch: Variants
    when: Condition = Condition()
    instead: str = Field("", description="the flow that is offered, once, to whom this one doesn't appeal")
    handoff: str = ""


class Step(_Part):
    """One thing to find out, and how to ask for it."""

    id: str
    field: str
    reads: Reads
    stage: str = Field("", description="the stage that asking it means; empty leaves the stage alone")
    tries: int = Field(2, ge=1, le=2)
    ask: Variants
    when: Condition = Condition()
    choices: dict[str, tuple[Pattern, ...]] = {}
    heard: dict[str, tuple[Pattern, ...]] = Field(
        {}, description="answers that are recognised without their question; a text step keeps the lead's own words"
    )
    implied: str = Field("", description="the answer that is meant by who answers a later question instead")
    essential: bool = Field(False, description="asked even when the lead already proposed a day")
    replies: dict[str, Variants] = {}
    outcomes: dict[str, Outcome] = {}


class Criterion(_Part):
    """Something that speaks for the lead: met when one of the conditions holds."""

    id: str
    points: int = Field(ge=0, le=100)
    required: bool = True
    any_of: Annotated[tuple[Condition, ...], Field(min_length=1)]


class Trigger(_Part):
    """Words that call for a human at once."""

    patterns: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    reason: str


class Sentences(_Part):
    """What is said outside the script. At least two variants each, so that nothing is said twice in a row."""

    opening: Variants
    opening_known: Variants
    nice_to_meet: Variants
    name_changed: Variants
    noted_bill: Variants
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
    bill_photo: Variants
    media_again: Variants


class Persona(_Part):
    """Who speaks, for whom, and everything that may be said."""

    name: str
    language: str
    agent: Text
    company: Text
    city: Text
    state: str = Field(pattern=r"^[A-Z]{2}$")
    timezone: Zone
    voice: Text
    goal: Text
    hours: Text
    never: Annotated[tuple[Text, ...], Field(min_length=1)]
    facts: Annotated[tuple[Text, ...], Field(min_length=1)]
    stages: Annotated[tuple[str, ...], Field(min_length=1)]
    handoff_stage: str
    refused_stage: str
    scheduling_stage: str
    meeting_stage: str
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    bill_topic: Pattern
    bill_ignore: Pattern | None = None
    greetings: Greetings
    sentences: Sentences
    honest_sentence: Text
    media_sentence: Text
    limit_sentence: Text = Field(description="said once a day when a budget is used up; then nothing more is said")
    limit_handoff: bool = Field(True, description="whether a human is called when a budget is used up")
    offers: Annotated[tuple[Offer, ...], Field(min_length=1)]
    script: Annotated[tuple[Step, ...], Field(min_length=1)]
    faq: Annotated[tuple[Answered, ...], Field(min_length=1)]
    handoff_triggers: tuple[Trigger, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Persona":
        for place, ids in (("script", [s.id for s in self.script]), ("faq", [f.id for f in self.faq])):
            if twice := {each for each in ids if ids.count(each) > 1}:
                raise ValueError(f"{place}: id {', '.join(sorted(twice))} is used twice")
        for step in self.script:
            if step.stage and step.stage not in self.stages:
                raise ValueError(f"script.{step.id}.stage: {step.stage} is not one of the stages")
            if step.reads is Reads.CHOICE and not step.choices:
                raise ValueError(f"script.{step.id}.choices: a step that reads a choice needs choices")
        flows = {offer.flow for offer in self.offers}
        for offer in self.offers:
            if offer.instead and offer.instead not in flows:
                raise ValueError(f"offers.{offer.id}.instead: {offer.instead} is not the flow of an offer")
        if sum(criterion.points for criterion in self.criteria) > MAX_SCORE:
            raise ValueError(f"criteria: their points add up to more than {MAX_SCORE}")
        for stage in (self.handoff_stage, self.refused_stage, self.scheduling_stage, self.meeting_stage):
            if stage not in self.stages:
                raise ValueError(f"stages: {stage} is missing")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """Where the business lives."""
        return ZoneInfo(self.timezone)

    def words(self) -> frozenset[str]:
        """Folded words that the business itself uses in lower case; none of them is a person's name."""
        texts = " ".join(_texts(self.model_dump(exclude={"agent", "company"})))
        return frozenset(fold(word) for word in re.findall(r"(?<!\w)[^\W\d_A-Z]{4,}", texts))


def load_persona(name_or_path: str) -> Persona:
    """The packaged persona of that name, or the one in that file or folder."""
    path = _find(name_or_path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path}: must be a mapping of keys")
    try:
        return Persona.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_sentence(item) for item in error.errors())
        raise ConfigurationError(f"{path}: {problems}") from None


def packaged() -> list[str]:
    """Names of the personas that ship with the package."""
    folder = resources.files("agent_service") / "personas"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def _find(name_or_path: str) -> Path:
    packaged_file = Path(str(resources.files("agent_service") / "personas" / f"{name_or_path}.yaml"))
    if re.fullmatch(r"[\w-]+", name_or_path) and packaged_file.is_file():
        return packaged_file
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "persona.yaml"
    if path.is_file():
        return path
    raise ConfigurationError(
        f"SDR_PERSONA: there is no persona {name_or_path}; packaged are {', '.join(packaged())}, or give the path "
        f"of a file"
    )


def _sentence(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Iterable):
        for each in value:
            yield from _texts(each)
