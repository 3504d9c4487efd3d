"""What a message is read against, and what is read of it."""

from dataclasses import dataclass, field
from datetime import date

from agent_service.conversation import Lead, LeadPatch
from agent_service.persona import Answered, Offer, Persona, Reads, Step
from agent_service.playbook import facts
from agent_service.playbook.past import Past
from agent_service.understanding.intents import Intent
from agent_service.understanding.money import Money

MOMENTS = frozenset({Reads.DAY, Reads.TIME})


@dataclass(kw_only=True)
class Reading:
    """Everything that was read of a turn, in the order of its messages."""

    patch: LeadPatch = field(default_factory=LeadPatch)
    answered: dict[str, str] = field(default_factory=dict)
    offer: Offer | None = None
    questions: list[Answered] = field(default_factory=list)
    unknown_questions: list[str] = field(default_factory=list)
    intents: set[Intent] = field(default_factory=set)
    trigger: str = ""
    sensitive: bool = False
    picture: bool = False
    located: bool = False
    moment_excluded: bool = False
    last_money: Money | None = None

    @property
    def asks(self) -> bool:
        """Whether the lead asked for something."""
        return bool(self.questions or self.unknown_questions)

    @property
    def said_something(self) -> bool:
        """Whether there is anything to react to."""
        return bool(self.patch or self.questions or self.unknown_questions or self.answered)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a message is read against."""

    persona: Persona
    lead: Lead
    past: Past
    open_step: Step | None
    words: frozenset[str]
    today: date


def keep(reading: Reading, field_name: str, value: str) -> None:
    """Keep a fact by its name in the persona."""
    reading.patch = facts.with_field(reading.patch, field_name, value)
