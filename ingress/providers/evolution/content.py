"""What an Evolution message says, whatever kind it is. Pure.

Evolution's own `messageType` depends on the order of keys, so the content is looked up here by its key.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentic_sdr.common.v1 import message_pb2
from ingress.graphemes import cut_utf8
from ingress.providers.safe_json import Unreadable, loads, number_of, object_of, text_of

MAX_TEXT_BYTES = 64 * 1024
MAX_ID_BYTES = 256
_MAX_FIELD = 2048
_MAX_UNWRAPS = 8
_MAX_CONTACTS = 20
_TYPE_NAME = re.compile(r"[A-Za-z0-9_.]{1,64}", re.ASCII)

_WRAPPERS = (
    "ephemeralMessage",
    "viewOnceMessage",
    "viewOnceMessageV2",
    "viewOnceMessageV2Extension",
    "documentWithCaptionMessage",
    # One file of an album.
    "associatedChildMessage",
    "lottieStickerMessage",
    "groupMentionedMessage",
    "deviceSentMessage",
)

# Content that is no turn of a conversation, and the counter under which it is ignored.
_NOISE = {
    "reactionMessage": "reaction",
    "encReactionMessage": "reaction",
    "secretEncryptedMessage": "edit",
    "protocolMessage": "edit_or_revoke",
    "editedMessage": "edit_or_revoke",
    "keepInChatMessage": "pin",
    "pinInChatMessage": "pin",
    "albumMessage": "album",
    "callLogMesssage": "call",
    "call": "call",
    "senderKeyDistributionMessage": "key_distribution",
}

_MEDIA = {
    "imageMessage": message_pb2.MESSAGE_TYPE_IMAGE,
    "videoMessage": message_pb2.MESSAGE_TYPE_VIDEO,
    "ptvMessage": message_pb2.MESSAGE_TYPE_VIDEO,
    "audioMessage": message_pb2.MESSAGE_TYPE_AUDIO,
    "documentMessage": message_pb2.MESSAGE_TYPE_DOCUMENT,
    "stickerMessage": message_pb2.MESSAGE_TYPE_STICKER,
}


class NotContent(Exception):
    """The message is real, but not something that somebody said; the reason is a counter's name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(kw_only=True)
class Content:
    """What a message says."""

    type: message_pb2.MessageType.ValueType
    text: str = ""
    media: list[message_pb2.Media] = field(default_factory=list)
    location: message_pb2.Location | None = None
    choice_id: str = ""
    provider_type: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)


def read_content(item: Mapping[str, Any]) -> Content:
    """Read `data.message` of one upsert.

    Raises `NotContent` for what is to be ignored, `Unreadable` for a message that contradicts its own shape.
    """
    raw = item.get("message")
    if raw is None:
        return _unsupported(item)
    if not isinstance(raw, dict):
        raise Unreadable("message")
    message = _unwrap(raw)
    content = _said(message, item)
    if content is not None:
        return content
    for key, counter in _NOISE.items():
        if message.get(key) is not None:
            raise NotContent(counter)
    return _unsupported(item, message)


def fill(target: message_pb2.Message, content: Content, item: Mapping[str, Any]) -> None:
    """Put the content, what it answers and the advertisement behind it into the message."""
    target.type = content.type
    target.text = cut_utf8(content.text, MAX_TEXT_BYTES)
    target.text_cut = len(target.text) < len(content.text)
    target.media.extend(content.media)
    if content.location is not None:
        target.location.CopyFrom(content.location)
    target.choice_id = _short(content.choice_id, MAX_ID_BYTES)
    target.provider_type = content.provider_type
    for context in (content.context, object_of(item.get("contextInfo"))):
        target.reply_to = target.reply_to or _short(context.get("stanzaId"), MAX_ID_BYTES)
        if not target.HasField("referral"):
            _fill_referral(target, context)


def _said(message: Mapping[str, Any], item: Mapping[str, Any]) -> Content | None:
    if message.get("conversation"):
        return _conversation(message["conversation"])
    for key, read in _READERS.items():
        if message.get(key) is not None:
            body = message[key]
            if not isinstance(body, dict):
                raise Unreadable("content")
            content = read(key, body, message, item)
            content.context = object_of(body.get("contextInfo"))
            return content
    return _conversation(message["conversation"]) if isinstance(message.get("conversation"), str) else None


def _conversation(text: object) -> Content:
    if not isinstance(text, str):
        raise Unreadable("content")
    return Content(type=message_pb2.MESSAGE_TYPE_TEXT, text=text_of(text))


def _unwrap(message: dict[str, Any]) -> dict[str, Any]:
    for _ in range(_MAX_UNWRAPS):
        inner = next((message[key].get("message") for key in _WRAPPERS if isinstance(message.get(key), dict)), None)
        if not isinstance(inner, dict):
            break
        message = inner
    return message


def _unsupported(item: Mapping[str, Any], message: Mapping[str, Any] | None = None) -> Content:
    found = next((key for key in message or () if "Message" in key and key != "messageContextInfo"), "")
    name = found or text_of(item.get("messageType"))
    provider_type = name if _TYPE_NAME.fullmatch(name) else "unknown"
    return Content(type=message_pb2.MESSAGE_TYPE_UNSUPPORTED, provider_type=provider_type)


