"""The prompt of a language model, byte-stable: what never changes first, then history, then what changes every turn.

The order is what makes prefix caches work, in the weights' own process and at every provider: two turns of one
conversation share everything up to the end of the older one's history, two conversations share the fixed part.
See docs/prompt.md.
"""

from dataclasses import dataclass

from agent_service.chat import ChatMessage
from agent_service.conversation import Turn
from agent_service.history import MESSAGE_TOKENS, ShownLine, Size, shown_lines, text_of, tokens, window
from agent_service.persona import Persona
from agent_service.prompt_parts import FACT_CHARACTERS, fixed_part, said_note, state_part
from agent_service.quoting import LINE_CHARACTERS, cut, cut_shown, shown, words
from agent_service.summary import MIN_LINES, older_part
from agent_service.tools import tools_json
from service_kit.settings import ConfigurationError

__all__ = ["Prompt", "PromptBudget", "build_prompt", "fixed_part", "prompt_budget", "prompt_texts"]

# Of what the fixed part leaves, for history and summary; the rest is for the lead's facts and the turn.
_HISTORY_SHARE = 0.5
_LEAST_FREE = 800
# A summary is asked for before anything has to be left out: at this share of the history's tokens, or at this many
# lines (a context holds 40 by default), so that one or two failures in between cost nothing.
_SUMMARY_AT = 0.7
_SUMMARY_AT_LINES = 30
_SHORTEST = 40
_SHORTEST_FACT = 20


@dataclass(frozen=True, kw_only=True)
class PromptBudget:
    """In tokens: `total` for the whole prompt, `history` of them for summary and history. The reply is not in it."""

    total: int
    history: int

    @property
    def kept(self) -> int:
        """What a summary leaves of history as it is: enough to go on talking without it."""
        return self.history // 3


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Everything that the model is told, in parts. `tools` is a JSON list; `history` begins with the summary."""

    fixed: str
    tools: str
    history: tuple[ChatMessage, ...]
    state: str
    turn: tuple[str, ...]
    said: str = ""
    wants_summary: bool = False

    def messages(self) -> tuple[ChatMessage, ...]:
        """In the order in which they are sent. One system message, then user and assistant by turns, a user first and
        last: every chat template takes that."""
        now = ChatMessage(role="user", content="\n".join((self.state, *self.turn)))
        said = (
            (ChatMessage(role="assistant", content=self.said), ChatMessage(role="user", content=said_note()))
            if self.said
            else ()
        )
        return (ChatMessage(role="system", content=self.fixed), *_by_turns((*self.history, now, *said)))


def prompt_budget(persona: Persona, *, total: int, size: Size) -> PromptBudget:
    """The budget of a persona's prompts. Errors: ConfigurationError when its fixed part leaves too little."""
    free = total - size(fixed_part(persona)) - size(tools_json(persona)) - 2 * MESSAGE_TOKENS
    if free < _LEAST_FREE:
        raise ConfigurationError(
            f"SDR_AGENT_PROMPT_TOKENS: {total} is too little for the persona {persona.name}, whose fixed part takes "
            f"{total - free}; set it to {total - free + _LEAST_FREE} or more"
        )
    return PromptBudget(total=total, history=int(free * _HISTORY_SHARE))


