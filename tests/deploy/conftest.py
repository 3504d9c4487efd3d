"""Fixtures of these tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A directory whose path is short enough for a unix socket in it, whatever the tests' own is."""
    with tempfile.TemporaryDirectory(prefix="sdr-", dir="/tmp") as directory:
        yield Path(directory)
