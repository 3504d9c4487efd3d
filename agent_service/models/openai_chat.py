"""An engine behind OpenAI's chat completions protocol: OpenAI itself, any compatible server, llama.cpp on loopback."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any, TypeGuard

import openai
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk

from agent_service.chat import (
    ChatEvent,
    ChatRequest,
    ChatUsage,
    EngineState,
    ModelTrouble,
    Trouble,
)
from agent_service.models.api_errors import refused_parameter, to_configuration_error, to_trouble
from agent_service.models.connections import Connections, was_kept_alive
from agent_service.models.deadline import Deadline
from agent_service.models.openai_request import Parameters, body
from agent_service.models.openai_stream import Reading
from agent_service.settings import DEFAULT_BASE_URL
from service_kit import logs
from service_kit.clock import Clock, SystemClock
from service_kit.settings import ConfigurationError

CONNECT_S = 2.0
# After the model has finished, for the usage and the end of the stream; nobody waits for more.
_TAIL_S = 1.0
# Of one call of the warm-up; some servers load their weights at the first one.
_WARM_S = 20.0
_OPEN_S = 5.0
# A connection that was idle for so long is used once, for nothing, so that no gateway drops it before a lead needs it.
_TOUCH_AFTER_S = 25.0
# They would add headers to every request, or print prompts; the client offers no other way to keep them out.
_REFUSED_VARIABLES = ("OPENAI_CUSTOM_HEADERS", "OPENAI_LOG")
# What the client raises for half JSON, broken UTF-8, or JSON of another shape.
_NOT_READ = (ValueError, TypeError, AttributeError, KeyError)
_log = logs.get(__name__)


class OpenAIEngine:
    """One server, one model, one resident client. No retries but one: of a connection that was dead before a byte."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        model: str,
        name: str = "",
        costs_money: bool = True,
        extra_body: Mapping[str, object] | None = None,
        first_token_s: float = 8.0,
        idle_s: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        self._name = name or f"openai:{model}"
        self._costs_money = costs_money
        self._base_url = base_url
        self._api_key = api_key
        self._model = model
        self._extra_body = dict(extra_body or {})
        self._first_token_s = first_token_s
        self._idle_s = idle_s
        self._clock = clock or SystemClock()
        self._connections = Connections(monotonic=self._clock.monotonic)
        self._client: AsyncOpenAI | None = None
        self._parameters = Parameters(official=base_url == DEFAULT_BASE_URL)
        self._touching: asyncio.Task[None] | None = None
        self._used_at = self._clock.monotonic()
        self._opening_since = self._used_at
        # Since when the server has been asked and said nothing; None when it spoke last.
        self._owes_since: float | None = None
        self._cold_start_ms: int | None = None
        self._calls = self._failures = self._open_streams = 0
        self._trouble = ""
        self._tokens = ChatUsage()

    @property
    def name(self) -> str:
        return self._name

    @property
    def costs_money(self) -> bool:
        return self._costs_money

    @property
    def hangs(self) -> bool:
        since = self._owes_since
        return since is not None and self._clock.monotonic() - since > self._first_token_s

    async def open(self) -> None:
        """Make the client and connect. A server that can't be reached now may come later; a wrong key never will."""
        if found := [name for name in _REFUSED_VARIABLES if os.environ.get(name)]:
            raise ConfigurationError(f"{found[0]} would change every request or print prompts; unset it")
        self._opening_since = self._owes_since = self._clock.monotonic()
        self._client = client = self._make_client()
        self._touching = asyncio.create_task(self._keep_touched(), name=f"touch-{self._name}")
        try:
            async with asyncio.timeout(min(_OPEN_S, self._first_token_s)):
                await client.models.list()
            self._owes_since = None
        except openai.APIStatusError as error:
            self._owes_since = None
            if error.status_code in (401, 403):
                raise to_configuration_error(error, model=self._name, base_url=self._base_url) from None
            # Many compatible servers list no models; the warm-up tells whether they answer.
        except (openai.APIConnectionError, TimeoutError) as error:
            _log.warning("model_server_unreachable", model=self._name, error=type(error).__name__)
        except (openai.APIError, *_NOT_READ):
            # An answer that is no list of models still opened the connection.
            self._owes_since = None

    async def warm(self, prefix: ChatRequest) -> None:
        """One call with the fixed prefix and one token: the provider caches it, and its first token has been seen."""
        request = ChatRequest(
            messages=prefix.messages, tools=prefix.tools, max_output_tokens=1, cache_key=prefix.cache_key
        )
        events = self._chat(request, ends_at=_now() + _WARM_S, first_token_s=_WARM_S, warming=True)
        try:
            async for _ in events:
                pass
        except ModelTrouble as error:
            # A reasoning model had no token left for words; the prefix was read all the same.
            if error.trouble is not Trouble.EMPTY:
                raise
        finally:
            await events.aclose()
        if self._cold_start_ms is None:
            self._cold_start_ms = round((self._clock.monotonic() - self._opening_since) * 1000)

    def chat(self, request: ChatRequest, *, ends_at: float) -> AsyncGenerator[ChatEvent, None]:
        """One streamed call; the deadlines for the connection, the first token and each next one end with `ends_at`."""
        return self._chat(request, ends_at=ends_at, first_token_s=self._first_token_s)

    async def count_tokens(self, text: str) -> int | None:
        """The protocol offers no tokenizer."""
        return None

    def state(self) -> EngineState:
        age = self._connections.oldest_age_s()
        return EngineState(
            calls=self._calls,
            failures=self._failures,
            trouble=self._trouble,
            prompt_tokens=self._tokens.prompt,
            cached_tokens=self._tokens.cached,
            completion_tokens=self._tokens.completion,
            connections_opened=self._connections.opened,
            open_streams=self._open_streams,
            connection_age_ms=None if age is None else round(age * 1000),
            cold_start_ms=self._cold_start_ms,
        )

    async def close(self) -> None:
        if self._touching is not None:
            self._touching.cancel()
            with suppress(asyncio.CancelledError):
                await self._touching
        if self._client is not None:
            await self._client.close()

    def _make_client(self) -> AsyncOpenAI:
        # The second line behind our own deadlines, hence longer than any of them.
        read_s = max(self._first_token_s, self._idle_s, _WARM_S) + 1.0
        client = AsyncOpenAI(
            api_key=self._api_key or "none",
            base_url=self._base_url,
            max_retries=0,
            http_client=self._connections.client(self._base_url, connect_s=CONNECT_S, read_s=read_s),
            default_headers={"accept-encoding": "identity"},
        )
        # None as an argument means "look into the environment"; these change who pays and what is allowed.
        client.organization = client.project = client.admin_api_key = client.webhook_secret = None
        return client

    async def _keep_touched(self) -> None:
        while True:
            await self._clock.sleep(_TOUCH_AFTER_S)
            if self._client is None or self._open_streams or self._clock.monotonic() - self._used_at < _TOUCH_AFTER_S:
                continue
            try:
                async with asyncio.timeout(_OPEN_S):
                    await self._client.models.list()
            except (openai.OpenAIError, TimeoutError, *_NOT_READ) as error:
                _log.debug("connection_not_kept_warm", model=self._name, error=type(error).__name__)

    async def _chat(
        self, request: ChatRequest, *, ends_at: float, first_token_s: float, warming: bool = False
    ) -> AsyncGenerator[ChatEvent, None]:
        self._calls += 1
        self._open_streams += 1
        if self._owes_since is None:
            self._owes_since = self._clock.monotonic()
        stream: AsyncStream[ChatCompletionChunk] | None = None
        reading = Reading(max_output_tokens=request.max_output_tokens)
        first_at = min(ends_at, _now() + first_token_s)
        try:
            async with Deadline(first_at, ends_at, Trouble.NO_FIRST_TOKEN):
                stream = await self._opened(request)
            chunks = aiter(stream)
            while True:
                chunk = await self._next(chunks, reading, first_at=first_at, ends_at=ends_at)
                if chunk is None:
                    break
                for piece in reading.take(chunk):
                    yield piece
                if reading.began or reading.ended:
                    self._owes_since = None
            for event in reading.finish():
                if isinstance(event, ChatUsage):
                    self._add(event)
                yield event
            self._trouble = ""
        except openai.APIConnectionError as error:
            # In the middle of an answer the server was there, and the answer is half.
            half = ModelTrouble(Trouble.BROKEN, type(error.__cause__).__name__)
            raise self._note(to_trouble(error) if stream is None else half) from None
        except openai.APIError as error:
            raise self._failed(error, warming=warming) from None
        except (ModelTrouble, TimeoutError) as error:
            raise self._note(error if isinstance(error, ModelTrouble) else ModelTrouble(Trouble.OUT_OF_TIME)) from None
        except _NOT_READ as error:
            raise self._note(ModelTrouble(Trouble.BROKEN, type(error).__name__)) from None
        finally:
            self._open_streams -= 1
            self._owes_since = None
            self._used_at = self._clock.monotonic()
            if stream is not None:
                await stream.close()

    async def _next(
        self, chunks: Any, reading: Reading, *, first_at: float, ends_at: float
    ) -> ChatCompletionChunk | None:
        """The next chunk within its deadline; None at the end, or when only the end is missing."""
        if reading.ended:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(ends_at, reading.ended_at + _TAIL_S)):
                    return await _anext(chunks)
            return None
        if not reading.began:
            async with Deadline(first_at, ends_at, Trouble.NO_FIRST_TOKEN):
                return await _anext(chunks)
        async with Deadline(min(ends_at, _now() + self._idle_s), ends_at, Trouble.STALLED):
            return await _anext(chunks)

    async def _opened(self, request: ChatRequest) -> AsyncStream[ChatCompletionChunk]:
        """The stream. What the server doesn't know is left out from then on; a dead connection is replaced once."""
        again = True
        while True:
            try:
                return await self._create(request)
            except openai.APITimeoutError:
                raise
            except openai.APIConnectionError as error:
                if not again or not was_kept_alive(error.request):
                    raise
                again = False
                _log.info("dead_connection_replaced", model=self._name)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                parameter = refused_parameter(error, self._parameters.sent)
                if parameter is None or not self._parameters.drop(parameter):
                    raise
                _log.info("parameter_dropped", model=self._name, parameter=parameter)

    async def _create(self, request: ChatRequest) -> AsyncStream[ChatCompletionChunk]:
        assert self._client is not None, "open() comes first"
        asked = {**body(request, model=self._model), **self._parameters.of(request)}
        stream: AsyncStream[ChatCompletionChunk] = await self._client.chat.completions.create(
            **asked, extra_body=self._extra_body or None
        )
        return stream

    def _failed(self, error: openai.APIError, *, warming: bool) -> Exception:
        trouble = self._note(to_trouble(error))
        # An account without money is no wrong setting: the fallbacks serve until somebody has paid.
        if warming and trouble.trouble is Trouble.REFUSED and _is_setting(error):
            return to_configuration_error(error, model=self._name, base_url=self._base_url)
        return trouble

    def _note(self, trouble: ModelTrouble) -> ModelTrouble:
        self._failures += 1
        self._trouble = trouble.trouble.value
        return trouble

    def _add(self, usage: ChatUsage) -> None:
        self._tokens = ChatUsage(
            prompt=self._tokens.prompt + usage.prompt,
            cached=self._tokens.cached + usage.cached,
            completion=self._tokens.completion + usage.completion,
        )


def _is_setting(error: openai.APIError) -> TypeGuard[openai.APIStatusError]:
    return isinstance(error, openai.APIStatusError) and error.status_code != 429


async def _anext(chunks: Any) -> ChatCompletionChunk | None:
    return await anext(chunks, None)


def _now() -> float:
    return asyncio.get_running_loop().time()
