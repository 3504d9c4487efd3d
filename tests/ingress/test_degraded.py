"""Turns while the context service is out: the real buffer, the turn runner, and a context that breaks as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from ingress import patience
from ingress.patience import Trust
from tests.ingress.test_turn_runner import ContextStandIn, Rig, done, rig, text

KIB = 1 << 10


class Breaking(ContextStandIn):
    """Hangs, or refuses, while `broken`; refuses a version that it does not have; `takes` limits the records."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.takes = 1_000_000
        self.asked: list[context_pb.LoadContextRequest] = []
        self.recordings = 0

    async def _check(self, context: Any) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        await super()._check(context)

    async def LoadContext(self, request: context_pb.LoadContextRequest, context: Any) -> context_pb.LoadContextResponse:
        if not request.conversation_id.startswith("probe-"):
            self.asked.append(request)
        if request.min_version > len(self.records):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not that version")
        return await super().LoadContext(request, context)

    async def RecordTurn(self, request: context_pb.RecordTurnRequest, context: Any) -> context_pb.RecordTurnResponse:
        self.recordings += 1
        if len(self.records) >= self.takes:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "full")
        return await super().RecordTurn(request, context)

    @property
    def texts(self) -> list[str]:
        return [m.text for record in self.records for m in record.messages]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GRACE_S", 0.2)
    monkeypatch.setattr(patience, "DOUBT_S", 0.1)


async def converse(r: Rig, *lines: str) -> str:
    """One turn per line; the conversation."""
    conversation_id = ""
    for line in lines:
        before = len(r.finished)
        conversation_id = (await r.write(line, line[:40].strip())).conversation_id
        await r.until(lambda before=before: len(r.finished) > before, seconds=20)  # type: ignore[misc]
    return conversation_id


async def all_recorded(r: Rig, conversation_id: str) -> None:
    async with asyncio.timeout(40):
        while (await r.lane(conversation_id)).unrecorded:
            await asyncio.sleep(0.02)


