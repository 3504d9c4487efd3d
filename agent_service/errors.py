"""The agent's typed errors."""

import grpc

from service_kit.errors import ServiceError


class ModelFailed(ServiceError):
    """The model gave nothing usable."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "MODEL_FAILED"


class NotBuilt(ServiceError):
    """The method exists in the contract and is not built yet."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_IMPLEMENTED"
