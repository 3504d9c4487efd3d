"""The context service as turns use it: nobody waits for one that is out. One per process, shared by all turns."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from agentic_sdr.common.v1 import message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from ingress.patience import Patience, Trust, pause_s
from service_kit import errors, logs

if TYPE_CHECKING:
    from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceAsyncStub

T = TypeVar("T")
# These say something about the request; the service is well.
_ANSWERS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
}
_log = logs.get(__name__)


class ContextOut(Exception):
    """The context service is out: it was not asked, or is not waited for any more."""


class ContextLink:
    """LoadContext and RecordTurn, as long as they are worth waiting for."""

    def __init__(self, stub: ContextServiceAsyncStub, *, load_timeout_s: float) -> None:
        self._stub = stub
        self._load_timeout_s = load_timeout_s
        self._patience = Patience(full_s=load_timeout_s)
        self._waiting: set[asyncio.Timeout] = set()
        self._judging: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters: Counter[str] = Counter()

    @property
    def trust(self) -> Trust:
        """What is thought of the service."""
        return self._patience.trust

    @property
    def out_s(self) -> float:
        """For how long it has been out; 0 when it is not."""
        return _now() - self._patience.out_since if self.trust is Trust.OUT else 0.0

    async def load(self, request: pb.LoadContextRequest) -> pb.LoadContextResponse:
        """LoadContext, over a restart of the service too. Raises AioRpcError and ContextOut."""
        began = _now()
        response = await self._watched(
            lambda: self._stub.LoadContext(request, timeout=self._load_timeout_s, wait_for_ready=True)
        )
        self._answered(took_s=_now() - began)
        return response

    async def record(self, request: pb.RecordTurnRequest, *, timeout_s: float) -> pb.RecordTurnResponse:
        """RecordTurn. Raises AioRpcError and ContextOut."""
        response = await self._watched(lambda: self._stub.RecordTurn(request, timeout=timeout_s))
        self._answered()
        return response

    async def close(self) -> None:
        """Asks no more."""
        self._stop_asking()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- waiting

    async def _watched(self, ask: Callable[[], Awaitable[T]]) -> T:
        if self.trust is Trust.OUT:
            self.counters["skipped"] += 1
            raise ContextOut
        began = _now()
        overdue = asyncio.get_running_loop().call_later(self._patience.overdue_s, self._trouble, began)
        waiting = asyncio.timeout(None)
        try:
            async with waiting:
                self._waiting.add(waiting)
                return await ask()
        except TimeoutError:
            self.counters["let_go"] += 1
            raise ContextOut from None
        except grpc.aio.AioRpcError as error:
            self._failed(error)
            raise
        finally:
            overdue.cancel()
            self._waiting.discard(waiting)

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() in _ANSWERS:
            self._answered()
        elif error.code() is not grpc.StatusCode.CANCELLED:
            self._trouble(_now())

    def _trouble(self, since: float) -> None:
        if not self._patience.trouble(_now(), since=since):
            return
        self.counters["doubts"] += 1
        loop = asyncio.get_running_loop()
        self._judging = loop.call_at(self._patience.proven_at, self._judge)
        self._asking = loop.create_task(self._ask_until_answered(), name="context-asking")
        self._tasks.add(self._asking)
        self._asking.add_done_callback(self._tasks.discard)

    def _judge(self) -> None:
        # The loop's timers may be early by its resolution.
        if not self._patience.judge(max(_now(), self._patience.proven_at)):
            return
        self.counters["outages"] += 1
        _log.warning("context_out", waiting=len(self._waiting))
        waiting, self._waiting = self._waiting, set()
        for one in waiting:
            one.reschedule(_now())

    def _answered(self, *, took_s: float | None = None) -> None:
        out_s = self.out_s
        if self._patience.answered(took_s=took_s):
            _log.info("context_back", out_s=round(out_s, 1))
        self._stop_asking()

    def _stop_asking(self) -> None:
        if self._judging:
            self._judging.cancel()
            self._judging = None
        if self._asking and self._asking is not asyncio.current_task():
            # It may hang in a call of the time before; the next doubt asks anew.
            self._asking.cancel()
        self._asking = None

    # ---- asking

    async def _ask_until_answered(self) -> None:
        """Questions of our own, one at a time: about a conversation that nobody has, so no cache knows the answer."""
        failures = 0
        while self.trust is not Trust.TRUSTED:
            self.counters["probes"] += 1
            began = _now()
            try:
                await self._stub.LoadContext(_nobody(), timeout=self._load_timeout_s, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _ANSWERS:
                    failures += 1
                    _log.debug("context_probe_failed", code=error.code().name, reason=errors.parse(error).reason)
                    await asyncio.sleep(pause_s(failures))
                    continue
            self._answered(took_s=_now() - began)


def _nobody() -> pb.LoadContextRequest:
    name = f"probe-{uuid.uuid4().hex}"
    return pb.LoadContextRequest(
        conversation_id=name,
        scope=message_pb2.Scope(channel="probe", instance="probe"),
        contact=message_pb2.Contact(contact=f"lid:{uuid.uuid4().int % 10**15}"),
        history_limit=1,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
