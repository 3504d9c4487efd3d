"""The engine on real weights: one load for the whole module, judged by llama.cpp's own counters.

The weights are of a small base model. What they write is poor and never judged here.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from agent_service.chat import ChatEnd, ChatMessage, ChatRequest, ChatUsage, ModelTrouble, TextPiece, Trouble
from agent_service.models import local
from agent_service.models.local import LocalEngine
from agent_service.models.local_settings import LocalSettings
from agent_service.settings import AgentSettings
from bench.small_weights import small_weights
from service_kit.clock import SystemClock
from service_kit.settings import ConfigurationError, load
from tests.agent_service.test_local_weights import gguf, text_entry

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
SLOTS = 3
PATIENCE_S = 120.0
# Long enough to tell a hit from a miss, short enough for a machine that is busy with other tests.
RULES = " ".join(f"Regra {number}: responda com calma e sem promessas." for number in range(12))
PREFIX = ChatRequest(messages=(ChatMessage(role="system", content=RULES),))
# Longer than the prefix, so that the number of tokens alone does not tell whose slot it took.
SUMMARY = ChatRequest(
    messages=(ChatMessage(role="system", content="Resuma."), ChatMessage(role="user", content="oi " * 300)),
    max_output_tokens=2,
)


def settings(**given: object) -> LocalSettings:
    # One thread: several wait for each other, which on a shared machine takes longer than the work.
    chosen = {"slots": SLOTS, "context_tokens": 2048, "threads": 1, **given}
    return load(
        LocalSettings, environ={f"SDR_AGENT_LOCAL_{k.upper()}": str(v) for k, v in chosen.items()}, env_file=None
    )


@dataclass(frozen=True, kw_only=True)
class Answer:
    text: str
    usage: ChatUsage
    end: str


def about(text: str, *, most: int = 2) -> ChatRequest:
    return ChatRequest(
        messages=(*PREFIX.messages, ChatMessage(role="user", content=text)), tools=PREFIX.tools, max_output_tokens=most
    )


def soon() -> float:
    return asyncio.get_running_loop().time() + PATIENCE_S


async def ask(engine: LocalEngine, request: ChatRequest) -> Answer:
    text, usage, end = "", ChatUsage(), ""
    async with aclosing(engine.chat(request, ends_at=soon())) as events:
        async for event in events:
            match event:
                case TextPiece(text=piece):
                    text += piece
                case ChatUsage():
                    usage = event
                case ChatEnd(reason=reason):
                    end = reason
    return Answer(text=text, usage=usage, end=end)


async def until(holds: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.01)


async def idle(engine: LocalEngine) -> bool:
    return not any(slot.busy for slot in await engine.server.slots())


async def in_every_slot(engine: LocalEngine, words: str) -> list[Answer]:
    """As many at once as there are slots, so that each takes one of them."""
    return await asyncio.gather(*(ask(engine, about(f"{number} {words}")) for number in range(SLOTS)))


@pytest.fixture(scope="module")
def weights() -> Path:
    return small_weights()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(weights: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(path=weights, settings=settings())
    await engine.open()
    await engine.warm(PREFIX)
    yield engine
    await engine.close()


async def test_after_the_warm_up_every_slot_has_the_prefix(warm: LocalEngine) -> None:
    prefix = await warm.count_tokens(RULES)
    assert prefix is not None and prefix > 100
    before = await warm.server.counters()
    answers = await in_every_slot(warm, "bom dia")
    after = await warm.server.counters()
    assert [answer.usage.cached >= prefix for answer in answers] == [True] * SLOTS
    assert all(answer.usage.prompt - answer.usage.cached < 20 for answer in answers)
    # The engine's word beside the protocol's: what it read anew is less than one prefix for all of them together.
    assert after["prompt_tokens_total"] - before["prompt_tokens_total"] < 20 * SLOTS < prefix
    assert after["prompt_tokens_cached_total"] - before["prompt_tokens_cached_total"] >= prefix * SLOTS


async def test_what_has_another_prefix_goes_through_one_slot_which_gets_the_prefix_back(warm: LocalEngine) -> None:
    """A summary took the slot of whoever had been silent longest, and the next lead waited for the whole prefix."""
    refills = warm.prefix.refills
    await asyncio.gather(*(ask(warm, SUMMARY) for _ in range(SLOTS)))

    async def refilled() -> bool:
        return warm.prefix.refills > refills

    await until(refilled)
    prefix = await warm.count_tokens(RULES) or 0
    assert all(answer.usage.cached >= prefix for answer in await in_every_slot(warm, "boa tarde"))


async def test_a_prefix_that_was_lost_everywhere_is_noticed_and_comes_back_into_every_slot(warm: LocalEngine) -> None:
    for slot in range(SLOTS):
        await warm.server._post(f"/slots/{slot}?action=erase", {})
    refills = warm.prefix.refills
    with capture_logs() as logs:
        missed = await ask(warm, about("quem perdeu o prefixo"))

        async def refilled() -> bool:
            return warm.prefix.refills >= refills + SLOTS - 1

        await until(refilled)
    prefix = await warm.count_tokens(RULES) or 0
    assert missed.usage.cached < prefix / 2
    assert "prefix_lost" in [entry["event"] for entry in logs]
    assert all(answer.usage.cached >= prefix for answer in await in_every_slot(warm, "boa noite"))


async def test_a_cancelled_turn_stops_the_tokens(warm: LocalEngine) -> None:
    before = await warm.server.counters()
    pieces = 0
    async with aclosing(warm.chat(about("conte uma história longa", most=1000), ends_at=soon())) as events:
        async for _ in events:
            pieces += 1
            if pieces == 3:
                break
    await until(lambda: idle(warm))
    written = (await warm.server.counters())["tokens_predicted_total"] - before["tokens_predicted_total"]
    # The small model writes a token in some 25 ms, alone on a core: a handful is what 200 ms allow.
    assert pieces == 3 <= written <= 12
    assert (await warm.server.counters())["tokens_predicted_total"] - before["tokens_predicted_total"] == written


async def test_a_turn_cancelled_before_its_first_token_stops_the_reading(warm: LocalEngine) -> None:
    """llama.cpp read such a prompt to its end, for half a minute, before it noticed that nobody waited any more."""
    before = await warm.server.counters()
    turn = asyncio.create_task(ask(warm, about("palavra por palavra " * 400)))

    async def reads() -> bool:
        return not await idle(warm)

    await until(reads)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    await until(lambda: idle(warm))
    read = (await warm.server.counters())["prompt_tokens_total"] - before["prompt_tokens_total"]
    assert read < 800, "of about 1 600"


async def test_who_finds_no_free_slot_waits_until_the_end_of_its_time_and_no_longer(warm: LocalEngine) -> None:
    async with AsyncExitStack() as stack:
        for number in range(SLOTS):
            talk = warm.chat(about(f"{number} conte uma história longa", most=800), ends_at=soon())
            await stack.enter_async_context(aclosing(talk))
            await anext(talk)
        calls = warm.state().calls
        with pytest.raises(ModelTrouble) as caught:
            await anext(warm.chat(about("e eu?"), ends_at=asyncio.get_running_loop().time() + 0.05))
        assert caught.value.trouble is Trouble.OUT_OF_TIME
        waits = asyncio.create_task(ask(warm, about("agora eu")))
        await asyncio.sleep(0.05)
        assert warm.state().calls == calls, "the server does not know of it yet"
    assert (await waits).end


async def test_a_base_model_gets_a_dialogue_and_does_not_write_the_leads_part(warm: LocalEngine) -> None:
    dialogue = [
        {"role": "system", "content": "Regras."},
        {"role": "user", "content": "quanto custa?"},
        {"role": "assistant", "content": "Depende."},
        {"role": "user", "content": "de quê?"},
    ]
    text = await warm.server.render(dialogue, None)
    assert text.startswith("Regras.\n\nConversa no WhatsApp")
    assert text.endswith("Cliente: quanto custa?\nAtendente: Depende.\nCliente: de quê?\nAtendente:")
    answer = await ask(warm, about("oi", most=60))
    assert "Cliente:" not in answer.text and answer.end in ("stop", "length")


async def test_the_servers_port_answers_nobody_else(warm: LocalEngine) -> None:
    async with aiohttp.ClientSession(warm.server.url) as stranger:
        for path in ("/slots", "/metrics", "/props"):
            assert (await stranger.get(path)).status == 401
        assert (await stranger.post("/v1/chat/completions", json={"messages": []})).status == 401
    assert warm.server.url.startswith("http://127.0.0.1:")


async def test_it_costs_nothing_and_shows_its_counters(warm: LocalEngine) -> None:
    state = warm.state()
    assert (warm.name, warm.costs_money) == ("gguf:gemma-3-270m-q4_k_m", False)
    assert state.calls > 0 and state.cached_tokens > 0 and state.open_streams == 0
    assert state.cold_start_ms is not None and state.cold_start_ms > 0


async def test_closing_in_the_middle_of_a_reply_ends_the_reply_first(weights: Path) -> None:
    """With a stream still open, letting llama.cpp's server go took 30 s, in which nothing else of the process ran."""
    engine = LocalEngine(path=weights, settings=settings(slots=1, context_tokens=1024))
    await engine.open()
    events = engine.chat(about("conte uma história longa", most=900), ends_at=soon())
    await anext(events)
    with capture_logs() as logs:
        await engine.close()
    await events.aclose()
    assert [(entry["event"], entry["idle"]) for entry in logs] == [("local_model_stopped", True)]


