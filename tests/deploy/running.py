"""The four processes under the process manager, in a directory and on ports of their own."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESSES = (
    "SDR_INGRESS_ADDRESS",
    "SDR_ADMIN_ADDRESS",
    "SDR_BUFFER_ADDRESS",
    "SDR_CONTEXT_ADDRESS",
    "SDR_AGENT_ADDRESS",
)


def _free_ports() -> Iterator[int]:
    # Below the range from which the system takes ports for outgoing connections, and each of pytest's workers has its
    # own ones: nobody gets one before it is used.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        ports = range(20_000 + worker % 16, 32_000, 16)
        for port in random.SystemRandom().sample(ports, len(ports)):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            yield port


_ports = _free_ports()


def free_port() -> int:
    """A port that nobody uses now, another one each time."""
    return next(_ports)


def free_addresses() -> dict[str, str]:
    """An address for each listener."""
    return {name: f"127.0.0.1:{free_port()}" for name in ADDRESSES}


class RunningSystem:
    """Runs the tools as `make` does, but from `directory`, so that nobody's `.env` is read."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.addresses = free_addresses()
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.environ = {
            **inherited,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}",
            "SDR_DATA_DIR": str(self.data_dir),
            **self.addresses,
            **environ,
        }

    def run(
        self, module: str, *arguments: str, timeout_s: float = 120, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """One of the tools of `deploy/`."""
        return subprocess.run(
            [sys.executable, "-m", f"deploy.{module}", *arguments],
            cwd=self.directory,
            env={**self.environ, **environ},
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
