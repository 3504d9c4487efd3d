"""Erasing a person: the rows in one transaction, then every trace of them in the files."""

from typing import Any

import apsw

from context_service.domain import Erased
from context_service.privacy import ContactHasher
from context_service.store import marks, reads, rows
from service_kit.errors import Unavailable

_PEOPLE = "(SELECT value FROM json_each(:leads))"
_THEIR_CONVERSATIONS = f"(SELECT id FROM conversations WHERE lead_id IN {_PEOPLE})"


def forget(
    db: apsw.Connection,
    tenant: str,
    alias: str,
    conversation_ids: tuple[str, ...],
    *,
    hasher: ContactHasher,
    do_not_contact: bool,
    now_ms: int,
) -> Erased:
    """Delete the leads with all that hangs on them and leave tombstones; the inside of one transaction."""
    people = set(reads.find_people(db, tenant, alias, conversation_ids))
    names = {"leads": rows.to_json(sorted(people))}
    theirs = db.execute(f"SELECT id FROM conversations WHERE lead_id IN {_PEOPLE}", names).fetchall()
    merged = db.execute(
        f"SELECT conversation_id FROM merged_conversations WHERE into_id IN {_THEIR_CONVERSATIONS}", names
    ).fetchall()
    _keep_marks(db, tenant, alias, people, hasher=hasher, marked=do_not_contact, now_ms=now_ms)
    erased = Erased(
        leads=len(people),
        conversations=len(theirs),
        messages=db.execute(
            f"SELECT count(*) FROM messages WHERE conversation_id IN {_THEIR_CONVERSATIONS}", names
        ).get,
    )
    db.executemany(
        "INSERT INTO forgotten_conversations (conversation_id, tenant, forgotten_at) VALUES (?, ?, ?) "
        "ON CONFLICT (conversation_id) DO NOTHING",
        [(one, tenant, rows.to_text(now_ms)) for one in {*conversation_ids, *(row[0] for row in (*theirs, *merged))}],
    )
    db.execute(f"DELETE FROM usage_days WHERE conversation_id IN {_THEIR_CONVERSATIONS}", names)
    # The foreign keys take aliases, conversations, messages, turns and audit rows along.
    db.execute(f"DELETE FROM leads WHERE id IN {_PEOPLE}", names)
    return erased


def _keep_marks(
    db: apsw.Connection, tenant: str, alias: str, people: set[str], *, hasher: ContactHasher, marked: bool, now_ms: int
) -> None:
    """Who is never to be contacted stays so, as hashes of their names; who took it back leaves none."""
    for lead_id in people:
        marked = marked or bool(db.execute("SELECT do_not_contact FROM leads WHERE id = ?", (lead_id,)).get)
    aliases: list[Any] = db.execute(
        "SELECT alias FROM lead_aliases WHERE lead_id IN (SELECT value FROM json_each(?))",
        (rows.to_json(sorted(people)),),
    ).fetchall()
    names = {alias, *(one for (one,) in aliases)}
    if marked:
        marks.keep(db, hasher, [(tenant, one) for one in names], now=rows.to_text(now_ms))
    elif people:
        db.executemany(
            "DELETE FROM do_not_contact WHERE tenant = ? AND contact_hash = ?",
            [(tenant, one) for one in hasher.hashes(tenant, tuple(names))],
        )


def scrub(db: apsw.Connection) -> None:
    """Leave no byte of deleted rows in the files. Takes as long as copying the database.

    secure_delete zeroes what is deleted, but not the copies that rebalancing a page left in its free space (measured:
    2 of 4 000 rows in one of four runs), so the file is rebuilt too.
    """
    db.execute("VACUUM")
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").get or (1, 0, 0)
    if busy:
        raise Unavailable("The erased rows are still in the store's log; try again.", component="store")
