"""Waits until every process reports itself ready, and says why one does not."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy import probe
from deploy.settings import SystemSettings
from deploy.supervision import Supervisor

_POLL_S = 0.1
# A process whose start failed this often will not come up by waiting.
_FAILED_STARTS = 3
_REFUSAL = " could not start: "
_LAST_LINES = 12
_LONGEST_LINE = 500


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A process that did not come up."""

    program: str
    reason: str
    log: Path
    last_lines: list[str]


def until_ready(
    settings: SystemSettings,
    supervisor: Supervisor,
    *,
    programs: Iterable[str],
    timeout_s: float,
    since: dict[str, int],
) -> list[Failure]:
    """Wait; the failures, none when all are ready. `since` is where each log ended before the start."""
    waiting = list(programs)
    deadline = time.monotonic() + timeout_s
    while True:
        # "ready, without …" is ready: what is missing there is waited for by its own name.
        waiting = [program for program in waiting if not probe.health(settings, program).startswith("ready")]
        hopeless = [program for program in waiting if _refusals(supervisor, program, since) >= _FAILED_STARTS]
        if not waiting or hopeless or time.monotonic() > deadline:
            return [_failure(settings, supervisor, program, since) for program in hopeless or waiting]
        time.sleep(_POLL_S)


def log_sizes(supervisor: Supervisor, programs: Iterable[str]) -> dict[str, int]:
    """Where each log ends now."""
    return {program: path.stat().st_size for program in programs if (path := supervisor.log_of(program)).exists()}


def describe(failures: list[Failure]) -> str:
    """The failures, for people."""
    lines: list[str] = []
    for failure in failures:
        lines += [f"{failure.program} did not come up: {failure.reason}", f"  the end of {failure.log}:"]
        lines += [f"    {line}" for line in failure.last_lines or ["(empty)"]]
    return "\n".join(lines)


def _refusals(supervisor: Supervisor, program: str, since: dict[str, int]) -> int:
    return sum(_REFUSAL in line for line in _log_lines(supervisor, program, since))


def _failure(settings: SystemSettings, supervisor: Supervisor, program: str, since: dict[str, int]) -> Failure:
    lines = _log_lines(supervisor, program, since)
    return Failure(
        program=program,
        reason=_reason(settings, supervisor, program, lines),
        log=supervisor.log_of(program),
        last_lines=[line[:_LONGEST_LINE] for line in lines[-_LAST_LINES:]],
    )


def _reason(settings: SystemSettings, supervisor: Supervisor, program: str, lines: list[str]) -> str:
    for line in reversed(lines):
        if _REFUSAL in line and not line.startswith("{"):
            return line.partition(_REFUSAL)[2]
    state = supervisor.states().get(program)
    if state is not None and not state.is_up:
        return f"{state.state.lower()}, {state.note}" if state.note else state.state.lower()
    return probe.health(settings, program)


def _log_lines(supervisor: Supervisor, program: str, since: dict[str, int]) -> list[str]:
    offset = since.get(program, 0)
    try:
        with supervisor.log_of(program).open("rb") as file:
            # A rotated log is shorter than it was.
            file.seek(offset if offset <= os.fstat(file.fileno()).st_size else 0)
            return file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
