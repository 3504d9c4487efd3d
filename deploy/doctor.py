"""Lists everything that this machine lacks, at once, each with the line that mends it.

Runs before anything is installed, so it uses the standard library alone, in a Python that may be too old for the rest.
The defaults come from `.env.example`, which is generated from the settings of the processes.
"""

from __future__ import annotations

import argparse
import errno
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence  # noqa: UP035 - an old Python has to get as far as saying that it is old

OLDEST_PYTHON = (3, 11)
DATA_DIR = "SDR_DATA_DIR"
MODELS = ("SDR_AGENT_MODEL", "SDR_AGENT_FALLBACK_MODELS")
ADDRESSES = (
    "SDR_INGRESS_ADDRESS",
    "SDR_ADMIN_ADDRESS",
    "SDR_BUFFER_ADDRESS",
    "SDR_CONTEXT_ADDRESS",
    "SDR_AGENT_ADDRESS",
)
# What the system allows for a socket's path, less what the process manager appends while it makes it.
LONGEST_SOCKET_PATH = 103 - len(".1234567")
MANAGER = "supervisord"
_LISTEN = "0A"
# By package manager: a new Python, and its venv module where it is apart.
_INSTALL = {
    "apt-get": ("sudo apt-get install python3.11 python3.11-venv", "sudo apt-get install python{version}-venv"),
    "dnf": ("sudo dnf install python3.11", "sudo dnf reinstall python3"),
    "apk": ("sudo apk add python3", "sudo apk add python3 py3-pip"),
    "pacman": ("sudo pacman -S python", "sudo pacman -S python"),
    "zypper": ("sudo zypper install python311", "sudo zypper install python311"),
    "brew": ("brew install python@3.11", "brew install python@3.11"),
}


class Missing(NamedTuple):
    """Something that is not as it has to be."""

    what: str
    mend: str


def main() -> int:
    """Check this machine; 1 when something is missing."""
    parser = argparse.ArgumentParser(description="List everything that this machine lacks.")
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="where the virtual environment is, or will be")
    parser.add_argument("--extras", action="store_true", help="print what else the settings need installed")
    arguments = parser.parse_args()
    venv = arguments.venv
    settings = read_settings(Path.cwd(), os.environ)
    if arguments.extras:
        print(" ".join(extras(settings)))
        return 0
    missing = examine(settings, venv=venv, system=platform.system(), version=sys.version_info[:2])
    if missing:
        print(report(missing), file=sys.stderr)
        return 1
    return 0


def report(missing: Sequence[Missing]) -> str:
    """The list for people."""
    lines = [f"Missing: {len(missing)} thing{'s' if len(missing) > 1 else ''}."]
    for item in missing:
        lines += [f"  - {item.what}", f"      {item.mend}"]
    return "\n".join(lines)


def examine(settings: Mapping[str, str], *, venv: Path, system: str, version: Sequence[int]) -> list[Missing]:
    """Everything that is missing."""
    data = Path(settings[DATA_DIR])
    # What lost its process manager is stopped by `make up` before it starts anything.
    running = answers(data / "supervisor.sock") or bool(left_over(data))
    return [
        *check_system(system),
        *check_python(version),
        *check_venv(venv, version),
        *check_data_dir(data),
        *check_weights(settings),
        # What runs already holds its own ports.
        *check_addresses({name: settings[name] for name in ADDRESSES}, taken=not running),
    ]


