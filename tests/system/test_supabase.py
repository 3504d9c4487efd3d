"""The running system on a Supabase project: a real PostgreSQL behind the PostgREST stand-in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.context_service.supabase_project import migrated
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer
from tests.system.harness import System, new_contact, running, webhook

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


def rows(database: Database, query: str) -> list[Any]:
    with database.connect() as connection:
        return connection.execute(query.encode()).fetchall()


def project(server: PostgrestServer) -> dict[str, str]:
    return {
        "SDR_CONTEXT_STORE": "supabase",
        "SUPABASE_URL": server.url,
        "SUPABASE_SECRET_KEY": server.keys.secret,
    }


async def heard_about(system: System, contact: str, text: str, *, turns: int) -> None:
    await system.deliver(webhook(contact, text))
    await system.settled(contact, turns)


async def test_a_webhook_is_answered_and_lead_conversation_and_messages_are_in_the_tables(
    postgres_cluster: PostgresCluster, tmp_path: Path
) -> None:
    contact = new_contact()
    with migrated(postgres_cluster) as database:
        async with (
            PostgrestServer(database_url=database.url("authenticator"), pool_size=20) as server,
            running(tmp_path, **project(server)) as system,
        ):
            await heard_about(system, contact, "oi, me chamo Carlos", turns=1)
            await heard_about(system, contact, "minha conta vem 4.500", turns=2)
            heard = system.heard(contact)
            [(name, bill, stage)] = rows(database, "SELECT name, bill_value, current_stage FROM leads")
            assert (name, str(bill)) == ("Carlos", "4500.00") and stage != "INITIAL_CONTACT"
            [(version, total, status)] = rows(database, "SELECT version, total_messages, status FROM conversations")
            assert (version, total, status) == (2, 2 + len(heard), "ACTIVE")
            told = rows(database, "SELECT role, content FROM messages ORDER BY sequence")
            assert [text for role, text in told if role == "user"] == ["oi, me chamo Carlos", "minha conta vem 4.500"]
            assert [text for role, text in told if role == "assistant"] == heard
            assert len([one for one in server.seen if one.path == "rpc/sdr_record_turn"]) == 2
            assert {one.role for one in server.seen} == {"service_role"}
            for service in ("context_service", "ingress"):
                assert contact not in system.log(service) and server.keys.secret not in system.log(service)


async def test_a_database_that_is_away_makes_nobody_wait_and_gets_every_turn_afterwards(
    postgres_cluster: PostgresCluster, tmp_path: Path
) -> None:
    contact = new_contact()
    with migrated(postgres_cluster) as database:
        async with (
            PostgrestServer(database_url=database.url("authenticator"), pool_size=20) as server,
            running(tmp_path, **project(server)) as system,
        ):
            await heard_about(system, contact, "oi, me chamo Carlos", turns=1)
            server.fail("status", times=1_000_000, status=503)
            await system.deliver(webhook(contact, "quanto custa?"))
            async with asyncio.timeout(20):
                while len(system.heard(contact)) < 3:
                    await asyncio.sleep(0.05)
            assert rows(database, "SELECT count(*) FROM turns") == [(1,)]
            server.faults.clear()
            await system.settled(contact, 2)
            texts = [
                text for (text,) in rows(database, "SELECT content FROM messages WHERE role = 'user' ORDER BY sequence")
            ]
            assert texts == ["oi, me chamo Carlos", "quanto custa?"]
            assert rows(database, "SELECT count(*) FROM turns") == [(2,)]
