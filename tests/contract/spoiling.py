"""Every way to spoil a valid message: each field in turn, by what its type allows. A new field is spoilt by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

# Longer than any text may be.
LONG = 70_000
TIMES = ("google.protobuf.Timestamp", "google.protobuf.Duration")
_INTS = {
    FieldDescriptor.CPPTYPE_INT32: (-1, 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-1, 2**63 - 1),
}
Step = tuple[str, int | None]


@dataclass(frozen=True, kw_only=True)
class Spoilt:
    """A request with one thing wrong; `field` is its path, `kind` what was done to it."""

    field: str
    kind: str
    request: Message

    @property
    def name(self) -> str:
        """For tables and messages."""
        return f"{self.field} {self.kind}"


def spoil(request: Message, *, long: int = LONG) -> Iterator[Spoilt]:
    """Each field of the request that is set, in every way."""
    for steps, kind, value in _ways(request, ()):
        if kind == "long":
            value = "x" * long
        spoilt = type(request)()
        spoilt.CopyFrom(request)
        _put(spoilt, steps, value)
        yield Spoilt(field=_path(steps), kind=kind, request=spoilt)


def _ways(message: Message, at: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], str, Any]]:
    for field, value in message.ListFields():
        here = (*at, (field.name, None))
        if _is_map(field):
            continue
        if field.is_repeated:
            yield here, "missing", None
            here, value = (*at, (field.name, 0)), value[0]
        if field.message_type:
            if not field.is_repeated:
                yield here, "missing", None
            if field.message_type.full_name in TIMES:
                yield here, "negative", _time(value, seconds=-1)
                yield here, "huge", _time(value, seconds=2**60)
                yield here, "nanos", _time(value, nanos=-1)
            else:
                yield from _ways(value, here)
        else:
            yield from ((here, kind, bad) for kind, bad in _scalars(field, value))


def _time(value: Any, **parts: int) -> Message:
    return type(value)(**{"seconds": 1, **parts})


def _scalars(field: FieldDescriptor, value: Any) -> Iterator[tuple[str, Any]]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return
        yield from (("empty", ""), ("long", ""), ("nul", f"{value}\0"))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        yield from (("unspecified", 0), ("unknown", 99))
    elif field.cpp_type in _INTS:
        least, most = _INTS[field.cpp_type]
        yield from (("negative", least), ("huge", most))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        yield from (("nan", math.nan), ("huge", 1e300))


def _put(message: Any, steps: tuple[Step, ...], value: Any) -> None:
    for name, index in steps[:-1]:
        message = getattr(message, name) if index is None else getattr(message, name)[index]
    name, index = steps[-1]
    if value is None:
        message.ClearField(name)
    elif isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    elif index is None:
        setattr(message, name, value)
    else:
        getattr(message, name)[index] = value


def _path(steps: tuple[Step, ...]) -> str:
    named = [name if index is None else f"{name}[{index}]" for name, index in steps]
    return ".".join(named)


def set_fields(request: Message) -> set[str]:
    """Full names of the fields that are set, in all depths."""
    found = set()
    for field, value in request.ListFields():
        found.add(field.full_name)
        if field.message_type and not _is_map(field) and field.message_type.full_name not in TIMES:
            for one in value if field.is_repeated else [value]:
                found |= set_fields(one)
    return found


def all_fields(descriptor: Descriptor) -> set[str]:
    """Full names of all fields of a message, in all depths."""
    found: set[str] = set()
    waiting = [descriptor]
    while waiting:
        for field in waiting.pop().fields:
            if field.full_name in found:
                continue
            found.add(field.full_name)
            if field.message_type and not _is_map(field) and field.message_type.full_name not in TIMES:
                waiting.append(field.message_type)
    return found


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
