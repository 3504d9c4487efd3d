import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service_kit.watchdog import LoopWatchdog

pytestmark = pytest.mark.slow  # waits for real processes and real time
ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, sys, time
from service_kit.watchdog import LoopWatchdog
async def main():
    watchdog = LoopWatchdog(warn_s=0.3, abort_s=1.0, on_lag=lambda lag: print("lag", flush=True))
    watchdog.start()
    await asyncio.sleep(0.3)
    print("started", flush=True)
    if sys.argv[1] == "block":
        time.sleep(30)
    await asyncio.sleep(float(sys.argv[1]))
    await watchdog.stop()
asyncio.run(main())
"""


def start(mode: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mode],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


async def test_a_blocked_loop_is_seen_and_forgotten() -> None:
    seen: list[float] = []
    watchdog = LoopWatchdog(warn_s=0.5, abort_s=30, on_lag=seen.append)
    watchdog.start()
    await asyncio.sleep(0.15)
    assert watchdog.healthy
    time.sleep(1)
    await asyncio.sleep(0.15)
    assert not watchdog.healthy
    assert watchdog.lag_s > 0.5
    assert len(seen) == 1
    async with asyncio.timeout(4):
        while not watchdog.healthy:
            await asyncio.sleep(0.1)
    await watchdog.stop()


def test_a_loop_that_stays_blocked_ends_the_process_with_a_traceback() -> None:
    process = start("block")
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 70
    assert "event loop blocked" in stderr
    assert "time.sleep" in stderr or "in main" in stderr


def test_a_stopped_process_is_not_taken_for_a_blocked_one() -> None:
    process = start("3")
    process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    process.send_signal(signal.SIGCONT)
    stdout, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "lag" in stdout
