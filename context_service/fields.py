"""Checks of single request fields. Each raises InvalidArgument that names the field."""

import uuid

from google.protobuf.timestamp_pb2 import Timestamp

from service_kit.durations import timestamp_to_ms
from service_kit.errors import InvalidArgument

MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 64 * 1024
MAX_SUMMARY_BYTES = 8 * 1024
_LAST_SECOND = 253_402_300_799
_MAX_INT64 = 2**63 - 1


def identifier(value: str, field: str) -> str:
    """An id that somebody else chose: not empty, not long, printable."""
    if not value:
        raise InvalidArgument(f"{field} is missing.", field=field)
    return optional_identifier(value, field)


def optional_identifier(value: str, field: str) -> str:
    """The same, or empty."""
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidArgument(f"{field} is longer than {MAX_ID_BYTES} bytes.", field=field)
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise InvalidArgument(f"{field} holds a control character.", field=field)
    return value


def uuid_text(value: str, field: str) -> str:
    """A UUID in its usual form."""
    try:
        parsed = uuid.UUID(identifier(value, field))
    except ValueError:
        raise InvalidArgument(f"{field} is not a UUID.", field=field) from None
    return str(parsed)


def text(value: str, field: str, *, most: int = MAX_TEXT_BYTES) -> str:
    """Free text without U+0000, which Postgres does not take; `most` in bytes."""
    if len(value.encode()) > most:
        raise InvalidArgument(f"{field} is longer than {most} bytes.", field=field)
    return value.replace("\0", "")


def short_text(value: str, field: str, *, most: int = 100) -> str:
    """The same with a limit in characters."""
    if len(value) > most:
        raise InvalidArgument(f"{field} is longer than {most} characters.", field=field)
    return value.replace("\0", "")


def number(value: int, field: str, *, least: int = 0, most: int = _MAX_INT64) -> int:
    """A number within its limits."""
    if not least <= value <= most:
        raise InvalidArgument(f"{field} has to be {least} to {most}.", field=field)
    return value


def one_of(value: str, field: str, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in allowed:
        raise InvalidArgument(f"{field} has to be one of {', '.join(allowed)}.", field=field)
    return value


def instant(value: Timestamp, field: str) -> int:
    """Milliseconds since the epoch, within the years 1970 to 9999."""
    if not (0 <= value.seconds <= _LAST_SECOND and 0 <= value.nanos < 1_000_000_000):
        raise InvalidArgument(f"{field} is not a time between 1970 and 9999.", field=field)
    return timestamp_to_ms(value)
