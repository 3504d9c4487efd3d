"""The mark of somebody who is never to be contacted is worth what its key is worth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from context_service.domain import LeadField, LeadPatch
from context_service.privacy import ContactHasher
from context_service.store import marks, schema
from context_service.store.sqlite import SqliteStore
from service_kit.clock import ManualClock
from service_kit.settings import ConfigurationError
from tests.context_service.builders import PHONE, record
from tests.context_service.keys import HASHER
from tests.context_service.supabase_project import migrated, store_of
from tests.stand_ins.postgres import PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer

OTHER = ContactHasher(b"another key for tests, no secret")
ALIAS = f"phone:{PHONE}"


async def forgotten_on_request(store: Any) -> None:
    await store.forget("default", ALIAS, (), do_not_contact=True)


async def too_old(store: Any) -> None:
    lead_id = (await store.record_turn(record())).lead_id
    await store.update_lead(lead_id, "", LeadPatch(values={LeadField.DO_NOT_CONTACT: True}, preferences={}))
    while (await store.sweep(1 << 45, limit=100)).total:
        pass


WAYS: list[Callable[[Any], Awaitable[None]]] = [forgotten_on_request, too_old]


@pytest.mark.parametrize("way", WAYS)
async def test_a_file_with_marks_of_another_key_is_not_opened(tmp_path: Path, way: Callable[[Any], Any]) -> None:
    """It was, and whoever had opted out came back as somebody who may be written to."""
    path = tmp_path / "context.db"

    async def opened(hasher: ContactHasher) -> SqliteStore:
        store = SqliteStore(path=path, clock=ManualClock(), hasher=hasher)
        await store.open()
        return store

    await (await opened(OTHER)).close()  # Without marks any key will do.
    store = await opened(HASHER)
    await way(store)
    await store.close()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"^The marks of people .*\(1\) .* set SDR_PRIVACY_KEY to"):
            await opened(OTHER)
    store = await opened(HASHER)
    assert (await store.get_lead((await store.record_turn(record("t2", "c2"))).lead_id)).do_not_contact
    await store.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_project_with_marks_of_another_key_is_not_served(
    postgres_cluster: PostgresCluster, way: Callable[[Any], Any]
) -> None:
    with migrated(postgres_cluster) as database:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:
            ours, theirs = (store_of(server, ManualClock(), hasher=one) for one in (HASHER, OTHER))
            try:
                await theirs.check()
                await way(ours)
                await ours.check()
                with pytest.raises(ConfigurationError, match=r"^The marks of people .*\(1\)"):
                    await theirs.check()
                # One from before marks named their key is of whoever asks first.
                database.execute("UPDATE do_not_contact SET key_id = ''")
                await theirs.check()
                with pytest.raises(ConfigurationError):
                    await ours.check()
            finally:
                await ours.close()
                await theirs.close()


def test_marks_of_an_older_version_are_of_whoever_opens_the_file_first(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    schema.open_database(path, schema.migrations()[:2]).close()
    db = apsw.Connection(str(path))
    db.execute("INSERT INTO do_not_contact (tenant, contact_hash, created_at) VALUES ('default', 'h', 'then')")
    db.close()
    db = schema.open_database(path, schema.migrations())
    marks.claim(db, HASHER)
    with pytest.raises(ConfigurationError):
        marks.claim(db, OTHER)
    marks.claim(db, HASHER)
    db.close()
