"""When text leaves: at a bubble boundary or after 50 ms, whichever is first."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from agent_service.conversation import EffectCalled, End, Ended, HandOver, ModelEvent, TextDelta
from agent_service.flush import coalesce


async def pieces(*texts: str, pause_s: float = 0.0) -> AsyncGenerator[ModelEvent, None]:
    for text in texts:
        yield TextDelta(text=text)
        if pause_s:
            await asyncio.sleep(pause_s)


async def collect(events: AsyncGenerator[ModelEvent, None]) -> list[str]:
    return [event.text if isinstance(event, TextDelta) else type(event).__name__ async for event in events]


async def test_quick_pieces_share_a_frame() -> None:
    assert await collect(coalesce(pieces("O", "i", " Ana"))) == ["Oi Ana"]


async def test_a_bubble_leaves_when_it_is_complete() -> None:
    assert await collect(coalesce(pieces("Oi", "!\n", "\nComo", " vai?"))) == ["Oi!\n\n", "Como vai?"]


async def test_slow_pieces_do_not_wait_for_the_bubble() -> None:
    frames = await collect(coalesce(pieces("a", "b", "c", pause_s=0.03), interval_s=0.01))
    assert frames == ["a", "b", "c"]


async def test_text_leaves_before_what_follows_it() -> None:
    async def mixed() -> AsyncGenerator[ModelEvent, None]:
        yield TextDelta(text="a")
        yield EffectCalled(effect=HandOver(reason="r"))
        yield TextDelta(text="b")
        yield Ended(why=End.STOP)

    assert await collect(coalesce(mixed())) == ["a", "EffectCalled", "b", "Ended"]


async def test_the_end_of_time_comes_after_the_text() -> None:
    frames: list[str] = []
    ends_at = asyncio.get_running_loop().time() + 0.03
    with pytest.raises(TimeoutError):
        async for event in coalesce(pieces("a", "b", pause_s=10), ends_at=ends_at):
            assert isinstance(event, TextDelta)
            frames.append(event.text)
    assert frames == ["a"]


async def test_leaving_early_stops_the_source() -> None:
    stopped = asyncio.Event()

    async def endless() -> AsyncGenerator[ModelEvent, None]:
        try:
            while True:
                yield TextDelta(text="x\n\n")
                await asyncio.sleep(0.01)
        finally:
            stopped.set()

    events = coalesce(endless())
    await anext(events)
    await events.aclose()
    assert stopped.is_set()


async def test_errors_of_the_source_come_through() -> None:
    async def broken() -> AsyncGenerator[ModelEvent, None]:
        yield TextDelta(text="a")
        raise RuntimeError("x")

    with pytest.raises(RuntimeError):
        await collect(coalesce(broken()))