async def test_a_file_that_llama_cpp_refuses_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes(gguf(text_entry("general.architecture", "of next year"), text_entry("general.name", "New")))
    engine = LocalEngine(path=path, settings=settings())
    with pytest.raises(ConfigurationError, match=r"llama.cpp cannot load .*new\.gguf"):
        await engine.open()
    await engine.close()


async def test_without_the_extra_the_sentence_says_how_to_get_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    engine = LocalEngine(path=weights, settings=settings())
    with pytest.raises(ConfigurationError, match=r"pip install 'agentic-sdr\[local\]'"):
        await engine.open()
    await engine.close()


async def test_weights_that_do_not_fit_are_not_loaded(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "free_memory", lambda: 100 << 20)
    engine = LocalEngine(path=weights, settings=settings())
    with pytest.raises(ConfigurationError, match=r"0\.1 GiB are free"):
        await engine.open()


async def test_a_template_that_is_not_there_is_named(weights: Path, tmp_path: Path) -> None:
    engine = LocalEngine(path=weights, settings=settings(template=tmp_path / "no.jinja"))
    with pytest.raises(ConfigurationError, match=r"SDR_AGENT_LOCAL_TEMPLATE: .*no\.jinja cannot be read"):
        await engine.open()


async def test_warming_again_keeps_what_the_slots_know_of_their_conversations(warm: LocalEngine) -> None:
    """The idle agent primed its prefix anew every few minutes; that threw away every conversation's history."""
    long = about("a conta vem alta desde que compramos o aparelho novo " * 6)
    first = await ask(warm, long)
    await warm.warm(PREFIX)
    again = await ask(warm, long)
    assert again.usage.cached >= first.usage.prompt - 8


