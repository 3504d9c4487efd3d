"""Hands over a person's data as JSON: `make export CONTACT='+55 81 99999-0001' > file.json`."""

import argparse
import os
import signal
import sys

from deploy import person
from deploy import settings as settings_of
from deploy.person import PersonError


def main() -> int:
    """0 when standard output holds a whole document, 1 when not, 2 when it was asked for wrongly."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make export … | head` is no error.
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contact", default="", help="a phone number with country code, lid:… or bsuid:…")
    parser.add_argument("--tenant", default="", help="the business; default: the only one")
    parser.add_argument("--conversations", default="", metavar="IDS", help="more of theirs, as the buffer names them")
    given = parser.parse_args()
    if not given.contact.strip():
        print("Who? make export CONTACT='+55 81 99999-0001' > file.json", file=sys.stderr)
        return 2
    settings = settings_of.leniently()
    try:
        who = person.alias(given.contact)
    except PersonError as error:
        print(error, file=sys.stderr)
        return 2
    out, written = sys.stdout.buffer, 0

    def write(chunk: bytes) -> None:
        nonlocal written
        written += out.write(chunk)

    try:
        ids = tuple(given.conversations.split())
        person.export(settings, who, write, tenant=given.tenant, conversation_ids=ids)
        out.flush()
    except PersonError as error:
        print(error, file=sys.stderr)
        if written:
            print("What was written until then is no whole document: delete it.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"It cannot be written: {os.strerror(error.errno or 0)}.", file=sys.stderr)
        return 1
    print(
        f"{written} bytes. It is personal data: hand it over, and delete the file.\n"
        "Look at buffer.quarantine first, if it holds anything: nobody could read it, so it may name others too.",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
