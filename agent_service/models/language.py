"""A language model that writes the persona's replies: prompt, rounds, output policy, summaries, a warm prefix."""

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from agent_service.chat import (
    ChatEnd,
    ChatEngine,
    ChatMessage,
    ChatRequest,
    ChatUsage,
    ModelTrouble,
    TextPiece,
    Trouble,
)
from agent_service.conversation import Ended, Lead, Line, ModelEvent, Turn, UsageReported
from agent_service.models import ModelState, Summary, SummaryFailed, WarmStep
from agent_service.models.prices import Prices
from agent_service.models.rounds import Rounds
from agent_service.output_policy import OutputPolicy
from agent_service.persona import Persona
from agent_service.prompt import PromptBudget, build_prompt, fixed_part, prompt_budget, prompt_texts
from agent_service.summary import older_part, read_summary, summary_request, whole_sentences
from agent_service.token_sizes import TokenSizes
from agent_service.tools import tools_json
from service_kit import logs
from service_kit.clock import Clock
from service_kit.settings import ConfigurationError

SUMMARY_TOKENS = 600
_LOOK_EVERY_S = 30.0
_LEARN_S = 5.0
_log = logs.get(__name__)


@dataclass(frozen=True, kw_only=True)
class _Voice:
    """One version of the persona with what follows from it. A reply takes one at its start and keeps to it."""

    persona: Persona
    policy: OutputPolicy
    budget: PromptBudget
    prefix: ChatRequest
    version: str


