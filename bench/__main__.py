"""`python -m bench [--quick] [--only NAME …]`: every measurement, one after the other. Each alone has more options."""

from __future__ import annotations

import argparse
import subprocess
import sys

PARTS = {
    "overhead": "the path's own cost beside the floor",
    "context": "a context from a database 100 ms away: miss, hit, and the monolith's way",
    "growth": "does it cost more when more is stored",
    "bursts": "one reply per burst, and what a hold costs a lone message",
    "agent_turns": "many turns of a language model: connections, memory, open streams",
    "warm_model": "the first token of local weights: cold, warm, primed, four at once",
    "context_hang": "other loads while one load hangs",
    "hold_curve": "added wait against replies per thought, in virtual time",
}
QUICK = {"hold_curve": ["--thoughts", "150"]}


def main() -> int:
    """Runs them; 0 when all worked. A missed target is no failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="coarse numbers, a few minutes")
    parser.add_argument("--only", action="append", choices=PARTS)
    arguments = parser.parse_args()
    code = 0
    for name in arguments.only or PARTS:
        print(f"\n== {name}: {PARTS[name]}", flush=True)
        quick = QUICK.get(name, ["--quick"]) if arguments.quick else []
        # One that fails does not keep the others from being measured.
        code = subprocess.call([sys.executable, "-m", f"bench.{name}", *quick]) or code
    return code


if __name__ == "__main__":
    sys.exit(main())
