"""The model that needs nothing else: the persona's script, worded by rules."""

import asyncio
import math
import re
from collections.abc import AsyncGenerator

from agent_service.conversation import EffectCalled, Ended, Lead, Line, Message, ModelEvent, TextDelta, Turn
from agent_service.models import ModelState, Summary
from agent_service.persona import Persona
from agent_service.playbook.draft import Reply
from agent_service.playbook.going_on import rest_of
from agent_service.playbook.reply import make_reply
from service_kit.clock import Clock

_WORDS = re.compile(r"\S+\s*")
_BUBBLE = "\n\n"
_QUICK_CHARS = 5_000


class Playbook:
    """Deterministic, free, and as slow as it is told to be."""

    name = "playbook"
    costs_money = False
    available = True
    hangs = False

    def __init__(self, *, persona: Persona, clock: Clock, delay_ms: int = 0) -> None:
        self._persona = persona
        self._clock = clock
        self._delay_s = delay_ms / 1000
        self._words: frozenset[str] = frozenset()

    async def open(self) -> None:
        self._words = self._persona.words()

    async def warm(self) -> None:
        burst = ("oi", "sou a Ana", "minha conta vem 400", "não, 4 mil", "quanto custa?", "pode me explicar?")
        turn = Turn(messages=tuple(Message(text=text) for text in burst), first_contact=True)
        make_reply(self._persona, turn, words=self._words)

    async def use(self, persona: Persona) -> None:
        """Speak from this version from the next turn on."""
        self._persona, self._words = persona, persona.words()

    async def stream(self, turn: Turn, *, ends_at: float, by: float = math.inf) -> AsyncGenerator[ModelEvent, None]:
        reply = await self._make(turn)
        bubbles = rest_of(reply.bubbles, turn.said) if turn.said else reply.bubbles
        if self._delay_s:
            await self._clock.sleep(self._delay_s)
        # Before the text: the caller's first commit already carries what the reply stands on.
        for effect in reply.effects:
            if effect not in turn.said_effects:
                yield EffectCalled(effect=effect)
        pieces = self._pieces(_BUBBLE.join(bubbles))
        for index, piece in enumerate(pieces):
            if self._delay_s and index:
                await self._clock.sleep(self._delay_s / len(pieces))
            yield TextDelta(text=piece)
        yield Ended(why=reply.end)

    async def _make(self, turn: Turn) -> Reply:
        if sum(len(message.text) for message in turn.messages) <= _QUICK_CHARS:
            return make_reply(self._persona, turn, words=self._words)
        # Reading a pasted book takes a second, which no other conversation may have to wait for.
        return await asyncio.to_thread(make_reply, self._persona, turn, words=self._words)

    async def summarize(self, *, summary: str, history: tuple[Line, ...], lead: Lead, ends_at: float) -> Summary | None:
        """It reads what it said itself; nothing is to be condensed."""
        return None

    def states(self) -> tuple[ModelState, ...]:
        return (ModelState(name=self.name),)

    async def close(self) -> None:
        return

    def _pieces(self, text: str) -> list[str]:
        if not self._delay_s:
            return [text] if text else []
        return _WORDS.findall(text)
