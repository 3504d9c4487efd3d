"""One reply of a language model: its words through the output policy, its tool calls read, answered and fed back."""

import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce

from agent_service.chat import (
    ChatEngine,
    ChatEvent,
    ChatMessage,
    ChatRequest,
    ChatUsage,
    ModelTrouble,
    TextPiece,
    ToolCall,
    Trouble,
)
from agent_service.conversation import (
    Effect,
    EffectCalled,
    End,
    Ended,
    FirstToken,
    HandOver,
    Lead,
    LeadPatch,
    ModelEvent,
    TextDelta,
    Turn,
    UsageReported,
)
from agent_service.models.deadline import Deadline
from agent_service.output_policy import EMPTY, REPEATED, OutputFilter, Unfit
from agent_service.persona import Persona
from agent_service.playbook.facts import merged, only_news
from agent_service.playbook.triggers import handoff_sentence
from agent_service.tools import DEFAULT_REASON, HAND_OVER, UPDATE_LEAD, ToolRefused, read_call
from service_kit import logs

# Calls of one reply. The last one has to end in words.
MAX_ROUNDS = 3
_DONE = "Feito. Continue a resposta à pessoa, sem repetir o que já disse."
_KNOWN = "Isso já estava feito. Responda à pessoa agora."
_HANDED_OVER = "Feito. Diga à pessoa em uma frase que a equipe continua, e mais nada."
_SENTENCE_END = re.compile(r"(?:[.!?…][\"'”’»)*_]*|\n)\s*\Z")
_log = logs.get(__name__)


@dataclass(kw_only=True)
class _Round:
    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    reason: str = ""
    usage: ChatUsage | None = None