async def test_a_context_that_is_too_small_for_the_prompts_is_refused(weights: Path) -> None:
    environ = {"SDR_AGENT_LOCAL_CONTEXT_TOKENS": "2048", "SDR_AGENT_PROMPT_TOKENS": "6000"}
    with pytest.raises(ConfigurationError, match=r"_CONTEXT_TOKENS: 2048 is less than .* set it to 7024"):
        local.engine(str(weights), settings=load(AgentSettings, environ=environ, env_file=None), clock=SystemClock())


# As Gemma's: no system role, turns that must alternate, and an error for whoever does otherwise.
STRICT_TEMPLATE = """\
{{ bos_token }}
{%- if messages[0].role == 'system' -%}
{%- set first = messages[0].content + '\n\n' -%}
{%- set loop_messages = messages[1:] -%}
{%- else -%}
{%- set first = '' -%}
{%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('roles must alternate') }}
{%- endif -%}
{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) }}
{{ (first if loop.first else '') + message.content }}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt -%}<start_of_turn>model
{% endif -%}
"""


async def test_a_template_of_our_own_replaces_the_weights_one_and_the_prefix_is_found_in_it(
    weights: Path, tmp_path: Path
) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text(STRICT_TEMPLATE)
    engine = LocalEngine(path=weights, settings=settings(slots=1, context_tokens=1024, template=template))
    await engine.open()
    try:
        await engine.warm(PREFIX)
        text = await engine.server.render([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}], None)
        assert "<start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model" in text
        answer = await ask(engine, about("boa tarde"))
        assert answer.usage.prompt - answer.usage.cached < 20 < answer.usage.cached
    finally:
        await engine.close()
