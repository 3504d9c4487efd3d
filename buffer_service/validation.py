"""Checks of requests, before anything is done. Every failure names its field."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from service_kit.errors import InvalidArgument, ProtocolError

MAX_EVENTS = 1_000
MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 64 << 10
MAX_BODY_BYTES = 512 << 10
MAX_REQUEST_BYTES = 4 << 20
MAX_FIELD_BYTES = 4_096
MAX_MEDIA = 32
MAX_PARTS = 50
MAX_EFFECT_BYTES = 16 << 10
MAX_HOLDING = 10_000
_ALIAS = re.compile(r"(phone|lid|bsuid):[^\s\x00-\x1f\x7f]{1,200}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_AUTHORS = (message_pb2.AUTHOR_LEAD, message_pb2.AUTHOR_HUMAN)


def _require(condition: object, message: str, field: str) -> None:
    if not condition:
        raise InvalidArgument(message, field=field)


def identifier(value: str, field: str) -> str:
    """A non-empty id of at most 256 bytes, without control characters."""
    _require(value, "Must not be empty.", field)
    return optional_identifier(value, field)


def optional_identifier(value: str, field: str) -> str:
    """The same, or empty."""
    _require(len(value.encode()) <= MAX_ID_BYTES, "At most 256 bytes.", field)
    # The context service refuses them too, for good: a turn with one could never be recorded.
    _require(not _CONTROL.search(value), "Must not hold control characters.", field)
    return value


def enqueue(request: pb.EnqueueRequest) -> None:
    """All events of one webhook."""
    _require(0 < len(request.events) <= MAX_EVENTS, "Must hold 1 to 1000 events.", "events")
    _require(request.ByteSize() <= MAX_REQUEST_BYTES, "At most 4 MiB in all.", "events")
    for index, event in enumerate(request.events):
        _event(event, f"events[{index}]")


def _event(event: pb.Event, field: str) -> None:
    kind = event.WhichOneof("event")
    _require(kind, "Must hold one event.", f"{field}.event")
    _scope(event.scope, f"{field}.scope")
    if kind in ("message", "echo", "presence"):
        _aliases(event.contact.aliases, f"{field}.contact.aliases")
    if kind in ("message", "echo"):
        _contact(event.contact, f"{field}.contact")
    if kind == "message":
        _message(event.message, f"{field}.message")
    elif kind == "echo":
        _message(event.echo, f"{field}.echo")
    elif kind == "receipt":
        identifier(event.receipt.provider_message_id, f"{field}.receipt.provider_message_id")
        status = event.receipt.status
        _require(0 < status <= pb.DELIVERY_STATUS_FAILED, "Must be a known status.", f"{field}.receipt.status")


def _scope(scope: message_pb2.Scope, field: str) -> None:
    for name in ("channel", "instance"):
        value = getattr(scope, name)
        _require(len(value) <= 200, "Must be 1 to 200 characters.", f"{field}.{name}")
        identifier(value, f"{field}.{name}")
    tenant(scope.tenant, f"{field}.tenant")


def tenant(value: str, field: str = "tenant") -> str:
    """A business; empty means the default one, or all."""
    _require(len(value) <= 200, "At most 200 characters.", field)
    return optional_identifier(value, field)


def _contact(contact: message_pb2.Contact, field: str) -> None:
    identifier(contact.contact, f"{field}.contact")
    optional_identifier(contact.address, f"{field}.address")


def _aliases(aliases: Sequence[str], field: str) -> None:
    _require(0 < len(aliases) <= 20, "Must hold 1 to 20 aliases.", field)
    for index, alias in enumerate(aliases):
        _alias(alias, f"{field}[{index}]")


def _alias(alias: str, field: str) -> None:
    _require(_ALIAS.fullmatch(alias), "Must look like phone:…, lid:… or bsuid:….", field)
    identifier(alias, field)


def _message(message: message_pb2.Message, field: str) -> None:
    identifier(message.message_id, f"{field}.message_id")
    _require(not message.message_id.startswith("replay:"), "Must not begin with replay:.", f"{field}.message_id")
    _require(message.author in _AUTHORS, "Must be LEAD or HUMAN.", f"{field}.author")
    _require(0 < message.type <= message_pb2.MESSAGE_TYPE_UNSUPPORTED, "Must be a known type.", f"{field}.type")
    _require(len(message.text.encode()) <= MAX_TEXT_BYTES, "At most 64 KiB.", f"{field}.text")
    _require(message.ByteSize() <= MAX_BODY_BYTES, "At most 512 KiB in all.", field)
    for name in ("reply_to", "choice_id", "provider_type"):
        _short(getattr(message, name), f"{field}.{name}")
    _require(len(message.media) <= MAX_MEDIA, "At most 32 files.", f"{field}.media")
    for index, media in enumerate(message.media):
        _media(media, f"{field}.media[{index}]")
    if message.HasField("provider_time"):
        _instant(message.provider_time, f"{field}.provider_time")
    if message.HasField("location"):
        at = message.location
        _require(abs(at.latitude) <= 90 and abs(at.longitude) <= 180, "Must be on earth.", f"{field}.location")
    if message.HasField("referral"):
        for name in ("source_id", "source_url", "headline"):
            _short(getattr(message.referral, name), f"{field}.referral.{name}")


def _media(media: message_pb2.Media, field: str) -> None:
    _require(len(media.mime_type.encode()) <= 1_024, "At most 1 KiB.", f"{field}.mime_type")
    for name in ("file_name", "url", "media_id"):
        _short(getattr(media, name), f"{field}.{name}")
    for name in ("size_bytes", "seconds"):
        _require(getattr(media, name) >= 0, "Must not be negative.", f"{field}.{name}")


def _short(value: str, field: str) -> None:
    _require(len(value.encode()) <= MAX_FIELD_BYTES, "At most 4 KiB.", field)


def _instant(value: Timestamp, field: str) -> None:
    in_range = 0 <= value.seconds < 253_402_300_800 and 0 <= value.nanos < 1_000_000_000
    _require(in_range, "Must be between 1970 and 9999.", field)


# ---- what people ask


def lane(request: pb.GetLaneRequest) -> None:
    """Which lane: by id, or by scope and alias."""
    if request.conversation_id:
        identifier(request.conversation_id, "conversation_id")
        return
    _require(request.alias, "Give a conversation_id, or scope and alias.", "conversation_id")
    _scope(request.scope, "scope")
    _alias(request.alias, "alias")


def lanes(request: pb.ListLanesRequest) -> int:
    """Which lanes; the page size."""
    tenant(request.tenant)
    known = pb.LaneState.values()
    _require(len(request.states) <= len(known), "At most each state once.", "states")
    for index, state in enumerate(request.states):
        _require(state in known and state, "Must be a known state.", f"states[{index}]")
    return page_size(request.page_size)


def reason(value: str) -> str:
    """Why a conversation is paused."""
    _require(len(value) <= 200, "At most 200 characters.", "reason")
    return value


def positive(value: int, field: str) -> int:
    """A number that is given from 1 on."""
    _require(value > 0, "Must be positive.", field)
    return value


def page_size(value: int) -> int:
    """1 to 200; 0 means 50."""
    _require(0 <= value <= 200, "Must be 1 to 200, or 0 for 50.", "page_size")
    return value or 50


# ---- frames


def hello(found: pb.Hello) -> None:
    """The first frame of a stream."""
    identifier(found.worker_id, "hello.worker_id")
    _require(found.capacity >= 0, "Must not be negative.", "hello.capacity")
    _require(len(found.holding) <= MAX_HOLDING, "At most 10 000.", "hello.holding")
    for index, holding in enumerate(found.holding):
        identifier(holding.turn_id, f"hello.holding[{index}].turn_id")


def frame(found: pb.RunTurnsRequest, *, nested: bool = False) -> None:
    """A later frame; the field is named within the frame's message. `nested`: it came along with another one."""
    kind = found.WhichOneof("frame")
    checks: dict[str, Callable[[pb.RunTurnsRequest], None]] = {
        "heartbeat": lambda f: None,
        "commit": lambda f: _commit(f.commit),
        "result": lambda f: _result(f.result),
        "finish": lambda f: _finish(f.finish),
        "release": lambda f: _release(f.release),
        "recorded": lambda f: _recorded(f.recorded),
    }
    if kind == "hello":
        raise ProtocolError("Hello comes once, as the first frame.", expected="|".join(checks))
    _require(kind, "Must hold one frame.", "frame")
    checks[kind or ""](found)
    _require(not (nested and found.also), "Frames that come along bring none of their own.", "also")


