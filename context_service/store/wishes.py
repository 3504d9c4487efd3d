"""What outlives a return to a copy of the file: who is never to be written to. Nobody may have the files open."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from context_service.store import schema


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """Keyed hashes of erased people (tenant, hash, since when, id of the key), and the ids of leads with the mark."""

    hashes: tuple[tuple[str, str, str, str], ...] = ()
    lead_ids: tuple[str, ...] = ()


def read(path: Path) -> Wishes:
    """Those of a file. Raises apsw.Error when it cannot be read."""
    db = apsw.Connection(str(path))
    try:
        columns = {name for (name,) in db.execute("SELECT name FROM pragma_table_info('do_not_contact')")}
        if not columns:
            return Wishes()  # A version that knew no such mark.
        key = "key_id" if "key_id" in columns else "''"
        hashes: list[Any] = db.execute(f"SELECT tenant, contact_hash, created_at, {key} FROM do_not_contact").fetchall()
        leads: list[Any] = db.execute("SELECT id FROM leads WHERE do_not_contact = 1").fetchall()
    finally:
        db.close()
    return Wishes(hashes=tuple(hashes), lead_ids=tuple(lead_id for (lead_id,) in leads))


def add(path: Path, wishes: Wishes) -> None:
    """Add them to another file; the schema is brought up to date for it. Raises ConfigurationError."""
    db = schema.open_database(path, schema.migrations())
    try:
        with db:
            db.executemany(
                "INSERT INTO do_not_contact (tenant, contact_hash, created_at, key_id) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                wishes.hashes,
            )
            db.executemany("UPDATE leads SET do_not_contact = 1 WHERE id = ?", [(one,) for one in wishes.lead_ids])
    finally:
        db.close()
