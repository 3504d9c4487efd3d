"""One item of a webhook as one event for the buffer. Pure."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.common.v1 import message_pb2
from ingress.graphemes import cut_utf8
from ingress.providers.aliases import Identity, Jid, JidKind, identify, parse_jid
from ingress.providers.evolution.content import MAX_ID_BYTES, NotContent, fill, read_content
from ingress.providers.safe_json import Repeated, Unreadable, number_of, object_of, text_of

_EARLIEST_MS = int(datetime(2009, 1, 1, tzinfo=UTC).timestamp() * 1000)
_DAY_MS = 86_400_000
_SECONDS_END = 1e11
_MAX_NAME_BYTES = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")

# DELETED (up to 2.3.6) and SERVER_ACK (2.3.7) are what Evolution writes when it was told no status: not facts.
_STATUSES = {
    "DELIVERY_ACK": buffer_service_pb2.DELIVERY_STATUS_DELIVERED,
    "READ": buffer_service_pb2.DELIVERY_STATUS_READ,
    "PLAYED": buffer_service_pb2.DELIVERY_STATUS_PLAYED,
    "ERROR": buffer_service_pb2.DELIVERY_STATUS_FAILED,
}
_COMPOSING = {"composing": True, "recording": True, "paused": False, "available": False, "unavailable": False}
_NOT_A_PERSON = {
    JidKind.GROUP: "group",
    JidKind.STATUS: "status_broadcast",
    JidKind.BROADCAST: "broadcast_list",
    JidKind.NEWSLETTER: "newsletter",
}


def provider_time_ms(raw: object, now_ms: int) -> int:
    """When the provider says that it happened; now, if that is impossible. Seconds, or milliseconds if too large."""
    number = number_of(raw)
    if number is None:
        return now_ms
    ms = number if abs(number) >= _SECONDS_END else number * 1000
    return int(ms) if _EARLIEST_MS <= ms <= now_ms + _DAY_MS else now_ms


class EventReader:
    """Reads the items of one envelope.

    Every method raises `Unreadable` for an item that is not what it claims to be, and `NotContent` for one that is none
    of the buffer's business.
    """

    def __init__(self, *, scope: message_pb2.Scope, sender: object, now_ms: int) -> None:
        self.scope = scope
        self._own = parse_jid(sender)
        self._now_ms = now_ms

    def message(self, item: Any) -> buffer_service_pb2.Event:
        """`messages.upsert`: the lead wrote, or a colleague on the business's own phone."""
        key = _key_of(item)
        from_me = _from_me(key)
        event = self._spoken(item, key, from_me=from_me)
        event.message.author = message_pb2.AUTHOR_HUMAN if from_me else message_pb2.AUTHOR_LEAD
        return event

    def echo(self, item: Any) -> buffer_service_pb2.Event:
        """`send.message`: something left through the API; whether it was ours is for the buffer to judge."""
        event = self._spoken(item, _key_of(item), from_me=True)
        event.echo.CopyFrom(event.message)
        event.echo.author = message_pb2.AUTHOR_HUMAN
        event.echo.foreign = True
        return event

    def receipt(self, item: Any) -> buffer_service_pb2.Event:
        """`messages.update`: how far a message of ours came."""
        if not isinstance(item, dict):
            raise Unreadable("data")
        message_id = _id_of(item.get("keyId"))
        status = _STATUSES.get(text_of(item.get("status")).upper())
        if item.get("fromMe") is False or status is None:
            raise NotContent("status_of_no_interest")
        event = buffer_service_pb2.Event(scope=self.scope)
        event.receipt.provider_message_id = message_id
        event.receipt.status = status
        return event

    def presence(self, item: Any) -> buffer_service_pb2.Event:
        """`presence.update`: somebody types, or stopped."""
        chat = parse_jid(object_of(item).get("id"))
        identity = self._identify([chat])
        presences = object_of(object_of(item).get("presences"))
        shown = presences.get(text_of(item.get("id"))) or next(iter(presences.values()), None)
        state = text_of(object_of(shown).get("lastKnownPresence"))
        if state not in _COMPOSING:
            raise Unreadable("presence")
        event = buffer_service_pb2.Event(scope=self.scope, contact=_contact(identity))
        event.presence.composing = _COMPOSING[state]
        return event

    def _spoken(self, item: dict[str, Any], key: Mapping[str, Any], *, from_me: bool) -> buffer_service_pb2.Event:
        identity = self._identify(self._jids(key, from_me=from_me))
        message_id = _id_of(key.get("id"))
        content = read_content(item)
        name = "" if from_me else _display_name(item.get("pushName"))
        event = buffer_service_pb2.Event(scope=self.scope, contact=_contact(identity, name))
        event.message.message_id = message_id
        event.message.provider_time.FromMilliseconds(provider_time_ms(item.get("messageTimestamp"), self._now_ms))
        fill(event.message, content, item)
        return event

    def _jids(self, key: Mapping[str, Any], *, from_me: bool) -> list[Jid]:
        # In a message of our own the other fields may name ourselves.
        others = () if from_me else ("remoteJidAlt", "previousRemoteJid", "senderPn", "senderLid")
        return [parse_jid(key.get(field)) for field in ("remoteJid", *others)]

    def _identify(self, jids: list[Jid]) -> Identity:
        chat = jids[0]
        if chat.kind in _NOT_A_PERSON:
            raise NotContent(_NOT_A_PERSON[chat.kind])
        identity = identify([jid for jid in jids if not jid.same_as(self._own)])
        if identity is not None:
            return identity
        if any(jid.is_person for jid in jids):
            raise NotContent("own_account")
        raise Unreadable("remote_jid")


def _key_of(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Unreadable("data")
    if isinstance(item, Repeated):
        raise Unreadable("duplicate_keys")
    key = item.get("key")
    if not isinstance(key, dict):
        raise Unreadable("key")
    if isinstance(key, Repeated):
        raise Unreadable("duplicate_keys")
    return key


def _from_me(key: Mapping[str, Any]) -> bool:
    raw = key.get("fromMe")
    if raw is None or isinstance(raw, bool):
        return bool(raw)
    # Guessing wrong here would make the agent answer itself.
    raise Unreadable("from_me")


def _id_of(raw: object) -> str:
    message_id = text_of(raw)
    if not message_id or message_id != raw or len(message_id.encode("utf-8")) > MAX_ID_BYTES:
        raise Unreadable("message_id")
    # The sender chooses it: what the services behind would refuse must not take its neighbours along.
    if _CONTROL.search(message_id) or message_id.startswith("replay:"):
        raise Unreadable("message_id")
    return message_id


def _display_name(raw: object) -> str:
    name = _INVISIBLE.sub(" ", text_of(raw)).strip()
    # Without a name Evolution puts the bare number here.
    return "" if name.lstrip("+").isdigit() else cut_utf8(name, _MAX_NAME_BYTES)


def _contact(identity: Identity, name: str = "") -> message_pb2.Contact:
    return message_pb2.Contact(
        contact=identity.contact, aliases=identity.aliases, address=identity.address, display_name=name
    )
