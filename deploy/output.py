"""Words for whoever runs a tool. That nobody reads on, as in `make restart | head`, must not end what is half done."""

import os
import sys


def say(text: str, *, error: bool = False) -> None:
    """Print a text, now, as long as somebody reads."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # What this process starts writes there too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
