"""The errors that only this service knows; the rest is in `service_kit.errors`."""

import grpc

from service_kit.errors import ServiceError


class Forgotten(ServiceError):
    """The contact asked to be forgotten."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FORGOTTEN"


class KeptElsewhere(ServiceError):
    """The data are kept by somebody else, who makes the backups."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_IMPLEMENTED"

    def __init__(self) -> None:
        super().__init__(method="Backup")
