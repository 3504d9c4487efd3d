"""Ended turns into history, in order. The buffer keeps what could not be recorded and hands it out again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from agentic_sdr.common.v1 import turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from ingress.services import Services
from service_kit import errors, logs

_log = logs.get(__name__)


class Recorder:
    """Calls RecordTurn; idempotent by turn id, so a repeat after a crash is harmless."""

    def __init__(self, services: Services, *, timeout_s: float) -> None:
        self._services = services
        self._timeout_s = timeout_s

    async def record(self, turns: Sequence[turn_pb2.TurnRecord]) -> tuple[int, int]:
        """Records in order until one fails or the time is up; how many are in history, and the version after them."""
        version = 0
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._timeout_s
        for done, turn in enumerate(turns):
            request = context_pb.RecordTurnRequest(record=turn)
            try:
                left = max(0.001, ends_at - loop.time())
                answer = await self._services.context.RecordTurn(request, timeout=left)
            except grpc.aio.AioRpcError as error:
                parsed = errors.parse(error)
                if parsed.reason == "FORGOTTEN":
                    # The person was erased meanwhile: there is nothing to keep.
                    continue
                if parsed.code is grpc.StatusCode.INVALID_ARGUMENT:
                    # It will never be taken; the turns behind it must not wait for it for ever.
                    _log.error("turn_refused_for_good", turn_id=turn.turn_id, field=parsed.metadata.get("field", ""))
                    continue
                _log.warning("turn_not_recorded", turn_id=turn.turn_id, code=parsed.code.name, reason=parsed.reason)
                return done, version
            version = max(version, answer.version)
        return len(turns), version
