"""Which version of the code this is."""

import subprocess
from importlib import metadata
from pathlib import Path

_REMEMBERED = "started_version"


def current() -> str:
    """The commit, if this folder is a git checkout; else the version of the package."""
    return git("describe", "--always", "--dirty", "--tags") or _packaged()


def remember(data_dir: Path) -> None:
    """Note which version was started with these data."""
    (data_dir / _REMEMBERED).write_text(current() + "\n", encoding="utf-8")


def remembered(data_dir: Path) -> str:
    """The version that was started last; empty when nobody knows."""
    try:
        return (data_dir / _REMEMBERED).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def git(*arguments: str) -> str | None:
    """What git prints; None when it refuses or isn't there."""
    try:
        done = subprocess.run(["git", *arguments], text=True, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _packaged() -> str:
    try:
        return metadata.version("agentic-sdr")
    except metadata.PackageNotFoundError:
        return "unknown"
