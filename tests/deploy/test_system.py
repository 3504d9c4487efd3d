"""The four processes under the process manager: up, looked at, one killed, up again, down."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


@pytest.mark.skipif(sys.platform != "linux", reason="only there they can be found")
def test_what_lost_its_process_manager_is_found_and_stopped(system: RunningSystem) -> None:
    """After `kill -9` of supervisord the four went on, and `make down` said that nothing runs."""
    assert system.run("up").returncode == 0
    orphans = ready_processes(system)
    os.kill(int((system.data_dir / "supervisord.pid").read_text()), signal.SIGKILL)
    status = system.run("status").stdout
    assert "running on without a process manager: agent_service, buffer_service, context_service, ingress" in status
    assert status.count(" ready\n") == len(SERVICES), status

    up = system.run("up")
    assert up.returncode == 0, up.stderr
    assert "Without a process manager: agent_service, " in up.stdout
    assert not any(map(is_alive, orphans.values()))

    again = ready_processes(system)
    assert sorted(again) == sorted(SERVICES)
    os.kill(int((system.data_dir / "supervisord.pid").read_text()), signal.SIGKILL)
    down = system.run("down")
    assert down.returncode == 0, down.stderr
    assert "Without a process manager: agent_service, " in down.stdout
    assert not any(map(is_alive, again.values()))
    assert "Nothing runs in" in system.run("down").stdout
    log = (system.data_dir / "logs" / "ingress.log").read_text()
    assert "Traceback" not in log

    # The same when the files are gone from which one sees that it runs.
    assert system.run("up").returncode == 0
    last = ready_processes(system)
    shutil.rmtree(system.data_dir)
    down = system.run("down")
    # The buffer may be between two starts: it notices.
    assert re.search("Without a process manager: agent_service, .*ingress, supervisord", down.stdout)
    assert not any(map(is_alive, last.values()))


def is_alive(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0].startswith("Z")
    except OSError:
        return False


def test_the_tools_reach_what_was_started_and_go_on_when_nobody_reads(system: RunningSystem) -> None:
    """Addresses that were given on the line of `make up` were forgotten by the tools, which then asked at the defaults:
    nobody, or another system. And a closed pipe could end `make restart` between stop and start."""
    assert run_unread(system, "up") == 0
    started_at = dict(system.addresses)
    for name in started_at:
        del system.environ[name]
    assert sorted(ready_processes(system)) == sorted(SERVICES)
    assert system.run("backup", "--name", "one").returncode == 0
    export = system.run("export", "--contact", "+55 81 99999-0001")
    assert "does not answer" not in export.stderr
    system.environ.update(started_at)

    # After `git pull`, the process manager's configuration may be another too.
    (system.data_dir / "started_version").write_text("v0\n")
    noted = system.data_dir / "started_with.json"
    noted.write_text(json.dumps({**json.loads(noted.read_text()), "supervisord.conf": "another"}))
    up = system.run("up")
    assert "Already running." in up.stdout
    assert "That is version v0; the code on disk is " in up.stdout
    assert run_unread(system, "down") == 0
    assert ready_processes(system) == {}
    assert "Changed since the last start: SDR_LOG_LEVEL." in system.run("up", SDR_LOG_LEVEL="WARNING").stdout


def test_what_is_being_stopped_is_waited_for(system: RunningSystem) -> None:
    """After Ctrl-C on `make down`, or beside another one, the tools ended with a traceback."""
    assert system.run("up").returncode == 0
    assert system.run("backup", "--name", "one").returncode == 0
    with stopping_slowly(system):
        assert begin_and_interrupt(system, "down") == 130
        up = begun(system, "up", saying="It is being stopped.")
    assert ended(up) == 0
    with stopping_slowly(system):
        assert begin_and_interrupt(system, "restore", "--from", "one", "--stop", "yes") == 1
        status = system.run("status")
        assert "Traceback" not in status.stderr
    down = system.run("down")
    assert down.returncode == 0, down.stderr
    assert ready_processes(system) == {}


@contextmanager
def stopping_slowly(system: RunningSystem) -> Iterator[None]:
    """Meanwhile one of the processes does not end when it is told to."""
    held = ready_processes(system)["agent_service"]
    os.kill(held, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(held, signal.SIGCONT)


def begun(system: RunningSystem, module: str, *arguments: str, saying: str) -> subprocess.Popen[str]:
    """A tool that has said this."""
    # A shell ignores Ctrl-C for what it has put in the background.
    code = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"runpy.run_module('deploy.{module}', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, *arguments]
    tool = subprocess.Popen(
        command, cwd=system.directory, env=system.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert tool.stdout
    assert any(saying in line for line in iter(tool.stdout.readline, ""))
    return tool


def begin_and_interrupt(system: RunningSystem, module: str, *arguments: str) -> int:
    """Exit code of a tool that gets a Ctrl-C while it stops the system."""
    tool = begun(system, module, *arguments, saying="Finishing")
    time.sleep(0.3)
    tool.send_signal(signal.SIGINT)
    return ended(tool)


def ended(tool: subprocess.Popen[str]) -> int:
    """The exit code of a tool; it tells of no traceback."""
    _, errors = tool.communicate(timeout=60)
    assert "Traceback" not in errors
    return tool.returncode


def run_unread(system: RunningSystem, module: str) -> int:
    """Exit code of a tool whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", f"deploy.{module}"]
        done = subprocess.run(
            command, cwd=system.directory, env=system.environ, stdout=writer, timeout=120, check=False
        )
        return done.returncode
    finally:
        os.close(writer)
