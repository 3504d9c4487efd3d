"""Names of enum values, also of those that only a newer version knows."""

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import error_reason_pb2
from service_kit.enums import label


def test_a_value_of_a_newer_version_has_a_name_too() -> None:
    assert label(pb.SendOutcome.DESCRIPTOR, pb.SEND_OUTCOME_REFUSED_FINAL, "SEND_OUTCOME_") == "refused_final"
    assert label(error_reason_pb2.ErrorReason.DESCRIPTOR, 9_999) == "other"
