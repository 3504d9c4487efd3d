"""`python -m tests.chaos.process NAME SECONDS`: a service, unchanged, whose event loop SIGUSR1 blocks for so long.

Other threads run on meanwhile, as they do when a library computes for seconds in the loop's thread: gRPC's core still
answers keepalive pings, so that only deadlines, leases and the watchdog notice.
"""

import runpy
import signal
import sys
import time


def main() -> None:
    """Installs the handler, then runs the service as `python -m NAME` would."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(seconds))
    sys.argv = [name]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