def _commit(commit: pb.Commit) -> None:
    identifier(commit.turn_id, "turn_id")
    _require(len(commit.parts) <= MAX_PARTS, "At most 50 parts.", "parts")
    _require(commit.parts or commit.last, "Must hold a part or be the last one.", "parts")
    for index, part in enumerate(commit.parts):
        fits = part.strip() and len(part.encode()) <= MAX_TEXT_BYTES
        _require(fits, "Must hold text, at most 64 KiB.", f"parts[{index}]")
    _require(len(commit.effects) <= MAX_PARTS, "At most 50 effects.", "effects")
    for index, effect in enumerate(commit.effects):
        _require(effect.WhichOneof("effect"), "Must hold one effect.", f"effects[{index}]")
        _require(effect.ByteSize() <= MAX_EFFECT_BYTES, "At most 16 KiB.", f"effects[{index}]")


def _result(result: pb.Result) -> None:
    identifier(result.turn_id, "turn_id")
    _require(result.part >= 0, "Must not be negative.", "part")
    _require(result.attempt > 0, "Must be positive.", "attempt")
    _require(0 < result.outcome <= pb.SEND_OUTCOME_NOT_STARTED, "Must be a known outcome.", "outcome")
    optional_identifier(result.provider_message_id, "provider_message_id")
    _short(result.detail, "detail")


def _finish(finish: pb.Finish) -> None:
    identifier(finish.turn_id, "turn_id")
    _require(finish.WhichOneof("record"), "Must tell whether the turn is recorded.", "record")
    _require(finish.recorded_version >= 0, "Must not be negative.", "recorded_version")


def _release(release: pb.Release) -> None:
    identifier(release.turn_id, "turn_id")
    _require(0 < release.reason <= pb.RELEASE_REASON_FAILED, "Must be a known reason.", "reason")


def _recorded(recorded: pb.Recorded) -> None:
    identifier(recorded.conversation_id, "conversation_id")
    identifier(recorded.turn_id, "turn_id")
    _require(recorded.version >= 0, "Must not be negative.", "version")
