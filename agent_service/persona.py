"""A persona: everything of a business, checked when it is loaded."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, model_validator

from agent_service import persona_files
from agent_service.persona_files import PersonaFiles, packaged
from agent_service.persona_mistakes import of_validation
from agent_service.persona_parts import (
    Amount,
    Answered,
    Condition,
    Criterion,
    Greetings,
    Offer,
    Outcome,
    Part,
    Pattern,
    Reads,
    Sentences,
    Stage,
    Step,
    Text,
    Trigger,
    Zone,
)
from agent_service.understanding.text import fold
from service_kit.settings import ConfigurationError

__all__ = [
    "Amount",
    "Answered",
    "Condition",
    "Criterion",
    "LoadedPersona",
    "Offer",
    "Outcome",
    "Persona",
    "Reads",
    "Sentences",
    "Step",
    "Trigger",
    "load_persona",
    "packaged",
    "read_persona",
]

MAX_SCORE = 100
# Fields of a lead that have a place of their own; every other one is kept among the preferences.
OWN_FIELDS = frozenset({"name", "amount", "flow", "interested"})


class Persona(Part):
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
    never_say: tuple[Pattern, ...] = Field((), description="what must be in no reply, whoever writes it")
    facts: Annotated[tuple[Text, ...], Field(min_length=1)]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    handoff_stage: str
    refused_stage: str
    scheduling_stage: str
    meeting_stage: str
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    greetings: Greetings
    sentences: Sentences
    honest_sentence: Text
    media_sentence: Text
    limit_sentence: Text = Field(description="said once a day when a budget is used up; then nothing more is said")
    limit_handoff: bool = Field(True, description="whether a human is called when a budget is used up")
    offers: Annotated[tuple[Offer, ...], Field(min_length=1)]
    script: Annotated[tuple[Step, ...], Field(min_length=1)]
    faq: Annotated[tuple[Answered, ...], Field(min_length=1)]
    objections: tuple[Answered, ...] = ()
    handoff_triggers: tuple[Trigger, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Persona":
        if problems := list(_contradictions(self)):
            raise ValueError("\n".join(problems))
        return self

    @property
    def zone(self) -> ZoneInfo:
        """Where the business lives."""
        return ZoneInfo(self.timezone)

    @property
    def entries(self) -> tuple[Answered, ...]:
        """Everything that has a ready answer: frequent questions and objections."""
        return (*self.faq, *self.objections)

    @cached_property
    def amount(self) -> Amount | None:
        """The sum of money that the script asks for; None when it asks for none."""
        return next((step.amount for step in self.script if step.amount is not None), None)

    @cached_property
    def lead_fields(self) -> Mapping[str, str]:
        """What the script wants to know, by field, in its order, with the question that explains it."""
        fields: dict[str, str] = {}
        for step in self.script:
            fields.setdefault(step.field, step.ask[0])
        return fields

    @cached_property
    def preference_fields(self) -> tuple[str, ...]:
        """The lead fields that are kept among the preferences, sorted."""
        return tuple(sorted(self.lead_fields.keys() - OWN_FIELDS))

    def words(self) -> frozenset[str]:
        """Folded words that the business itself uses in lower case; none of them is a person's name."""
        texts = " ".join(_texts(self.model_dump(exclude={"agent", "company"})))
        return frozenset(fold(word) for word in re.findall(r"(?<!\w)[^\W\d_A-Z]{4,}", texts))


@dataclass(frozen=True, kw_only=True)
class LoadedPersona:
    """One version of a persona, with what is derived from it once."""

    persona: Persona
    version: str
    path: Path
    words: frozenset[str]


def load_persona(name_or_path: str) -> Persona:
    """The packaged persona of that name, or the one in that file or folder. Errors: `ConfigurationError`."""
    return read_persona(persona_files.read(persona_files.find(name_or_path))).persona


def read_persona(files: PersonaFiles) -> LoadedPersona:
    """The persona that these files make. Errors: `ConfigurationError` that names file, line, key and every problem."""
    documents = files.documents()
    try:
        persona = Persona.model_validate(documents.data)
    except ValidationError as error:
        said = [each for item in error.errors() for each in of_validation(item, _keys())]
        problems = [f"{documents.where(loc)}: {sentence}" for loc, sentence in said]
        raise ConfigurationError("; ".join(problems)) from None
    return LoadedPersona(persona=persona, version=files.version, path=files.path, words=persona.words())


def _contradictions(persona: Persona) -> Iterator[str]:
    """What each part cannot know of the others, as "key: what is wrong"."""
    lists: dict[str, list[str]] = {
        "script": [step.id for step in persona.script],
        "offers": [offer.id for offer in persona.offers],
        "faq": [entry.id for entry in persona.entries],
        "criteria": [criterion.id for criterion in persona.criteria],
    }
    for place, ids in lists.items():
        if twice := {each for each in ids if ids.count(each) > 1}:
            yield f"{place}: id {', '.join(sorted(twice))} is used twice"
    for step in persona.script:
        if step.stage and step.stage not in persona.stages:
            yield f"script.{step.id}.stage: {step.stage} is not one of the stages"
    yield from _misplaced_amounts(persona.script)
    flows = {offer.flow for offer in persona.offers}
    for offer in persona.offers:
        if offer.instead and offer.instead not in flows:
            yield f"offers.{offer.id}.instead: {offer.instead} is not the flow of an offer"
    if sum(criterion.points for criterion in persona.criteria) > MAX_SCORE:
        yield f"criteria: their points add up to more than {MAX_SCORE}"
    for stage in (persona.handoff_stage, persona.refused_stage, persona.scheduling_stage, persona.meeting_stage):
        if stage not in persona.stages:
            yield f"stages: {stage} is missing"


def _misplaced_amounts(script: tuple[Step, ...]) -> Iterator[str]:
    asking = [step.id for step in script if step.reads is Reads.MONEY]
    if len(asking) > 1:
        yield f"script: {', '.join(asking)} all read money; a lead has one amount"
    for step in script:
        if (step.field == "amount") != (step.reads is Reads.MONEY):
            yield f"script.{step.id}.field: a step that reads money keeps it in the field amount, and no other does"


def _keys() -> frozenset[str]:
    """The names of all keys of all parts."""
    return frozenset().union(*(part.model_fields for part in Part.__subclasses__()))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Iterable):
        for each in value:
            yield from _texts(each)
