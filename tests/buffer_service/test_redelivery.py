"""Providers repeat webhooks for seven days."""

from __future__ import annotations

from pathlib import Path

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from service_kit.clock import ManualClock
from tests.buffer_service.test_service import enqueue, message
from tests.buffer_service.test_shipped_bugs import shop

DAY_MS = 86_400_000


async def test_a_message_that_comes_again_after_seven_days_and_a_restart_is_known(tmp_path: Path) -> None:
    clock = ManualClock(1_790_000_000_000)
    async with shop(tmp_path / "a", clock) as s:
        worker = await s.worker()
        await enqueue(s.stub, message("m1"))
        turn = await worker.assigned()
        await s.until(worker.answer(turn, "olá"), worker)
    for days in range(1, 8):
        clock = ManualClock(1_790_000_000_000 + days * DAY_MS)
        async with shop(tmp_path / "a", clock) as s:
            # Long enough for a sweep or two.
            await s.passes(3_000)
            [again] = await enqueue(s.stub, message("m1"))
            assert again.outcome == pb.EventResult.OUTCOME_DUPLICATE, f"after {days} days"