def build_prompt(persona: Persona, turn: Turn, *, size: Size, budget: PromptBudget) -> Prompt:
    """The prompt of a turn; a pure function of its arguments, and never above `budget.total`."""
    fixed, tools = fixed_part(persona), tools_json(persona)
    room = budget.total - sum(size(part) + MESSAGE_TOKENS for part in (fixed, tools))
    state = _state_part(persona, turn, size=size, most=room // 2)
    room -= size(state) + MESSAGE_TOKENS
    now, said = _turn_part(turn, size=size, most=max(0, room - budget.history))
    room -= sum(size(line) + MESSAGE_TOKENS for line in now)
    room -= size(said) + size(said_note()) + 2 * MESSAGE_TOKENS if said else 0
    summary = _summary_part(turn.summary, size=size, most=budget.history // 2)
    lines = shown_lines(turn.history)
    most = min(budget.history, room) - (size(summary) + MESSAGE_TOKENS if summary else 0)
    kept = window(lines, size=size, most=most, cut_before=turn.history_cut)
    return Prompt(
        fixed=fixed,
        tools=tools,
        history=_history_part(summary, kept, cut=turn.history_cut or len(kept) < len(lines)),
        state=state,
        turn=now,
        said=said,
        wants_summary=_wants_summary(turn, lines, size=size, budget=budget, most=most),
    )


def prompt_texts(persona: Persona, turn: Turn) -> tuple[str, ...]:
    """Every text whose size `build_prompt` asks for as long as nothing has to be cut: for `TokenSizes.learn`."""
    parts = [fixed_part(persona), tools_json(persona), state_part(persona, turn), _summary_text(turn.summary)]
    parts += [_said_text(turn), said_note()] if turn.said else []
    return (*parts, *(text_of(line) for line in turn.history), *(shown(message) for message in turn.messages))


def _wants_summary(turn: Turn, lines: tuple[ShownLine, ...], *, size: Size, budget: PromptBudget, most: int) -> bool:
    full = turn.history_cut or len(lines) >= _SUMMARY_AT_LINES or tokens(lines, size) > most * _SUMMARY_AT
    return full and len(older_part(turn.history, size=size, kept=budget.kept)) >= MIN_LINES


def _state_part(persona: Persona, turn: Turn, *, size: Size, most: int) -> str:
    """The state with every fact of the lead; where they take more than `most` tokens, the long ones are cut shorter."""
    longest = FACT_CHARACTERS
    while size(state := state_part(persona, turn, longest_fact=longest)) > most and longest > _SHORTEST_FACT:
        longest = max(_SHORTEST_FACT, longest * 2 // 3)
    return state


def _turn_part(turn: Turn, *, size: Size, most: int) -> tuple[tuple[str, ...], str]:
    """The turn's messages, and what was said to them already, in `most` tokens: the longest are cut first."""
    said = _said_text(turn)

    def fits(lines: tuple[str, ...], said: str) -> bool:
        after = (said, said_note()) if said else ()
        return sum(size(line) + MESSAGE_TOKENS for line in (*lines, *after)) <= most

    longest = LINE_CHARACTERS
    whole = [shown(message) for message in turn.messages]
    while True:
        texts = (cut_shown(message, text, longest) for message, text in zip(turn.messages, whole, strict=True))
        lines, told = tuple(text for text in texts if text), cut(said, longest)
        if fits(lines, told):
            return lines, told
        if longest <= _SHORTEST:
            break
        longest = max(_SHORTEST, longest * 2 // 3)
    first = next((index for index in range(len(lines)) if fits(("", *lines[index:]), told)), len(lines) - 1)
    before = (f"[mais {first} mensagens antes destas]",) if first else ()
    return (*before, *lines[first:]), told


def _said_text(turn: Turn) -> str:
    return "\n\n".join(words(part) for part in turn.said)


def _summary_part(summary: str, *, size: Size, most: int) -> str:
    text = words(summary)
    while text and size(_summary_text(text)) > most:
        text = cut(text, len(text) * 2 // 3) if len(text) > _SHORTEST else ""
    return _summary_text(text)


def _summary_text(summary: str) -> str:
    text = words(summary)
    return f"<resumo do que veio antes>\n{text}\n</resumo>" if text else ""


def _history_part(summary: str, lines: tuple[ShownLine, ...], *, cut: bool) -> tuple[ChatMessage, ...]:
    before = [summary] if summary else []
    if cut or (not before and lines and lines[0].role != "user"):
        before.append("<mensagens mais antigas não aparecem aqui>")
    return (
        *(ChatMessage(role="user", content=text) for text in before),
        *(ChatMessage(role=line.role, content=line.text) for line in lines),
    )


def _by_turns(messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    """Neighbours of one role as one message: a burst line by line, a reply bubble by bubble as the model writes it."""
    merged: list[ChatMessage] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            between = "\n\n" if message.role == "assistant" else "\n"
            joined = merged.pop().content + between + message.content
            message = ChatMessage(role=message.role, content=joined)
        merged.append(message)
    return tuple(merged)
