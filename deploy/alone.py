"""Tools that replace data or code: one at a time on a data directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE = "tool.lock"


class Busy(Exception):
    """Another one is at work; the text says which."""


@contextmanager
def alone(data_dir: Path, tool: str) -> Iterator[None]:
    """Hold the directory; however this process ends, it lets go. Raises Busy."""
    with os.fdopen(os.open(data_dir / _FILE, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{file.read().strip()} is at work on {data_dir}: wait until it is done.") from None
        file.truncate()
        file.write(f"make {tool} (process {os.getpid()})\n")
        file.flush()
        yield
