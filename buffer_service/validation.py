"""Checks of requests, before anything is done. Every failure names its field."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from service_kit.errors import InvalidArgument

MAX_EVENTS = 1_000
MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 64 << 10
MAX_BODY_BYTES = 512 << 10
MAX_PARTS = 50
_ALIAS = re.compile(r"(phone|lid|bsuid):[^\s\x00-\x1f]{1,200}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_AUTHORS = (message_pb2.AUTHOR_LEAD, message_pb2.AUTHOR_HUMAN)


def _require(condition: object, message: str, field: str) -> None:
    if not condition:
        raise InvalidArgument(message, field=field)


def identifier(value: str, field: str) -> str:
    """A non-empty id of at most 256 bytes."""
    _require(0 < len(value.encode()) <= MAX_ID_BYTES, "Must be 1 to 256 bytes.", field)
    return value


def events(found: Sequence[pb.Event]) -> None:
    """All events of one Enqueue."""
    _require(0 < len(found) <= MAX_EVENTS, "Must hold 1 to 1000 events.", "events")
    for index, event in enumerate(found):
        _event(event, f"events[{index}]")


def _event(event: pb.Event, field: str) -> None:
    kind = event.WhichOneof("event")
    _require(kind, "Must hold one event.", f"{field}.event")
    _scope(event.scope, f"{field}.scope")
    if kind in ("message", "echo", "presence"):
        _aliases(event.contact.aliases, f"{field}.contact.aliases")
    if kind == "message":
        _message(event.message, f"{field}.message")
    elif kind == "echo":
        _message(event.echo, f"{field}.echo")
    elif kind == "receipt":
        identifier(event.receipt.provider_message_id, f"{field}.receipt.provider_message_id")


def _scope(scope: message_pb2.Scope, field: str) -> None:
    for name in ("channel", "instance"):
        value = getattr(scope, name)
        _require(
            0 < len(value) <= 200 and not _CONTROL.search(value), "Must be 1 to 200 characters.", f"{field}.{name}"
        )
    _require(
        len(scope.tenant) <= 200 and not _CONTROL.search(scope.tenant), "At most 200 characters.", f"{field}.tenant"
    )


def _aliases(aliases: Sequence[str], field: str) -> None:
    _require(0 < len(aliases) <= 20, "Must hold 1 to 20 aliases.", field)
    for index, alias in enumerate(aliases):
        _require(_ALIAS.fullmatch(alias), "Must look like phone:…, lid:… or bsuid:….", f"{field}[{index}]")


def _message(message: message_pb2.Message, field: str) -> None:
    identifier(message.message_id, f"{field}.message_id")
    _require(not message.message_id.startswith("replay:"), "Must not begin with replay:.", f"{field}.message_id")
    _require(message.author in _AUTHORS, "Must be LEAD or HUMAN.", f"{field}.author")
    _require(0 < message.type <= message_pb2.MESSAGE_TYPE_UNSUPPORTED, "Must be a known type.", f"{field}.type")
    _require(len(message.text.encode()) <= MAX_TEXT_BYTES, "At most 64 KiB.", f"{field}.text")
    _require(message.ByteSize() <= MAX_BODY_BYTES, "At most 512 KiB in all.", field)
    if message.HasField("provider_time"):
        _require(0 <= message.provider_time.seconds < 253_402_300_800, "Out of range.", f"{field}.provider_time")


def page_size(value: int) -> int:
    """1 to 200; 0 means 50."""
    _require(0 <= value <= 200, "Must be 1 to 200, or 0 for 50.", "page_size")
    return value or 50


def commit_problem(frame: pb.Commit) -> str:
    """What is wrong with a Commit, as a field's name; "" if nothing."""
    if len(frame.parts) > MAX_PARTS:
        return "parts"
    for part in frame.parts:
        if not part.strip() or len(part.encode()) > MAX_TEXT_BYTES:
            return "parts"
    return "" if frame.parts or frame.last else "parts"
