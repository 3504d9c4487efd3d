"""Starts the four processes, waits until they are ready, and says where to go. Repeatable."""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from deploy import settings as settings_of
from deploy import version, wait, welcome
from deploy.supervision import CONFIG_FILE, SupervisionError, Supervisor, programs
from service_kit.settings import FOREIGN_PREFIXES, OWN_PREFIX

_FINGERPRINT = "started_with.json"


def main() -> int:
    """0 when everything is ready, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait")
    settings = settings_of.strictly()
    timeout_s = parser.parse_args().timeout or settings_of.starting_s()
    supervisor = Supervisor(settings.data_dir)
    began = time.monotonic()
    try:
        since = _bring_up(supervisor)
    except SupervisionError as error:
        print(error, file=sys.stderr)
        return 1
    failures = wait.until_ready(settings, supervisor, programs=programs(), timeout_s=timeout_s, since=since)
    if failures:
        print(wait.describe(failures), file=sys.stderr)
        print(
            "What is up goes on, and the rest is tried again and again: make status, make logs, make down.",
            file=sys.stderr,
        )
        return 1
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make up | head` is no error
    print(f"Ready after {time.monotonic() - began:.1f} s.\n")
    print(welcome.text(settings))
    return 0


def _bring_up(supervisor: Supervisor) -> dict[str, int]:
    """Answers where each log ended before."""
    now = fingerprint(os.environ, Path(".env"))
    file = supervisor.data_dir / _FINGERPRINT
    if supervisor.is_running():
        changed = _differences(_read(file), now)
        if not changed:
            since = wait.log_sizes(supervisor, programs())
            revived = supervisor.revive()
            print(f"Already running{'; tried again: ' + ', '.join(revived) if revived else ''}.")
            return since
        print(f"Changed since the start: {', '.join(changed)}. Finishing what is under way ...")
        supervisor.stop()
    print("Starting ...")
    since = wait.log_sizes(supervisor, programs())
    supervisor.start(os.environ)
    file.write_text(json.dumps(now, indent=1), encoding="utf-8")
    file.chmod(0o600)
    version.remember(supervisor.data_dir)
    return since


def fingerprint(environ: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """By name, a digest of everything that the processes read when they start."""
    prefixes = (OWN_PREFIX, *FOREIGN_PREFIXES)
    given = {**(dotenv_values(env_file) if env_file.is_file() else {}), **environ}
    values = {name: value for name, value in given.items() if name.startswith(prefixes) and value}
    values[CONFIG_FILE.name] = CONFIG_FILE.read_text(encoding="utf-8")
    return {
        name: hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest() for name, value in values.items()
    }


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    # Without a record there is nothing to compare with, and no reason to stop what runs.
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)) if before else []


def _read(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


if __name__ == "__main__":
    sys.exit(main())
