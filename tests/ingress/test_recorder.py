"""Records in order, over a link that answers as told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import cast

import grpc
import pytest

from agentic_sdr.common.v1 import turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from context_service.errors import Forgotten
from ingress import recorder as recorder_module
from ingress.context_link import ContextLink, ContextOut
from ingress.recorder import HANDED_OUT_TIMEOUT_S, Recorder
from service_kit.errors import InvalidArgument, ServiceError, Unavailable

TURNS = [turn_pb2.TurnRecord(turn_id=f"t{n}") for n in range(1, 5)]


def on_the_wire(error: ServiceError) -> grpc.aio.AioRpcError:
    details = ("grpc-status-details-bin", error.to_status().SerializeToString())
    return grpc.aio.AioRpcError(error.code, grpc.aio.Metadata(), grpc.aio.Metadata(details), details=error.message)


def timed_out() -> Exception:
    return grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata())


class Link:
    """Raises what `failures` names for a turn, else counts it."""

    def __init__(self, **failures: Callable[[], Exception]) -> None:
        self.failures = failures
        self.asked: list[str] = []
        self.timeouts: list[float] = []
        self.counters: Counter[str] = Counter()

    async def record(self, request: pb.RecordTurnRequest, *, timeout_s: float) -> pb.RecordTurnResponse:
        turn_id = request.record.turn_id
        self.asked.append(turn_id)
        self.timeouts.append(timeout_s)
        if turn_id in self.failures:
            raise self.failures[turn_id]()
        return pb.RecordTurnResponse(version=int(turn_id[1:]) + 10)


def recorder(link: Link, *, timeout_s: float = 0.5) -> Recorder:
    return Recorder(cast(ContextLink, link), timeout_s=timeout_s)


async def test_a_list_is_recorded_in_order_and_tells_the_last_version() -> None:
    link = Link()
    assert await recorder(link).record_own(TURNS) == (4, 14)
    assert link.asked == ["t1", "t2", "t3", "t4"]


@pytest.mark.parametrize("failure", [ContextOut, timed_out, lambda: on_the_wire(Unavailable())])
async def test_nothing_is_recorded_behind_one_that_failed(failure: Callable[[], Exception]) -> None:
    link = Link(t3=failure)
    assert await recorder(link).record_own(TURNS) == (2, 12)
    assert link.asked == ["t1", "t2", "t3"]


@pytest.mark.parametrize(
    "error", [Forgotten(conversation_id="c1"), InvalidArgument("never", field="record.messages[0]")]
)
async def test_what_will_never_be_taken_holds_nothing_up(error: ServiceError) -> None:
    link = Link(t2=lambda: on_the_wire(error))
    assert await recorder(link).record_own(TURNS) == (4, 14)


async def test_after_a_record_that_ran_out_of_time_no_other_lane_waits_until_one_works() -> None:
    """Reads work, writes hang: the link sees a service that answers, and each turn held its lane for 500 ms."""
    link = Link(t1=timed_out)
    one = recorder(link)
    assert await one.record_own(TURNS[:1]) == (0, 0)
    assert await one.record_own(TURNS[1:2]) == (0, 0)
    assert link.asked == ["t1"] and link.counters["rested"] == 1
    assert await one.record_handed_out(TURNS[1:2]) == (1, 12), "what nobody waits for finds out that it works"
    assert await one.record_own(TURNS[2:3]) == (1, 13)


async def test_the_rest_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hand-outs may all go to another worker."""
    monkeypatch.setattr(recorder_module, "REST_S", 0.0)
    one = recorder(Link(t1=timed_out))
    await one.record_own(TURNS[:1])
    assert await one.record_own(TURNS[1:2]) == (1, 12)


async def test_a_long_list_that_ran_out_of_time_is_no_slow_service() -> None:
    link = Link(t3=timed_out)
    one = recorder(link)
    assert await one.record_own(TURNS) == (2, 12)
    assert await one.record_own(TURNS[3:]) == (1, 14)


async def test_who_has_no_time_left_asks_for_nothing() -> None:
    link = Link()
    assert await recorder(link, timeout_s=0.0).record_own(TURNS) == (0, 0)
    assert not link.asked


async def test_the_time_is_for_the_whole_list_and_longer_when_nobody_waits() -> None:
    link = Link()
    await recorder(link).record_own(TURNS)
    assert link.timeouts == sorted(link.timeouts, reverse=True) and max(link.timeouts) <= 0.5
    link.timeouts.clear()
    await recorder(link).record_handed_out(TURNS)
    assert 0.5 < max(link.timeouts) <= HANDED_OUT_TIMEOUT_S
