"""Starts the four processes, waits until they are ready, and says where to go. Repeatable."""

import argparse
import os
import signal
import sys
import time

from deploy import settings as settings_of
from deploy import started, version, wait, welcome
from deploy.output import say
from deploy.supervision import SupervisionError, Supervisor, programs


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
        failures = wait.until_ready(settings, supervisor, programs=programs(), timeout_s=timeout_s, since=since)
    except SupervisionError as error:
        say(str(error), error=True)
        return 1
    except KeyboardInterrupt:
        say("Not waited for: what was started goes on. make status, make down.", error=True)
        return 130
    if failures:
        say(wait.describe(failures), error=True)
        say("What is up goes on, and the rest is tried again and again: make status, make logs, make down.", error=True)
        return 1
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make up | head` is no error
    print(f"Ready after {time.monotonic() - began:.1f} s.\n")
    print(welcome.text(settings))
    return 0


def _bring_up(supervisor: Supervisor) -> dict[str, int]:
    """Answers where each log ended before."""
    before, on_disk = version.remembered(supervisor.data_dir), version.current()
    is_other = before not in ("", on_disk)
    # Another version of the code is no reason to stop what runs: that is for `make upgrade`.
    changed = started.differences(supervisor.data_dir, with_code=not is_other)
    if supervisor.stays() and not changed:
        since = wait.log_sizes(supervisor, programs())
        revived = supervisor.revive()
        say(f"Already running{'; tried again: ' + ', '.join(revived) if revived else ''}.")
        if is_other:
            say(
                f"That is version {before}; the code on disk is {on_disk}. To change over: make upgrade, which tries "
                "it on a copy of the data, or make restart."
            )
        return since
    if supervisor.is_running() and not supervisor.stays():
        say("It is being stopped. Finishing what is under way ...")
    elif supervisor.is_running():
        say(f"Changed since the start: {', '.join(changed)}. Finishing what is under way ...")
        if is_other:
            say(f"Version {on_disk} comes in the place of {before}.")
    else:
        if changed:
            say(f"Changed since the last start: {', '.join(changed)}.")
        if left_over := supervisor.left_over():
            say(f"Without a process manager: {', '.join(left_over)}. Finishing what is under way ...")
    supervisor.stop()
    say("Starting ...")
    since = wait.log_sizes(supervisor, programs())
    supervisor.start(os.environ)
    started.remember(supervisor.data_dir)
    version.remember(supervisor.data_dir)
    return since


if __name__ == "__main__":
    sys.exit(main())
