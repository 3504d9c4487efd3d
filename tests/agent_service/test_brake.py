"""The shared brake: one refusal is learned by all, one call goes first, and nothing depends on chance."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_service.models.brake import Brake, Pass, RetryBudget
from service_kit.clock import ManualClock


@pytest.fixture
async def clock() -> AsyncIterator[ManualClock]:
    yield ManualClock()


def waiting(brake: Brake, clock: ManualClock, *, seconds: float) -> asyncio.Task[Pass | None]:
    return asyncio.create_task(brake.passed(by=clock.monotonic() + seconds))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_without_a_refusal_everybody_passes(clock: ManualClock) -> None:
    brake = Brake(clock)
    passes = [await brake.passed(by=clock.monotonic() + 1) for _ in range(100)]
    assert all(leave is not None and not leave.alone for leave in passes) and brake.left_s == 0


async def test_who_has_no_time_to_wait_is_told_at_once(clock: ManualClock) -> None:
    brake = Brake(clock)
    brake.refused(5.0)
    assert brake.left_s == pytest.approx(5.0)
    assert await brake.passed(by=clock.monotonic() + 4) is None


async def test_one_goes_first_and_the_others_when_it_got_through(clock: ManualClock) -> None:
    brake = Brake(clock)
    brake.refused(2.0)
    tasks = [waiting(brake, clock, seconds=10) for _ in range(50)]
    await settled()
    assert not any(task.done() for task in tasks)
    clock.advance(2_000)
    await settled()
    [first] = [task for task in tasks if task.done()]
    brake.got_through()
    await settled()
    assert all(task.done() and task.result() is not None for task in tasks)
    leave = first.result()
    assert leave is not None and leave.alone
    brake.end(leave)


async def test_when_the_first_fails_the_next_one_goes(clock: ManualClock) -> None:
    brake = Brake(clock)
    brake.refused(1.0)
    clock.advance(1_000)
    first = await brake.passed(by=clock.monotonic() + 5)
    assert first is not None
    second = waiting(brake, clock, seconds=5)
    await settled()
    assert not second.done()
    brake.end(first)
    await settled()
    assert second.done() and second.result() is not None


async def test_who_waits_for_the_first_one_in_vain_gives_up_in_time(clock: ManualClock) -> None:
    brake = Brake(clock)
    brake.refused(1.0)
    clock.advance(1_000)
    assert await brake.passed(by=clock.monotonic() + 5) is not None
    late = waiting(brake, clock, seconds=5)
    await settled()
    clock.advance(5_000)
    await settled()
    assert late.done() and late.result() is None


async def test_a_hundred_refusals_of_one_moment_are_one(clock: ManualClock) -> None:
    """Each of the calls under way is refused too; doubling the pause for each would stop all for a minute."""
    brake = Brake(clock)
    for _ in range(100):
        brake.refused(None)
    assert brake.left_s == pytest.approx(1.0)
    for expected in (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        clock.advance(60_000)
        brake.refused(None)
        assert brake.left_s == pytest.approx(expected)


async def test_an_hour_is_cut_to_a_minute(clock: ManualClock) -> None:
    brake = Brake(clock)
    brake.refused(3_600.0)
    assert brake.left_s == pytest.approx(60.0)


async def test_an_answer_from_before_the_refusal_does_not_let_the_brake_go(clock: ManualClock) -> None:
    brake = Brake(clock)
    brake.refused(5.0)
    brake.got_through()
    assert brake.left_s == pytest.approx(5.0)
    clock.advance(5_000)
    leave = await brake.passed(by=clock.monotonic() + 1)
    assert leave is not None and leave.alone, "nor does it send all at once when the time is over"


async def test_a_cancelled_wait_leaves_nothing_behind(clock: ManualClock) -> None:
    brake = Brake(clock)
    brake.refused(5.0)
    task = waiting(brake, clock, seconds=10)
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleepers == 0


def test_retries_are_a_tenth_of_the_calls() -> None:
    budget = RetryBudget()
    made = 0
    for _ in range(1_000):
        budget.called()
        made += budget.take()
    assert 100 <= made <= 110
