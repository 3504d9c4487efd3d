"""The composition root of ingress."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ingress.admin import AdminEdge
from ingress.agent_info import AgentInfo
from ingress.edge import PublicEdge
from ingress.held_turn import HeldTurn
from ingress.metrics import Metrics
from ingress.patience import Trust
from ingress.providers import Provider
from ingress.providers.console import CHANNEL, ConsoleProvider
from ingress.providers.evolution import EvolutionProvider
from ingress.providers.evolution.settings import EvolutionSettings
from ingress.services import Services
from ingress.settings import IngressSettings
from ingress.turn_runner import TurnRunner
from service_kit import logs
from service_kit.clock import Clock, SystemClock
from service_kit.ports import require_free
from service_kit.settings import ConfigurationError

DRAIN_EDGE_S = 1.5
DRAIN_TURNS_S = 4.0
DRAIN_SENDS_S = 10.5
HEALTH_TIMEOUT_S = 0.5
_log = logs.get(__name__)


def check(settings: IngressSettings, evolution: EvolutionSettings) -> None:
    """Refuses what would be unsafe. Raises ConfigurationError with a sentence per problem."""
    problems = []
    if evolution.evolution_is_configured and not settings.persona:
        problems.append(
            "EVOLUTION_API_URL is set but SDR_PERSONA is not: the demo persona would speak for your business; "
            "set SDR_PERSONA (SDR_PERSONA=demo-solar if you mean it)"
        )
    host = settings.admin_address.rpartition(":")[0].strip("[]")
    if host not in ("127.0.0.1", "::1", "localhost") and not settings.admin_token.get_secret_value():
        problems.append(f"SDR_ADMIN_ADDRESS={settings.admin_address} is not on loopback: set SDR_ADMIN_TOKEN")
    if problems:
        raise ConfigurationError("\n".join(problems))


class IngressApp:
    """Both listeners, the channels, and the turn runner."""

    def __init__(self, settings: IngressSettings, evolution: EvolutionSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._metrics = Metrics()
        self._console = ConsoleProvider()
        self._providers: dict[str, Provider] = {CHANNEL: self._console}
        if evolution.evolution_is_configured:
            self._providers["evolution"] = EvolutionProvider(settings=evolution, clock=self._clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._services: Services
        self._runner: TurnRunner
        self._agent: AgentInfo
        self._edge: PublicEdge
        self._admin: AdminEdge

    async def open(self) -> None:
        """Opens listeners last: what arrives finds everything there."""
        settings = self._settings
        require_free(settings.ingress_address)
        require_free(settings.admin_address)
        self._services = Services(
            buffer=settings.buffer_address, context=settings.context_address, agent=settings.agent_address
        )
        for provider in self._providers.values():
            await provider.open()
        self._agent = AgentInfo(self._services, self._clock)
        self._runner = TurnRunner(
            services=self._services,
            providers=self._providers,
            settings=settings,
            clock=self._clock,
            honest_sentence=lambda: self._agent.honest_sentence,
            on_finished=self._turn_finished,
        )
        self._edge = PublicEdge(
            providers={name: p for name, p in self._providers.items() if name != CHANNEL},
            accept=self._services.enqueue,
            clock=self._clock,
            settings=settings,
        )
        self._admin = AdminEdge(
            services=self._services,
            console=self._console,
            clock=self._clock,
            token=settings.admin_token.get_secret_value(),
            readiness=self._readiness,
            status=self._status,
            metrics=self._render_metrics,
        )
        await self._services.warm()
        await self._admin.open(settings.admin_address)
        await self._edge.open(settings.ingress_address)
        _log.info("service_ready", listening=self._edge.address, admin=self._admin.address)

    async def serve_until(self, stop: asyncio.Event) -> None:
        """Runs turns until told to stop."""
        work = [self._runner.run(), self._agent.run()]
        self._tasks = [asyncio.create_task(w, name=f"ingress-{i}") for i, w in enumerate(work)]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait({*self._tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in done - {stopping}:
            # A side task that ends, ends the process: half an ingress is none.
            task.result()

    async def drain(self) -> None:
        """Takes no more webhooks, lets turns end or gives them back."""
        await self._edge.close(grace_s=DRAIN_EDGE_S)
        await self._runner.drain(turns_s=DRAIN_TURNS_S, sends_s=DRAIN_SENDS_S)

    async def close(self) -> None:
        """Closes in reverse."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.close()
        await self._admin.close()
        for provider in self._providers.values():
            await provider.close()
        await self._services.close()

    # ---- telling

    def _turn_finished(self, held: HeldTurn) -> None:
        with contextlib.suppress(Exception):  # telling must never reach into the message path
            self._metrics.turn_finished(held)
            if held.assign.scope.channel == CHANNEL:
                timeline = held.timeline
                data = {
                    "messages": timeline.messages,
                    "parts": timeline.parts,
                    "total_ms": timeline.total_ms,
                    "segments_ms": timeline.segments_ms(),
                    "degraded": timeline.degraded,
                    "recorded": held.recorded,
                }
                self._console.publish(held.to.address, "turn", data)

    async def _serving(self, name: str) -> bool:
        channel = self._services.channel(name)
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def _readiness(self) -> tuple[bool, dict[str, Any]]:
        names = ("buffer", "context", "agent")
        found = dict(zip(names, await asyncio.gather(*(self._serving(n) for n in names)), strict=True))
        ready = found["buffer"] and self._runner.link.connected
        found["context"] = found["context"] and self._runner.context.trust is not Trust.OUT
        degraded = [name for name in ("context", "agent") if not found[name]]
        return ready, {"status": "ok" if ready else "unavailable", "degraded": degraded}

    async def _status(self) -> dict[str, Any]:
        edge = self._edge.status
        ready, readiness = await self._readiness()
        return {
            "ready": ready,
            "degraded": readiness["degraded"],
            "connected": self._runner.link.connected,
            "held_turns": self._runner.held_turns,
            "providers": sorted(n for n in self._providers if n != CHANNEL),
            "last_webhook_ms": edge.last_webhook_ms,
            "handled": edge.handled,
            "refused": edge.refused,
            "ignored": edge.ignored,
            "provider_states": edge.provider_states,
            "context": {"trust": self._runner.context.trust, "out_s": round(self._runner.context.out_s, 1)},
            "counters": dict(self._runner.counters),
        }

    def _render_metrics(self) -> bytes:
        edge = self._edge.status
        counts: dict[str, float] = {"held_turns": self._runner.held_turns, "connections": edge.connections}
        counts |= {f"turns_{name}": value for name, value in self._runner.counters.items()}
        counts |= {f"context_{name}": value for name, value in self._runner.context.counters.items()}
        counts["context_out"] = self._runner.context.trust is Trust.OUT
        counts |= {f"webhooks_handled_{name}": value for name, value in edge.handled.items()}
        counts |= {f"webhooks_refused_{name}": value for name, value in edge.refused.items()}
        return self._metrics.render(counts)
