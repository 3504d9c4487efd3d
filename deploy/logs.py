"""Follows the logs of all processes, or of the one that is named."""

import os
import sys

from deploy import settings as settings_of
from deploy.supervision import Supervisor, programs


def main() -> int:
    """Become `tail`, or say why not."""
    known = [*programs(), "supervisord"]
    wanted = sys.argv[1:] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"No such service: {', '.join(unknown)}. There are: {', '.join(known)}.", file=sys.stderr)
        return 2
    supervisor = Supervisor(settings_of.leniently().data_dir)
    files = [str(path) for name in wanted if (path := supervisor.log_of(name)).exists()]
    if not files:
        print(f"There are no logs in {supervisor.logs} yet: make up")
        return 0
    sys.stdout.flush()
    return os.execvp("tail", ["tail", "-n", "20", "-F", *files])


if __name__ == "__main__":
    sys.exit(main())
