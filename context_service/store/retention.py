"""Deleting what is older than the business wants to keep; each step is the inside of one short transaction."""

from typing import Any, Final

import apsw

from context_service.domain import Swept
from context_service.privacy import ContactHasher
from context_service.store import marks, rows

_BY_AGE: Final = {"messages": "created_at", "turns": "created_at", "lead_changes": "changed_at"}


def _of_each_tenant(table: str, select: str) -> str:
    """Tenant by tenant, each found by index: the indexes by age begin with the tenant, and without it the whole table
    would be read. One more index would cost every turn a write."""
    next_one = f"SELECT min(tenant) FROM {table} WHERE tenant > tenants.tenant"
    return (
        f"WITH RECURSIVE tenants (tenant) AS (SELECT min(tenant) FROM {table} UNION ALL "
        f"SELECT ({next_one}) FROM tenants WHERE tenant IS NOT NULL) "
        f"SELECT {select} FROM tenants CROSS JOIN {table} USING (tenant)"
    )


USAGE: Final = f"{_of_each_tenant('usage_days', 'row_id')} WHERE day < :day LIMIT :limit"
CONVERSATIONS: Final = (
    f"{_of_each_tenant('conversations', 'id')} WHERE updated_at < :before "
    "AND NOT EXISTS (SELECT 1 FROM messages WHERE conversation_id = conversations.id) LIMIT :limit"
)
LEADS: Final = (
    f"{_of_each_tenant('leads', 'id')} WHERE updated_at < :before "
    "AND NOT EXISTS (SELECT 1 FROM conversations WHERE lead_id = leads.id) LIMIT :limit"
)


def sweep(db: apsw.Connection, before: str, limit: int, *, hasher: ContactHasher, now: str) -> Swept:
    """See `ContextStore.sweep`; `before` and `now` are instants as they are stored."""
    names = {"before": before, "limit": limit}
    deleted: dict[str, int] = {}
    for table, column in _BY_AGE.items():
        db.execute(
            f"DELETE FROM {table} WHERE row_id IN "
            f"(SELECT row_id FROM {table} WHERE {column} < :before ORDER BY {column} LIMIT :limit)",
            names,
        )
        deleted[table] = db.changes()
    db.execute(
        f"DELETE FROM usage_days WHERE row_id IN ({USAGE})",
        {"day": before[:10], "limit": limit},
    )
    deleted["usage_days"] = db.changes()
    # A conversation and a lead go when nothing that is newer hangs on them.
    db.execute(f"DELETE FROM conversations WHERE id IN ({CONVERSATIONS})", names)
    deleted["conversations"] = db.changes()
    leads = rows.to_json([lead_id for (lead_id,) in db.execute(LEADS, names)])
    _keep_marks(db, leads, hasher=hasher, now=now)
    db.execute("DELETE FROM leads WHERE id IN (SELECT value FROM json_each(?))", (leads,))
    deleted["leads"] = db.changes()
    return Swept(**deleted)


def _keep_marks(db: apsw.Connection, leads: str, *, hasher: ContactHasher, now: str) -> None:
    """Who is never to be contacted stays so, as hashes of their names. `leads` is a JSON list of ids."""
    marked: list[Any] = db.execute(
        "SELECT leads.tenant, alias FROM leads JOIN lead_aliases ON lead_id = leads.id "
        "WHERE do_not_contact = 1 AND leads.id IN (SELECT value FROM json_each(?))",
        (leads,),
    ).fetchall()
    marks.keep(db, hasher, marked, now=now)
