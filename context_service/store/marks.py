"""Marks of people who were erased and are never to be contacted: a keyed hash of each of their names."""

from collections.abc import Iterable

import apsw

from context_service.privacy import ContactHasher, refuse_marks_of_others


def keep(db: apsw.Connection, hasher: ContactHasher, names: Iterable[tuple[str, str]], *, now: str) -> None:
    """Leave one for each tenant and alias."""
    db.executemany(
        "INSERT INTO do_not_contact (tenant, contact_hash, created_at, key_id) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        [(tenant, *hasher.hashes(tenant, (alias,)), now, hasher.key_id) for tenant, alias in names],
    )


def claim(db: apsw.Connection, hasher: ContactHasher) -> None:
    """Those from before they named their key are ours. Raises ConfigurationError when there are some of another key."""
    db.execute("UPDATE do_not_contact SET key_id = ? WHERE key_id = ''", (hasher.key_id,))
    refuse_marks_of_others(db.execute("SELECT count(*) FROM do_not_contact WHERE key_id <> ?", (hasher.key_id,)).get)
