"""Names of protobuf enum values for logs, counters and answers."""

from google.protobuf.descriptor import EnumDescriptor


def label(enum: EnumDescriptor, number: int, prefix: str = "") -> str:
    """The value's name in lower case without its prefix; "other" for one of a newer version (`Name` raises)."""
    known = enum.values_by_number.get(number)
    return str(known.name).removeprefix(prefix).lower() if known else "other"
