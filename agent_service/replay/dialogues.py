"""Scripted dialogues: what a lead writes, and what has to come of it, whichever model answers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from agent_service.conversation import Author, Kind, Lead, Line, Message, Turn
from agent_service.persona import Persona
from agent_service.replay.facts import facts_of, with_stored
from agent_service.replay.playing import Answer, Answering, answer
from agent_service.understanding.text import fold
from service_kit.settings import ConfigurationError

# 23 November 2026, a Monday, 10 o'clock in Recife.
START_MS = 1_795_438_800_000
_MINUTE_MS = 60_000
_MOST_BUBBLES = 8

# In no reply, whatever was asked: syntax of this system or of a model, and promises that nobody would keep.
_NEVER = tuple(
    re.compile(pattern)
    for pattern in (
        r"[{}<>`]|\*\*|\bnone\b|\bundefined\b|update_lead|handoff_to_human|tool_call|\[inst",
        r"te retorno|retorno em breve|um momento,? por favor|pode repetir|sou um modelo de linguagem",
        r"(?:me (?:passa|manda|envia|informa)|qual (?:e )?(?:o )?seu|preciso d[oe])[^.?!]{0,20}\b(?:cpf|rg|senha)\b",
    )
)


def _several(value: object) -> object:
    return [value] if isinstance(value, str | dict) else value


def _compiled(value: Any) -> re.Pattern[str]:
    if isinstance(value, re.Pattern):
        return value
    if not isinstance(value, str) or fold(re.sub(r"\\.", "", value)) != re.sub(r"\\.", "", value):
        raise ValueError("is matched against text in lower case without accents, write it so")
    return re.compile(value)


_Words = Annotated[re.Pattern[str], PlainValidator(_compiled)]
_AnyWords = Annotated[tuple[_Words, ...], BeforeValidator(_several)]
# One value, several that are as good, or null: nothing may be known.
_Wanted = str | tuple[str, ...] | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class LeadMessage(_Part):
    """One message that is more than its words."""

    text: str = ""
    kind: Kind = Kind.TEXT


class Expected(_Part):
    """What has to be so. Facts by their names on the wire, "R$ 4.500" for the amount; mentions are all found, each a
    regular expression over the reply in lower case without accents; of `never` none is."""

    facts: dict[str, _Wanted] = {}
    stage: _Wanted = None
    handoff: bool | None = None
    mentions: _AnyWords = ()
    never: _AnyWords = ()


class ScriptedTurn(Expected):
    """The lead's messages of one turn, and what has to come of them."""

    lead: Annotated[tuple[str | LeadMessage, ...], BeforeValidator(_several), Field(min_length=1)]
    days_later: int = 0
    silent: bool | None = None


class PastLine(_Part):
    """One line of an earlier conversation."""

    lead: str = ""
    assistant: str = ""
    human: str = ""


class Dialogue(_Part):
    """One scripted conversation. `end` is judged after the last turn; of `never` nothing may be in any reply."""

    name: str = ""
    about: str
    persona: str
    known: dict[str, str] = Field({}, description="what was known of the lead before, by the names of the store")
    past: tuple[PastLine, ...] = ()
    turns: Annotated[tuple[ScriptedTurn, ...], Field(min_length=1)]
    end: Expected = Expected()
    never: _AnyWords = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a dialogue: the whole conversation, and a sentence for everything that was not as it should be."""

    name: str
    lines: tuple[str, ...]
    problems: tuple[str, ...]


def load_dialogues(path: Path) -> tuple[Dialogue, ...]:
    """The dialogues of a file or a folder, by name. Errors: ConfigurationError that names file and key."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files:
        raise ConfigurationError(f"{path}: there are no dialogues (*.yaml)")
    return tuple(_load(file) for file in files)


def _load(file: Path) -> Dialogue:
    try:
        dialogue = Dialogue.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{file}: {problems}") from None
    return dialogue.model_copy(update={"name": file.stem})


async def play(dialogue: Dialogue, agent: Answering, persona: Persona) -> Outcome:
    """The whole dialogue with one agent; it goes on after a problem, so that one run shows all of them."""
    stage = _Stage.of(dialogue)
    for number, scripted in enumerate(dialogue.turns, 1):
        given = await stage.turn(scripted, agent, persona)
        where = f"turn {number}"
        stage.problems += [f"{where}: {problem}" for problem in _problems(given, scripted)]
        said = fold("\n".join(given.said))
        stage.problems += [
            f"{where}: says “{found.group()}”" for each in (*_NEVER, *dialogue.never) if (found := each.search(said))
        ]
        if given.handed_over and number < len(dialogue.turns):
            stage.problems.append(f"{where}: handed over, but the dialogue goes on")
            break
    stage.problems += [f"end: {problem}" for problem in _problems(stage.whole(), dialogue.end)]
    return Outcome(name=dialogue.name, lines=tuple(stage.lines), problems=tuple(stage.problems))


