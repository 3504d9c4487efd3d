"""A whole conversation with the playbook, its facts and history kept as the other services would."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from agent_service.conversation import Author, HandOver, Kind, Lead, LeadPatch, Line, Message, Turn
from agent_service.persona import Persona, load_persona
from agent_service.playbook.draft import Reply
from agent_service.playbook.facts import merged
from agent_service.playbook.past import comparable
from agent_service.playbook.reply import make_reply

# 23 November 2026, in Recife.
MONDAY_10H = 1_795_438_800_000


@lru_cache(maxsize=1)
def demo() -> Persona:
    return load_persona("demo-solar")


@lru_cache(maxsize=1)
def clinic() -> Persona:
    return load_persona("demo-clinica")


_WORDS: dict[str, frozenset[str]] = {}


def words(persona: Persona | None = None) -> frozenset[str]:
    persona = persona or demo()
    if persona.name not in _WORDS:
        _WORDS[persona.name] = persona.words()
    return _WORDS[persona.name]


def messages(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(text=text) for text in texts)


@dataclass
class Talk:
    """One lead. Every reply is checked for what must never happen."""

    lead: Lead = field(default_factory=Lead)
    history: list[Line] = field(default_factory=list)
    handoffs: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    degraded: bool = False
    persona: Persona = field(default_factory=demo)

    def turn(self, *texts: str, kind: Kind = Kind.TEXT, said: Sequence[str] = ()) -> Turn:
        return Turn(
            messages=tuple(Message(text=text, kind=kind) for text in texts),
            lead=self.lead,
            history=tuple(self.history),
            first_contact=not self.history and not self.degraded,
            degraded=self.degraded,
            now_ms=MONDAY_10H,
            said=tuple(said),
        )

    def say(self, *texts: str, kind: Kind = Kind.TEXT) -> str:
        reply = make_reply(self.persona, self.turn(*texts, kind=kind), words=words(self.persona))
        self._check(reply)
        self.replies.append(reply)
        self.history += [Line(author=Author.LEAD, text=text) for text in texts]
        self.history += [Line(author=Author.ASSISTANT, text=bubble) for bubble in reply.bubbles]
        for effect in reply.effects:
            if isinstance(effect, LeadPatch):
                self.lead = merged(self.lead, effect)
            elif isinstance(effect, HandOver):
                self.handoffs.append(effect.reason)
        return "\n\n".join(reply.bubbles)

    def _check(self, reply: Reply) -> None:
        assert reply.bubbles and all(bubble.strip() for bubble in reply.bubbles)
        assert len(reply.bubbles) <= 3
        before = [comparable(line.text) for line in self._last_reply()]
        now = [comparable(bubble) for bubble in reply.bubbles]
        assert now != before, f"the same reply twice: {now}"
        assert not set(now) & set(before), f"a bubble of the last reply again: {now}"
        text = "\n".join(reply.bubbles)
        for taboo in ("{", "}", "<", ">", "`", "**", "tool", "update_lead", "None", "undefined"):
            assert taboo not in text, text
        for taboo in ("cpf", "rg ", "senha do", "te retorno", "um momento", "pode repetir"):
            assert taboo not in text.lower(), text

    def _last_reply(self) -> list[Line]:
        block: list[Line] = []
        for line in reversed(self.history):
            if line.author is Author.ASSISTANT:
                block.append(line)
            elif block:
                break
        return block


def asked(text: str, step_id: str, persona: Persona | None = None) -> bool:
    """Whether a reply puts the question of that step."""
    persona = persona or demo()
    step = next(step for step in persona.script if step.id == step_id)
    return any(ask in text for ask in step.ask)


def answers(text: str, faq_id: str, persona: Persona | None = None) -> bool:
    """Whether a reply holds the answer to that question."""
    persona = persona or demo()
    entry = next(entry for entry in persona.entries if entry.id == faq_id)
    fixed = [answer.split("{")[0] for answer in entry.answers]
    return any(part and part in text for part in fixed)
