"""The stream to the buffer, in front of a stub."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from ingress.buffer_link import BufferLink


class Call:
    """One stream: gives these frames and then stays open."""

    def __init__(self, *frames: pb.RunTurnsResponse) -> None:
        self._frames = list(frames)

    async def write(self, frame: pb.RunTurnsRequest) -> None:
        """Takes it."""

    async def read(self) -> pb.RunTurnsResponse:
        """The next frame."""
        if not self._frames:
            await asyncio.Event().wait()
        return self._frames.pop(0)

    def cancel(self) -> None:
        """Ends nothing."""


async def test_a_frame_that_can_not_be_worked_off_ends_nobody_elses_turn() -> None:
    """It would have ended the process, and with it every turn that it held."""
    frames = [pb.RunTurnsResponse(revoke=pb.Revoke(turn_id=name)) for name in ("bad", "also good", "good")]
    frames[0].also.append(frames[1])
    taken: list[str] = []

    def on_frame(frame: pb.RunTurnsResponse) -> None:
        if frame.revoke.turn_id == "bad":
            raise ValueError
        taken.append(frame.revoke.turn_id)

    class Stub:
        calls = 0

        def RunTurns(self, *, wait_for_ready: bool) -> Call:
            self.calls += 1
            return Call(frames[0], frames[2])

    stub = Stub()
    link = BufferLink(stub=cast(Any, stub), capacity=1, holding=list, on_frame=on_frame)
    running = asyncio.create_task(link.run())
    async with asyncio.timeout(5):
        while len(taken) < 2:
            await asyncio.sleep(0)
            assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert taken == ["also good", "good"] and stub.calls == 1
