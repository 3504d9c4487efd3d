"""The engine against a scripted server: what it sends, what it makes of every fault, and what it leaves behind."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from agent_service.chat import (
    ChatEnd,
    ChatEvent,
    ChatMessage,
    ChatRequest,
    ChatUsage,
    ModelTrouble,
    TextPiece,
    ToolCall,
    Trouble,
)
from agent_service.models.openai_chat import OpenAIEngine
from agent_service.models.places import costs_money
from service_kit.clock import ManualClock
from service_kit.settings import ConfigurationError
from tests.stand_ins.openai_server import MODEL, Answer, Called, OpenAIServer, Told, calls, refuses, says

LONG_S = 20.0
SECRET = "sk-test-0123456789abcdef"
TOOLS = '[{"type":"function","function":{"name":"update_lead","parameters":{"type":"object"}}}]'
ASK = ChatRequest(
    messages=(ChatMessage(role="system", content="Você é a Helen."), ChatMessage(role="user", content="oi"))
)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


@asynccontextmanager
async def engine_of(server: OpenAIServer, **more: Any) -> AsyncGenerator[OpenAIEngine, None]:
    engine = OpenAIEngine(base_url=server.url, api_key=SECRET, model=MODEL, **more)
    try:
        await engine.open()
        yield engine
    finally:
        await engine.close()


async def events_of(engine: OpenAIEngine, request: ChatRequest = ASK, *, seconds: float = LONG_S) -> list[ChatEvent]:
    ends_at = asyncio.get_running_loop().time() + seconds
    async with aclosing(engine.chat(request, ends_at=ends_at)) as events:
        return [event async for event in events]


async def trouble_of(engine: OpenAIEngine, request: ChatRequest = ASK, *, seconds: float = LONG_S) -> ModelTrouble:
    with pytest.raises(ModelTrouble) as caught:
        await events_of(engine, request, seconds=seconds)
    return caught.value


def text_of(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextPiece))


async def until(met: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not met():
            await asyncio.sleep(0.01)


async def test_text_usage_and_end(server: OpenAIServer) -> None:
    server.script.append(says("Bom ", "dia!", told=Told(prompt=1200, cached=1024, completion=3)))
    async with engine_of(server) as engine:
        events = await events_of(engine)
        state = engine.state()
    assert events == [
        TextPiece(text="Bom "),
        TextPiece(text="dia!"),
        ChatUsage(prompt=1200, cached=1024, completion=3),
        ChatEnd(reason="stop"),
    ]
    assert (state.calls, state.failures, state.trouble) == (1, 0, "")
    assert (state.prompt_tokens, state.cached_tokens, state.completion_tokens) == (1200, 1024, 3)


async def test_what_is_sent(server: OpenAIServer) -> None:
    request = ChatRequest(
        messages=(
            *ASK.messages,
            ChatMessage(
                role="assistant", content="", tool_calls=(ToolCall(call_id="a", name="update_lead", arguments="{}"),)
            ),
            ChatMessage(role="tool", content="ok", tool_call_id="a"),
        ),
        tools=TOOLS,
        max_output_tokens=77,
    )
    async with engine_of(server, extra_body={"reasoning_effort": "low"}) as engine:
        await events_of(engine, request)
    [asked] = server.asked
    assert asked.body == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Você é a Helen."},
            {"role": "user", "content": "oi"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "update_lead", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "ok", "tool_call_id": "a"},
        ],
        "tools": json.loads(TOOLS),
        "max_tokens": 77,
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_effort": "low",
    }
    assert asked.headers["Authorization"] == f"Bearer {SECRET}"


async def test_the_environment_changes_nothing(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads organisation and project from the environment even where None is given: somebody else pays."""
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with engine_of(server) as engine:
        await events_of(engine)
    assert not [name for name in server.asked[0].headers if name.lower().startswith("openai-")]


@pytest.mark.parametrize("name", ["OPENAI_CUSTOM_HEADERS", "OPENAI_LOG"])
async def test_variables_that_would_change_every_request_are_refused(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "Authorization: Bearer other")
    with pytest.raises(ConfigurationError, match=name):
        async with engine_of(server):
            pass


async def test_tool_calls_are_put_together(server: OpenAIServer) -> None:
    said = Called(name="update_lead", arguments='{"name": "João", "bill_value": "4mil"}', pieces=7, call_id="x")
    other = Called(name="handoff_to_human", arguments='{"reason": "pediu"}', call_id="y")
    server.script.append(calls(said, other, pieces=("Certo. ",)))
    async with engine_of(server) as engine:
        events = await events_of(engine)
    assert events[1:3] == [
        ToolCall(call_id="x", name="update_lead", arguments=said.arguments),
        ToolCall(call_id="y", name="handoff_to_human", arguments=other.arguments),
    ]
    assert text_of(events) == "Certo. " and events[-1] == ChatEnd(reason="tool_calls")


