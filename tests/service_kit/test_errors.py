import grpc
import pytest
from google.rpc import error_details_pb2

from service_kit import errors


class Teapot(errors.ServiceError):
    """It is a teapot.

    The rest of the docstring is for the reader.
    """

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "TEAPOT"


def as_rpc_error(error: errors.ServiceError, details: bytes | None = None) -> grpc.aio.AioRpcError:
    payload = error.to_status().SerializeToString() if details is None else details
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", payload))
    return grpc.aio.AioRpcError(error.code, grpc.aio.Metadata(), trailing, details=error.message)


def test_the_docstring_is_the_default_message() -> None:
    assert Teapot().message == str(Teapot()) == "It is a teapot."
    assert Teapot("other").message == "other"


def test_status_carries_one_error_info_and_retry_info_only_if_known() -> None:
    status = Teapot(retry_after_ms=250, spout="short").to_status()
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == ("TEAPOT", "agentic-sdr", {"spout": "short"})
    assert status.details[1].Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    assert len(Teapot().to_status().details) == 1


@pytest.mark.parametrize(
    ("error", "code", "reason", "metadata"),
    [
        (errors.InvalidArgument("no id", field="id"), "INVALID_ARGUMENT", "INVALID_ARGUMENT", {"field": "id"}),
        (errors.InvalidArgument(), "INVALID_ARGUMENT", "INVALID_ARGUMENT", {}),
        (errors.DeadlineExceeded(), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", {}),
        (errors.Unavailable(retry_after_ms=5), "UNAVAILABLE", "UNAVAILABLE", {}),
        (errors.NotFound(), "NOT_FOUND", "NOT_FOUND", {}),
        (errors.Internal(error_id="x"), "INTERNAL", "INTERNAL", {"error_id": "x"}),
    ],
)
def test_parse_reads_back_what_was_raised(
    error: errors.ServiceError, code: str, reason: str, metadata: dict[str, str]
) -> None:
    parsed = errors.parse(as_rpc_error(error))
    assert (parsed.code.name, parsed.reason, parsed.metadata) == (code, reason, metadata)
    assert (parsed.message, parsed.retry_after_ms) == (error.message, error.retry_after_ms)


def test_parse_survives_what_is_not_ours() -> None:
    assert errors.parse(as_rpc_error(Teapot(), details=b"\xff\xff")).reason == ""
    bare = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, details="gone")
    assert errors.parse(bare) == errors.ParsedError(code=grpc.StatusCode.UNAVAILABLE, message="gone")
    assert errors.parse(grpc.RpcError("odd")).code is grpc.StatusCode.UNKNOWN


def test_a_lone_surrogate_does_not_hide_the_error() -> None:
    assert Teapot("\ud800", spout="\ud800").to_status().message == "?"
