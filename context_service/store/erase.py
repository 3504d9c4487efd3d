"""Erasing a person: the rows in one transaction, then every trace of them in the files."""

import apsw

from context_service.domain import Erased
from context_service.store import reads, rows
from service_kit.errors import Unavailable

_PEOPLE = "(SELECT value FROM json_each(:leads))"
_THEIR_CONVERSATIONS = f"(SELECT id FROM conversations WHERE lead_id IN {_PEOPLE})"


def forget(db: apsw.Connection, tenant: str, alias: str, conversation_ids: tuple[str, ...], now_ms: int) -> Erased:
    """Delete the leads with all that hangs on them and leave tombstones; the inside of one transaction."""
    of_conversations = db.execute(
        "SELECT DISTINCT lead_id FROM conversations WHERE +tenant = ? AND id IN (SELECT value FROM json_each(?))",
        (tenant, rows.to_json(conversation_ids)),
    )
    people = {*reads.find_people(db, tenant, alias), *(lead_id for (lead_id,) in of_conversations)}
    names = {"leads": rows.to_json(sorted(people))}
    theirs = db.execute(f"SELECT id FROM conversations WHERE lead_id IN {_PEOPLE}", names).fetchall()
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
        [(one, tenant, rows.to_text(now_ms)) for one in {*conversation_ids, *(row[0] for row in theirs)}],
    )
    # The foreign keys take aliases, conversations, messages, turns and audit rows along.
    db.execute(f"DELETE FROM leads WHERE id IN {_PEOPLE}", names)
    return erased


def scrub(db: apsw.Connection) -> None:
    """Leave no byte of deleted rows in the files. Takes as long as copying the database.

    secure_delete zeroes what is deleted, but not the copies that rebalancing a page left in its free space (measured:
    2 of 4 000 rows in one of four runs), so the file is rebuilt too.
    """
    db.execute("VACUUM")
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").get or (1, 0, 0)
    if busy:
        raise Unavailable("The erased rows are still in the store's log; try again.", component="store")
