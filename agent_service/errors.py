"""The agent's typed errors."""

import grpc

from agent_service.conversation import UsageReported
from service_kit.errors import ServiceError


class ModelFailed(ServiceError):
    """The model gave nothing usable."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "MODEL_FAILED"

    def __init__(self, message: str | None = None, *, model: str, spent: UsageReported | None = None) -> None:
        super().__init__(message, model=model)
        if spent is not None:
            self.metadata["tokens"] = str(spent.prompt + spent.completion)
            self.metadata["cost_micros"] = str(spent.cost_micros)


class NotBuilt(ServiceError):
    """The method exists in the contract and is not built yet."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_IMPLEMENTED"