async def effects(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
    """Takes a number for the bill, as an agent would."""
    for message in begin.messages:
        if message.text.isdigit():
            update = turn_pb2.LeadUpdate(bill_value_cents=int(message.text) * 100)
            yield agent_pb.RespondResponse(effect=turn_pb2.Effect(lead_update=update))
    yield text("certo")
    yield done()


@pytest.mark.parametrize("way", ["hangs", "down"])
async def test_in_an_outage_nobody_waits_and_every_record_follows_once_in_order(tmp_path: Path, way: str) -> None:
    context = Breaking()
    async with rig(tmp_path, context=context) as r:
        conversation_id = await converse(r, "um")
        assert context.texts == ["um"]
        setattr(context, way, True)
        await converse(r, "dois")
        await r.until(lambda: r.runner.context.trust is Trust.OUT)
        asked, recordings = len(context.asked), context.recordings
        await converse(r, "três", "quatro", "cinco")
        assert (len(context.asked), context.recordings) == (asked, recordings), (
            "a turn waited for a service that is out"
        )
        assert r.runner.context.counters["skipped"] >= 6
        assert [known.degraded for known in r.agent.contexts] == [False, True, True, True, True]
        overlaid = [line.text for line in r.agent.contexts[-1].history]
        assert overlaid == [t for n in ("dois", "três", "quatro") for t in (n, f"você disse {n}")]
        assert not any(held.recorded for held in r.finished[1:])
        setattr(context, way, False)
        await all_recorded(r, conversation_id)
        assert context.texts == ["um", "dois", "três", "quatro", "cinco"]
        await converse(r, "seis")
        assert not r.agent.contexts[-1].degraded
        assert context.asked[-1].min_version == 5, "RecordTurn's version is what a later read must have"


async def test_the_turn_after_an_outage_records_what_is_missing_before_itself(tmp_path: Path) -> None:
    context = Breaking()
    async with rig(tmp_path, context=context) as r:
        context.hangs = True
        await converse(r, "um", "dois")
        await r.until(lambda: r.runner.context.trust is Trust.OUT)
        await converse(r, "três")
        context.hangs = False
        await r.until(lambda: r.runner.context.trust is Trust.TRUSTED)
        conversation_id = await converse(r, "quatro")
        await all_recorded(r, conversation_id)
        assert context.texts == ["um", "dois", "três", "quatro"]


async def test_in_an_outage_the_latest_correction_wins_and_nothing_is_forgotten(tmp_path: Path) -> None:
    context = Breaking()
    async with rig(tmp_path, context=context) as r:
        r.agent.reply = effects
        context.down = True
        await converse(r, "400", "550", "e aí?")
        lead = r.agent.contexts[-1].lead
        assert r.agent.contexts[-1].degraded and lead.bill_value_cents == 55_000
        updates = [e.lead_update for held in r.finished for e in held.said_effects if e.HasField("lead_update")]
        assert [u.bill_value_cents for u in updates] == [40_000, 55_000]


async def test_what_could_be_recorded_is_told_although_the_turn_ends_unrecorded(tmp_path: Path) -> None:
    """Else the buffer goes on with an old version, and a replica's old cache would be good enough for the next turn."""
    context = Breaking()
    async with rig(tmp_path, context=context) as r:
        context.takes = 0
        await converse(r, "um", "dois")
        context.takes = 2
        conversation_id = await converse(r, "três")
        async with asyncio.timeout(20):
            while (await r.lane(conversation_id)).unrecorded > 1:
                await asyncio.sleep(0.02)
        assert context.texts == ["um", "dois"]
        await converse(r, "quatro")
        assert context.asked[-1].min_version == 2
        context.takes = 10
        await all_recorded(r, conversation_id)
        assert context.texts == ["um", "dois", "três", "quatro"]


@pytest.mark.slow
async def test_a_backlog_of_more_than_a_mebibyte_follows_in_order(tmp_path: Path) -> None:
    """Handed out by the mebibyte; a turn that did not get all of it leaves its own record behind."""
    context = Breaking()
    async with rig(tmp_path, context=context) as r:
        context.down = True
        lines = [f"{n} " + "x" * (60 * KIB) for n in range(24)]
        conversation_id = await converse(r, *lines)
        assert sum(len(t) for t in lines) > 1 << 20
        context.down = False
        await r.until(lambda: r.runner.context.trust is Trust.TRUSTED, seconds=20)
        await converse(r, "depois")
        await all_recorded(r, conversation_id)
        assert [t.split()[0] for t in context.texts] == [*map(str, range(24)), "depois"]


async def test_writes_that_hang_while_reads_work_cost_one_turn(tmp_path: Path) -> None:
    class OnlyReads(Breaking):
        async def RecordTurn(
            self, request: context_pb.RecordTurnRequest, context: Any
        ) -> context_pb.RecordTurnResponse:
            if self.hangs:
                await asyncio.Event().wait()
            return await super().RecordTurn(request, context)

        async def _check(self, context: Any) -> None:
            return

    context = OnlyReads()
    async with rig(tmp_path, context=context, SDR_INGRESS_RECORD_TIMEOUT_MS="200") as r:
        context.hangs = True
        conversation_id = await converse(r, "um", "dois", "três")
        assert r.runner.context.trust is not Trust.OUT
        assert not any(known.degraded for known in r.agent.contexts), "reads work: nobody is answered without them"
        context.hangs = False
        await all_recorded(r, conversation_id)
        assert context.texts == ["um", "dois", "três"]


async def test_a_message_that_comes_in_an_outage_still_finds_an_idle_lane(tmp_path: Path) -> None:
    context = Breaking()
    async with rig(tmp_path, context=context) as r:
        context.hangs = True
        conversation_id = await converse(r, "um")
        assert (await r.lane(conversation_id)).state == pb.LANE_STATE_IDLE


async def test_a_store_that_begins_anew_costs_one_degraded_turn_and_not_as_many_as_there_were(tmp_path: Path) -> None:
    """The buffer kept the highest version that it had ever heard of. After the context had been moved to Supabase, or
    lost, or deleted by retention, a conversation of fifty turns had fifty more without any history."""
    context = Breaking()
    async with rig(tmp_path, context=context) as r:
        await converse(r, "um", "dois", "três")
        context.records.clear()
        conversation_id = await converse(r, "quatro", "cinco", "seis")
        await all_recorded(r, conversation_id)
        assert [known.degraded for known in r.agent.contexts] == [False, False, False, True, False, False]
        assert context.asked[-1].min_version == 2
