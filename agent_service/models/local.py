"""Weights in the agent's own process: `gguf:PATH`.

llama.cpp's server runs on loopback and is spoken to over the same protocol as every other server, so that there is one
way of asking a model. What this adds: loading, the fixed prefix in every slot, and the weights' own tokenizer.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import fields, replace
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
from agent_service.models.local_prefix import LocalPrefix
from agent_service.models.local_server import LocalServer
from agent_service.models.local_settings import LocalSettings
from agent_service.models.local_template import COMPLETION_STOPS, COMPLETION_TEMPLATE
from agent_service.models.local_weights import free_memory, read_weights, require_memory
from agent_service.models.openai_chat import OpenAIEngine
from agent_service.settings import AgentSettings
from service_kit import logs
from service_kit.clock import Clock, SystemClock
from service_kit.settings import ConfigurationError

_WARM_S = 120.0
# A CPU may read a long history for that long, and another slot's prompt may come between two tokens. The turn's own
# deadline ends a call that takes longer than a lead waits.
_FIRST_TOKEN_S = 120.0
_IDLE_S = 30.0
_log = logs.get(__name__)


class LocalEngine:
    """One file of weights, loaded once. Costs nothing."""

    costs_money = False
    # Loading and reading the prefix are work of this process, however long they take.
    hangs = False

    def __init__(self, *, path: Path, settings: LocalSettings, clock: Clock | None = None) -> None:
        self._path = path.expanduser()
        self._settings = settings
        self._clock = clock or SystemClock()
        self._server: LocalServer | None = None
        self._chats: OpenAIEngine | None = None
        # What has another prefix (a summary) goes through the last slot alone, and spoils no other.
        self._others: OpenAIEngine | None = None
        self._prefix: LocalPrefix | None = None
        # Who waits for a slot waits here, where leaving costs nothing, and not on one of the server's few threads.
        self._free = asyncio.Semaphore(settings.local_slots)
        self._free_for_others = asyncio.Semaphore(1)
        self._cold_start_ms: int | None = None

    @property
    def name(self) -> str:
        return f"{GGUF}{self._path.stem}"

    @property
    def server(self) -> LocalServer:
        """The server inside, for its counters."""
        assert self._server is not None, "open() comes first"
        return self._server

    @property
    def prefix(self) -> LocalPrefix:
        """What every slot has."""
        assert self._prefix is not None, "open() comes first"
        return self._prefix

    async def open(self) -> None:
        """Load the weights and connect. Errors: ConfigurationError."""
        began = self._clock.monotonic()
        weights = await asyncio.to_thread(read_weights, self._path)
        require_memory(weights, free_memory())
        completes = not weights.has_chat_template and self._settings.local_template is None
        template = COMPLETION_TEMPLATE if completes else self._own_template()
        self._server = server = LocalServer(weights=weights, settings=self._settings, template=template)
        await server.start()
        self._prefix = LocalPrefix(server, slots=self._settings.local_slots)
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
        """Put the prefix into every slot, and see that a first message finds it there."""
        if await self.prefix.fill(prefix):
            await self._try_out(prefix)

    async def chat(self, request: ChatRequest, *, ends_at: float) -> AsyncGenerator[ChatEvent, None]:
        """One streamed call; the prefix's tokens are counted as cached when the slot had them."""
        assert self._chats is not None and self._others is not None, "open() comes first"
        if self.prefix.begins(request):
            calls = self._with_prefix(self._chats.chat(request, ends_at=ends_at))
            slots = self._free
        else:
            calls = self._with_another(self._others.chat(request, ends_at=ends_at))
            slots = self._free_for_others
        async with _one_of(slots, ends_at=ends_at), aclosing(calls):
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
        if self._prefix is not None:
            await self._prefix.close()
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
                if isinstance(event, ChatUsage):
                    self.prefix.saw(event.cached)
                yield event

    async def _with_another(self, events: AsyncGenerator[ChatEvent, None]) -> AsyncGenerator[ChatEvent, None]:
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self.prefix.spoil(self._settings.local_slots - 1)

    async def _try_out(self, prefix: ChatRequest) -> None:
        first = ChatMessage(role="user", content="Oi")
        request = replace(prefix, messages=(*prefix.messages, first), max_output_tokens=1)
        async with aclosing(self.chat(request, ends_at=asyncio.get_running_loop().time() + _WARM_S)) as events:
            async for _ in events:
                pass


@asynccontextmanager
async def _one_of(slots: asyncio.Semaphore, *, ends_at: float) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout_at(ends_at):
            await slots.acquire()
    except TimeoutError:
        raise ModelTrouble(Trouble.OUT_OF_TIME, "no slot became free", at_work=False) from None
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
