"""Frames of a stream: at a bubble boundary or every so often, because each frame costs."""

import asyncio
import math
from collections.abc import AsyncGenerator

from agent_service.conversation import ModelEvent, TextDelta

FLUSH_S = 0.05
_BOUNDARY = "\n\n"


async def coalesce(
    events: AsyncGenerator[ModelEvent, None], *, ends_at: float = math.inf, interval_s: float = FLUSH_S
) -> AsyncGenerator[ModelEvent, None]:
    """The same events with fewer pieces of text. Raises TimeoutError at `ends_at` (the loop's time), text first."""
    loop = asyncio.get_running_loop()
    pending, due = "", math.inf
    step: asyncio.Task[ModelEvent | None] | None = None
    try:
        while True:
            step = step or asyncio.create_task(_next(events), name="model-step")
            wake = min(due, ends_at)
            await asyncio.wait({step}, timeout=None if wake == math.inf else max(0.0, wake - loop.time()))
            if not step.done():
                if pending:
                    yield TextDelta(text=pending)
                pending, due = "", math.inf
                if loop.time() >= ends_at:
                    raise TimeoutError
                continue
            event, step = step.result(), None
            if isinstance(event, TextDelta):
                done, mark, pending = (pending + event.text).rpartition(_BOUNDARY)
                if mark:
                    yield TextDelta(text=done + mark)
                    due = math.inf
                due = min(due, loop.time() + interval_s) if pending else math.inf
                continue
            if pending:
                yield TextDelta(text=pending)
            pending, due = "", math.inf
            if event is None:
                return
            yield event
    finally:
        if step is not None:
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
        await events.aclose()


async def _next(events: AsyncGenerator[ModelEvent, None]) -> ModelEvent | None:
    return await anext(events, None)
