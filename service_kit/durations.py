"""Milliseconds to and from the protobuf time types."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def ms_to_duration(ms: int) -> Duration:
    """Milliseconds as a protobuf duration."""
    duration = Duration()
    duration.FromMilliseconds(ms)
    return duration


def duration_to_ms(duration: Duration) -> int:
    """A protobuf duration as whole milliseconds."""
    return duration.ToMilliseconds()


def ms_to_timestamp(epoch_ms: int) -> Timestamp:
    """Epoch milliseconds as a protobuf timestamp."""
    timestamp = Timestamp()
    timestamp.FromMilliseconds(epoch_ms)
    return timestamp


def timestamp_to_ms(timestamp: Timestamp) -> int:
    """A protobuf timestamp as whole epoch milliseconds."""
    return timestamp.ToMilliseconds()