@pytest.mark.parametrize("told", [Told(prompt=0, completion=0), Told(prompt=-5, completion=10**15)])
async def test_tokens_that_cannot_be_are_not_told(server: OpenAIServer, told: Told) -> None:
    """They went as they were into the turn's record, which the store refuses, again and again."""
    server.script.append(says("a", told=told))
    async with engine_of(server) as engine:
        events = await events_of(engine)
    assert events == [TextPiece(text="a"), ChatEnd(reason="stop")]


@pytest.mark.parametrize("body", [[{"id": MODEL}], "ok", None])
async def test_a_list_of_models_of_another_shape_is_no_trouble(server: OpenAIServer, body: object) -> None:
    """Some servers answer with the bare list: the agent did not start, with a traceback of the client library."""
    server.models_body = body
    clock = ManualClock()
    async with engine_of(server, clock=clock) as engine:
        for _ in range(2):
            before = server.models_asked
            while not clock.sleepers:
                await asyncio.sleep(0.005)
            clock.advance(26_000)
            async with asyncio.timeout(LONG_S):
                while server.models_asked == before:
                    await asyncio.sleep(0.005)
        assert await events_of(engine)


async def test_usage_is_zero_or_absent_where_the_server_does_not_tell(server: OpenAIServer) -> None:
    server.script.extend(
        [says("a", fault="no_usage"), says("b", fault="no_usage", timings={"prompt_n": 3, "cache_n": 9})]
    )
    async with engine_of(server) as engine:
        silent, timed = await events_of(engine), await events_of(engine)
    assert not [event for event in silent if isinstance(event, ChatUsage)]
    assert [event for event in timed if isinstance(event, ChatUsage)] == [ChatUsage(prompt=12, cached=9)]


@pytest.mark.parametrize(
    ("answer", "trouble", "said"),
    [
        (refuses(429), Trouble.RATE_LIMITED, ""),
        (refuses(500), Trouble.SERVER_ERROR, ""),
        (refuses(503), Trouble.SERVER_ERROR, ""),
        (refuses(400), Trouble.REFUSED, ""),
        (refuses(401), Trouble.REFUSED, ""),
        (Answer(fault="reset"), Trouble.UNREACHABLE, ""),
        (Answer(fault="hang"), Trouble.NO_FIRST_TOKEN, ""),
        (Answer(wait_s=60), Trouble.NO_FIRST_TOKEN, ""),
        (says("Oi. ", fault="hang_after"), Trouble.STALLED, "Oi. "),
        (says("Oi. ", fault="reset_after"), Trouble.BROKEN, "Oi. "),
        (says("Oi. ", fault="half_json"), Trouble.BROKEN, "Oi. "),
        (says("Oi. ", fault="nonsense"), Trouble.BROKEN, "Oi. "),
        (says("Oi. ", fault="eof"), Trouble.BROKEN, "Oi. "),
        (says("Oi. ", fault="error_event"), Trouble.SERVER_ERROR, "Oi. "),
        (says("x" * 999, fault="endless"), Trouble.ENDLESS, "x" * 999 * 12),
        (Answer(fault="endless_line"), Trouble.ENDLESS, ""),
        (calls(Called(name="a"), fault="endless_arguments"), Trouble.ENDLESS, ""),
        (says("Oi. ", finish="content_filter"), Trouble.UNFIT, "Oi. "),
        (refuses(400, code="content_filter"), Trouble.UNFIT, ""),
        (refuses(429, code="insufficient_quota"), Trouble.REFUSED, ""),
    ],
    ids=lambda each: str(getattr(each, "fault", "") or getattr(each, "status", each))[:20],
)
async def test_every_fault_has_a_name(server: OpenAIServer, answer: Answer, trouble: Trouble, said: str) -> None:
    server.script.extend([answer, answer] if answer.fault == "reset" else [answer])
    heard: list[str] = []
    async with engine_of(server, first_token_s=1.5, idle_s=1.5) as engine:
        ends_at = asyncio.get_running_loop().time() + LONG_S
        with pytest.raises(ModelTrouble) as caught:
            async with aclosing(engine.chat(ASK, ends_at=ends_at)) as events:
                async for event in events:
                    heard.append(event.text if isinstance(event, TextPiece) else "")
        state = engine.state()
        assert caught.value.trouble is trouble and "".join(heard) == said
        assert (state.failures, state.trouble, state.open_streams) == (1, trouble.value, 0)
        await until(lambda: server.open_streams == 0)
        # The engine is as good as before.
        assert text_of(await events_of(engine)) and engine.state().trouble == ""


