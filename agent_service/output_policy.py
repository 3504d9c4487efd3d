"""What of a language model's text a lead may read. Nothing is sent that has not passed here.

The text is judged sentence by sentence (line by line), so that it flows while the model writes. A sentence that must
not be said is dropped; where the reply as a whole has gone wrong (prompt text, a secret, somebody else's turn) it ends.
Each rule is a small module in `policy/`. What comes out depends on the text alone, never on the pieces it came in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_service.conversation import Author, Turn
from agent_service.persona import Persona
from agent_service.policy.blocks import Blocks
from agent_service.policy.bubbles import Bubbles
from agent_service.policy.contacts import Contacts
from agent_service.policy.leaks import Leaks, LeakWatch, spoken_texts
from agent_service.policy.markup import whatsapp
from agent_service.policy.plain import tidy
from agent_service.policy.roles import Roles
from agent_service.policy.taboos import ENCODED, TOOL_SYNTAX, says_nothing, taboo
from agent_service.policy.units import Unit, Units
from agent_service.quoting import beginning_and_end
from agent_service.understanding.text import fold

MAX_REPLY = 4_000
RECENT_LINES = 12
# A model that has written so many sentences, none of which may be said, will not come to its senses; the lead waits.
MOST_IN_VAIN = 8
EMPTY, REPEATED, OTHER_ROLE, TOO_LONG = "empty", "repeated", "somebody else's turn", "too long"
RULED_OUT = "ruled out by the persona"
_PEOPLE = (Author.LEAD, Author.HUMAN)
_LINE, _BUBBLE = "\n", "\n\n"


class Unfit(Exception):
    """Nothing went out, and nothing of the output can. `reason` is a few fixed words, for logs and metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A sentence that waits for the next one: it announces it, or may be the beginning of a secret."""

    text: str
    gap: str


class OutputPolicy:
    """The rules for one version of a persona. `secrets` are texts that must never be said: keys, tokens."""

    def __init__(self, *, persona: Persona, secrets: Sequence[str] = ()) -> None:
        self.leaks = Leaks(persona=persona, secrets=secrets)
        self.roles = Roles(persona)
        self.contacts = Contacts(tuple(spoken_texts(persona)))
        self.never_say = persona.never_say

    def begin(self, turn: Turn) -> "OutputFilter":
        """A filter for one reply."""
        return OutputFilter(policy=self, turn=turn)


class OutputFilter:
    """One reply on its way out."""

    def __init__(self, *, policy: OutputPolicy, turn: Turn) -> None:
        self.cut = ""
        self._roles = policy.roles
        self._contacts = Contacts(_given_by_lead(turn), beyond=policy.contacts)
        self._never_say = policy.never_say
        self._leaks = policy.leaks
        self._watch = LeakWatch(policy.leaks)
        self._units = Units()
        self._blocks = Blocks()
        self._bubbles = Bubbles(_said_last(turn))
        self._gap = ""
        self._dropped = ""
        self._in_vain = 0
        self._held: list[_Held] = []
        self._over = False

    def gives_away(self, text: str) -> str:
        """What a text that isn't said, a tool's argument, would give away; empty when nothing."""
        return LeakWatch(self._leaks).leak(text)

    def feed(self, text: str) -> str:
        """What may go out now. Raises Unfit as soon as nothing can."""
        return "".join(self._pass(unit) for unit in self._units.feed(text) if not self._over)

    def finish(self) -> str:
        """The rest. Raises Unfit when nothing was fit to be said."""
        out = "".join(self._pass(unit) for unit in self._units.finish() if not self._over)
        if self._over:
            return out
        return out + (self._stop(self._blocks.open) if self._blocks.open else self._end())

    def _pass(self, unit: Unit) -> str:
        inside = bool(self._blocks.open)
        text = tidy(self._blocks.strip(unit.text))
        if not unit.text.strip():
            return "" if inside else self._blank(unit)
        out = self._judge(text, unit)
        if self._blocks.ended and not self._over:
            out += self._end()
        return out

    def _judge(self, text: str, unit: Unit) -> str:
        if leak := self._watch.leak(text):
            return self._stop(leak)
        if unit.starts_line and self._roles.speaks_for_others(text):
            return self._stop(OTHER_ROLE)
        gap, self._gap = self._gap, _LINE if unit.text.endswith("\n") else " "
        line = self._roles.without_label(text) if unit.starts_line else text
        shown = whatsapp(line, starts_line=unit.starts_line, knows_link=self._contacts.knows_link).strip()
        if says_nothing(shown):
            self._widen(gap)
            return ""
        if reason := self._why_not(shown, unit, text):
            return self._drop(reason, gap)
        self._held.append(_Held(text=shown, gap=gap))
        if shown.endswith(":") or self._watch.may_go_on():
            return ""
        return self._release()

    def _why_not(self, shown: str, unit: Unit, text: str) -> str:
        if unit.glued:
            return ENCODED
        if shown.endswith(":") and text != unit.text and self._blocks.removed:
            return TOOL_SYNTAX  # It announced what was taken out.
        folded = fold(shown)
        if any(pattern.search(folded) for pattern in self._never_say):
            return RULED_OUT
        return self._contacts.foreign(shown) or taboo(self._contacts.without_known(shown))

    def _drop(self, reason: str, gap: str) -> str:
        """Leave a sentence out, and with it the one that announced it. Raises Unfit when nothing else comes."""
        self._dropped = reason
        self._in_vain += 1
        if self._in_vain >= MOST_IN_VAIN and not self._bubbles.spoke:
            self._over = True
            raise Unfit(reason)
        for each in (gap, *(held.gap for held in self._held)):
            self._widen(each)
        self._held.clear()
        return ""

    def _widen(self, gap: str) -> None:
        self._gap = max(gap, self._gap, key=len)

    def _blank(self, unit: Unit) -> str:
        self._widen(_BUBBLE if unit.starts_line else _LINE)
        return self._bubbles.end() if unit.starts_line and not self._held else ""

    def _release(self) -> str:
        out = ""
        for held in self._held:
            if self._bubbles.length + len(held.text) > MAX_REPLY:
                return out + self._stop(TOO_LONG)
            out += self._bubbles.end() if held.gap == _BUBBLE else ""
            out += self._bubbles.add(held.text, gap=held.gap)
        self._held.clear()
        return out

    def _end(self) -> str:
        self._over = True
        out = self._release() + self._bubbles.end(last=True)
        if not self._bubbles.spoke:
            raise Unfit(self._dropped or (REPEATED if self._bubbles.repeated else self._blocks.removed) or EMPTY)
        return out

    def _stop(self, reason: str) -> str:
        """End the reply here, because of what came now."""
        self._over = True
        self._held.clear()
        out = self._bubbles.end(last=True)
        if not self._bubbles.spoke:
            raise Unfit(reason)
        self.cut = reason
        return out


def _given_by_lead(turn: Turn) -> tuple[str, ...]:
    lines = [line.text for line in turn.history if line.author in _PEOPLE]
    lead = [turn.contact, turn.lead.name, turn.lead.email, *turn.lead.preferences.values()]
    # The model was shown no more of a long text, and reading all of a pasted book stops everybody.
    return (*(beginning_and_end(text) for text in (*(message.text for message in turn.messages), *lines)), *lead)


def _said_last(turn: Turn) -> tuple[str, ...]:
    recent = turn.history[-RECENT_LINES:]
    return (*(line.text for line in recent if line.author is Author.ASSISTANT), *turn.said)
