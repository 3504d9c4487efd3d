"""What `make up` prints in the end: where everything is, and what to try first."""

import os
import shutil
import sys
from pathlib import Path

from agent_service.models.choice import choose
from agent_service.settings import AgentSettings
from agentic_sdr.agent.v1 import agent_service_pb2
from deploy import probe
from deploy.settings import SystemSettings
from ingress.providers.evolution.settings import EvolutionSettings
from service_kit.settings import load

# The shell fills in the clock, so that the line is as good tomorrow; a message older than an hour gets no answer.
_WEBHOOK_BODY = (
    '{"event":"messages.upsert","instance":"INSTANCE","data":{"key":{"remoteJid":"5581999990001@s.whatsapp.net",'
    '"fromMe":false,"id":"TEST\'$(date +%s)\'"},"pushName":"Cliente Teste","message":{"conversation":"oi, tudo bem?"},'
    '"messageType":"conversation","messageTimestamp":\'$(date +%s)\'}}'
)
_CONSOLE_BODY = '{"contact":"5581999990009","text":"oi"}'
_JSON = "-H 'content-type: application/json'"


def text(settings: SystemSettings) -> str:
    """The whole text."""
    evolution = load(EvolutionSettings)
    lines = [
        *_facts(settings, evolution),
        "",
        "Try it:",
        *_curl(settings, evolution),
        f"  {_grpcurl()} -plaintext {probe.reachable(settings.buffer_address)} list",
        "  make chat",
        "Look after it: make status, make logs, make down",
    ]
    return "\n".join(lines)


def describe_agent(agent: agent_service_pb2.GetAgentResponse) -> tuple[str, str]:
    """Model with its price and with what stands in for it, and persona."""
    money = "each reply costs money" if agent.costs_money else "free of charge"
    who = f" ({agent.persona_display_name})" if agent.persona_display_name else ""
    names = ", ".join(model.name for model in agent.models[1:])
    others = f"; if it fails: {names}" if names else ""
    resting = [model for model in agent.models if not model.available]
    trouble = "".join(f"; {model.name} can't be asked now: {model.trouble}" for model in resting)
    return f"{agent.model or 'unknown'}, {money}{others}{trouble}", f"{agent.persona or 'none'}{who}"


def _facts(settings: SystemSettings, evolution: EvolutionSettings) -> list[str]:
    agent = probe.agent(settings)
    model, persona = describe_agent(agent) if agent else ("unknown: the agent does not answer", "unknown")
    model += f" ({choose(load(AgentSettings)).why})" if agent else ""
    if evolution.evolution_is_configured:
        provider = f"Evolution API at {evolution.evolution_api_url}"
    else:
        provider = "none, the console only (Evolution API: set the EVOLUTION_ variables, see .env.example)"
    return [
        f"Webhooks   http://{probe.reachable(settings.ingress_address)}/webhooks/evolution",
        f"Console    http://{probe.reachable(settings.admin_address)}/",
        f"gRPC       {' · '.join(f'{name} {address}' for name, address in probe.grpc_addresses(settings).items())}",
        f"Model      {model}",
        f"Persona    {persona}",
        f"Provider   {provider}",
        f"Data       {settings.data_dir.absolute()}",
    ]


def _grpcurl() -> str:
    installed = Path(sys.prefix) / "bin" / "grpcurl"
    if shutil.which("grpcurl") or not installed.exists():
        return "grpcurl"
    return os.path.relpath(installed)


def _curl(settings: SystemSettings, evolution: EvolutionSettings) -> list[str]:
    if evolution.evolution_is_configured and evolution.evolution_webhook_token.get_secret_value():
        return [
            "  # The token from .env: set -a; . ./.env; set +a",
            "  # The answer goes to the number of remoteJid: put your own.",
            f"  {webhook_curl(settings, evolution)}",
        ]
    lines = []
    if evolution.evolution_is_configured:
        lines.append(
            "  # Webhooks are signed with EVOLUTION_WEBHOOK_JWT_KEY, which a line of shell cannot; without a provider:"
        )
    return [*lines, f"  {console_curl(settings)}"]


def webhook_curl(settings: SystemSettings, evolution: EvolutionSettings) -> str:
    """A line that posts a valid webhook which is new whenever it is run."""
    body = _WEBHOOK_BODY.replace("INSTANCE", evolution.evolution_instance or "test")
    url = f"http://{probe.reachable(settings.ingress_address)}/webhooks/evolution"
    return f"curl -s -X POST {url} -H \"authorization: Bearer $EVOLUTION_WEBHOOK_TOKEN\" {_JSON} -d '{body}'"


def console_curl(settings: SystemSettings) -> str:
    """A line that writes as a lead without any provider."""
    url = f"http://{probe.reachable(settings.admin_address)}/console/messages"
    return f"curl -s -X POST {url} {_JSON} -d '{_CONSOLE_BODY}'"
