"""Finishes what is under way and stops everything; returns when it is gone."""

import sys
import time

from deploy import settings as settings_of
from deploy.supervision import SupervisionError, Supervisor


def main() -> int:
    """0 when nothing runs any more."""
    supervisor = Supervisor(settings_of.leniently().data_dir)
    if not supervisor.is_running():
        print(f"Nothing runs in {supervisor.data_dir}.")
        return 0
    print("Finishing what is under way ...")
    began = time.monotonic()
    try:
        supervisor.stop()
    except SupervisionError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Stopped after {time.monotonic() - began:.1f} s. The data stays in {supervisor.data_dir}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
