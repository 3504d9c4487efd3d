"""Typed errors of the buffer; see ErrorReason in the contract."""

import grpc

from service_kit.errors import ServiceError


class BufferFull(ServiceError):
    """The buffer is full; nothing was stored. Repeat the whole call after the delay."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "BUFFER_FULL"
