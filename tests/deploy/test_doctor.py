"""The check before the first start names everything at once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from deploy import doctor
from tests.deploy.running import ROOT, free_addresses

DOCTOR = ROOT / "deploy" / "doctor.py"


def settings_in(directory: Path, **changed: str) -> dict[str, str]:
    return {"SDR_DATA_DIR": str(directory / "data"), **free_addresses(), **changed}


def examine(settings: dict[str, str], venv: Path = Path(sys.prefix)) -> list[doctor.Missing]:
    return doctor.examine(settings, venv=venv, system="Linux", version=(3, 11))


def test_nothing_is_missing_here(tmp_path: Path) -> None:
    assert examine(settings_in(tmp_path)) == []


def test_everything_is_listed_at_once_with_the_line_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    broken = tmp_path / "venv" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("no program")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = settings_in(tmp_path, SDR_BUFFER_ADDRESS=address, SDR_AGENT_ADDRESS="nowhere")
        missing = doctor.examine(settings, venv=tmp_path / "venv", system="Windows", version=(3, 9))
    assert [item.what for item in missing] == [
        "Windows is not supported",
        "Python 3.11 or newer (found 3.9)",
        f"{tmp_path / 'venv'} is broken: its Python does not start",
        f"SDR_DATA_DIR {tmp_path / 'data'}: {tmp_path / 'data'} is a file",
        missing[4].what,
        "SDR_AGENT_ADDRESS=nowhere is no HOST:PORT",
    ]
    assert missing[4].what.startswith(f"SDR_BUFFER_ADDRESS: {address} is in use by process {os.getpid()} (")
    assert all(item.mend for item in missing)
    report = doctor.report(missing).splitlines()
    assert report[0] == "Missing: 6 things."
    assert len(report) == 1 + 2 * 6


def test_one_address_for_two_is_found(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    settings["SDR_AGENT_ADDRESS"] = settings["SDR_BUFFER_ADDRESS"]
    (missing,) = examine(settings)
    assert missing.what.startswith("SDR_AGENT_ADDRESS and SDR_BUFFER_ADDRESS are both")


def test_a_path_too_long_for_a_socket_is_found(tmp_path: Path) -> None:
    for length, found in ((100, 1), (70, 0)):
        missing = examine(settings_in(tmp_path, SDR_DATA_DIR=f"/tmp/{'x' * length}"))
        assert [("too long" in one.what) for one in missing] == [True] * found


def test_what_runs_may_hold_its_ports(short_tmp: Path) -> None:
    """Else a second `make up` would complain about the ports of the first."""
    (short_tmp / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as manager, socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_in(short_tmp, SDR_BUFFER_ADDRESS=f"127.0.0.1:{taken.getsockname()[1]}")
        assert len(examine(settings)) == 1
        manager.bind(str(short_tmp / "data" / "supervisor.sock"))
        manager.listen()
        assert examine(settings) == []


def test_an_address_that_is_none_is_found_while_the_system_runs(short_tmp: Path) -> None:
    """It stopped what ran, and nothing came up again. `50051` alone passed even before a first start."""
    (short_tmp / "data").mkdir()
    settings = settings_in(short_tmp, SDR_BUFFER_ADDRESS="50051")
    assert [item.what for item in examine(settings)] == ["SDR_BUFFER_ADDRESS=50051 is no HOST:PORT"]
    with socket.socket(socket.AF_UNIX) as manager:
        manager.bind(str(short_tmp / "data" / "supervisor.sock"))
        manager.listen()
        assert [item.what for item in examine(settings)] == ["SDR_BUFFER_ADDRESS=50051 is no HOST:PORT"]


def test_settings_are_read_as_the_processes_read_them(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        'export SDR_BUFFER_ADDRESS="127.0.0.1:1" # ours\nSDR_AGENT_ADDRESS=127.0.0.1:2\nSDR_DATA_DIR=\n'
    )
    settings = doctor.read_settings(tmp_path, {"SDR_AGENT_ADDRESS": "127.0.0.1:3", "SDR_ADMIN_ADDRESS": ""})
    assert settings == {
        "SDR_DATA_DIR": "./data",
        "SDR_INGRESS_ADDRESS": "127.0.0.1:8088",
        "SDR_ADMIN_ADDRESS": "127.0.0.1:8089",
        "SDR_BUFFER_ADDRESS": "127.0.0.1:1",
        "SDR_CONTEXT_ADDRESS": "127.0.0.1:50052",
        "SDR_AGENT_MODEL": "auto",
        "SDR_AGENT_FALLBACK_MODELS": "",
        "SDR_AGENT_ADDRESS": "127.0.0.1:3",
    }


def test_it_runs_without_anything_installed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        environ = {"PATH": os.environ["PATH"], **settings_in(tmp_path, SDR_CONTEXT_ADDRESS=address)}
        command = [sys.executable, "-I", "-S", str(DOCTOR), "--venv", str(tmp_path / "venv")]
        done = subprocess.run(command, env=environ, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Missing: 1 thing.\n  - SDR_CONTEXT_ADDRESS: {address} is in use by process")


def test_weights_that_are_not_there_are_named_and_ask_for_their_engine(tmp_path: Path) -> None:
    there = tmp_path / "small.gguf"
    there.write_bytes(b"GGUF")
    models = {"SDR_AGENT_MODEL": f"gguf:{tmp_path}/big.gguf", "SDR_AGENT_FALLBACK_MODELS": f"openai:x, gguf:{there}"}
    assert [item.what for item in examine(settings_in(tmp_path, **models))] == [
        f"SDR_AGENT_MODEL: there is no file {tmp_path}/big.gguf"
    ]
    assert doctor.extras({"SDR_AGENT_FALLBACK_MODELS": f"openai:x, gguf:{there}"}) == ["local"]
    assert doctor.extras({"SDR_AGENT_MODEL": "openai:gguf"}) == []


def test_the_extras_are_read_from_where_the_processes_read_their_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SDR_AGENT_MODEL='gguf:/models/a.gguf'\n")

    def printed(**environ: str) -> str:
        command = [sys.executable, str(DOCTOR), "--extras"]
        return subprocess.run(
            command, check=True, cwd=tmp_path, env=environ, capture_output=True, text=True
        ).stdout.strip()

    assert printed() == "local"
    assert printed(SDR_AGENT_MODEL="playbook") == ""
