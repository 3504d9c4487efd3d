"""People whom a Supabase project knew before us can be handed over and erased whole."""

from __future__ import annotations

import json

import pytest

from context_service import export
from context_service.migrate import migrate
from context_service.migrations import migrations
from context_service.store import ContextStore
from service_kit.clock import ManualClock
from service_kit.errors import NotFound
from tests.context_service.supabase_project import store_of
from tests.stand_ins.postgres import Database
from tests.stand_ins.postgrest import PostgrestServer

# With a lead in another spelling; twice without any lead; under a LID; and one that names nobody.
BEFORE = """
INSERT INTO leads (phone_number, name) VALUES ('5581999990001', 'Ana');
INSERT INTO conversations (session_id, phone_number) VALUES
    ('s1', '558199990001@s.whatsapp.net'), ('s2', '+55 81 99999-0002'), ('s3', '5581999990002'), ('s4', 'lid:7'),
    ('s5', 'unknown');
INSERT INTO messages (conversation_id, role, content) SELECT id, 'user', 'texto ' || session_id FROM conversations;
"""


async def said(store: ContextStore, alias: str) -> set[str]:
    document = json.loads(b"".join([chunk async for chunk in export.document(store, alias=alias)]))
    return {message["content"] for message in document["messages"]}


async def test_conversations_that_were_linked_to_nobody_belong_to_their_person(database: Database) -> None:
    """They had no lead, and so no export had them, and no erasure reached them."""
    database.execute(migrations()[0].sql)
    database.execute(BEFORE)
    with database.connect() as connection:
        migrate(connection)
    async with PostgrestServer(database_url=database.url("authenticator")) as server:
        store = store_of(server, ManualClock())
        try:
            assert await said(store, "phone:5581999990001") == {"texto s1"}
            assert await said(store, "phone:5581999990002") == {"texto s2", "texto s3"}
            assert await said(store, "lid:7") == {"texto s4"}
            for alias, conversations in (("phone:5581999990001", 1), ("phone:5581999990002", 2), ("lid:7", 1)):
                assert (await store.forget("default", alias, ())).conversations == conversations
                with pytest.raises(NotFound):
                    await said(store, alias)
        finally:
            await store.close()
    with database.connect() as connection:
        left = connection.execute("SELECT content FROM messages").fetchall()
        assert left == [("texto s5",)], "a conversation without a number is nobody's that we could know"
        assert connection.execute("SELECT count(*) FROM leads").fetchall() == [(0,)]
