"""The buffer's one thread, when it cannot keep up."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from buffer_service import engine
from buffer_service.engine import Engine
from buffer_service.settings import BufferSettings
from buffer_service.store.sqlite import SqliteStore
from service_kit.clock import SystemClock
from service_kit.errors import Unavailable
from service_kit.settings import load


async def test_what_waits_for_a_disk_that_stalls_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each webhook gave up after 1.5 seconds and came again, and what it had asked stayed in the queue."""
    monkeypatch.setattr(engine, "MAX_QUEUED", 10)
    one = Engine(
        open_store=lambda: SqliteStore(tmp_path / "buffer.db"),
        policy=load(BufferSettings, environ={}, env_file=None).policy,
        read_cue=lambda body: pytest.fail(),
        clock=SystemClock(),
        deliver=lambda frames: None,
    )
    await one.open()
    stalled, going_on = threading.Event(), threading.Event()
    one.post(lambda now: (stalled.set(), going_on.wait(10)))
    await asyncio.to_thread(stalled.wait, 10)
    waiting = [asyncio.create_task(one.call(lambda now: now)) for _ in range(10)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        async with asyncio.timeout(5):
            await one.call(lambda now: now)
    assert refused.value.metadata == {"component": "store"}
    going_on.set()
    assert all(await asyncio.gather(*waiting)), "what was taken is done"
    assert await one.call(lambda now: now)
    await one.close()