async def test_a_finished_answer_needs_no_done(server: OpenAIServer) -> None:
    """Some compatible servers leave `[DONE]` out, and some the end of the stream: the answer is whole all the same."""
    server.script.extend([says("Oi!", fault="no_done"), says("Oi!", fault="stays_open")])
    async with engine_of(server) as engine:
        for _ in range(2):
            events = await events_of(engine)
            assert text_of(events) == "Oi!" and events[-1] == ChatEnd(reason="stop")
        await until(lambda: server.open_streams == 0)


async def test_a_slow_drip_ends_with_the_time(server: OpenAIServer) -> None:
    server.script.append(says(*["a "] * 1000, pause_s=0.05))
    async with engine_of(server, idle_s=5) as engine:
        trouble = await trouble_of(engine, seconds=0.5)
        await until(lambda: server.open_streams == 0)
    assert trouble.trouble is Trouble.OUT_OF_TIME
    assert server.asked[0].left and server.asked[0].generated < 100


async def test_no_deadline_goes_beyond_the_end(server: OpenAIServer) -> None:
    server.script.append(Answer(fault="hang"))
    async with engine_of(server, first_token_s=60, idle_s=60) as engine:
        assert (await trouble_of(engine, seconds=0.3)).trouble is Trouble.OUT_OF_TIME


async def test_closing_stops_the_server(server: OpenAIServer) -> None:
    """Leaving a stream alone kept the provider generating, and the bill growing (promises D7)."""
    server.script.append(says(*["palavra "] * 10_000, pause_s=0.01))
    async with engine_of(server) as engine:
        async with aclosing(engine.chat(ASK, ends_at=asyncio.get_running_loop().time() + LONG_S)) as events:
            async for _ in events:
                break
        assert engine.state().open_streams == 0
        await until(lambda: server.open_streams == 0)
    assert server.asked[0].left and server.asked[0].generated < 1_000


async def test_a_cancelled_task_stops_the_server(server: OpenAIServer) -> None:
    server.script.extend([Answer(fault="hang"), says(*["palavra "] * 10_000, pause_s=0.01)])
    async with engine_of(server) as engine:
        for number in range(2):
            task = asyncio.create_task(events_of(engine))
            await until(lambda number=number: len(server.asked) > number and server.open_streams == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: server.open_streams == 0)
            assert engine.state().open_streams == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"retry_after_ms": "250"}, 0.25),
        ({"Retry_After": "999999"}, 3600.0),
        ({"Retry_After": "-3"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "soon"}, None),
        ({}, None),
    ],
)
async def test_retry_after(server: OpenAIServer, headers: dict[str, str], seconds: float | None) -> None:
    server.script.append(refuses(429, **headers))
    async with engine_of(server) as engine:
        assert (await trouble_of(engine)).retry_after_s == seconds


async def test_two_hundred_turns_use_one_connection(server: OpenAIServer) -> None:
    """A client that left at `[DONE]` threw its connection away with every turn (promises D9)."""
    async with engine_of(server) as engine:
        for _ in range(200):
            await events_of(engine)
        state = engine.state()
    assert server.connections == 1 and state.connections_opened == 1
    assert state.open_streams == 0 and state.connection_age_ms is not None


async def test_a_connection_that_died_while_idle_is_replaced_once(server: OpenAIServer) -> None:
    """llama.cpp's server and idle-reaping gateways drop kept-alive connections, the client notices with its request."""
    server.script.extend(
        [says("um"), Answer(fault="reset"), says("dois"), Answer(fault="reset"), Answer(fault="reset")]
    )
    async with engine_of(server) as engine:
        assert text_of(await events_of(engine)) == "um"
        assert text_of(await events_of(engine)) == "dois"
        assert engine.state().failures == 0
        # On a connection of its own the same is no stale connection.
        assert (await trouble_of(engine)).trouble is Trouble.UNREACHABLE
    assert len(server.asked) == 5


async def test_dead_connections_are_not_tried_one_after_the_other(server: OpenAIServer) -> None:
    """After a restart of the server all of the pool is dead: the turn tries a second one, not all."""
    server.otherwise = says("Oi!", wait_s=0.05)
    async with engine_of(server) as engine:
        await asyncio.gather(*(events_of(engine) for _ in range(4)))
        assert engine.state().connections_opened == 4
        server.otherwise = Answer(fault="reset")
        assert (await trouble_of(engine)).trouble is Trouble.UNREACHABLE
    assert len(server.asked) == 4 + 2


async def test_an_idle_connection_is_used_for_nothing_now_and_then(server: OpenAIServer) -> None:
    clock = ManualClock()
    async with engine_of(server, clock=clock) as engine:
        assert server.models_asked == 1
        for expected in (2, 3):
            await until(lambda: clock.sleepers == 1)
            clock.advance(26_000)
            await until(lambda expected=expected: server.models_asked == expected)
        assert server.connections == 1 and engine.state().connections_opened == 1


