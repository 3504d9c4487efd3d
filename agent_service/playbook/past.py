"""What the assistant has said already, read back from history: the only memory that the playbook has."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import dropwhile, takewhile

from agent_service.conversation import Author, Line
from agent_service.persona import Persona, Step
from agent_service.understanding.intents import is_question
from agent_service.understanding.text import clip, fold, sentences, squeeze

# A question that lies further back than this many bubbles is no longer what "sim" answers.
_FRESH = 8


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question of the script that was put, and whether the lead answered with a question of their own."""

    at: int
    step_id: str
    countered: bool


@dataclass(frozen=True, kw_only=True)
class Past:
    """The assistant's bubbles, oldest first, folded for comparison."""

    bubbles: tuple[str, ...]
    last_reply: tuple[str, ...]
    asked: tuple[Asked, ...]

    @classmethod
    def of(cls, persona: Persona, history: Sequence[Line]) -> "Past":
        """Read the history."""
        bubbles: list[str] = []
        asked: list[Asked] = []
        for index, line in enumerate(history):
            if line.author is not Author.ASSISTANT:
                continue
            for bubble in _bubbles([line.text]):
                countered = _is_countered(history, index)
                asked += [
                    Asked(at=len(bubbles), step_id=step.id, countered=countered) for step in _put(persona, bubble)
                ]
                bubbles.append(bubble)
        last_reply = tuple(_bubbles(line.text for line in _last_block(history)))
        return cls(bubbles=tuple(bubbles), last_reply=last_reply, asked=tuple(asked))

    def tries(self, step: Step) -> int:
        """How often the step's question was put."""
        return sum(1 for each in self.asked if each.step_id == step.id)

    def evasions(self, step: Step) -> int:
        """How often it was put and the lead went on about something else, without asking back."""
        return sum(1 for each in self.asked if each.step_id == step.id and not each.countered)

    @property
    def asks_now(self) -> bool:
        """Whether the last reply put a question of the script."""
        return bool(self.asked) and self.asked[-1].at >= len(self.bubbles) - len(self.last_reply)

    def open_step(self, persona: Persona) -> Step | None:
        """The question that an unspecific answer answers."""
        if not self.asked or self.asked[-1].at < len(self.bubbles) - _FRESH:
            return None
        return next((step for step in persona.script if step.id == self.asked[-1].step_id), None)

    def recently_asked(self, persona: Persona, count: int) -> list[Step]:
        """The steps behind the last few questions."""
        ids = {each.step_id for each in self.asked[-count:]}
        return [step for step in persona.script if step.id in ids]

    def said(self, text: str) -> bool:
        """Whether the text (a template) was said before."""
        return any(_holds(bubble, text) for bubble in self.bubbles)

    def said_last(self, text: str) -> bool:
        """Whether the text (a template) stood in the last reply."""
        return any(_holds(bubble, text) for bubble in self.last_reply)

    def pick(self, variants: Sequence[str], taken: Iterable[str] = ()) -> str:
        """The variant that was not said yet, or the one that was said longest ago."""
        free = [variant for variant in variants if variant not in taken] or list(variants)
        return min(free, key=lambda variant: (self._last_use(variant), free.index(variant)))

    def _last_use(self, variant: str) -> int:
        return max((at for at, bubble in enumerate(self.bubbles) if _holds(bubble, variant)), default=-1)


def comparable(text: str) -> str:
    """The text as it is compared: folded, one space between words."""
    return squeeze(fold(text))


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its placeholders filled."""
    return template.format_map(values)


def _holds(bubble: str, template: str) -> bool:
    words = _template(template)
    return words in bubble if isinstance(words, str) else words.search(bubble) is not None


@lru_cache(maxsize=2_048)
def _template(text: str) -> str | re.Pattern[str]:
    parts = re.split(r"\{\w+\}", comparable(text))
    if len(parts) == 1:
        return parts[0]
    return re.compile(r"(?<!\w)" + ".{0,80}?".join(re.escape(part) for part in parts))


def _put(persona: Persona, bubble: str) -> list[Step]:
    if "?" not in bubble:
        return []
    return [step for step in persona.script if any(_holds(bubble, ask) for ask in step.ask)]


def _is_countered(history: Sequence[Line], index: int) -> bool:
    """Whether the lead's next words hold a question. The last block's answer is the turn that is read now."""
    later = history[index + 1 :]
    lead = dropwhile(lambda line: line.author is not Author.LEAD, later)
    answer = list(takewhile(lambda line: line.author is Author.LEAD, lead))
    return not answer or any(is_question(sentence) for line in answer for sentence in sentences(clip(line.text)))


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
