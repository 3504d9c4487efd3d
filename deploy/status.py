"""One screen: what runs, what came in, who waits, what went wrong, and who answers."""

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentic_sdr.agent.v1 import agent_service_pb2
from agentic_sdr.buffer.v1 import buffer_service_pb2
from deploy import probe, welcome
from deploy import settings as settings_of
from deploy.settings import SystemSettings
from deploy.supervision import ProcessState, SupervisionError, Supervisor, programs
from service_kit.enums import label


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found; None where nobody answered."""

    processes: dict[str, ProcessState]
    health: dict[str, str]
    stats: buffer_service_pb2.GetStatsResponse | None
    console: dict[str, Any] | None
    agent: agent_service_pb2.GetAgentResponse | None
    left_over: Sequence[str] = ()


def main() -> int:
    """Print the screen."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make status | head` is no error.
    settings = settings_of.leniently()
    supervisor = Supervisor(settings.data_dir)
    try:
        facts = gather(settings, supervisor)
    except SupervisionError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(screen(settings, facts, now_s=time.time())))
    return 0


def gather(settings: SystemSettings, supervisor: Supervisor) -> Facts:
    """Ask everybody."""
    return Facts(
        processes=supervisor.states(),
        health={program: probe.health(settings, program) for program in programs()},
        stats=probe.stats(settings),
        console=probe.console_status(settings),
        agent=probe.agent(settings),
        left_over=supervisor.left_over(),
    )


def screen(settings: SystemSettings, facts: Facts, *, now_s: float) -> list[str]:
    """The lines for people."""
    return [
        f"Services       ({settings.data_dir.absolute()})",
        *_services(settings, facts),
        f"Webhooks       {_webhooks(facts.console, now_s)}",
        f"Conversations  {_conversations(facts.stats, now_s)}",
        f"Bursts         {_bursts(facts.stats)}",
        f"Trouble        {_trouble(facts.stats, facts.console)}",
        f"Agent          {_agent(facts.agent)}",
    ]


def ago(then_s: float, now_s: float) -> str:
    """A length of time, in its largest unit that is not zero."""
    seconds = max(0, int(now_s - then_s))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _services(settings: SystemSettings, facts: Facts) -> list[str]:
    addresses = {**probe.grpc_addresses(settings), "ingress": settings.ingress_address}
    lines = []
    if facts.left_over:
        lines.append(f"  running on without a process manager: {', '.join(facts.left_over)}; make up mends it")
    elif not facts.processes:
        lines.append("  nothing is running: make up")
    for program, health in facts.health.items():
        process = facts.processes.get(program)
        if process is None and health == "no answer":
            state = "down"
        elif process is None and program in facts.left_over:
            state = health
        elif process is None:
            state = f"{health}, but not started by make up with this data directory"
        elif process.is_up:
            state = f"{health}, for {ago(0, process.running_s)}, process {process.pid}"
        else:
            state = f"{process.state.lower()}, {process.note}"
        lines.append(f"  {program:<16} {addresses[program]:<18} {state}")
    return lines


def _webhooks(console: dict[str, Any] | None, now_s: float) -> str:
    if console is None:
        return "unknown: ingress does not answer"
    last_ms = console.get("last_webhook_ms") or {}
    last = ", ".join(f"{provider} {ago(at_ms / 1000, now_s)} ago" for provider, at_ms in sorted(last_ms.items()))
    refused = console.get("refused") or {}
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items()))
    states = sorted((console.get("provider_states") or {}).items())
    return " · ".join(
        [
            f"last {last}" if last else "none yet",
            f"refused {sum(refused.values())} ({reasons})" if refused else "refused 0",
            *(f"{name} is {state}" for name, state in states),
        ]
    )


def _conversations(stats: buffer_service_pb2.GetStatsResponse | None, now_s: float) -> str:
    if stats is None:
        return "unknown: the buffer does not answer"
    paused = str(stats.paused_conversations)
    if stats.paused_conversations:
        paused += f" (the oldest for {ago(stats.oldest_pause_time.seconds, now_s)})"
    return (
        f"turns waiting {stats.waiting_turns}, running {stats.running_turns}"
        f" · messages pending {stats.pending_messages} · paused {paused} · needs a human {stats.needs_human}"
    )


def _bursts(stats: buffer_service_pb2.GetStatsResponse | None) -> str:
    if stats is None:
        return "unknown: the buffer does not answer"
    bursts, replies, added_ms, restarts = (
        stats.counters.get(name, 0) for name in ("bursts", "replies", "added_wait_ms", "restarts")
    )
    if not bursts or not replies:
        return f"none since the start (strategy {stats.strategy})"
    return (
        f"replies per burst {replies / bursts:.2f} · held {added_ms / replies / 1000:.1f} s on average"
        f" · restarts {restarts} (strategy {stats.strategy})"
    )


def _trouble(stats: buffer_service_pb2.GetStatsResponse | None, console: dict[str, Any] | None) -> str:
    if stats is None:
        return "unknown: the buffer does not answer"
    out_s = ((console or {}).get("context") or {}).get("out_s") or 0
    return (f"answering without context for {ago(0, out_s)} · " if out_s else "") + (
        f"dead letters {stats.dead_letters} · unrecorded {stats.unrecorded_turns} · quarantined {stats.quarantined}"
        f" · fate unknown {stats.unknown_parts}"
    )


def _agent(agent: agent_service_pb2.GetAgentResponse | None) -> str:
    if agent is None:
        return "unknown: it does not answer"
    state = label(agent_service_pb2.AgentState.DESCRIPTOR, agent.state, "AGENT_STATE_")
    model, persona = welcome.describe_agent(agent)
    refused = f"; what its files say now is not taken: {agent.persona_problem}" if agent.persona_problem else ""
    return f"{state} · model {model} · persona {persona}{refused}"


if __name__ == "__main__":
    sys.exit(main())
