"""Weights in the agent's own process: `gguf:PATH`.

llama.cpp's server runs on loopback and is spoken to over the same protocol as every other server, so that there is one
way of asking a model. What this adds: loading, the fixed prefix in every slot, and the weights' own tokenizer.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import fields, replace
from os.path import commonprefix
from pathlib import Path

from agent_service.chat import (
    ChatEngine,
    ChatEvent,
    ChatMessage,
    ChatRequest,
    ChatUsage,
    EngineState,
    ModelTrouble,
    Trouble,
)
from agent_service.models.choice import GGUF
from agent_service.models.local_server import LocalServer
from agent_service.models.local_settings import LocalSettings
from agent_service.models.local_template import COMPLETION_STOPS, COMPLETION_TEMPLATE
from agent_service.models.local_weights import free_memory, read_weights, require_memory
from agent_service.models.openai_chat import OpenAIEngine
from agent_service.models.openai_request import body
from agent_service.settings import AgentSettings
from service_kit import logs
from service_kit.clock import Clock, SystemClock
from service_kit.settings import ConfigurationError

_STATE = "prefix"
_READ_S = 600.0
_WARM_S = 120.0
_TRIES = 3
# A CPU may read a long history for that long, and another slot's prompt may come between two tokens. The turn's own
# deadline ends a call that takes longer than a lead waits.
_FIRST_TOKEN_S = 120.0
_IDLE_S = 30.0
# Of the prefix's tokens; a few of the last ones are always read again.
_HIT = 0.9
_log = logs.get(__name__)


class LocalEngine:
    """One file of weights, loaded once. Costs nothing."""

    costs_money = False

    def __init__(self, *, path: Path, settings: LocalSettings, clock: Clock | None = None) -> None:
        self._path = path.expanduser()
        self._settings = settings
        self._clock = clock or SystemClock()
        self._server: LocalServer | None = None
        self._chats: OpenAIEngine | None = None
        # What has another prefix (a summary) goes through the last slot alone, and spoils no other.
        self._others: OpenAIEngine | None = None
        self._prefix: ChatRequest | None = None
        self._prefix_tokens = 0
        self._spoilt: set[int] = set()
        self._lost = asyncio.Event()
        self._refilling: asyncio.Task[None] | None = None
        # Who waits for a slot waits here, where leaving costs nothing, and not on one of the server's few threads.
        self._free = asyncio.Semaphore(settings.local_slots)
        self._free_for_others = asyncio.Semaphore(1)
        self._cold_start_ms: int | None = None
        self.refills = 0

    @property
    def name(self) -> str:
        return f"{GGUF}{self._path.stem}"

    @property
    def server(self) -> LocalServer:
        """The server inside, for its counters."""
        assert self._server is not None, "open() comes first"
        return self._server

    async def open(self) -> None:
        """Load the weights and connect. Errors: ConfigurationError."""
        began = self._clock.monotonic()
        weights = await asyncio.to_thread(read_weights, self._path)
        require_memory(weights, free_memory())
        completes = not weights.has_chat_template and self._settings.local_template is None
        template = COMPLETION_TEMPLATE if completes else self._own_template()
        self._server = server = LocalServer(weights=weights, settings=self._settings, template=template)
        await server.start()
        # Without word of the prompt's progress the server notices only at its end that nobody waits any more.
        extra: dict[str, object] = {"cache_prompt": True, "return_progress": True}
        if completes:
            extra["stop"] = COMPLETION_STOPS
        self._chats = self._client(server, extra)
        self._others = self._client(server, {**extra, "id_slot": self._settings.local_slots - 1})
        await self._chats.open()
        await self._others.open()
        self._cold_start_ms = round((self._clock.monotonic() - began) * 1000)
        _log.info(
            "local_model_loaded", model=weights.name, mib=weights.bytes >> 20, ms=self._cold_start_ms, base=completes
        )

    async def warm(self, prefix: ChatRequest) -> None:
        """Read the prefix once, give it to every slot, and see that a first message finds it there.

        A prefix that is known is given only to slots that lost it: the others' conversations are warm too.
        """
        if self._is_prefix_of(prefix):
            await self._refill()
            return
        self._prefix = prefix
        await self._keep_state_of(await self._text_of(prefix))
        for slot in range(1, self._settings.local_slots):
            await self.server.put(slot, _STATE)
        self._spoilt.clear()
        if self._refilling is None:
            self._refilling = asyncio.create_task(self._refill_when_lost(), name="local-model-refill")
        cached = await self._try_out(prefix)
        if not self._is_hit(cached):
            _log.warning("prefix_not_found", tokens=self._prefix_tokens, cached=cached)

    async def chat(self, request: ChatRequest, *, ends_at: float) -> AsyncGenerator[ChatEvent, None]:
        """One streamed call; the prefix's tokens are counted as cached when the slot had them."""
        assert self._chats is not None and self._others is not None, "open() comes first"
        if self._prefix is None or self._is_prefix_of(request):
            calls = self._with_prefix(self._chats.chat(request, ends_at=ends_at))
            slots = self._free
        else:
            calls = self._with_another(self._others.chat(request, ends_at=ends_at))
            slots = self._free_for_others
        async with aclosing(calls), _one_of(slots, ends_at=ends_at):
            async for event in calls:
                yield event

    async def count_tokens(self, text: str) -> int | None:
        """By the weights' own tokenizer."""
        return await self.server.count_tokens(text)

    def state(self) -> EngineState:
        """Of both clients together; the cold start is the loading."""
        if self._chats is None or self._others is None:
            return EngineState()
        chats, others = self._chats.state(), self._others.state()
        summed = {
            field.name: getattr(chats, field.name) + getattr(others, field.name)
            for field in fields(EngineState)
            if isinstance(getattr(chats, field.name), int) and not field.name.endswith("_ms")
        }
        return replace(chats, **summed, cold_start_ms=self._cold_start_ms)

    async def close(self) -> None:
        """Stop asking, then let the weights go."""
        if self._refilling is not None:
            self._refilling.cancel()
            with suppress(asyncio.CancelledError):
                await self._refilling
        for client in (self._chats, self._others):
            if client is not None:
                await client.close()
        if self._server is not None:
            await self._server.stop()

    def _client(self, server: LocalServer, extra: dict[str, object]) -> OpenAIEngine:
        return OpenAIEngine(
            base_url=f"{server.url}/v1",
            api_key=server.key,
            model=self._path.stem,
            name=self.name,
            costs_money=False,
            extra_body=extra,
            first_token_s=_FIRST_TOKEN_S,
            idle_s=_IDLE_S,
            clock=self._clock,
        )

    def _own_template(self) -> str:
        path = self._settings.local_template
        if path is None:
            return ""
        try:
            return path.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"SDR_AGENT_LOCAL_TEMPLATE: {path} cannot be read: {type(error).__name__}"
            ) from None

    async def _with_prefix(self, events: AsyncGenerator[ChatEvent, None]) -> AsyncGenerator[ChatEvent, None]:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, ChatUsage) and not self._is_hit(event.cached):
                    # This slot has it again by now; others may have lost it too.
                    _log.warning("prefix_lost", tokens=self._prefix_tokens, cached=event.cached)
                    self._lost.set()
                yield event

    async def _with_another(self, events: AsyncGenerator[ChatEvent, None]) -> AsyncGenerator[ChatEvent, None]:
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self._spoilt.add(self._settings.local_slots - 1)
            self._lost.set()

    async def _keep_state_of(self, text: str) -> None:
        """Read the text in the first slot and remember its state; again, when a lead's turn came in between."""
        for _ in range(_TRIES):
            self._prefix_tokens = await self.server.read(0, text, timeout_s=_READ_S)
            # One token more: the one that was written.
            if await self.server.keep(0, _STATE) <= self._prefix_tokens + 1:
                return
        raise ModelTrouble(Trouble.SERVER_ERROR, "the first slot is never idle")

    async def _text_of(self, prefix: ChatRequest) -> str:
        """What the prompts of all conversations begin with: what two that differ from the first word on still share."""
        asked = body(prefix, model="")
        ends = [{"role": "user", "content": first} for first in ("A", "b")]
        texts = [await self.server.render([*asked["messages"], end], asked.get("tools")) for end in ends]
        return commonprefix(texts)  # noqa: RUF071 - character by character is what is meant

    async def _try_out(self, prefix: ChatRequest) -> int:
        first = ChatMessage(role="user", content="Oi")
        request = replace(prefix, messages=(*prefix.messages, first), max_output_tokens=1)
        cached = 0
        async with aclosing(self.chat(request, ends_at=asyncio.get_running_loop().time() + _WARM_S)) as events:
            async for event in events:
                cached = event.cached if isinstance(event, ChatUsage) else cached
        return cached

    def _is_prefix_of(self, request: ChatRequest) -> bool:
        prefix = self._prefix
        if prefix is None:
            return False
        return request.tools == prefix.tools and request.messages[: len(prefix.messages)] == prefix.messages

    def _is_hit(self, cached: int) -> bool:
        return cached >= self._prefix_tokens * _HIT

    async def _refill_when_lost(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                await self._refill()
            except ModelTrouble as error:
                # The slot's next conversation reads the prefix itself.
                _log.warning("prefix_not_refilled", error=str(error))

    async def _refill(self) -> None:
        short = {s.number for s in await self.server.slots() if not s.busy and s.tokens < self._prefix_tokens}
        for slot in sorted(short | self._spoilt):
            self._spoilt.discard(slot)
            await self.server.put(slot, _STATE)
            self.refills += 1


@asynccontextmanager
async def _one_of(slots: asyncio.Semaphore, *, ends_at: float) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout_at(ends_at):
            await slots.acquire()
    except TimeoutError:
        raise ModelTrouble(Trouble.OUT_OF_TIME, "no slot became free") from None
    try:
        yield
    finally:
        slots.release()


def engine(path: str, *, settings: AgentSettings, clock: Clock) -> ChatEngine:
    """For the factory: what stands behind `gguf:`. Errors: ConfigurationError."""
    needed = settings.prompt_tokens + settings.max_output_tokens
    if needed > settings.local_context_tokens:
        raise ConfigurationError(
            f"SDR_AGENT_LOCAL_CONTEXT_TOKENS: {settings.local_context_tokens} is less than SDR_AGENT_PROMPT_TOKENS and "
            f"SDR_AGENT_MAX_OUTPUT_TOKENS together; set it to {needed} or more, or one of these lower"
        )
    return LocalEngine(path=Path(path), settings=settings, clock=clock)
