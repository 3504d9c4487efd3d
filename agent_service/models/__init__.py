"""The seam between the agent and whatever writes the replies."""

import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from agent_service.chat import EngineState, ModelTrouble
from agent_service.conversation import Lead, Line, ModelEvent, Turn, UsageReported
from agent_service.persona import Persona


@dataclass(frozen=True, kw_only=True)
class WarmStep:
    """One step of the warm-up."""

    name: str
    ms: int


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """One model of the chain, for people. `braked_until_ms` is 0 without a brake."""

    name: str
    available: bool = True
    trouble: str = ""
    braked_until_ms: int = 0
    engine: EngineState = field(default_factory=EngineState)
    steps: tuple[WarmStep, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a model made of older history; `text` is empty when there was too little to condense."""

    text: str
    through_sequence: int
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_micros: int = 0


class SummaryFailed(ModelTrouble):
    """There is no summary, and these tokens were used all the same."""

    def __init__(self, trouble: ModelTrouble, spent: UsageReported) -> None:
        super().__init__(trouble.trouble, str(trouble), retry_after_s=trouble.retry_after_s)
        self.spent = spent


class Model(Protocol):
    """Writes replies; one per process, opened and warmed before the agent is ready."""

    @property
    def name(self) -> str:
        """As shown to people: "playbook"."""
        ...

    @property
    def costs_money(self) -> bool:
        """Whether each reply is paid for."""
        ...

    @property
    def available(self) -> bool:
        """Whether it can serve now, itself or through a fallback."""
        ...

    @property
    def hangs(self) -> bool:
        """Whether its server says nothing while it is opened or warmed. Loading in this process is no hanging."""
        ...

    async def open(self) -> None:
        """Connect or load."""
        ...

    async def warm(self) -> None:
        """Make the first real reply as fast as the hundredth: prime the prompt's fixed part, generate once."""
        ...

    async def use(self, persona: Persona) -> None:
        """Speak from this version of the persona; replies under way keep theirs. Errors: ConfigurationError."""
        ...

    def stream(self, turn: Turn, *, ends_at: float, by: float = math.inf) -> AsyncGenerator[ModelEvent, None]:
        """Write one reply, its first words or effects by `by` and all of it by `ends_at` (the loop's time).

        What it cost is told when it fails, too. Closing the generator stops the model at once. Errors: ModelTrouble.
        """
        ...

    async def summarize(self, *, summary: str, history: tuple[Line, ...], lead: Lead, ends_at: float) -> Summary | None:
        """Condense the older part of history; None when this model writes no summaries.

        Errors: ModelTrouble; SummaryFailed when it cost something.
        """
        ...

    def states(self) -> tuple[ModelState, ...]:
        """This model, and those that stand in for it, in the order in which they are asked."""
        ...

    async def close(self) -> None:
        """Let go of what `open` took."""
        ...
