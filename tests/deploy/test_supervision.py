"""The process manager's configuration, read by the process manager's own code."""

import os
import subprocess
import sys
from pathlib import Path

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
        assert run == f'"/a venv/bin/python" -m {name}'
    # Stopped first, so that the others can finish what it has begun.
    assert max(read, key=lambda name: int(read[name][0])) == "ingress"


def test_we_read_the_same_programs() -> None:
    assert programs() == FOUR


def test_nothing_runs_in_an_empty_directory(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "data")
    assert not supervisor.is_running()
    assert supervisor.states() == {}
    assert not (tmp_path / "data").exists()