def read_settings(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The addresses, the data directory and the models as the processes will read them."""
    settings = dict.fromkeys((DATA_DIR, *ADDRESSES, *MODELS), "")
    for name, value in _assignments(Path(__file__).parents[1] / ".env.example", commented=True).items():
        if name in settings and value:
            settings[name] = value
    for source in (_assignments(root / ".env", commented=False), dict(environ)):
        settings.update({name: source[name] for name in settings if source.get(name, "").strip()})
    return settings


def check_system(system: str) -> list[Missing]:
    """Linux or macOS."""
    if system in ("Linux", "Darwin"):
        return []
    return [Missing(f"{system} is not supported", "use Linux or macOS; on Windows, work inside WSL 2: wsl --install")]


def check_python(version: Sequence[int]) -> list[Missing]:
    """A Python that is new enough."""
    if tuple(version) >= OLDEST_PYTHON:
        return []
    have = ".".join(str(number) for number in version[:2])
    return [Missing(f"Python 3.11 or newer (found {have})", _install_lines(version)[0])]


def check_venv(venv: Path, version: Sequence[int]) -> list[Missing]:
    """Either the virtual environment or what makes one."""
    python = venv / "bin" / "python"
    if python.exists():
        try:
            subprocess.run([str(python), "-c", ""], check=True, timeout=30, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError):
            return [Missing(f"{venv} is broken: its Python does not start", f"rm -rf {venv}")]
        return []
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        return [Missing("the Python modules venv and ensurepip", _install_lines(version)[1])]
    return []


def check_data_dir(data: Path) -> list[Missing]:
    """A directory that we may write, or may make."""
    absolute = data.absolute()
    missing = []
    if not has_room_for_socket(absolute) or "%" in str(absolute):
        missing.append(
            Missing(f"SDR_DATA_DIR is too long or holds a %: {absolute}", "make up SDR_DATA_DIR=/short/path")
        )
    existing = absolute
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        missing.append(Missing(f"SDR_DATA_DIR {data}: {existing} is a file", "make up SDR_DATA_DIR=/some/directory"))
    elif not _may_write(existing):
        missing.append(
            Missing(f"SDR_DATA_DIR {data}: no right to write {existing}", f'sudo chown "$USER" "{existing}"')
        )
    return missing


def has_room_for_socket(data: Path) -> bool:
    """Whether the process manager can listen in this directory: the system bounds the length of a socket's path."""
    return len(os.fsencode(str(data.absolute() / "supervisor.sock"))) <= LONGEST_SOCKET_PATH


def extras(settings: Mapping[str, str]) -> list[str]:
    """Names of the optional parts of the package that the settings ask for."""
    return ["local"] if _weights(settings) else []


def check_weights(settings: Mapping[str, str]) -> list[Missing]:
    """Files of weights that are there."""
    return [
        Missing(f"{name}: there is no file {path}", f"make up {name}=gguf:/path/of/the/weights.gguf")
        for name, path in _weights(settings)
        if not path.expanduser().is_file()
    ]


def _weights(settings: Mapping[str, str]) -> list[tuple[str, Path]]:
    named = [(name, model.strip()) for name in MODELS for model in settings.get(name, "").split(",")]
    return [(name, Path(model[len("gguf:") :])) for name, model in named if model.startswith("gguf:")]


def check_addresses(addresses: Mapping[str, str], *, taken: bool = True) -> list[Missing]:
    """Addresses that are such, each for one, and, if `taken` is looked at, free."""
    missing = []
    seen: dict[str, str] = {}
    for name, address in addresses.items():
        if address in seen:
            missing.append(Missing(f"{name} and {seen[address]} are both {address}", f"make up {name}=127.0.0.1:PORT"))
        elif address and not address.startswith("unix:"):
            seen[address] = name
            missing += _check_shape(name, address) or (_check_port(name, address) if taken else [])
    return missing


def answers(path: Path) -> bool:
    """Whether somebody listens on this unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def left_over(data: Path) -> list[tuple[int, str]]:
    """Process id and name of each process that `make up` has started on this data directory, the process manager's
    too, whether or not that one answers. They are known by their environment, which only Linux tells."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The same path may be another directory in a container.
            if os.readlink(str(process / "ns" / "mnt")) != os.readlink("/proc/self/ns/mnt"):
                continue
            environ = dict(line.partition("=")[::2] for line in _strings(process / "environ"))
            command = _strings(process / "cmdline")
        except OSError:
            continue  # Gone meanwhile, or not ours to look into.
        is_manager = "supervisord.conf" in os.path.basename("".join(command[-2:])) and any(
            os.path.basename(word) in (MANAGER, f"supervisor.{MANAGER}") for word in command[:3]
        )
        socket_path = environ.get("SUPERVISOR_SERVER_URL", "").partition("unix://")[2]
        folder = environ.get(DATA_DIR, "") if is_manager else os.path.dirname(socket_path)
        if folder and os.path.realpath(folder) == os.path.realpath(str(data)):
            found.append((int(process.name), MANAGER if is_manager else environ.get("SUPERVISOR_PROCESS_NAME", "")))
    return found


def _strings(path: Path) -> list[str]:
    return os.fsdecode(path.read_bytes()).split("\0")


def _may_write(folder: Path) -> bool:
    # Tried, not asked: the rights may allow what the file system does not.
    try:
        with tempfile.TemporaryFile(dir=str(folder)):
            return True
    except OSError:
        return False


def _check_shape(name: str, address: str) -> list[Missing]:
    _, colon, port = address.rpartition(":")
    if colon and port.isdigit() and 0 < int(port) < 65536:
        return []
    return [Missing(f"{name}={address} is no HOST:PORT", f"make up {name}=127.0.0.1:PORT")]


def _check_port(name: str, address: str) -> list[Missing]:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, int(port), 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    except OSError as error:
        return [Missing(f"{name}={address}: {error.strerror or error}", f"make up {name}=127.0.0.1:{port}")]
    family, kind, _proto, _name, target = found[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(target)
        except OSError as error:
            return [_taken(name, address, int(port), error)]
    return []


def _taken(name: str, address: str, port: int, error: OSError) -> Missing:
    if error.errno != errno.EADDRINUSE:
        return Missing(f"{name}={address}: {error.strerror or error}", f"make up {name}=127.0.0.1:PORT")
    pid, command = holder(port)
    who = f" by process {pid} ({command})" if pid else ""
    stop = f"kill {pid}, or " if pid else ""
    return Missing(f"{name}: {address} is in use{who}", f"{stop}another address: make up {name}={_other(address)}")


def _other(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + 1000 if int(port) < 64000 else int(port) - 1000}"


def holder(port: int) -> tuple[str, str]:
    """Process id and command line of who listens on the port; empty when the system does not tell."""
    if shutil.which("lsof") and platform.system() == "Darwin":
        command = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"]
        listed = subprocess.run(command, check=False, stdout=subprocess.PIPE)
        fields = {line[:1]: line[1:] for line in listed.stdout.decode("utf-8", "replace").splitlines()}
        return fields.get("p", ""), fields.get("c", "")
    rows = [row.split() for name in ("tcp", "tcp6") for row in _lines(Path("/proc/net") / name)[1:]]
    inodes = {row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(str(link)) in wanted for link in (process / "fd").iterdir()):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                return process.name, line.strip()[:120]
        except OSError:
            continue  # Gone meanwhile, or not ours to look into.
    return "", ""


def _install_lines(version: Sequence[int]) -> tuple[str, str]:
    for manager, (python, venv) in _INSTALL.items():
        if shutil.which(manager):
            return python, venv.format(version=".".join(str(number) for number in version[:2]))
    return "install Python 3.11 or newer with its venv module", "install the venv module of your Python"


def _assignments(path: Path, *, commented: bool) -> dict[str, str]:
    """`NAME=value` lines; in `.env.example` they are commented out, without a space after the sign."""
    found = {}
    for line in _lines(path):
        text = line.strip()
        if commented:
            if not text.startswith("#"):
                continue
            text = text[1:]
        name, equals, value = text.partition("=")
        name = name[len("export ") :].strip() if name.startswith("export ") else name.strip()
        if equals and name.replace("_", "").isalnum():
            found[name.upper()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        return value[1:].partition(value[0])[0]
    return value.partition(" #")[0].strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
