"""A turn whose recording dies at any of its steps: all or nothing, and the repeat completes it once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentic_sdr.common.v1 import turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from agentic_sdr.context.v1 import context_service_pb2_grpc as pb_grpc
from context_service import decode
from context_service.domain import TurnRecord
from service_kit.clock import ManualClock
from service_kit.errors import Unavailable
from tests.context_service.builders import generation, message, part, turn, update
from tests.context_service.processes import running
from tests.context_service.steps import Steps
from tests.context_service.supabase_project import migrate_database, store_of
from tests.context_service.supabase_sql import record_turn, rows, service
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer

TABLES = (
    "leads",
    "conversations",
    "messages",
    "turns",
    "lead_aliases",
    "lead_changes",
    "usage_days",
    "merged_conversations",
)


def rich(turn_id: str, younger: str) -> turn_pb2.TurnRecord:
    """A turn that does everything: merges, learns names, changes facts, hands over, costs."""
    return turn(
        turn_id,
        "c1",
        contact="5581999990001",
        aliases=[f"lid:{turn_id}"],
        messages=[message(f"{turn_id}-1", "oi"), message(f"{turn_id}-2", "quanto custa?")],
        parts=[part(0, "Olá!", provider_message_id=f"{turn_id}-3"), part(1, "Depende.")],
        effects=[
            update(name=turn_id, bill_value_cents=100, preferences={"cidade": turn_id}),
            turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="asked for it")),
            generation(prompt_tokens=10, completion_tokens=5, cost_micros=3),
        ],
        merged_conversation_ids=[younger],
    )


def younger(conversation: str) -> TurnRecord:
    """Somebody who turns out to be the one above."""
    effects = [update(email=f"{conversation}@example.com"), generation(prompt_tokens=1)]
    messages = [message(f"m-{conversation}")]
    wire = turn(f"t-{conversation}", conversation, contact=f"lid:{conversation}", effects=effects, messages=messages)
    return decode.turn_record(wire)


def prepare(database: Database) -> None:
    """The schema, a hook at each step, and a conversation to be merged."""
    migrate_database(database)
    with service(database) as connection:
        record_turn(connection, decode.turn_record(turn("t0", "c1", contact="5581999990001", messages=[message("m0")])))
        record_turn(connection, younger("c2"))
    Steps(database).install()


def contents(database: Database) -> dict[str, list[Any]]:
    return {table: rows(database, f"SELECT one FROM {table} AS one ORDER BY 1") for table in TABLES}


def meaning(database: Database) -> list[list[Any]]:
    """What a turn leaves behind, without ids that are drawn."""
    return [
        rows(database, statement)
        for statement in (
            "SELECT phone_number, name, email, bill_value, current_stage, preferences, needs_human FROM leads",
            "SELECT session_id, version, total_messages, status, needs_human, current_stage FROM conversations",
            "SELECT sequence, role, content, turn_id, provider_message_id, delivery_state FROM messages ORDER BY 1",
            "SELECT turn_id, version, kind, handoff, prompt_tokens FROM turns ORDER BY 1",
            "SELECT alias FROM lead_aliases ORDER BY 1",
            "SELECT field, old_value, new_value, changed_by FROM lead_changes WHERE field <> 'merged_lead' "
            "ORDER BY 1, 4",
            "SELECT conversation_id, tokens, cost_micros FROM usage_days ORDER BY 1",
            "SELECT conversation_id FROM merged_conversations ORDER BY 1",
        )
    ]


@pytest.fixture(scope="module")
def template(postgres_cluster: PostgresCluster) -> str:
    return postgres_cluster.template("kill_points", prepare)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_server_ends_the_connection_at_every_step(postgres_cluster: PostgresCluster, template: str) -> None:
    wanted = decode.turn_record(rich("t1", "c2"))
    with postgres_cluster.database(template=template) as database:
        steps = Steps(database)
        steps.off()
        with service(database) as connection:
            record_turn(connection, wanted)
        total, undisturbed = steps.count(), meaning(database)
    assert total > 30, "insertions, updates, deletions, and the commit"
    for number in range(1, total + 1):
        with postgres_cluster.database(template=template) as database:
            before = contents(database)
            steps = Steps(database)
            steps.kill_at(number)
            async with PostgrestServer(database_url=database.url("authenticator")) as server:
                store = store_of(server, ManualClock())
                with pytest.raises(Unavailable):
                    await store.record_turn(wanted)
                assert steps.count() == number, "it died there"
                steps.off()
                assert contents(database) == before, f"something of it stayed at step {number}"
                answer = await store.record_turn(wanted)
                again = await store.record_turn(wanted)
                await store.close()
            assert (answer.version, answer.duplicate, again.version, again.duplicate) == (2, False, 2, True)
            assert meaning(database) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_kill_9_of_the_service_at_every_step(
    postgres_cluster: PostgresCluster, template: str, tmp_path: Path
) -> None:
    """Half of the times the database's side dies too, half of the times it finishes what nobody waits for any more.
    The next process repeats the turn, as the buffer makes it do, and dies in the next one."""
    with postgres_cluster.database(template=template) as database:
        steps, number, killed = Steps(database), 0, 0
        steps.off()
        async with PostgrestServer(database_url=database.url("authenticator")) as server:
            pending: turn_pb2.TurnRecord | None = None
            version = 1
            while True:
                number += 1
                async with running(server, tmp_path) as process:
                    stub = pb_grpc.ContextServiceStub(await process.channel())
                    if pending is not None:
                        steps.off()
                        first = await stub.RecordTurn(pb.RecordTurnRequest(record=pending))
                        again = await stub.RecordTurn(pb.RecordTurnRequest(record=pending))
                        version += 1
                        assert first.duplicate is (number % 2 == 0), "all or nothing"
                        assert (first.version, again.version, again.duplicate) == (version, version, True)
                    steps.off()
                    with service(database) as connection:
                        record_turn(connection, younger(f"y{number}"))
                    pending = rich(f"t{number}", f"y{number}")
                    before = contents(database)
                    with database.connect("supabase_admin") as gate:
                        gate.execute("SELECT pg_advisory_lock(77)")
                        steps.wait_at(number)
                        call = asyncio.create_task(_record(stub, pending))
                        reached = asyncio.create_task(steps.somebody_waits())
                        await asyncio.wait({call, reached}, return_when=asyncio.FIRST_COMPLETED)
                        if call.done():
                            reached.cancel()
                            break
                        await process.kill()
                        killed += 1
                        await asyncio.wait({call})
                        if number % 2:
                            gate.execute("SELECT pg_advisory_unlock(77)")
                            while not rows(database, f"SELECT 1 FROM turns WHERE turn_id = 't{number}'"):
                                await asyncio.sleep(0.01)
                        else:
                            gate.execute("SELECT pg_terminate_backend(%s, 5000)", (reached.result(),))
                            assert contents(database) == before
            assert call.result() is None
        assert killed > 30
        [(turns, versions)] = rows(
            database, "SELECT count(*), array_agg(version ORDER BY version) FROM turns WHERE turn_id ~ '^t[0-9]+$'"
        )
        assert turns == killed + 2 and versions == list(range(1, turns + 1))
        told = "SELECT array_agg(sequence ORDER BY sequence) FROM messages WHERE conversation_id = conversations.id"
        [(sequences, total)] = rows(
            database, f"SELECT ({told}), total_messages FROM conversations WHERE session_id = 'c1'"
        )
        assert sequences == list(range(1, total + 1))


async def _record(stub: pb_grpc.ContextServiceStub, record: turn_pb2.TurnRecord) -> grpc.StatusCode | None:
    try:
        await stub.RecordTurn(pb.RecordTurnRequest(record=record))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None
