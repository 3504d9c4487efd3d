"""The agent's typed errors."""

import grpc

from service_kit.errors import ServiceError


class ProtocolError(ServiceError):
    """The stream's frames did not come in the order that the method asks for."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PROTOCOL"


class ModelFailed(ServiceError):
    """The model gave nothing usable."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "MODEL_FAILED"


class NotBuilt(ServiceError):
    """The method exists in the contract and is not built yet."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_IMPLEMENTED"
