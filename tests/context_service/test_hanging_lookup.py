"""While one conversation's lookup hangs, nothing else waits: neither other conversations nor a record of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import grpc
import pytest

from agentic_sdr.context.v1 import context_service_pb2 as pb
from agentic_sdr.context.v1 import context_service_pb2_grpc
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from bench.context_hang import LOOKUPS, OneHangs
from context_service.lookups import Contexts
from context_service.service import ContextServicer
from context_service.store import ContextStore
from service_kit.backups import Backups
from service_kit.clock import ManualClock
from service_kit.testing import in_process_servicer
from tests.context_service.builders import load, turn
from tests.context_service.stores import no_cache, sqlite_store


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[ContextServiceStub, OneHangs]]:
    """The service over a real store in which the lookups of "stuck" hang."""
    clock = ManualClock()
    real = sqlite_store(folder / "context.db", clock)
    await real.open()
    store = OneHangs(real, "stuck")
    contexts = Contexts(store=cast(ContextStore, store), clock=clock, cache=no_cache())
    backups = Backups(data_dir=folder, file_name="context.db")
    servicer = ContextServicer(store=cast(ContextStore, store), contexts=contexts, backups=backups)
    async with in_process_servicer(
        lambda server: context_service_pb2_grpc.add_ContextServiceServicer_to_server(servicer, server)
    ) as channel:
        yield ContextServiceStub(channel), store
    await contexts.close()
    await real.close()


async def test_other_loads_and_all_writes_go_on(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, store):
        stuck = asyncio.ensure_future(stub.LoadContext(load("stuck"), timeout=60))
        async with asyncio.timeout(20):
            for _ in range(LOOKUPS):
                await store.begun.acquire()
        answers = await asyncio.gather(*(stub.LoadContext(load(f"c{n}"), timeout=20) for n in range(100)))
        assert [one.context.conversation_id for one in answers] == [f"c{n}" for n in range(100)]
        recorded = await stub.RecordTurn(pb.RecordTurnRequest(record=turn("t1", "stuck")), timeout=20)
        assert recorded.version == 1
        assert not stuck.done() and store.hanging == LOOKUPS, "lead, conversation, history and usage, asked for once"
        store.gate.set()
        await stuck


async def test_who_asks_for_a_hanging_conversation_may_leave_it(tmp_path: Path) -> None:
    async with served(tmp_path) as (stub, store):
        with pytest.raises(grpc.aio.AioRpcError) as left:
            await stub.LoadContext(load("stuck"), timeout=0.05)
        assert left.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(20):
            while store.hanging:
                await asyncio.sleep(0.001)
        store.gate.set()
        await stub.LoadContext(load("stuck"), timeout=20)
