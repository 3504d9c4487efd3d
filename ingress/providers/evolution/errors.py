"""Evolution's answers to sendText, as outcomes. Pure."""

from collections.abc import Iterator
from typing import Any

from agentic_sdr.buffer.v1.buffer_service_pb2 import (
    SEND_OUTCOME_REFUSED_FINAL,
    SEND_OUTCOME_REFUSED_RETRY,
    SEND_OUTCOME_SENT,
    SEND_OUTCOME_UNKNOWN,
)
from ingress.providers import SendResult
from ingress.providers.safe_json import Unreadable, loads, object_of, text_of

NOT_ON_WHATSAPP = "not_on_whatsapp"

_MAX_ID_BYTES = 256
_MAX_LEAVES = 50

# The connection to WhatsApp was down before the message was handed over.
_DISCONNECTED = ("Connection Closed", "No sessions", "Cannot read properties of undefined")
_REJECTED = ("requires property", "is required", "does not match", "is not of a type")


def read_answer(status: int, body: bytes) -> SendResult:
    """What an HTTP answer to sendText means. UNKNOWN only for what nobody can tell."""
    try:
        answer = object_of(loads(body))
    except Unreadable:
        answer = {}
    if status in (200, 201):
        return _accepted(answer)
    if status == 400:
        return _bad_request(answer)
    if status >= 500:
        return _server_error(status, answer)
    if 300 <= status < 400:
        return _retry("config_redirected")
    return _BY_STATUS.get(status) or _unknown(f"http_{status}")


def _accepted(answer: dict[str, Any]) -> SendResult:
    message_id = text_of(object_of(answer.get("key")).get("id"))
    if not message_id or len(message_id.encode("utf-8")) > _MAX_ID_BYTES or not message_id.isprintable():
        return _unknown("accepted_without_id")
    return SendResult(outcome=SEND_OUTCOME_SENT, provider_message_id=message_id)


def _bad_request(answer: dict[str, Any]) -> SendResult:
    leaves = list(_leaves(_message_of(answer)))
    if any(isinstance(leaf, dict) and leaf.get("exists") is False for leaf in leaves):
        return SendResult(outcome=SEND_OUTCOME_REFUSED_FINAL, detail=NOT_ON_WHATSAPP)
    if _says(leaves, _DISCONNECTED):
        return _retry("disconnected")
    if _says(leaves, _REJECTED):
        return SendResult(outcome=SEND_OUTCOME_REFUSED_FINAL, detail="rejected")
    return _unknown("ambiguous_400")


def _server_error(status: int, answer: dict[str, Any]) -> SendResult:
    if answer.get("code") == "LICENSE_REQUIRED":
        return _retry("config_license")
    if status == 500 and _says(list(_leaves(_message_of(answer))), _DISCONNECTED):
        return _retry("disconnected")
    return _unknown(f"http_{status}")


def _message_of(answer: dict[str, Any]) -> object:
    return object_of(answer.get("response")).get("message", answer.get("message"))


def _leaves(value: object) -> Iterator[object]:
    """The message is a string, or a list of strings, lists or objects."""
    waiting = [value]
    for _ in range(_MAX_LEAVES):
        if not waiting:
            return
        item = waiting.pop(0)
        if isinstance(item, list):
            waiting.extend(item[:_MAX_LEAVES])
        else:
            yield item


def _says(leaves: list[object], phrases: tuple[str, ...]) -> bool:
    return any(phrase in leaf for leaf in leaves if isinstance(leaf, str) for phrase in phrases)


def _retry(detail: str) -> SendResult:
    return SendResult(outcome=SEND_OUTCOME_REFUSED_RETRY, detail=detail)


def _unknown(detail: str) -> SendResult:
    return SendResult(outcome=SEND_OUTCOME_UNKNOWN, detail=detail)


# What a human has to fix goes back to be tried again: the lead is still waiting for the answer.
_BY_STATUS = {
    401: _retry("config_unauthorized"),
    403: _retry("config_forbidden"),
    404: _retry("config_not_found"),
    413: SendResult(outcome=SEND_OUTCOME_REFUSED_FINAL, detail="too_large"),
    429: _retry("rate_limited"),
}
