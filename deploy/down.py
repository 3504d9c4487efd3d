"""Finishes what is under way and stops everything; returns when it is gone."""

import sys
import time

from deploy import settings as settings_of
from deploy.output import say
from deploy.supervision import SupervisionError, Supervisor


def main() -> int:
    """0 when nothing runs any more."""
    supervisor = Supervisor(settings_of.leniently().data_dir)
    left_over = supervisor.left_over()
    if left_over:
        say(f"Without a process manager: {', '.join(left_over)}.")
    elif not supervisor.is_running():
        say(f"Nothing runs in {supervisor.data_dir}.")
        return 0
    say("Finishing what is under way ...")
    began = time.monotonic()
    try:
        supervisor.stop()
    except SupervisionError as error:
        say(str(error), error=True)
        return 1
    except KeyboardInterrupt:
        say("Not waited for: it may go on stopping. make status.", error=True)
        return 130
    say(f"Stopped after {time.monotonic() - began:.1f} s. The data stays in {supervisor.data_dir}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
