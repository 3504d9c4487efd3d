"""The process manager of one data directory: start it, ask it, stop it."""

import os
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping
from configparser import RawConfigParser
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from deploy.doctor import MANAGER, answers, left_over

CONFIG_FILE = Path(__file__).with_name("supervisord.conf")
_PROGRAM = "program:"
_START_TIMEOUT_S = 10.0
_PROGRAM_STOP_S = 22.0
# Four programs, one after the other.
_STOP_TIMEOUT_S = 100.0


class SupervisionError(Exception):
    """The process manager does not do what it should; the text says what."""


class Stopping(SupervisionError):
    """Somebody has stopped it; it ends by itself."""


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """What the process manager knows of one program."""

    name: str
    state: str
    pid: int
    running_s: int
    note: str

    @property
    def is_up(self) -> bool:
        """Whether there is a process."""
        return self.state in ("RUNNING", "STARTING")

    @property
    def is_coming_or_up(self) -> bool:
        """Whether there is a process, or will be one: whatever ends is started again, unless it was stopped."""
        return self.state not in ("STOPPED", "FATAL")


def programs() -> list[str]:
    """The programs of the configuration, in its order."""
    parser = RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read(CONFIG_FILE, encoding="utf-8")
    return [section.removeprefix(_PROGRAM) for section in parser.sections() if section.startswith(_PROGRAM)]


class Supervisor:
    """supervisord on the socket in `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.logs = self.data_dir / "logs"
        self._socket = self.data_dir / "supervisor.sock"
        self._pid_file = self.data_dir / "supervisord.pid"

    def is_running(self) -> bool:
        """Whether it answers."""
        return answers(self._socket)

    def log_of(self, program: str) -> Path:
        """The file that the program's output goes to."""
        return self.logs / f"{program}.log"

    def start(self, environ: Mapping[str, str]) -> None:
        """Start it, and it starts the programs."""
        for folder in (self.data_dir, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [str(Path(sys.prefix) / "bin" / "supervisord"), "-c", str(CONFIG_FILE)]
        given = {**environ, "SDR_DATA_DIR": str(self.data_dir), "VIRTUAL_ENV": sys.prefix}
        done = subprocess.run(command, env=given, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SupervisionError(f"supervisord did not start: {(done.stderr or done.stdout).strip()}")
        self._wait(running=True, timeout_s=_START_TIMEOUT_S)

    def stop(self) -> None:
        """Let every program drain, stop it, and then supervisord; returns when all of it is gone, also what runs on
        without a supervisord that answers."""
        if self.is_running():
            self._shut_down()
        if self.left_over():
            for name in (MANAGER, *reversed(programs())):
                self._stop_left_over(name)

    def stays(self) -> bool:
        """Whether it answers, and is not about to end."""
        try:
            return self.is_running() and bool(self._call("getPID"))
        except SupervisionError:
            return False

    def left_over(self) -> list[str]:
        """Names of what runs on although supervisord is gone, or does not answer; empty while it does."""
        return [] if self.is_running() else sorted(name for _, name in left_over(self.data_dir))

    def _shut_down(self) -> None:
        pid = self._pid()
        with suppress(Stopping):
            self._call("shutdown")
        self._wait(running=False, timeout_s=_STOP_TIMEOUT_S)
        deadline = time.monotonic() + _START_TIMEOUT_S
        # The file is its last deed. The process may outlast it: in a container without an init nobody reaps it.
        while pid is not None and self._pid() == pid and _is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _stop_left_over(self, name: str) -> None:
        def pids() -> list[int]:
            return [pid for pid, found in left_over(self.data_dir) if found == name]

        for how in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            deadline = time.monotonic() + (_STOP_TIMEOUT_S if name == MANAGER else _PROGRAM_STOP_S)
            while pids():
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)

    def states(self) -> dict[str, ProcessState]:
        """What every program does; empty when supervisord does not run."""
        if not self.is_running():
            return {}
        return {info["name"]: _state(info) for info in self._call("getAllProcessInfo")}

    def revive(self) -> list[str]:
        """Start at once what waits for its next try; the names of it."""
        waiting = [name for name, state in self.states().items() if not state.is_up]
        for name in waiting:
            # One that waits between two tries counts as started, so it has to be stopped first.
            for verb in ("stopProcess", "startProcess"):
                with suppress(xmlrpc.client.Fault):  # It moved meanwhile, by itself.
                    self._call(verb, name, verb == "stopProcess")
        return waiting

    def stop_program(self, name: str) -> None:
        """Let one program drain and stop; returns when it is gone, and it stays gone."""
        while (state := self.states().get(name)) and state.is_coming_or_up:
            try:
                self._call("stopProcess", name)
            except xmlrpc.client.Fault:
                # It died by itself and is not started again yet: what can't be stopped so soon.
                time.sleep(0.05)

    def start_program(self, name: str) -> None:
        """Start one program."""
        with suppress(xmlrpc.client.Fault):  # It runs.
            self._call("startProcess", name, False)

    def _call(self, method: str, *arguments: Any) -> Any:
        proxy = xmlrpc.client.ServerProxy(
            "http://localhost",
            transport=SupervisorTransport(None, None, f"unix://{self._socket}"),  # type: ignore[no-untyped-call]
        )
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.SHUTDOWN_STATE:
                raise
            raise Stopping("It is being stopped: make up starts it again when it is gone.") from None
        except (OSError, HTTPException) as error:
            raise SupervisionError(f"supervisord does not answer on {self._socket}: {error}") from None
        finally:
            proxy("close")()

    def _wait(self, *, running: bool, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.is_running() is not running:
            if time.monotonic() > deadline:
                verb = "start" if running else "stop"
                raise SupervisionError(
                    f"supervisord did not {verb} in {timeout_s:.0f} s: see {self.logs}/supervisord.log"
                )
            time.sleep(0.05)

    def _pid(self) -> int | None:
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None


def _state(info: Mapping[str, Any]) -> ProcessState:
    up = info["statename"] == "RUNNING"
    return ProcessState(
        name=info["name"],
        state=info["statename"],
        pid=info["pid"],
        running_s=info["now"] - info["start"] if up else 0,
        note="" if up else info["spawnerr"] or info["description"],
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
