import asyncio
import time

import pytest

from service_kit.clock import Clock, ManualClock, SystemClock
from service_kit.durations import duration_to_ms, ms_to_duration, ms_to_timestamp, timestamp_to_ms


def test_system_clock_ignores_a_jump_of_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Clock = SystemClock()
    before = clock.now_ms()
    assert abs(before - time.time() * 1000) < 5_000
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert before <= clock.now_ms() < before + 5_000


async def test_manual_clock_wakes_sleepers_in_order() -> None:
    clock = ManualClock(start_ms=1_000)
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    tasks = [asyncio.create_task(sleeper(name, seconds)) for name, seconds in (("late", 2), ("soon", 1), ("now", 0))]
    while clock.sleepers < 2 or not woken:
        await asyncio.sleep(0)
    assert woken == ["now"]
    clock.advance(999)
    await asyncio.sleep(0)
    assert woken == ["now"]
    clock.advance(1_001)
    await asyncio.gather(*tasks)
    assert woken == ["now", "soon", "late"]
    assert (clock.now_ms(), clock.monotonic()) == (3_000, 3.0)


async def test_a_cancelled_sleeper_does_not_disturb_the_clock() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleepers == 0
    clock.advance(5_000)


@pytest.mark.parametrize("ms", [0, 1, 999, 1_000, 1_763_848_000_123])
def test_times_go_there_and_back(ms: int) -> None:
    assert duration_to_ms(ms_to_duration(ms)) == ms
    assert timestamp_to_ms(ms_to_timestamp(ms)) == ms
