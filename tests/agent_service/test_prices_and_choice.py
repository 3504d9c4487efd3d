"""What tokens cost, and which models the settings choose."""

from typing import Any

import pytest

from agent_service.chat import ChatUsage
from agent_service.models.chain import Chain
from agent_service.models.choice import choose
from agent_service.models.factory import make_model
from agent_service.models.playbook import Playbook
from agent_service.models.prices import Prices
from agent_service.settings import AgentSettings
from service_kit.clock import SystemClock
from service_kit.settings import ConfigurationError, load
from tests.agent_service.talking import demo

KEY = {"OPENAI_API_KEY": "sk-test-0123456789abcdef"}
LOCAL = {"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}


def settings(**environ: str) -> AgentSettings:
    return load(AgentSettings, environ=environ, env_file=None)


@pytest.mark.parametrize(
    ("usage", "micros"),
    [
        (ChatUsage(prompt=1_000_000, cached=0, completion=0), 250_000),
        (ChatUsage(prompt=1_000_000, cached=1_000_000, completion=0), 25_000),
        (ChatUsage(prompt=0, cached=0, completion=1_000_000), 2_000_000),
        (ChatUsage(prompt=1200, cached=1024, completion=50), 170),
        (ChatUsage(prompt=1, cached=0, completion=0), 1),
        (ChatUsage(prompt=10, cached=99, completion=0), 1),
        (ChatUsage(), 0),
    ],
)
def test_micros_are_rounded_up(usage: ChatUsage, micros: int) -> None:
    prices = Prices.parse("gpt-5-mini=0.25/0.025/2")
    assert prices.cost_micros("openai:gpt-5-mini", usage) == micros


def test_names_hold_what_names_hold() -> None:
    prices = Prices.parse("openai:meta-llama/Llama-3=1/1/1 , qwen3:8b = 2 / 2 / 2,a=b=3/3/3")
    usage = ChatUsage(prompt=10)
    costs = [prices.cost_micros(name, usage) for name in ("openai:meta-llama/Llama-3", "openai:qwen3:8b", "a=b", "x")]
    assert costs == [10, 20, 30, 0]


@pytest.mark.parametrize(
    "text", ["gpt", "gpt=1", "gpt=1/2", "gpt=1/2/x", "gpt=1/2/3/4", "=1/2/3", "gpt=-1/2/3", "g=1.2.3/1/1"]
)
def test_prices_that_are_none_are_refused_at_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match="SDR_AGENT_PRICES"):
        settings(SDR_AGENT_PRICES=text)


@pytest.mark.parametrize("text", ["[1]", "{", "x", '"a"'])
def test_an_extra_body_is_an_object(text: str) -> None:
    with pytest.raises(ConfigurationError, match="SDR_AGENT_EXTRA_BODY"):
        settings(SDR_AGENT_EXTRA_BODY=text)


@pytest.mark.parametrize(
    ("environ", "name", "why"),
    [
        ({}, "playbook", "no OPENAI_API_KEY"),
        (KEY, "openai:gpt-5-mini", "OPENAI_API_KEY is set"),
        ({**KEY, **LOCAL}, "playbook", "does not say which model"),
        ({**KEY, "SDR_AGENT_MODEL": "playbook"}, "playbook", "SDR_AGENT_MODEL"),
        ({**KEY, "SDR_AGENT_MODEL": "openai:x"}, "openai:x", "SDR_AGENT_MODEL"),
        ({**LOCAL, "SDR_AGENT_MODEL": "openai:qwen3:8b"}, "openai:qwen3:8b", "SDR_AGENT_MODEL"),
        ({"SDR_AGENT_MODEL": "gguf:/w/a.gguf"}, "gguf:/w/a.gguf", "SDR_AGENT_MODEL"),
    ],
)
def test_the_first_model_and_why(environ: dict[str, str], name: str, why: str) -> None:
    choice = choose(settings(**environ))
    assert choice.name == name and why in choice.why


def test_fallbacks_in_order_and_once() -> None:
    chosen = choose(
        settings(**KEY, SDR_AGENT_MODEL="openai:a", SDR_AGENT_FALLBACK_MODELS="openai:b, openai:a,openai:b, playbook")
    )
    assert chosen.languages == ("openai:a", "openai:b")


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"SDR_AGENT_MODEL": "openai:gpt"}, "SDR_AGENT_MODEL: openai:gpt needs OPENAI_API_KEY"),
        ({"SDR_AGENT_MODEL": "gpt-5"}, "SDR_AGENT_MODEL"),
        ({"SDR_AGENT_MODEL": "openai:"}, "SDR_AGENT_MODEL"),
        ({"SDR_AGENT_FALLBACK_MODELS": "openai:b"}, "SDR_AGENT_FALLBACK_MODELS"),
        ({**KEY, "SDR_AGENT_FALLBACK_MODELS": "openai:b,other"}, "SDR_AGENT_FALLBACK_MODELS"),
    ],
)
def test_names_without_a_model_are_refused(environ: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        choose(settings(**environ))


def made(**environ: str) -> Any:
    return make_model(settings(**environ), persona=demo(), clock=SystemClock())


def test_the_playbook_is_last_unless_it_must_not_speak() -> None:
    assert isinstance(made(), Playbook)
    chain = made(**KEY, SDR_AGENT_FALLBACK_MODELS="openai:b")
    assert isinstance(chain, Chain) and chain.costs_money
    assert [state.name for state in chain.states()] == ["openai:gpt-5-mini", "openai:b", "playbook"]
    alone = made(**LOCAL, SDR_AGENT_MODEL="openai:a", SDR_AGENT_PLAYBOOK_FALLBACK="false")
    assert [state.name for state in alone.states()] == ["openai:a"] and not alone.costs_money


def test_a_key_that_no_header_carries_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY") as caught:
        settings(OPENAI_API_KEY="sk-tést 0123")
    assert "sk-t" not in str(caught.value)


def test_a_key_shows_nowhere() -> None:
    assert KEY["OPENAI_API_KEY"] not in repr(settings(**KEY)) + str(settings(**KEY))