def _extended_text(_: str, body: Mapping[str, Any], __: Mapping[str, Any], ___: Mapping[str, Any]) -> Content:
    return _conversation(body.get("text", ""))


def _media(key: str, body: Mapping[str, Any], message: Mapping[str, Any], item: Mapping[str, Any]) -> Content:
    mime_type = _short(body.get("mimetype"), 255)
    media = message_pb2.Media(
        mime_type=mime_type,
        size_bytes=_count(body.get("fileLength"), 2**62),
        file_name=_short(body.get("fileName") or body.get("title"), 255),
        # The `url` inside the body is an encrypted blob; only the copy in an object store can be read.
        url=_short(message.get("mediaUrl"), _MAX_FIELD),
        media_id=_short(object_of(item.get("key")).get("id"), MAX_ID_BYTES),
        voice=body.get("ptt") is True,
        seconds=_count(body.get("seconds"), 2**31 - 1),
    )
    text = text_of(body.get("caption")) or text_of(message.get("speechToText"))
    return Content(type=_MEDIA[key], text=text, media=[media])


def _location(_: str, body: Mapping[str, Any], __: Mapping[str, Any], ___: Mapping[str, Any]) -> Content:
    latitude, longitude = number_of(body.get("degreesLatitude")), number_of(body.get("degreesLongitude"))
    parts = (text_of(body.get(key)) for key in ("name", "address", "caption"))
    content = Content(type=message_pb2.MESSAGE_TYPE_LOCATION, text=", ".join(part for part in parts if part))
    if latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180:
        content.location = message_pb2.Location(latitude=latitude, longitude=longitude)
    return content


def _contacts(_: str, body: Mapping[str, Any], __: Mapping[str, Any], ___: Mapping[str, Any]) -> Content:
    cards = body.get("contacts")
    names = [_short(object_of(card).get("displayName"), 255) for card in (cards if isinstance(cards, list) else [])]
    text = ", ".join(name for name in names[:_MAX_CONTACTS] if name) or text_of(body.get("displayName"))
    return Content(type=message_pb2.MESSAGE_TYPE_CONTACT_CARD, text=text)


def _choice(text: object, choice_id: object = "") -> Content:
    return Content(type=message_pb2.MESSAGE_TYPE_CHOICE, text=text_of(text), choice_id=text_of(choice_id))


def _button(_: str, body: Mapping[str, Any], __: Mapping[str, Any], ___: Mapping[str, Any]) -> Content:
    return _choice(body.get("selectedDisplayText"), body.get("selectedButtonId") or body.get("selectedId"))


def _list_row(_: str, body: Mapping[str, Any], __: Mapping[str, Any], ___: Mapping[str, Any]) -> Content:
    row = object_of(body.get("singleSelectReply")).get("selectedRowId")
    return _choice(body.get("title") or body.get("description"), row)


def _interactive(_: str, body: Mapping[str, Any], __: Mapping[str, Any], ___: Mapping[str, Any]) -> Content:
    flow = object_of(body.get("nativeFlowResponseMessage"))
    try:
        params = object_of(loads(text_of(flow.get("paramsJson")).encode("utf-8")))
    except Unreadable:
        params = {}
    return _choice(object_of(body.get("body")).get("text"), params.get("id"))


def _poll_vote(_: str, body: Mapping[str, Any], __: Mapping[str, Any], item: Mapping[str, Any]) -> Content:
    """A vote counts as an answer: the lead was asked something and chose."""
    options = object_of(body.get("vote")).get("selectedOptions")
    if options == []:
        raise NotContent("poll_vote_withdrawn")
    chosen = [text_of(option) for option in options] if isinstance(options, list) else []
    text = ", ".join(option for option in chosen if option)
    return _choice(text) if text else _unsupported(item, {"pollUpdateMessage": body})


_Reader = Callable[[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Content]
_READERS: dict[str, _Reader] = {
    "extendedTextMessage": _extended_text,
    **dict.fromkeys(_MEDIA, _media),
    "locationMessage": _location,
    "liveLocationMessage": _location,
    "contactMessage": _contacts,
    "contactsArrayMessage": _contacts,
    "buttonsResponseMessage": _button,
    "templateButtonReplyMessage": _button,
    "listResponseMessage": _list_row,
    "interactiveResponseMessage": _interactive,
    "pollUpdateMessage": _poll_vote,
}


def _fill_referral(target: message_pb2.Message, context: Mapping[str, Any]) -> None:
    ad = object_of(context.get("externalAdReply"))
    # The same object also decorates ordinary link previews.
    if not (ad.get("sourceId") or ad.get("ctwaClid") or ad.get("sourceType") == "ad"):
        return
    target.referral.source_id = _short(ad.get("sourceId"), 256)
    target.referral.source_url = _short(ad.get("sourceUrl"), _MAX_FIELD)
    target.referral.headline = _short(ad.get("title"), 512)


def _short(value: object, max_bytes: int) -> str:
    return cut_utf8(text_of(value), max_bytes)


def _count(value: object, limit: int) -> int:
    number = number_of(value)
    return int(number) if number is not None and 0 <= number <= limit else 0