class LanguageModel:
    """Behaviour over an engine. `cache_buckets`: how many cache keys share the fixed prefix at the provider.

    `reprime_after_s`: after so long without a call the prefix is primed again; 0 is never.
    """

    available = True

    def __init__(
        self,
        *,
        engine: ChatEngine,
        persona: Persona,
        clock: Clock,
        prices: Prices,
        max_output_tokens: int = 1024,
        prompt_tokens: int = 6000,
        secrets: Sequence[str] = (),
        cache_buckets: int = 1,
        reprime_after_s: float = 0.0,
    ) -> None:
        self._engine = engine
        self._persona = persona
        self._clock = clock
        self._prices = prices
        self._max_output_tokens = max_output_tokens
        self._prompt_tokens = prompt_tokens
        self._secrets = tuple(secret for secret in secrets if secret)
        self._cache_buckets = cache_buckets
        self._reprime_after_s = reprime_after_s
        self._sizes = TokenSizes(engine.count_tokens)
        self._voice: _Voice | None = None
        self._steps: dict[str, WarmStep] = {}
        self._called_at = clock.monotonic()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def costs_money(self) -> bool:
        return self._engine.costs_money

    @property
    def hangs(self) -> bool:
        return self._engine.hangs

    async def open(self) -> None:
        started = self._clock.monotonic()
        await self._engine.open()
        self._voice = await self._made(self._persona)
        self._note("opened", started)
        if self._reprime_after_s:
            self._keeping = asyncio.create_task(self._keep_primed(), name=f"keep-primed-{self.name}")

    async def warm(self) -> None:
        started = self._clock.monotonic()
        await self._prime(self._current())
        self._note("prefix_primed", started)

    async def use(self, persona: Persona) -> None:
        """Speak from this version from the next turn on; its prefix is primed first."""
        voice = await self._made(persona)
        # A server that refuses just now says nothing about the persona.
        with suppress(ModelTrouble, ConfigurationError):
            await self._prime(voice)
        self._voice = voice

    async def stream(self, turn: Turn, *, ends_at: float, by: float = math.inf) -> AsyncGenerator[ModelEvent, None]:
        voice = self._current()
        self._called_at = self._clock.monotonic()
        await self._sizes.learn(prompt_texts(voice.persona, turn))
        prompt = build_prompt(voice.persona, turn, size=self._sizes.size, budget=voice.budget)
        request = ChatRequest(
            messages=prompt.messages(),
            tools=prompt.tools,
            max_output_tokens=self._max_output_tokens,
            cache_key=self._cache_key(voice.version, turn.conversation_id),
        )
        rounds = Rounds(
            engine=self._engine,
            persona=voice.persona,
            turn=turn,
            request=request,
            output=voice.policy.begin(turn),
            count=self._counted,
            size=self._sizes.size,
        )
        async with aclosing(rounds.run(by=by, ends_at=ends_at)) as events:
            async for event in events:
                yield replace(event, wants_summary=prompt.wants_summary) if isinstance(event, Ended) else event

    async def summarize(self, *, summary: str, history: tuple[Line, ...], lead: Lead, ends_at: float) -> Summary | None:
        voice = self._current()
        older = older_part(history, size=self._sizes.size, kept=voice.budget.kept)
        if not older:
            return Summary(text="", through_sequence=0, model=self.name)
        # A reasoning model's thoughts are among them: who gives replies more room gives it to summaries too.
        most = max(SUMMARY_TOKENS, self._max_output_tokens)
        request = summary_request(voice.persona, summary=summary, history=older, lead=lead, max_tokens=most)
        text, usage = await self._answer(request, ends_at=ends_at)
        try:
            kept = read_summary(text, lead=lead)
        except ModelTrouble as trouble:
            raise SummaryFailed(trouble, self._counted(usage)) from None
        return Summary(
            text=kept,
            through_sequence=older[-1].sequence,
            model=self.name,
            prompt_tokens=usage.prompt,
            cached_tokens=usage.cached,
            completion_tokens=usage.completion,
            cost_micros=self._prices.cost_micros(self.name, usage),
        )

    def states(self) -> tuple[ModelState, ...]:
        engine = self._engine.state()
        return (ModelState(name=self.name, trouble=engine.trouble, engine=engine, steps=tuple(self._steps.values())),)

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._engine.close()

    def _current(self) -> _Voice:
        if self._voice is None:
            raise ModelTrouble(Trouble.UNREACHABLE, "not opened")
        return self._voice

    async def _made(self, persona: Persona) -> _Voice:
        fixed, tools = fixed_part(persona), tools_json(persona)
        await self._sizes.learn((fixed, tools), within_s=_LEARN_S)
        version = hashlib.sha256(f"{fixed}\n{tools}".encode()).hexdigest()[:12]
        return _Voice(
            persona=persona,
            policy=OutputPolicy(persona=persona, secrets=self._secrets),
            budget=prompt_budget(persona, total=self._prompt_tokens, size=self._sizes.size),
            prefix=ChatRequest(messages=(ChatMessage(role="system", content=fixed),), tools=tools),
            version=version,
        )

    async def _prime(self, voice: _Voice) -> None:
        self._called_at = self._clock.monotonic()
        for bucket in range(self._cache_buckets):
            await self._engine.warm(replace(voice.prefix, cache_key=f"{voice.version}-{bucket}"))

    def _cache_key(self, version: str, conversation_id: str) -> str:
        digest = hashlib.blake2b(conversation_id.encode(), digest_size=4).digest()
        return f"{version}-{int.from_bytes(digest) % self._cache_buckets}"

    async def _keep_primed(self) -> None:
        while True:
            await self._clock.sleep(_LOOK_EVERY_S)
            if self._clock.monotonic() - self._called_at < self._reprime_after_s:
                continue
            try:
                await self._prime(self._current())
            except Exception as error:
                # The next turn finds out whether it can be asked, and says so.
                _log.info("prefix_not_primed", model=self.name, error=type(error).__name__)

    async def _answer(self, request: ChatRequest, *, ends_at: float) -> tuple[str, ChatUsage]:
        """The text of one call, without what follows its last sentence when it was cut. Errors: as `summarize`."""
        text, usage = "", None
        try:
            async with aclosing(self._engine.chat(request, ends_at=ends_at)) as events:
                async for event in events:
                    if isinstance(event, TextPiece):
                        text += event.text
                    elif isinstance(event, ChatUsage):
                        usage = event
                    elif isinstance(event, ChatEnd) and event.reason != "stop":
                        # It is paid for, and asking again would cost the same and end the same.
                        text = whole_sentences(text)
        except ModelTrouble as trouble:
            if text or trouble.at_work:
                raise SummaryFailed(trouble, self._counted(self._estimated(request, text))) from None
            raise
        return text, usage or self._estimated(request, text)

    def _estimated(self, request: ChatRequest, text: str) -> ChatUsage:
        prompt = sum(self._sizes.size(message.content) for message in request.messages)
        return ChatUsage(prompt=prompt, completion=self._sizes.size(text))

    def _counted(self, usage: ChatUsage) -> UsageReported:
        return UsageReported(
            prompt=usage.prompt,
            cached=usage.cached,
            completion=usage.completion,
            cost_micros=self._prices.cost_micros(self.name, usage),
        )

    def _note(self, what: str, started: float) -> None:
        ms = round((self._clock.monotonic() - started) * 1000)
        # The last time of each: a server that comes and goes is warmed for years.
        self._steps[what] = WarmStep(name=f"{self.name} {what}", ms=ms)