@dataclass(kw_only=True)
class _Stage:
    """A conversation under way, its history and facts kept as the other services would."""

    lead: Lead
    history: list[Line]
    now_ms: int = START_MS
    handed_over: bool = False
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, dialogue: Dialogue) -> "_Stage":
        lead = Lead()
        for name, value in dialogue.known.items():
            lead = with_stored(lead, name, value)
        # The past ended a week ago.
        at = START_MS - 7 * 24 * 60 * _MINUTE_MS
        history = [_past_line(line, sequence, at) for sequence, line in enumerate(dialogue.past, 1)]
        return cls(lead=lead, history=history)

    async def turn(self, scripted: ScriptedTurn, agent: Answering, persona: Persona) -> Answer:
        self.now_ms += _MINUTE_MS + scripted.days_later * 24 * 60 * _MINUTE_MS
        messages = tuple(_message(each, self.now_ms) for each in scripted.lead)
        turn = Turn(
            messages=messages,
            conversation_id="dialogue",
            lead=self.lead,
            history=tuple(self.history),
            first_contact=not any(line.author is Author.ASSISTANT for line in self.history),
            now_ms=self.now_ms,
        )
        given = await answer(agent, persona, turn)
        for message in messages:
            self._add(Author.LEAD, message.text, message.kind)
            self.lines.append(f"lead: {message.text or f'[{message.kind.value}]'}")
        for bubble in given.said:
            self._add(Author.ASSISTANT, bubble)
            self.lines.append(f"{persona.agent}: {bubble}")
        self.lead, self.handed_over = given.lead_after, self.handed_over or given.handed_over
        return given

    def whole(self) -> Answer:
        said = tuple(line.text for line in self.history if line.author is Author.ASSISTANT)
        return Answer(said=said, lead_after=self.lead, handed_over=self.handed_over)

    def _add(self, author: Author, text: str, kind: Kind = Kind.TEXT) -> None:
        sequence = len(self.history) + 1
        self.history.append(Line(author=author, text=text, kind=kind, sequence=sequence, sent_ms=self.now_ms))


def _past_line(line: PastLine, sequence: int, at_ms: int) -> Line:
    author = Author.LEAD if line.lead else Author.HUMAN if line.human else Author.ASSISTANT
    return Line(author=author, text=line.lead or line.human or line.assistant, sequence=sequence, sent_ms=at_ms)


def _message(scripted: str | LeadMessage, at_ms: int) -> Message:
    given = LeadMessage(text=scripted) if isinstance(scripted, str) else scripted
    return Message(text=given.text, kind=given.kind, sent_ms=at_ms)


def _amount_problems(given: Answer, *, silent: bool | None) -> Iterator[str]:
    """Whoever hands over may do it in silence; all others speak, unless the dialogue wants it otherwise."""
    if given.said and silent:
        yield "should be silent"
    if not given.said and not silent and (silent is False or not given.handed_over):
        yield "says nothing"
    if len(given.said) > _MOST_BUBBLES:
        yield f"says {len(given.said)} bubbles"


def _problems(given: Answer, wanted: Expected) -> Iterator[str]:
    if given.trouble or given.stood_in:
        yield f"no answer of this model: {given.trouble or given.stood_in}"
    if isinstance(wanted, ScriptedTurn) and not given.trouble:
        yield from _amount_problems(given, silent=wanted.silent)
    known: Mapping[str, str] = {**facts_of(given.lead_after), "stage": given.lead_after.stage}
    facts = {**wanted.facts, **({"stage": wanted.stage} if wanted.stage is not None else {})}
    for name, value in facts.items():
        allowed = ("",) if value is None else (value,) if isinstance(value, str) else value
        if known.get(name, "") not in allowed:
            yield f"{name} is {known.get(name) or 'unknown'}, not {' or '.join(allowed) or 'unknown'}"
    if wanted.handoff is not None and wanted.handoff != given.handed_over:
        yield "should be handed over" if wanted.handoff else f"handed over: {given.reason}"
    said = fold("\n".join(given.said))
    yield from (f"says nothing of “{each.pattern}”" for each in wanted.mentions if not each.search(said))
    yield from (f"says “{found.group()}”" for each in wanted.never if (found := each.search(said)))
