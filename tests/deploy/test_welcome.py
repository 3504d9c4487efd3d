"""What `make up` says to try has to work when it is tried, also tomorrow."""

import json
import subprocess
import time

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from deploy import welcome
from deploy.settings import SystemSettings
from ingress.providers.evolution.parse import parse_webhook
from ingress.providers.evolution.settings import EvolutionSettings
from service_kit.settings import load

TOKEN = "a-token-that-is-long-enough"
# Prints the arguments instead of sending anything.
_FAKE_CURL = 'curl() { for argument; do printf "%s\\n" "$argument"; done; }; '


def settings() -> SystemSettings:
    return load(SystemSettings, environ={"SDR_ADMIN_ADDRESS": "0.0.0.0:9"}, env_file=None)


def evolution(**environ: str) -> EvolutionSettings:
    return load(EvolutionSettings, environ=environ, env_file=None)


def arguments_of(line: str) -> list[str]:
    command = ["sh", "-c", _FAKE_CURL + line]
    done = subprocess.run(command, env={"EVOLUTION_WEBHOOK_TOKEN": TOKEN}, text=True, capture_output=True, check=True)
    return done.stdout.splitlines()


def test_the_webhook_line_is_fresh_and_valid_and_holds_no_secret() -> None:
    configured = evolution(
        EVOLUTION_API_URL="http://127.0.0.1:8",
        EVOLUTION_API_KEY="key",
        EVOLUTION_WEBHOOK_TOKEN=TOKEN,
        EVOLUTION_INSTANCE="loja-1",
    )
    line = welcome.webhook_curl(settings(), configured)
    assert TOKEN not in line
    arguments = arguments_of(line)
    assert "http://127.0.0.1:8088/webhooks/evolution" in arguments
    assert f"authorization: Bearer {TOKEN}" in arguments
    now_ms = int(time.time() * 1000)
    parsed = parse_webhook(arguments[-1].encode(), now_ms=now_ms)
    (event,) = parsed.events
    assert event.scope.instance == "loja-1"
    assert event.message.text == "oi, tudo bem?"
    assert abs(event.message.provider_time.ToMilliseconds() - now_ms) < 5_000


def test_the_console_line_is_valid() -> None:
    arguments = arguments_of(welcome.console_curl(settings()))
    assert "http://127.0.0.1:9/console/messages" in arguments
    assert json.loads(arguments[-1]) == {"contact": "5581999990009", "text": "oi"}


def test_the_model_is_shown_with_its_price_and_with_what_stands_in_for_it() -> None:
    models = [
        agent_pb.ModelState(name="openai:gpt-5-mini", available=False, trouble="unreachable"),
        agent_pb.ModelState(name="playbook", available=True),
    ]
    agent = agent_pb.GetAgentResponse(model="openai:gpt-5-mini", costs_money=True, persona="demo-solar", models=models)
    model, persona = welcome.describe_agent(agent)
    assert model == (
        "openai:gpt-5-mini, each reply costs money; if it fails: playbook; "
        "openai:gpt-5-mini can't be asked now: unreachable"
    )
    assert persona == "demo-solar"
    alone = agent_pb.GetAgentResponse(model="playbook", models=[agent_pb.ModelState(name="playbook", available=True)])
    assert welcome.describe_agent(alone)[0] == "playbook, free of charge"
