"""Deleting what is older than the business wants to keep; each step is the inside of one short transaction."""

from typing import Final

import apsw

from context_service.domain import Swept

_BY_AGE: Final = {"messages": "created_at", "turns": "created_at", "lead_changes": "changed_at"}
_CONVERSATIONS: Final = (
    "SELECT id FROM conversations WHERE updated_at < :before "
    "AND NOT EXISTS (SELECT 1 FROM messages WHERE conversation_id = conversations.id) LIMIT :limit"
)
# Who is never to be written to stays known.
_LEADS: Final = (
    "SELECT id FROM leads WHERE updated_at < :before AND NOT do_not_contact "
    "AND NOT EXISTS (SELECT 1 FROM conversations WHERE lead_id = leads.id) LIMIT :limit"
)


def sweep(db: apsw.Connection, before: str, limit: int) -> Swept:
    """See `ContextStore.sweep`; `before` is an instant as it is stored."""
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
        "DELETE FROM usage_days WHERE row_id IN (SELECT row_id FROM usage_days WHERE day < :day LIMIT :limit)",
        {"day": before[:10], "limit": limit},
    )
    deleted["usage_days"] = db.changes()
    # A conversation and a lead go when nothing that is newer hangs on them.
    for table, chosen in (("conversations", _CONVERSATIONS), ("leads", _LEADS)):
        db.execute(f"DELETE FROM {table} WHERE id IN ({chosen})", names)
        deleted[table] = db.changes()
    return Swept(**deleted)
