"""People who were forgotten after a backup was made are in it. Going back to it must not bring them back.

The buffer leaves a tombstone for each conversation that it erased: its random id and when, no name. A copy that has a
conversation with a tombstone is from before; whoever it belongs to is erased again as soon as the services run. Who is
never to be written to stays so too: those marks are carried over.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from buffer_service.store import copies
from buffer_service.store.copies import Tombstone
from context_service.privacy import ContactHasher
from context_service.store import wishes
from context_service.store.wishes import Wishes
from deploy import person
from deploy.person import PersonError
from deploy.settings import SystemSettings
from service_kit.settings import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Revenants:
    """What the present stores know that the copy does not; `people` are those in the copy whom a tombstone means,
    tenant and alias of each. Not `known`: the present stores cannot be read."""

    known: bool
    tombstones: tuple[Tombstone, ...] = ()
    people: frozenset[tuple[str, str]] = frozenset()
    wishes: Wishes = field(default_factory=Wishes)


def find(*, buffer: Path, context: Path | None, copy: Path) -> Revenants:
    """Compare the present stores with the buffer's copy that is to come; nobody may have them open."""
    if not buffer.exists() or (context is not None and not context.exists()):
        return Revenants(known=False)
    try:
        tombstones = copies.tombstones(buffer)
        return Revenants(
            known=True,
            tombstones=tuple(tombstones),
            people=frozenset(copies.names_of(copy, [one.conversation_id for one in tombstones])),
            wishes=wishes.read(context) if context is not None else Wishes(),
        )
    except apsw.Error:
        return Revenants(known=False)


def carry(found: Revenants, *, buffer: Path, context: Path | None) -> None:
    """Keep tombstones and marks in the stores that were put in place; a later return may be to an even older copy."""
    try:
        if found.tombstones:
            copies.add_tombstones(buffer, found.tombstones)
        if context is not None and found.wishes != Wishes():
            wishes.add(context, found.wishes)
    except (apsw.Error, ConfigurationError):
        # The services, which are started next on the same files, say what is wrong with them.
        return


def forget(settings: SystemSettings, found: Revenants, hasher: ContactHasher) -> int:
    """Erase them again, once the services run: 0 when nobody is left, else 1. Says what was done."""
    if not found.known:
        print(
            "The stores that were there cannot be read, so nobody knows who was forgotten since the backup was made, "
            "or asked not to be written to: go through your list of requests, and forget them again.",
            file=sys.stderr,
        )
        return 0
    marked = {(tenant, one) for tenant, one, *_ in found.wishes.hashes}
    failed = []
    for tenant, alias in sorted(found.people):
        mark = not marked.isdisjoint((tenant, one) for one in hasher.hashes(tenant, (alias,)))
        try:
            person.forget(settings, alias, tenant=tenant, do_not_contact=mark)
        except PersonError as error:
            wish = " DO_NOT_CONTACT=yes" if mark else ""
            failed.append(f"  make forget CONTACT='{alias}' TENANT='{tenant}'{wish}    # {error}")
    if failed:
        print(
            "\n".join(["These people were forgotten since and are back; forget them again:", *failed]), file=sys.stderr
        )
        return 1
    if found.people:
        print(f"Forgotten since the backup was made, and erased again: {len(found.people)}.")
    return 0
