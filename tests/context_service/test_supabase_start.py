"""The process and its database: the wrong one ends it with a sentence, one that is away is waited for."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

import context_service.migrate as program
from agentic_sdr.context.v1 import context_service_pb2 as pb
from agentic_sdr.context.v1 import context_service_pb2_grpc as pb_grpc
from context_service.migrations import current_version, migrations
from tests.context_service.builders import turn
from tests.context_service.processes import SERVING, health, running
from tests.context_service.supabase_project import migrate_database, migrated
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import Keys, PostgrestServer

pytestmark = pytest.mark.slow  # waits for real processes


@pytest.mark.parametrize(("applied", "newer", "found"), [(0, 0, 0), (5, 0, 5), (99, 1, current_version() + 1)])
async def test_a_schema_of_another_version_is_one_sentence_and_exit_3(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, applied: int, newer: int, found: int
) -> None:
    """On a project that was never migrated it waited for ever: the function that tells the version was not there."""
    known = migrations()[:applied]
    with monkeypatch.context() as patch:
        patch.setattr(program, "migrations", lambda: known)
        migrate_database(database)
    if newer:
        database.execute(f"INSERT INTO sdr_migrations VALUES ({found}, 'later', '')")
    async with (
        PostgrestServer(database_url=database.url("authenticator")) as server,
        running(server, tmp_path) as process,
    ):
        code, told = await process.ended()
    assert code == 3
    assert told == (
        f"context_service could not start: The Supabase project has schema version {found}, this version needs "
        f"{current_version()}: make migrate\n"
    )


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SUPABASE_SECRET_KEY": Keys().publishable}, "is the publishable (anonymous) key"),
        ({"SUPABASE_SECRET_KEY": ""}, "SDR_CONTEXT_STORE=supabase needs SUPABASE_SECRET_KEY."),
        ({"SUPABASE_URL": "http://project.example"}, "SUPABASE_URL has to begin with https://"),
    ],
)
async def test_a_wrong_setting_is_one_sentence_and_exit_3(
    database: Database, tmp_path: Path, environ: dict[str, str], sentence: str
) -> None:
    async with (
        PostgrestServer(database_url=database.url("authenticator")) as server,
        running(server, tmp_path, **environ) as process,
    ):
        code, told = await process.ended()
    assert (code, len(told.splitlines())) == (3, 1)
    assert told.startswith("context_service could not start: ") and sentence in told
    assert Keys().publishable not in told


async def test_marks_of_another_privacy_key_are_one_sentence_and_exit_3(
    postgres_cluster: PostgresCluster, tmp_path: Path
) -> None:
    """A container without a lasting folder made a new key at every start, and nobody was recognised by the marks."""
    with migrated(postgres_cluster) as database:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:

            async def marked(folder: str, *, ends: bool = False) -> None:
                (tmp_path / folder).mkdir(exist_ok=True)
                async with running(server, tmp_path / folder) as process:
                    if ends:
                        code, told = await process.ended()
                        assert (code, told.count("\n")) == (3, 1)
                        assert "The marks of people" in told and "set SDR_PRIVACY_KEY to that key" in told
                        return
                    assert (await process.event("privacy_key_only_in_file"))["path"].endswith("privacy.key")
                    stub = pb_grpc.ContextServiceStub(await process.channel())
                    await stub.ForgetContact(pb.ForgetContactRequest(contact="5511", do_not_contact=True))

            await marked("first")
            await marked("first")
            await marked("another", ends=True)
            database.execute("DELETE FROM do_not_contact")
            await marked("another")


async def test_a_database_that_is_away_is_waited_for_and_served_when_it_comes(
    postgres_cluster: PostgresCluster, tmp_path: Path
) -> None:
    with migrated(postgres_cluster) as database:
        async with PostgrestServer(database_url=database.url("authenticator")) as server:
            server.fail("status", times=1_000_000, status=503)
            async with running(server, tmp_path) as process:
                await process.event("store_awaited")
                listening = (await process.event("service_not_ready"))["listening"]
                async with grpc.aio.insecure_channel(listening) as channel:
                    stub = pb_grpc.ContextServiceStub(channel)
                    assert await health(channel) != SERVING
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await stub.RecordTurn(pb.RecordTurnRequest(record=turn()))
                    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                    server.faults.clear()
                    await process.event("service_ready")
                    assert await health(channel) == SERVING
                    assert (await stub.RecordTurn(pb.RecordTurnRequest(record=turn()))).version == 1


async def test_the_wrong_database_that_comes_late_ends_the_process(database: Database, tmp_path: Path) -> None:
    async with PostgrestServer(database_url=database.url("authenticator")) as server:
        server.fail("status", times=1_000_000, status=503)
        async with running(server, tmp_path) as process:
            await process.event("store_awaited")
            server.faults.clear()
            refused = await process.event("store_refused")
            assert "has schema version 0, this version needs" in refused["reason"]
            assert (await process.ended())[0] == 3
