"""The four processes under the process manager: up, looked at, one killed, up again, down."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.running import RunningSystem

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
SERVICES = ("buffer_service", "context_service", "agent_service", "ingress")


@pytest.fixture
def system(short_tmp: Path) -> Iterator[RunningSystem]:
    running = RunningSystem(short_tmp)
    yield running
    assert running.run("down").returncode == 0


def ready_processes(system: RunningSystem) -> dict[str, int]:
    """Process ids of the services that the status screen shows as ready."""
    found = re.findall(r"^  (\w+) +\S+ +ready, .*process (\d+)$", system.run("status").stdout, re.MULTILINE)
    return {name: int(pid) for name, pid in found}


def wait_ready(system: RunningSystem, *, other_than: dict[str, int]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ready = ready_processes(system)
        if len(ready) == len(SERVICES) and not other_than.items() & ready.items():
            return
        time.sleep(0.3)
    raise AssertionError(system.run("status").stdout)


def test_up_status_kill_and_down(system: RunningSystem) -> None:
    up = system.run("up")
    assert up.returncode == 0, up.stderr
    for expected in (
        *system.addresses.values(),
        "playbook, free of charge",
        str(system.data_dir),
        "curl -s",
        "grpcurl",
    ):
        assert expected in up.stdout
    first = ready_processes(system)
    assert sorted(first) == sorted(SERVICES)
    assert system.data_dir.stat().st_mode & 0o077 == 0, "everything is the owner's alone"

    again = system.run("up")
    assert again.returncode == 0, again.stderr
    assert "Already running." in again.stdout
    assert ready_processes(system) == first

    for pid in first.values():
        os.kill(pid, signal.SIGKILL)
    wait_ready(system, other_than=first)

    down = system.run("down")
    assert down.returncode == 0, down.stderr
    assert "nothing is running" in system.run("status").stdout
    assert ready_processes(system) == {}


def test_changed_settings_are_taken_over(system: RunningSystem) -> None:
    """`make up SDR_PERSONA=…` after a refused start has to mean what it says."""
    refused = system.run("up", SDR_CONTEXT_STORE="sqlite:/proc/nowhere/context.db")
    assert refused.returncode == 1
    assert "context_service did not come up: " in refused.stderr
    assert "the end of" in refused.stderr
    mended = system.run("up", SDR_LOG_LEVEL="WARNING")
    assert mended.returncode == 0, mended.stderr
    assert "Changed since the start: SDR_CONTEXT_STORE, SDR_LOG_LEVEL." in mended.stdout
