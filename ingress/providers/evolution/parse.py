"""Turns an Evolution webhook into events. Pure, and never raises.

The walk is tolerant about the outside (`data` as an object, a list, or `{messages: […]}`; a list of envelopes) and
strict about the inside; one bad item never takes a good one with it. What is authentic but unreadable goes into
quarantine.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.common.v1 import message_pb2
from ingress.providers import Notice, NoticeKind, ParsedWebhook
from ingress.providers.evolution.content import NotContent
from ingress.providers.evolution.events import EventReader
from ingress.providers.evolution.settings import is_instance_name
from ingress.providers.safe_json import Repeated, Unreadable, loads, object_of, text_of

CHANNEL = "evolution"
MAX_QUARANTINE_BYTES = 1024 * 1024
_MAX_BAD_ITEMS = 20
_API_KEY = re.compile(rb'("api_?key"\s*:\s*)"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.IGNORECASE | re.DOTALL)
# Bytes as `{"0":12,"1":255,…}`, megabytes of it in a thumbnail: parsing that would stop everybody else for a second.
# Inside a string these quotes would be escaped, so only such an object can match.
_INDEXED_BYTES = re.compile(rb'\{"0": ?\d{1,3}(?:, ?"\d{1,8}": ?\d{1,3})*+\}')
_LARGE_BODY = 64 * 1024
_STATES = frozenset({"open", "connecting", "close", "closed", "refused"})

_IGNORED_EVENTS = frozenset(
    {
        "application.startup",
        "messages.set",
        "messages.edited",
        "messages.delete",
        "send.message.update",
        "contacts.set",
        "contacts.upsert",
        "contacts.update",
        "chats.set",
        "chats.upsert",
        "chats.update",
        "chats.delete",
        "groups.upsert",
        "groups.update",
        "group.update",
        "group.participants.update",
        "labels.edit",
        "labels.association",
        "call",
        "typebot.start",
        "typebot.change.status",
        "instance.create",
        "instance.delete",
        "messaging.history.set",
        "error",
    }
)
_CONNECTION_EVENTS = frozenset({"connection.update", "status.instance", "logout.instance", "remove.instance"})


@dataclass(kw_only=True)
class _Webhook:
    """What has been read so far."""

    events: list[buffer_service_pb2.Event] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    notices: list[Notice] = field(default_factory=list)
    bad: list[tuple[str, Any, str]] = field(default_factory=list)


def parse_webhook(body: bytes, *, now_ms: int, default_instance: str = "") -> ParsedWebhook:
    """Read one body. `default_instance` stands in where the envelope names none."""
    try:
        envelope = loads(body if len(body) < _LARGE_BODY else _INDEXED_BYTES.sub(b"null", body))
    except Unreadable as error:
        return ParsedWebhook(events=(unparsed_event(body, error.reason, default_instance),))
    webhook = _Webhook()
    for one in envelope if isinstance(envelope, list) else [envelope]:
        _read_envelope(one, webhook, now_ms, default_instance)
    if len(webhook.bad) > _MAX_BAD_ITEMS or not (webhook.events or webhook.bad or webhook.ignored):
        webhook.events.append(
            unparsed_event(body, "many_bad_items" if webhook.bad else "nothing_inside", default_instance)
        )
    else:
        for instance, item, reason in webhook.bad:
            webhook.events.append(unparsed_event(body if item is envelope else _dump(item), reason, instance))
    return ParsedWebhook(events=tuple(webhook.events), ignored=webhook.ignored, notices=tuple(webhook.notices))


def normal_event_name(raw: object) -> str:
    """`MESSAGES_UPSERT`, `messages-upsert` and `messages.upsert` are one event."""
    return re.sub(r"[_\-]", ".", text_of(raw).strip().lower())


def _read_envelope(envelope: Any, webhook: _Webhook, now_ms: int, default_instance: str) -> None:
    if not isinstance(envelope, dict) or isinstance(envelope, Repeated):
        reason = "duplicate_keys" if isinstance(envelope, Repeated) else "no_envelope"
        webhook.bad.append((default_instance, envelope, reason))
        return
    instance = _instance(envelope.get("instance")) or default_instance
    name = normal_event_name(envelope.get("event"))
    if name in _CONNECTION_EVENTS or name == "qrcode.updated":
        webhook.ignored[name] += 1
        webhook.notices.append(_notice(name, instance, envelope.get("data")))
    elif name in _IGNORED_EVENTS:
        webhook.ignored[name] += 1
    elif not name:
        webhook.bad.append((instance, envelope, "no_event"))
    else:
        reader = EventReader(scope=_scope(instance), sender=envelope.get("sender"), now_ms=now_ms)
        _read_items(name, envelope, reader, webhook)


def _read_items(name: str, envelope: Mapping[str, Any], reader: EventReader, webhook: _Webhook) -> None:
    readers: dict[str, Callable[[Any], buffer_service_pb2.Event]] = {
        "messages.upsert": reader.message,
        "send.message": reader.echo,
        "messages.update": reader.receipt,
        "presence.update": reader.presence,
    }
    if name not in readers:
        webhook.ignored["unknown_event"] += 1
        return
    speaks = name in ("messages.upsert", "send.message")
    if not reader.scope.instance:
        if speaks:
            webhook.bad.append(("", envelope, "no_instance"))
        else:
            webhook.ignored["no_instance"] += 1
        return
    for item in _items(envelope.get("data")):
        try:
            webhook.events.append(readers[name](item))
        except NotContent as error:
            webhook.ignored[error.reason] += 1
        except Unreadable as error:
            if speaks:
                webhook.bad.append((reader.scope.instance, item, error.reason))
            else:
                webhook.ignored["unreadable_" + name.replace(".", "_")] += 1


def _items(data: Any) -> list[Any]:
    if isinstance(data, dict) and "key" not in data and isinstance(data.get("messages"), list):
        data = data["messages"]
    return data if isinstance(data, list) else [data]


def _instance(raw: object) -> str:
    name = text_of(raw)
    return name if isinstance(raw, str) and "\x00" not in raw and is_instance_name(name) else ""


def _scope(instance: str) -> message_pb2.Scope:
    return message_pb2.Scope(tenant="default", channel=CHANNEL, instance=instance)


def _notice(name: str, instance: str, data: Any) -> Notice:
    if name == "qrcode.updated":
        return Notice(kind=NoticeKind.PAIRING, instance=instance, state="waiting")
    fields = object_of(data)
    raw = text_of(fields.get("state")) or text_of(fields.get("status")) or name.removesuffix(".instance")
    state = raw if raw in _STATES or raw in ("logout", "remove") else "unknown"
    return Notice(kind=NoticeKind.CONNECTION, instance=instance, state=state)


def unparsed_event(body: bytes, reason: str, instance: str) -> buffer_service_pb2.Event:
    """A body for quarantine: cut, and without the instance's key."""
    # The instance's own key may travel in the envelope; quarantine is read by people.
    kept = _API_KEY.sub(rb'\1"[redacted]"', body)[:MAX_QUARANTINE_BYTES]
    return buffer_service_pb2.Event(
        scope=_scope(instance or "unknown"), unparsed=buffer_service_pb2.Unparsed(body=kept, reason=reason)
    )


def _dump(item: Any) -> bytes:
    return json.dumps(item).encode("ascii")
