"""Typed errors of the buffer; see ErrorReason in the contract."""

import grpc

from service_kit.errors import ServiceError


class BufferFull(ServiceError):
    """The buffer is full; nothing was stored. Repeat the whole call after the delay."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "BUFFER_FULL"


class WrongState(ServiceError):
    """The resource is not in a state that allows this."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "WRONG_STATE"


class ProtocolError(ServiceError):
    """The stream's first frame has to be Hello."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PROTOCOL"
