"""Prometheus metrics and the canonical line of a turn."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ingress.held_turn import HeldTurn
from service_kit import logs

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
_log = logs.get(__name__)


class Metrics:
    """One registry per process; nothing here may raise into the message path."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._segments = Histogram(
            "sdr_turn_segment_seconds",
            "Where a turn's time went.",
            ["segment"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._total = Histogram(
            "sdr_turn_seconds", "From acceptance to the record.", buckets=BUCKETS, registry=self.registry
        )
        self._turns = Counter("sdr_turns", "Turns that ended here.", ["degraded", "recorded"], registry=self.registry)
        self._counters = Gauge("sdr_ingress_count", "Counts since the start.", ["what"], registry=self.registry)

    def turn_finished(self, held: HeldTurn) -> None:
        """Logs and counts an ended turn."""
        timeline = held.timeline
        segments = timeline.segments_ms()
        for name, milliseconds in segments.items():
            self._segments.labels(name).observe(milliseconds / 1000)
        self._total.observe(timeline.total_ms / 1000)
        self._turns.labels(str(timeline.degraded).lower(), str(held.recorded).lower()).inc()
        _log.info(
            "turn_finished",
            turn_id=held.turn_id,
            conversation_id=held.assign.conversation_id,
            messages=timeline.messages,
            parts=timeline.parts,
            restarts=timeline.restarts,
            degraded=timeline.degraded,
            recorded=held.recorded,
            provider_lag_ms=timeline.provider_lag_ms,
            total_ms=timeline.total_ms,
            **{f"{name}_ms": value for name, value in segments.items()},
        )

    def render(self, counts: Mapping[str, float]) -> bytes:
        """The text format, with these counts as they are now."""
        for name, value in counts.items():
            self._counters.labels(name).set(value)
        return generate_latest(self.registry)
