"""What the assistant has said already, read back from history: the only memory that the playbook has."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agent_service.conversation import Author, Line
from agent_service.persona import Persona, Step
from agent_service.understanding.text import fold, squeeze

# A question that lies further back than this many bubbles is no longer what "sim" answers.
_FRESH = 8


@dataclass(frozen=True, kw_only=True)
class Past:
    """The assistant's bubbles, oldest first, folded for comparison."""

    bubbles: tuple[str, ...]
    last_reply: tuple[str, ...]
    asked: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, persona: Persona, history: Sequence[Line]) -> "Past":
        """Read the history."""
        bubbles = tuple(_bubbles(line.text for line in history if line.author is Author.ASSISTANT))
        return cls(
            bubbles=bubbles,
            last_reply=tuple(_bubbles(line.text for line in _last_block(history))),
            asked=tuple(
                (at, step.id)
                for at, bubble in enumerate(bubbles)
                for step in persona.script
                if any(_template(ask).search(bubble) for ask in step.ask)
            ),
        )

    def tries(self, step: Step) -> int:
        """How often the step's question was put."""
        return sum(1 for _, step_id in self.asked if step_id == step.id)

    def open_step(self, persona: Persona) -> Step | None:
        """The question that an unspecific answer answers."""
        if not self.asked or self.asked[-1][0] < len(self.bubbles) - _FRESH:
            return None
        return next((step for step in persona.script if step.id == self.asked[-1][1]), None)

    def recently_asked(self, persona: Persona, count: int) -> list[Step]:
        """The steps behind the last few questions."""
        ids = [step_id for _, step_id in self.asked[-count:]]
        return [step for step in persona.script if step.id in ids]

    def said(self, text: str) -> bool:
        """Whether the text (a template) was said before."""
        return any(_template(text).search(bubble) for bubble in self.bubbles)

    def pick(self, variants: Sequence[str], taken: Iterable[str] = ()) -> str:
        """The variant that was not said yet, or the one that was said longest ago."""
        free = [variant for variant in variants if variant not in taken] or list(variants)
        return min(free, key=lambda variant: (self._last_use(variant), free.index(variant)))

    def _last_use(self, variant: str) -> int:
        pattern = _template(variant)
        return max((at for at, bubble in enumerate(self.bubbles) if pattern.search(bubble)), default=-1)


def comparable(text: str) -> str:
    """The text as it is compared: folded, one space between words."""
    return squeeze(fold(text))


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its placeholders filled."""
    return template.format_map(values)


@lru_cache(maxsize=2_048)
def _template(text: str) -> re.Pattern[str]:
    parts = re.split(r"\{\w+\}", comparable(text))
    return re.compile(r"(?<!\w)" + ".{0,80}?".join(re.escape(part) for part in parts))


def _bubbles(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        for bubble in text.split("\n\n"):
            if bubble.strip():
                yield comparable(bubble)


def _last_block(history: Sequence[Line]) -> list[Line]:
    block: list[Line] = []
    for line in reversed(history):
        if line.author is Author.ASSISTANT:
            block.insert(0, line)
        elif block:
            break
    return block
