"""Ended turns into history, in order. The buffer keeps what could not be recorded and hands it out again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from agentic_sdr.common.v1 import turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from ingress.context_link import ContextLink, ContextOut
from service_kit import errors, logs

# What the buffer hands out alone keeps no lane waiting.
HANDED_OUT_TIMEOUT_S = 10.0
# After a turn ran out of time with its record, the next ones don't try: the hand-outs tell when it works again.
REST_S = 5.0
_log = logs.get(__name__)


class Recorder:
    """Calls RecordTurn; idempotent by turn id, so a repeat after a crash is harmless.

    No turn is recorded before an older one of its conversation: a list ends at the first that fails.
    """

    def __init__(self, link: ContextLink, *, timeout_s: float) -> None:
        self._link = link
        self._timeout_s = timeout_s
        self._rests_until = 0.0

    async def record_own(self, turns: Sequence[turn_pb2.TurnRecord]) -> tuple[int, int]:
        """A turn's record and the older ones that came with it, while its lane waits.

        How many are in history, and the version after them.
        """
        if asyncio.get_running_loop().time() < self._rests_until:
            self._link.counters["rested"] += 1
            return 0, 0
        return await self._record(turns, self._timeout_s)

    async def record_handed_out(self, turns: Sequence[turn_pb2.TurnRecord]) -> tuple[int, int]:
        """Older records alone; nobody waits. How many are in history, and the version after them."""
        return await self._record(turns, HANDED_OUT_TIMEOUT_S)

    async def _record(self, turns: Sequence[turn_pb2.TurnRecord], timeout_s: float) -> tuple[int, int]:
        version = 0
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        for done, turn in enumerate(turns):
            left = ends_at - loop.time()
            if left <= 0:
                # A long list, not a slow service: the rest is handed out.
                return done, version
            try:
                answer = await self._link.record(context_pb.RecordTurnRequest(record=turn), timeout_s=left)
            except ContextOut:
                _log.warning("turn_not_recorded", turn_id=turn.turn_id, code="OUT", reason="")
                return done, version
            except grpc.aio.AioRpcError as error:
                parsed = errors.parse(error)
                if parsed.reason == "FORGOTTEN":
                    # The person was erased meanwhile: there is nothing to keep.
                    continue
                if parsed.code is grpc.StatusCode.INVALID_ARGUMENT:
                    # It will never be taken; the turns behind it must not wait for it for ever.
                    _log.error("turn_refused_for_good", turn_id=turn.turn_id, field=parsed.metadata.get("field", ""))
                    continue
                if parsed.code is grpc.StatusCode.DEADLINE_EXCEEDED and not version:
                    self._rests_until = loop.time() + REST_S
                _log.warning("turn_not_recorded", turn_id=turn.turn_id, code=parsed.code.name, reason=parsed.reason)
                return done, version
            self._rests_until = 0.0
            version = max(version, answer.version)
        return len(turns), version
