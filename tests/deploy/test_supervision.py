"""The process manager's configuration, read by the process manager's own code."""

import os
import subprocess
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest

from deploy.supervision import CONFIG_FILE, Supervisor, programs

FOUR = ["buffer_service", "context_service", "agent_service", "ingress"]
_READ = """
import sys
from supervisor.options import ServerOptions
options = ServerOptions()
options.realize(["-c", sys.argv[1]])
for group in options.process_group_configs:
    for program in group.process_configs:
        print(program.name, program.priority, bool(program.autorestart), program.startretries, program.startsecs,
              program.stopwaitsecs, program.stopsignal, program.redirect_stderr, program.stdout_logfile,
              program.command)
"""


def test_the_configuration_names_the_four_programs(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "SDR_DATA_DIR": str(tmp_path), "VIRTUAL_ENV": "/a venv"}
    (tmp_path / "logs").mkdir()
    command = [sys.executable, "-c", _READ, str(CONFIG_FILE)]
    done = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    read = {line.split()[0]: line.split(maxsplit=9)[1:] for line in done.stdout.splitlines()}
    assert sorted(read) == sorted(FOUR)
    for name, (_, restart, retries, starts, stops, sign, merged, log, run) in read.items():
        assert (restart, starts, stops, sign, merged) == ("True", "1", "22", "15", "True")
        assert int(retries) >= 1_000_000
        assert log == f"{tmp_path}/logs/{name}.log"
        assert run.endswith(f'exec "$VIRTUAL_ENV/bin/python" -m {name}\'')
    # Stopped first, so that the others can finish what it has begun.
    assert max(read, key=lambda name: int(read[name][0])) == "ingress"


def test_we_read_the_same_programs() -> None:
    assert programs() == FOUR


def test_nothing_runs_in_an_empty_directory(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "data")
    assert not supervisor.is_running()
    assert supervisor.states() == {}
    assert not (tmp_path / "data").exists()


def test_a_program_that_has_just_died_is_stopped_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its end and its next start the process manager refuses to stop it, and would start it again."""
    states = ["RUNNING", "EXITED", "STARTING"]

    def call(_: Supervisor, method: str, *arguments: Any) -> Any:
        if method == "getAllProcessInfo":
            return [
                {
                    "name": "ingress",
                    "statename": states[0],
                    "pid": 1,
                    "now": 1,
                    "start": 0,
                    "spawnerr": "",
                    "description": "",
                }
            ]
        assert (method, *arguments) == ("stopProcess", "ingress")
        if states[0] == "STARTING":
            states[0] = "STOPPED"
            return True
        del states[0]
        raise xmlrpc.client.Fault(70, "NOT_RUNNING: ingress")

    monkeypatch.setattr(Supervisor, "is_running", lambda _: True)
    monkeypatch.setattr(Supervisor, "_call", call)
    Supervisor(tmp_path).stop_program("ingress")
    assert states == ["STOPPED"]


def test_its_own_end_is_not_waited_for_where_nobody_reaps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ended process counts as alive until it is reaped: in a container without an init, `make down` took 10 s."""
    pid_file = tmp_path / "supervisord.pid"
    # As its last deed it removes socket and pid file.
    monkeypatch.setattr(Supervisor, "_call", lambda *_: pid_file.unlink())
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waits for a process that has ended"))
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        pid_file.write_text(f"{ended.pid}\n")
        Supervisor(tmp_path).stop()
