"""Child processes: start, wait for, count the CPU and memory of, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
_STOP_S = 20.0
_FOREIGN = ("SDR_", "EVOLUTION_", "WHATSAPP_", "SUPABASE_", "OPENAI_")


class NotStarted(Exception):
    """A process ended early or did not get ready."""


class Processes:
    """Children of this process, by name, from the checkout `root`; their output goes to files in `directory`."""

    def __init__(self, directory: Path, *, root: Path = ROOT) -> None:
        self.directory = directory
        self.root = root
        directory.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        """Start `python` with these arguments. Of our own settings it sees only the given ones."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        paths = f"{self.root}{os.pathsep}{self.root / 'protos'}"
        with (self.directory / f"{name}.log").open("wb") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, *arguments],
                # A .env of the checkout must not reach in.
                cwd=self.directory,
                env={**kept, "PYTHONPATH": paths, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def wait_listening(self, port: int, seconds: float = 20.0) -> None:
        """Return once somebody listens on the loopback port."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.check()
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
        raise NotStarted(f"nothing listens on port {port}; see {self.directory}")

    def check(self) -> None:
        """Raises NotStarted if one has ended."""
        for name, child in self._children.items():
            if child.poll() is not None:
                raise NotStarted(f"{name} ended with code {child.returncode}; see {self.directory / f'{name}.log'}")

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of each so far; zeros where the system has no /proc."""
        return {name: _cpu_seconds(child.pid) for name, child in self._children.items()}

    def rss_bytes(self) -> dict[str, int]:
        """Resident memory of each; zeros where the system has no /proc."""
        return {name: _rss_bytes(child.pid) for name, child in self._children.items()}

    def stop(self) -> None:
        """SIGTERM in reverse order, SIGKILL for what stays."""
        for child in reversed(self._children.values()):
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        ends = time.monotonic() + _STOP_S
        for child in self._children.values():
            try:
                child.wait(max(0.1, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
