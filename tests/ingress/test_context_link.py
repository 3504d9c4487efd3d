"""Who waits for a context service that hangs, fails, is slow, isn't there, or can't decide; over a real connection.

The lengths are shorter than the real ones, and no test asserts how long something took.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentic_sdr.common.v1 import turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from agentic_sdr.context.v1 import context_service_pb2_grpc
from ingress import patience
from ingress.context_link import ContextLink, ContextOut
from ingress.patience import Trust
from ingress.services import Services
from service_kit.server import Server, ServerConfig
from service_kit.testing import _Plain

FULL_S = 2.0


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GRACE_S", 0.2)
    monkeypatch.setattr(patience, "DOUBT_S", 0.1)
    monkeypatch.setattr(patience, "PAUSE_MIN_S", 0.05)


class Context(context_service_pb2_grpc.ContextServiceServicer):
    """Does what a test wants with each call; `asked` counts by conversation, questions of the link as "probe"."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.questions = self.most_questions = 0
        self.behave: Callable[[str, Any], Awaitable[None]] = self.well

    async def well(self, name: str, context: Any) -> None:
        return

    async def hang(self, name: str, context: Any) -> None:
        await asyncio.Event().wait()

    async def fail(self, name: str, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the database is down")

    async def _called(self, name: str, context: Any) -> None:
        if not name.startswith("probe-"):
            self.asked[name] += 1
            return await self.behave(name, context)
        self.asked["probe"] += 1
        self.questions += 1
        self.most_questions = max(self.most_questions, self.questions)
        try:
            await self.behave("probe", context)
        finally:
            self.questions -= 1

    async def LoadContext(self, request: pb.LoadContextRequest, context: Any) -> pb.LoadContextResponse:
        await self._called(request.conversation_id, context)
        return pb.LoadContextResponse()

    async def RecordTurn(self, request: pb.RecordTurnRequest, context: Any) -> pb.RecordTurnResponse:
        await self._called(request.record.conversation_id, context)
        return pb.RecordTurnResponse(version=1)


@asynccontextmanager
async def served(context: Context, address: str) -> AsyncIterator[None]:
    def add(server: grpc.aio.Server) -> None:
        context_service_pb2_grpc.add_ContextServiceServicer_to_server(context, server)

    async with Server(_Plain(add), ServerConfig(service="context", address=address, grace_s=0.1)):
        yield


@asynccontextmanager
async def linked(address: str, *, full_s: float = FULL_S) -> AsyncIterator[ContextLink]:
    services = Services(buffer=address, context=address, agent=address)
    link = ContextLink(services.context, load_timeout_s=full_s)
    try:
        yield link
    finally:
        await link.close()
        await services.close()


@asynccontextmanager
async def both(tmp_path: Path) -> AsyncIterator[tuple[ContextLink, Context]]:
    context, address = Context(), f"unix:{tmp_path}/context"
    async with served(context, address), linked(address) as link:
        await load(link, "warm")
        yield link, context


def load(link: ContextLink, name: str = "c1") -> Coroutine[Any, Any, pb.LoadContextResponse]:
    return link.load(pb.LoadContextRequest(conversation_id=name))


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def until_out(link: ContextLink) -> None:
    with pytest.raises((ContextOut, grpc.aio.AioRpcError)):
        await load(link)
    await until(lambda: link.trust is Trust.OUT)


async def test_who_waits_for_a_service_that_hangs_is_let_go_together(tmp_path: Path) -> None:
    async with both(tmp_path) as (link, context):
        context.behave = context.hang
        results = await asyncio.gather(*(load(link, f"c{n}") for n in range(20)), return_exceptions=True)
        assert {type(r) for r in results} == {ContextOut}, "not one of them used up its whole patience"
        assert link.trust is Trust.OUT and link.counters["let_go"] == 20 and link.counters["outages"] == 1


async def test_a_service_that_is_out_is_asked_by_nobody_but_us_and_found_again(tmp_path: Path) -> None:
    async with both(tmp_path) as (link, context):
        context.behave = context.hang
        await until_out(link)
        before = context.asked.total() - context.asked["probe"]
        for _ in range(50):
            with pytest.raises(ContextOut):
                await load(link, "c2")
            with pytest.raises(ContextOut):
                await link.record(pb.RecordTurnRequest(record=turn_pb2.TurnRecord()), timeout_s=1)
        assert context.asked.total() - context.asked["probe"] == before
        assert context.most_questions == 1
        context.behave = context.well
        await until(lambda: link.trust is Trust.TRUSTED)
        assert link.out_s == 0.0
        await load(link)


async def test_errors_at_once_open_it_too_and_are_not_multiplied(tmp_path: Path) -> None:
    async with both(tmp_path) as (link, context):
        context.behave = context.fail
        await until_out(link)
        for _ in range(200):
            with pytest.raises(ContextOut):
                await load(link, "c2")
        # The channel's retries stop by themselves; see service_kit.channels.retry_config.
        assert context.asked["c1"] <= 3 and not context.asked["c2"]
        asked = context.asked["probe"]
        await until(lambda: context.asked["probe"] > asked)
        context.behave = context.well
        await until(lambda: link.trust is Trust.TRUSTED)


async def test_a_service_that_is_slow_but_answers_is_waited_for(tmp_path: Path) -> None:
    async with both(tmp_path) as (link, context):

        async def slowly(name: str, context: Any) -> None:
            await asyncio.sleep(0.6)

        context.behave = slowly
        await asyncio.gather(load(link), return_exceptions=True)
        await until(lambda: link.trust is Trust.TRUSTED)
        outages = link.counters["outages"]
        for _ in range(3):
            await load(link)
        assert link.counters["outages"] == outages and link.trust is Trust.TRUSTED


async def test_a_restart_within_the_grace_is_noticed_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GRACE_S", 20.0)
    context, address = Context(), f"unix:{tmp_path}/context"
    async with linked(address, full_s=20.0) as link:
        async with served(context, address):
            await load(link)
        waiting = asyncio.create_task(load(link))
        await until(lambda: link.trust is Trust.DOUBTED)
        async with served(context, address):
            await waiting
            assert link.trust is Trust.TRUSTED and not link.counters["outages"]


async def test_a_service_that_stays_away_costs_nothing_and_is_found_when_it_comes(tmp_path: Path) -> None:
    context, address = Context(), f"unix:{tmp_path}/context"
    async with linked(address) as link:
        await until_out(link)
        with pytest.raises(ContextOut):
            await load(link)
        async with served(context, address):
            await until(lambda: link.trust is Trust.TRUSTED)
            await load(link)


async def test_one_call_that_hangs_says_nothing_about_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "GRACE_S", 1.5)
    async with both(tmp_path) as (link, context):

        async def one_hangs(name: str, call: Any) -> None:
            if name == "stuck":
                await context.hang(name, call)

        context.behave = one_hangs
        stuck = asyncio.create_task(load(link, "stuck"))
        await until(lambda: context.asked["probe"] > 0)
        await until(lambda: link.trust is Trust.TRUSTED)
        for _ in range(20):
            await load(link, "other")
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await stuck
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED, "it kept its whole patience"
        assert not link.counters["outages"] and not link.counters["let_go"]


async def test_a_service_that_comes_and_goes_is_followed(tmp_path: Path) -> None:
    async with both(tmp_path) as (link, context):
        for behaviour in (context.hang, context.fail, context.hang):
            context.behave = behaviour
            await until_out(link)
            context.behave = context.well
            await until(lambda: link.trust is Trust.TRUSTED)
            await load(link)
        assert link.counters["outages"] == 3


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION])
async def test_an_answer_that_says_no_is_an_answer(tmp_path: Path, code: grpc.StatusCode) -> None:
    async with both(tmp_path) as (link, context):

        async def refuse(name: str, call: Any) -> None:
            await call.abort(code, "no")

        context.behave = refuse
        with pytest.raises(grpc.aio.AioRpcError):
            await load(link)
        assert link.trust is Trust.TRUSTED and not link.counters["doubts"]


async def test_closing_while_it_is_out_leaves_nothing_behind(tmp_path: Path) -> None:
    async with both(tmp_path) as (link, context):
        context.behave = context.hang
        await until_out(link)
        await link.close()
        assert not [t for t in asyncio.all_tasks() if t.get_name() == "context-asking"]