class Rounds:
    """Runs once. Nothing is given out before the first words that may be said: until then another model can answer."""

    def __init__(
        self,
        *,
        engine: ChatEngine,
        persona: Persona,
        turn: Turn,
        request: ChatRequest,
        output: OutputFilter,
        count: Callable[[ChatUsage], UsageReported],
        size: Callable[[str], int],
    ) -> None:
        self._engine = engine
        self._persona = persona
        self._turn = turn
        self._request = request
        self._output = output
        self._count = count
        self._size = size
        self._today = datetime.fromtimestamp(turn.now_ms / 1000, persona.zone).date()
        self._done: list[Effect] = list(turn.said_effects)
        self._waiting: list[Effect] = []
        self._spoke = False
        self._began = False
        self._wrote_before = False

    async def run(self, *, by: float, ends_at: float) -> AsyncGenerator[ModelEvent, None]:
        """The reply, its first words by then, ended by Ended. Errors: ModelTrouble."""
        messages = self._request.messages
        for _ in range(MAX_ROUNDS):
            this = _Round()
            request = replace(self._request, messages=messages)
            try:
                async with aclosing(self._round(request, this, by=by, ends_at=ends_at)) as events:
                    async for event in events:
                        yield event
            except ModelTrouble:
                for event in self._last_sentence(this):
                    yield event
                raise
            if self._output.cut:
                _log.warning("reply_cut_by_policy", reason=self._output.cut, conversation_id=self._turn.conversation_id)
                yield Ended(why=End.LENGTH)
                return
            answers = [self._answered(call) for call in this.calls]
            if this.calls and this.text and self._handed_over:
                # A last sentence waits for its end, and it may be all that is to be said.
                for event in self._say(self._passed("\n")):
                    yield event
            if self._spoke:
                for event in self._effects():
                    yield event
            if not this.calls or (self._spoke and self._handed_over):
                for event in self._end(this):
                    yield event
                return
            self._wrote_before = self._wrote_before or bool(this.text)
            told = tuple(_readable(call) for call in this.calls)
            asked = ChatMessage(role="assistant", content=this.text, tool_calls=told)
            messages = (*messages, asked, *answers)
        for event in self._words_of_a_loop():
            yield event
        yield Ended(why=End.LENGTH)

    @property
    def _handed_over(self) -> bool:
        return any(isinstance(effect, HandOver) for effect in self._done)

    async def _round(
        self, request: ChatRequest, this: _Round, *, by: float, ends_at: float
    ) -> AsyncGenerator[ModelEvent, None]:
        try:
            async with aclosing(self._engine.chat(request, ends_at=ends_at)) as events:
                while (event := await self._next(events, by=by, ends_at=ends_at)) is not None:
                    if isinstance(event, TextPiece):
                        for said in self._wrote(event.text, this):
                            yield said
                        if self._output.cut:
                            break
                    elif isinstance(event, ToolCall):
                        this.calls.append(event)
                    elif isinstance(event, ChatUsage):
                        this.usage = event
                    else:
                        this.reason = event.reason
        except ModelTrouble as trouble:
            if this.text or this.calls or trouble.at_work:
                yield self._count(self._estimated(request, this))
            raise
        yield self._count(this.usage or self._estimated(request, this))

    async def _next(self, events: AsyncGenerator[ChatEvent, None], *, by: float, ends_at: float) -> ChatEvent | None:
        if self._spoke:
            return await anext(events, None)
        async with Deadline(min(by, ends_at), ends_at, Trouble.NO_FIRST_TOKEN):
            return await anext(events, None)

    def _wrote(self, text: str, this: _Round) -> Iterator[ModelEvent]:
        if not self._began:
            self._began = True
            yield FirstToken()
        if not this.text and self._wrote_before:
            # What is said after a tool call is a bubble of its own.
            yield from self._say(self._passed("\n\n"))
        this.text += text
        yield from self._say(self._passed(text))

    def _passed(self, text: str) -> str:
        try:
            return self._output.feed(text)
        except Unfit as unfit:
            raise _trouble(unfit) from None

    def _say(self, text: str) -> Iterator[ModelEvent]:
        if text:
            # What the words stand on goes out before them: the caller's first commit carries it.
            yield from self._effects()
            self._spoke = True
            yield TextDelta(text=text)

    def _effects(self) -> Iterator[ModelEvent]:
        for effect in self._waiting:
            yield EffectCalled(effect=effect)
        self._waiting.clear()

    def _answered(self, call: ToolCall) -> ChatMessage:
        try:
            effect = self._kept(read_call(self._persona, call.name, call.arguments, today=self._today))
        except ToolRefused as refused:
            # A name that is none of ours is the model's text, and may be anybody's number.
            tool = call.name if call.name in (HAND_OVER, UPDATE_LEAD) else "unlisted"
            _log.info("tool_call_refused", tool=tool, conversation_id=self._turn.conversation_id)
            return _tool_answer(call, str(refused))
        if self._changes_nothing(effect):
            return _tool_answer(call, _KNOWN)
        self._done.append(effect)
        self._waiting.append(effect)
        return _tool_answer(call, _HANDED_OVER if isinstance(effect, HandOver) else _DONE)

    def _changes_nothing(self, effect: Effect) -> bool:
        """Whether the calls before have done it: a person called, or every value the latest one given."""
        if isinstance(effect, HandOver):
            return self._handed_over
        patches = [each for each in self._done if isinstance(each, LeadPatch)]
        return bool(patches) and not only_news(reduce(merged, patches, Lead()), effect)

    def _kept(self, effect: Effect) -> Effect:
        """The effect, when it holds nothing that must not leave: what is stored is shown to people, and exported.

        Raises ToolRefused. A person is called in any case.
        """
        if isinstance(effect, HandOver):
            return HandOver(reason=DEFAULT_REASON) if self._output.gives_away(effect.reason) else effect
        texts = (effect.name or "", effect.email or "", *effect.preferences.values())
        if any(self._output.gives_away(text) for text in texts):
            raise ToolRefused("isso não pode ser guardado.")
        return effect

    def _last_sentence(self, this: _Round) -> Iterator[ModelEvent]:
        """What the policy still holds of a reply that breaks off, if it is a whole sentence."""
        if self._spoke and _SENTENCE_END.search(this.text):
            with suppress(Unfit):
                yield from self._say(self._output.finish())

    def _words_of_a_loop(self) -> Iterator[ModelEvent]:
        """The rest of what was said beside calls that never stopped. Raises ModelTrouble when there is nothing."""
        try:
            rest = self._output.finish()
        except Unfit as unfit:
            if not self._spoke and not self._left_silent(unfit):
                raise ModelTrouble(Trouble.TOOL_LOOP, f"no words after {MAX_ROUNDS} calls") from None
            rest = "" if self._spoke else self._handoff_words()
        yield from self._say(rest)

    def _end(self, this: _Round) -> Iterator[ModelEvent]:
        """The rest of the words. A reply that was cut ends with its last whole sentence, if there is one."""
        cut = this.reason == "length"
        if cut and self._spoke:
            yield from self._last_sentence(this)
        else:
            try:
                rest = self._output.finish()
            except Unfit as unfit:
                rest = self._instead_of_words(unfit)
            yield from self._say(rest)
        yield from self._effects()
        yield Ended(why=End.LENGTH if cut or self._output.cut else End.STOP)

    def _instead_of_words(self, unfit: Unfit) -> str:
        if self._turn.said and unfit.reason in (EMPTY, REPEATED):
            return ""  # What was said before is the whole reply.
        if self._left_silent(unfit):
            return self._handoff_words()
        raise _trouble(unfit) from None

    def _left_silent(self, unfit: Unfit) -> bool:
        """Whether the model called a human and said nothing of it, in this reply or before."""
        return self._handed_over and not self._turn.said and unfit.reason == EMPTY

    def _handoff_words(self) -> str:
        reason = next(effect.reason for effect in self._done if isinstance(effect, HandOver))
        return handoff_sentence(self._persona, self._turn, reason)

    def _estimated(self, request: ChatRequest, this: _Round) -> ChatUsage:
        """For servers that don't tell, and for calls that broke: a budget must see them too."""
        prompt = sum(self._size(message.content) for message in request.messages) + self._size(request.tools)
        written = this.text + "".join(call.arguments for call in this.calls)
        return ChatUsage(prompt=prompt, completion=self._size(written))


def _readable(call: ToolCall) -> ToolCall:
    """The call as it is told to the server again: some (vLLM) refuse a whole request for arguments that are no JSON."""
    try:
        known = isinstance(json.loads(call.arguments), dict)
    except (ValueError, RecursionError):
        known = False
    return call if known else replace(call, arguments="{}")


def _tool_answer(call: ToolCall, text: str) -> ChatMessage:
    return ChatMessage(role="tool", content=text, tool_call_id=call.call_id)


def _trouble(unfit: Unfit) -> ModelTrouble:
    return ModelTrouble(Trouble.EMPTY if unfit.reason == EMPTY else Trouble.UNFIT, unfit.reason)
