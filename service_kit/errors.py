"""Typed errors: code, reason and metadata travel as `google.rpc.Status`, and nothing else reaches the peer."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]

from service_kit.durations import duration_to_ms, ms_to_duration

DOMAIN = "agentic-sdr"
_DETAILS_KEY = "grpc-status-details-bin"


class ServiceError(Exception):
    """The call failed."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    reason: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str | None = None, *, retry_after_ms: int | None = None, **metadata: str) -> None:
        self.message = _encodable(message if message is not None else self.default_message())
        self.retry_after_ms = retry_after_ms
        self.metadata = {key: _encodable(value) for key, value in metadata.items()}
        super().__init__(self.message)

    @classmethod
    def default_message(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or cls.reason).strip().splitlines()[0]

    def to_status(self) -> status_pb2.Status:
        """The error as it goes on the wire."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        status.details.add().Pack(info)
        if self.retry_after_ms is not None:
            retry = error_details_pb2.RetryInfo(retry_delay=ms_to_duration(self.retry_after_ms))
            status.details.add().Pack(retry)
        return status


class InvalidArgument(ServiceError):
    """The request is not valid."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"

    def __init__(self, message: str | None = None, *, field: str = "") -> None:
        super().__init__(message)
        if field:
            self.metadata["field"] = _encodable(field)


class DeadlineExceeded(ServiceError):
    """The call took longer than the server allows."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Unavailable(ServiceError):
    """The service cannot answer now; try again."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class NotFound(ServiceError):
    """There is no such thing."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class WrongState(ServiceError):
    """The resource is not in a state that allows this."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "WRONG_STATE"


class ProtocolError(ServiceError):
    """The stream's frames did not come in the order that the method asks for."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PROTOCOL"


class BadPageToken(ServiceError):
    """The page token was not made by this method with these filters."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "BAD_PAGE_TOKEN"

    def __init__(self) -> None:
        super().__init__(field="page_token")


class Internal(ServiceError):
    """Something went wrong inside the service; its log has the details under the error id."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


@dataclass(frozen=True, kw_only=True)
class ParsedError:
    """What a client learns from a failed call; `reason` is empty when the peer sent no details."""

    code: grpc.StatusCode
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_ms: int | None = None
    message: str = ""


def parse(error: grpc.aio.AioRpcError | grpc.RpcError) -> ParsedError:
    """Read a failed call's status and its details; anything malformed is left out rather than raised."""
    if not isinstance(error, grpc.aio.AioRpcError) and not hasattr(error, "code"):
        return ParsedError(code=grpc.StatusCode.UNKNOWN, message=str(error))
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    has_retry = False
    for detail in _status_of(error).details:
        try:
            detail.Unpack(info)
            has_retry = detail.Unpack(retry) or has_retry
        except DecodeError:
            continue
    return ParsedError(
        code=error.code(),
        reason=info.reason,
        metadata=dict(info.metadata),
        retry_after_ms=duration_to_ms(retry.retry_delay) if has_retry else None,
        message=error.details() or "",
    )


def _status_of(error: grpc.RpcError) -> status_pb2.Status:
    trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailing:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _encodable(text: str) -> str:
    # A lone surrogate cannot go into a protobuf string and would hide the error behind another one.
    return text.encode("utf-8", "replace").decode("utf-8")
