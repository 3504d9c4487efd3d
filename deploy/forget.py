"""Erases a person from the running system: `make forget CONTACT='+55 81 99999-0001'`."""

import argparse
import sys

from context_service.settings import ContextSettings
from deploy import person, probe
from deploy import settings as settings_of
from deploy.person import Erased, HalfErased, PersonError
from deploy.settings import SystemSettings
from service_kit.settings import ConfigurationError, load

_SERVICES = ("buffer_service", "context_service")


def main() -> int:
    """0 when nothing of the person is left in the stores, 1 when it has to be repeated, 2 when asked for wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contact", default="", help="a phone number with country code, lid:… or bsuid:…")
    parser.add_argument("--tenant", default="", help="the business; default: the only one")
    parser.add_argument("--do-not-contact", default="", metavar="yes", help="yes: never write to them first again")
    parser.add_argument("--conversations", default="", metavar="IDS", help="what an attempt that broke off named")
    given = parser.parse_args()
    if not given.contact.strip():
        print("Who? make forget CONTACT='+55 81 99999-0001'", file=sys.stderr)
        return 2
    if given.do_not_contact not in ("", "yes"):
        print(f"DO_NOT_CONTACT={given.do_not_contact}: yes, or nothing.", file=sys.stderr)
        return 2
    settings, marked = settings_of.leniently(), given.do_not_contact == "yes"
    try:
        who = person.alias(given.contact)
    except PersonError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        _check_all_there(settings)
        conversation_ids = tuple(given.conversations.split())
        erased = person.forget(
            settings, who, tenant=given.tenant, do_not_contact=marked, conversation_ids=conversation_ids
        )
    except HalfErased as error:
        print(_half(error, given.contact, marked=marked), file=sys.stderr)
        return 1
    except PersonError as error:
        print(f"{error}\nNothing was erased. make status, make up; then repeat it.", file=sys.stderr)
        return 1
    print(report(erased, marked=marked, elsewhere=_uses_supabase()))
    return 0


def report(erased: Erased, *, marked: bool, elsewhere: bool) -> str:
    """What was erased, and what remains."""
    if erased.nothing:
        head = [
            "Nothing     was stored about this contact; webhooks in quarantine that named them are gone too.",
            "            A phone number needs its country code, +55 for Brazil.",
        ]
    else:
        head = [
            f"Erased      in the buffer: {_many(erased.buffer_conversations, 'conversation')}, "
            f"{_many(erased.buffer_messages, 'message')}",
            f"            in the context: {_many(erased.leads, 'lead')}, "
            f"{_many(erased.conversations, 'conversation')}, {_many(erased.messages, 'message')}",
        ]
    if marked:
        head.append("Marked      never to be written to first: keyed hashes of their contacts are kept for that.")
    return "\n".join(
        [
            *head,
            "Remains     ids of the conversations, which name nobody: a late record of one is refused by them",
            "            a keyed hash of each contact, if the person is never to be written to",
            "            backups made until now, data/replaced-… and copies elsewhere: they hold the person until you",
            "            delete them (make restore erases them again)",
            *(
                ["            the database's own backups, and dead rows until its VACUUM: Supabase"]
                if elsewhere
                else []
            ),
            "            WhatsApp, your provider, the business's phone and what a language model's provider keeps:",
            "            ask there too; docs/howto/privacy.md says how",
        ]
    )


def _check_all_there(settings: SystemSettings) -> None:
    """Both or none: half an erasure knows fewer names of the person the next time. Raises PersonError."""
    for name in _SERVICES:
        health = probe.health(settings, name)
        if health != "ready":
            raise PersonError(f"{name} is needed for it: {health} at {probe.grpc_addresses(settings)[name]}.")


def _half(error: HalfErased, contact: str, *, marked: bool) -> str:
    ids = " ".join(error.conversation_ids)
    mark = " DO_NOT_CONTACT=yes" if marked else ""
    known = f" CONVERSATIONS='{ids}'" if ids else ""
    return (
        f"{error}\nThe buffer has erased its part, the context has not: the person is not forgotten yet. "
        f"When it is back, repeat it with what the buffer knew:\n"
        f"  make forget CONTACT='{contact}'{mark}{known}"
    )


def _uses_supabase() -> bool:
    try:
        return load(ContextSettings).uses_supabase
    except ConfigurationError:
        return False


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())
