"""Whether an address is free, and who holds it when it is not."""

import errno
import os
import socket
import stat
from pathlib import Path

from service_kit.settings import ConfigurationError

_LISTEN = "0A"


def require_free(address: str) -> None:
    """Raise a `ConfigurationError` that names the address, and its holder when the system tells."""
    if address.startswith("unix:"):
        _require_free_socket(address)
    else:
        _require_free_port(address)


def socket_path(address: str) -> Path:
    """The path of a `unix:` address in either of its spellings."""
    return Path(address.removeprefix("unix:").removeprefix("//") if address.startswith("unix://") else address[5:])


def _require_free_socket(address: str) -> None:
    path = socket_path(address)
    if not path.parent.is_dir():
        raise ConfigurationError(f"cannot listen on {address}: the directory {path.parent} does not exist")
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise ConfigurationError(f"cannot listen on {address}: there is a file of that name")
    # gRPC would unlink the socket of a living process and take its place.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return
            raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from None
    raise ConfigurationError(f"cannot listen on {address}: {_held(_unix_inodes(path))}")


def _require_free_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"cannot listen on {address}: an address is HOST:PORT or unix:PATH")
    if port == "0":
        return
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from None
    for family, kind, _proto, _name, target in found[:1]:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(target)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                why = _held(_tcp_inodes(int(port))) if taken else error.strerror or str(error)
                raise ConfigurationError(f"cannot listen on {address}: {why}") from None


def _held(inodes: set[str]) -> str:
    return f"it is in use{_holder(inodes)}"


def _tcp_inodes(port: int) -> set[str]:
    rows = [row.split() for name in ("tcp", "tcp6") for row in _lines(Path("/proc/net") / name)[1:]]
    return {row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port}


def _unix_inodes(path: Path) -> set[str]:
    rows = [row.split(maxsplit=7) for row in _lines(Path("/proc/net/unix"))[1:]]
    return {row[6] for row in rows if len(row) == 8 and row[7] == str(path)}


def _holder(inodes: set[str]) -> str:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted.isdisjoint(os.readlink(link) for link in (process / "fd").iterdir()):
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # Gone meanwhile, or not ours to look into.
        return f" by process {process.name} ({command[:120]})"
    return ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
