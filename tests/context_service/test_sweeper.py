"""The retention sweeper, by hand-moved time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from context_service.domain import Swept
from context_service.store import ContextStore
from context_service.sweeper import BATCH, ROUND_PAUSE_S, STEP_PAUSE_S, Sweeper
from service_kit.clock import ManualClock
from service_kit.errors import NotFound, Unavailable
from tests.context_service.builders import message, record
from tests.context_service.stores import sqlite_store

DAY_MS = 86_400_000


class Store:
    """Remembers what it was asked, and answers from a list; an empty list is nothing to delete."""

    def __init__(self, *answers: Swept | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, int]] = []

    async def sweep(self, before_ms: int, *, limit: int) -> Swept:
        self.asked.append((before_ms, limit))
        answer = self.answers.pop(0) if self.answers else Swept()
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def running(store: Any, clock: ManualClock, *, days: float = 30) -> AsyncIterator[asyncio.Task[None]]:
    sweeper = Sweeper(store=cast("ContextStore", store), clock=clock, retention_days=days)
    task = asyncio.create_task(sweeper.run(), name="sweeper")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def asleep(clock: ManualClock, tasks: int = 1) -> None:
    async with asyncio.timeout(10):
        while clock.sleepers < tasks:
            await asyncio.sleep(0)


async def test_it_looks_at_once_and_every_hour(clock: ManualClock) -> None:
    store = Store()
    async with running(store, clock):
        for hour in range(3):
            await asleep(clock)
            assert store.asked[hour:] == [(clock.now_ms() - 30 * DAY_MS, BATCH)]
            clock.advance(ROUND_PAUSE_S * 1000 - 1)
            await asyncio.sleep(0)
            assert len(store.asked) == hour + 1
            clock.advance(1)


async def test_it_goes_on_in_steps_until_nothing_is_left(clock: ManualClock) -> None:
    store = Store(Swept(messages=BATCH), Swept(leads=1))
    async with running(store, clock):
        for step in (1, 2):
            await asleep(clock)
            assert len(store.asked) == step
            clock.advance(STEP_PAUSE_S * 1000)
        await asleep(clock)
        assert len({before for before, _ in store.asked}) == 1, "a round has one limit, or it would never end"
        assert len(store.asked) == 3


async def test_a_store_that_is_away_postpones_it(clock: ManualClock) -> None:
    store = Store(Swept(messages=1), Unavailable(component="store"), Swept(messages=1))
    async with running(store, clock) as task:
        await asleep(clock)
        clock.advance(STEP_PAUSE_S * 1000)
        await asleep(clock)
        assert (len(store.asked), task.done()) == (2, False)
        clock.advance(ROUND_PAUSE_S * 1000)
        await asleep(clock)
        assert len(store.asked) == 3


async def test_any_other_failure_ends_it_and_so_the_service(clock: ManualClock) -> None:
    async with running(Store(LookupError("a bug")), clock) as task:
        with pytest.raises(LookupError):
            await asyncio.wait_for(task, 10)


async def test_nothing_is_deleted_without_a_limit(clock: ManualClock) -> None:
    store = Store()
    async with running(store, clock, days=0) as task:
        await asyncio.wait_for(task, 10)
    assert store.asked == []


async def test_it_stops_when_it_is_cancelled_wherever_it_is(clock: ManualClock) -> None:
    for store in (Store(), Store(Swept(messages=1))):
        async with running(store, clock) as task:
            await asleep(clock)
            task.cancel()
            assert await asyncio.gather(task, return_exceptions=True) != [None]
            assert task.cancelled()


async def test_two_replicas_delete_the_same_once_and_keep_the_same(tmp_path: Path, clock: ManualClock) -> None:
    store = sqlite_store(tmp_path / "context.db", clock)
    await store.open()
    try:
        for number in range(3):
            old = message(f"m{number}", "velho")
            old.provider_time.FromMilliseconds(clock.now_ms())
            await store.record_turn(record(f"t{number}", f"c{number}", contact=f"55{number}", messages=[old], parts=[]))
        clock.advance(31 * DAY_MS)
        new = message("m9", "novo")
        new.provider_time.FromMilliseconds(clock.now_ms())
        kept = await store.record_turn(record("t9", "c9", contact="559", messages=[new], parts=[]))
        async with running(store, clock), running(store, clock):
            for _ in range(8):
                await asleep(clock, 2)
                clock.advance(STEP_PAUSE_S * 1000)
            await asleep(clock, 2)
        assert (await store.get_lead(kept.lead_id)).phone_number == "559"
        for number in range(3):
            with pytest.raises(NotFound):
                await store.get_lead_by_alias("default", f"phone:55{number}")
        assert (await store.sweep(clock.now_ms() - 30 * DAY_MS, limit=BATCH)).total == 0
    finally:
        await store.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