async def test_a_parameter_that_the_server_does_not_take_is_left_out(server: OpenAIServer) -> None:
    def strict(asked: Any) -> Answer:
        for name in ("max_tokens", "stream_options"):
            if name in asked.body:
                return refuses(400, message=f"Unsupported parameter: '{name}'", param=name)
        return says("Oi!")

    server.otherwise = strict
    async with engine_of(server) as engine:
        assert text_of(await events_of(engine)) == "Oi!"
        assert text_of(await events_of(engine)) == "Oi!"
        assert engine.state().failures == 0
    assert [("max_completion_tokens" in each.body) for each in server.asked] == [False, True, True, True]


async def test_a_limit_that_is_too_large_once_is_not_left_out_for_ever(server: OpenAIServer) -> None:
    """vLLM names the parameter when a prompt leaves too little room for it: one long prompt, and no output limit was
    ever sent again."""
    told = (
        "'max_tokens' or 'max_completion_tokens' is too large: 100. This model's maximum context length is 50 tokens."
    )
    server.script.append(refuses(400, message=told, param="max_tokens"))
    async with engine_of(server) as engine:
        assert (await trouble_of(engine)).trouble is Trouble.REFUSED
        await events_of(engine)
    assert ["max_tokens" in each.body for each in server.asked] == [True, True]


async def test_an_account_without_money_does_not_keep_the_agent_from_starting(server: OpenAIServer) -> None:
    """A 429 that no waiting ends: leads waited for the brake for nothing, up to the end of their turns."""
    server.warm_up = refuses(429, code="insufficient_quota")
    async with engine_of(server) as engine:
        with pytest.raises(ModelTrouble) as caught:
            await engine.warm(ASK)
    assert caught.value.trouble is Trouble.REFUSED


async def test_the_cache_key_goes_only_where_it_is_known(server: OpenAIServer) -> None:
    request = ChatRequest(messages=ASK.messages, cache_key="v1-7")
    async with engine_of(server) as engine:
        await events_of(engine, request)
        engine._parameters.sent.add("prompt_cache_key")
        await events_of(engine, request)
    assert [each.body.get("prompt_cache_key") for each in server.asked] == [None, "v1-7"]


async def test_warming_asks_for_one_token_with_the_same_prefix(server: OpenAIServer) -> None:
    async with engine_of(server) as engine:
        await engine.warm(ChatRequest(messages=ASK.messages[:1], tools=TOOLS))
        assert engine.state().cold_start_ms is not None
    [asked] = server.asked
    assert asked.is_warm_up and asked.messages == [{"role": "system", "content": "Você é a Helen."}]
    assert asked.body["tools"] == json.loads(TOOLS)


async def test_a_reasoning_model_without_a_token_left_for_words_is_warm(server: OpenAIServer) -> None:
    server.warm_up = refuses(400, message="Could not finish the message because max_tokens was reached")
    async with engine_of(server) as engine:
        await engine.warm(ASK)


async def test_a_wrong_key_does_not_start(server: OpenAIServer) -> None:
    server.models_status = 401
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY was refused") as caught:
        async with engine_of(server):
            pass
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "says_what"), [(401, "OPENAI_API_KEY"), (404, "SDR_AGENT_MODEL"), (400, "EXTRA_BODY")]
)
async def test_what_waiting_will_not_mend_does_not_start(server: OpenAIServer, status: int, says_what: str) -> None:
    server.warm_up = refuses(status)
    async with engine_of(server) as engine:
        with pytest.raises(ConfigurationError, match=says_what):
            await engine.warm(ASK)


@pytest.mark.parametrize("status", [404, 500])
async def test_a_server_without_a_list_of_models_is_fine(server: OpenAIServer, status: int) -> None:
    server.models_status = status
    async with engine_of(server) as engine:
        assert text_of(await events_of(engine))


async def test_a_server_that_is_not_there_opens_and_is_unreachable() -> None:
    engine = OpenAIEngine(base_url="http://127.0.0.1:9/v1", api_key=SECRET, model="x")
    await engine.open()
    try:
        assert (await trouble_of(engine)).trouble is Trouble.UNREACHABLE
        assert engine.state().connections_opened == 0
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("base_url", "costs"),
    [
        ("https://api.openai.com/v1", True),
        ("https://api.groq.com/openai/v1", True),
        ("http://127.0.0.1:11434/v1", False),
        ("http://localhost:8000/v1", False),
        ("http://ollama:11434/v1", False),
        ("http://10.1.2.3/v1", False),
        ("http://[::1]:8080/v1", False),
        ("http://gpu.local/v1", False),
    ],
)
def test_who_is_paid_for(base_url: str, costs: bool) -> None:
    assert costs_money(base_url) is costs
