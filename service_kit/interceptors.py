"""What every call passes through: request id, one log line, sanitised errors, a time limit."""

import asyncio
import inspect
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_status import rpc_status

from service_kit import logs
from service_kit.errors import DeadlineExceeded, Internal, ServiceError, Unavailable

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/grpc.health.v1.", "/grpc.reflection.")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OUR_FAULT = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
_log = logs.get(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # Generic in the stubs only.
Proceed = Callable[[], Awaitable[Any]]

_MAKE_HANDLER: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


@dataclass(frozen=True, kw_only=True)
class CallInfo:
    """What is known of a call before its handler runs."""

    method: str
    request_id: str
    streaming: bool


class Around(grpc.aio.ServerInterceptor):
    """A server interceptor that needs to write only `around`; works for all four kinds of method."""

    async def around(self, call: CallInfo, context: Context, proceed: Proceed) -> Any:
        """Do something before and after `await proceed()`, and return what it returned."""
        return await proceed()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        call = CallInfo(
            method=handler_call_details.method,
            request_id=_received_request_id(handler_call_details),
            streaming=bool(handler.request_streaming or handler.response_streaming),
        )
        return self._wrap(handler, call)

    def _wrap(self, handler: Handler, call: CallInfo) -> Handler:
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def unary(request: Any, context: Context) -> Any:
            return await self.around(call, context, lambda: behaviour(request, context))

        async def stream(request: Any, context: Context) -> None:
            await self.around(call, context, lambda: _write_all(behaviour(request, context), context))

        return _MAKE_HANDLER[bool(handler.request_streaming), bool(handler.response_streaming)](
            stream if handler.response_streaming else unary,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


class InFlight(Around):
    """Counts running handlers: `server.stop` may return before those that ended by abort have cleaned up."""

    def __init__(self) -> None:
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def around(self, call: CallInfo, context: Context, proceed: Proceed) -> Any:
        self._running += 1
        self._idle.clear()
        try:
            return await proceed()
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no handler runs; False when some still do after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


class RequestContext(Around):
    """Takes or creates the request id and binds it, so that every line and every call onwards carries it."""

    async def around(self, call: CallInfo, context: Context, proceed: Proceed) -> Any:
        # Each call runs in a task of its own, whose context was copied from whoever started the server.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=call.request_id or uuid.uuid4().hex)
        return await proceed()


class AccessLog(Around):
    """One canonical line per call."""

    async def around(self, call: CallInfo, context: Context, proceed: Proceed) -> Any:
        started, peer = time.perf_counter(), context.peer()  # The peer is forgotten once the call has ended.
        code = grpc.StatusCode.UNKNOWN
        try:
            response = await proceed()
            code = _code_of(context, default=grpc.StatusCode.OK)
            return response
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:
            code = _code_of(context, default=grpc.StatusCode.UNKNOWN)
            raise
        finally:
            _log_at(call.method, code)(
                "call_handled",
                method=call.method,
                code=code.name,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
                peer=peer.partition(":")[0],
            )


class Errors(Around):
    """Typed errors become rich statuses; any other exception stays in the log under an error id."""

    async def around(self, call: CallInfo, context: Context, proceed: Proceed) -> Any:
        try:
            return await proceed()
        except grpc.aio.AbortError:
            raise
        except ServiceError as error:
            failure = error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this call: something inside it was. Raised on, it leaves the client to its deadline.
            failure = Unavailable("The call was interrupted.")
        except Exception:
            failure = Internal(error_id=uuid.uuid4().hex)
            _log.exception("call_failed", method=call.method, **failure.metadata)
        structlog.contextvars.bind_contextvars(reason=failure.reason)
        return await context.abort_with_status(rpc_status.to_status(failure.to_status()))


class DefaultDeadline(Around):
    """A time limit for plain calls that came without one; streams are exempt."""

    def __init__(self, *, default_deadline_s: float = 30.0) -> None:
        self._limit_s = default_deadline_s

    async def around(self, call: CallInfo, context: Context, proceed: Proceed) -> Any:
        remaining: float | None = context.time_remaining()
        if call.streaming or remaining is not None:
            return await proceed()
        try:
            async with asyncio.timeout(self._limit_s) as limit:
                return await proceed()
        except TimeoutError:
            if limit.expired():
                raise DeadlineExceeded from None
            raise


def server_interceptors(*, default_deadline_s: float = 30.0) -> list[grpc.aio.ServerInterceptor]:
    """The standard chain, outermost first."""
    return [RequestContext(), AccessLog(), Errors(), DefaultDeadline(default_deadline_s=default_deadline_s)]


class DeadlineRequired(grpc.aio.UnaryUnaryClientInterceptor):
    """A call without a deadline is a programming error."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_deadline(client_call_details), request)


class StreamDeadlineRequired(grpc.aio.UnaryStreamClientInterceptor):
    """The same for methods that answer with a stream."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_deadline(client_call_details), request)


class PropagateRequestId(grpc.aio.UnaryUnaryClientInterceptor):
    """Hands the current request id on."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_request_id(client_call_details), request)


class StreamPropagateRequestId(grpc.aio.UnaryStreamClientInterceptor):
    """The same for methods that answer with a stream."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_request_id(client_call_details), request)


def client_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """The standard chain. Two-way streams live long and pass through none of it."""
    return [DeadlineRequired(), StreamDeadlineRequired(), PropagateRequestId(), StreamPropagateRequestId()]


async def _write_all(result: Any, context: Context) -> None:
    """Run a streaming handler of either style: an async generator, or a coroutine that writes by itself."""
    if not hasattr(result, "__aiter__"):
        await result
        return
    messages: AsyncIterator[Any] = result
    try:
        async for message in messages:
            await context.write(message)
    finally:
        # A cancel that lands in `write` leaves the generator suspended: close it now, not when it is collected.
        if inspect.isasyncgen(messages):
            await messages.aclose()


def _received_request_id(details: grpc.HandlerCallDetails) -> str:
    value = dict(details.invocation_metadata or ()).get(REQUEST_ID_KEY, "")
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else ""


def _code_of(context: Context, *, default: grpc.StatusCode) -> grpc.StatusCode:
    code: Any = context.code()
    return code if isinstance(code, grpc.StatusCode) else _CODES.get(code or 0, default) if code else default


def _log_at(method: str, code: grpc.StatusCode) -> Callable[..., Any]:
    if code in _OUR_FAULT:
        return _log.error
    if method.startswith(_QUIET):
        return _log.debug
    return _log.info if code is grpc.StatusCode.OK else _log.warning


def _with_deadline(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    if details.timeout is None:
        raise ValueError(f"call to {_text(details.method)} without a timeout: every call states how long it may take")
    return details


def _with_request_id(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if not isinstance(request_id, str):
        return details
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    if metadata.get(REQUEST_ID_KEY) is None:
        metadata.add(REQUEST_ID_KEY, request_id)
    return grpc.aio.ClientCallDetails(
        method=details.method,
        timeout=details.timeout,
        metadata=metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )


def _text(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method
