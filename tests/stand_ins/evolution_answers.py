"""What the Evolution stand-in remembers, suffers and says."""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

EXISTS_FALSE = "exists_false"
REFUSALS: dict[str, tuple[int, Any]] = {
    EXISTS_FALSE: (400, None),
    "connection_closed_400": (400, ["Error: Connection Closed"]),
    "no_sessions": (400, ["SessionError: No sessions"]),
    "object_object": (400, ["[object Object]"]),
    "text_required": (400, [['instance requires property "text"']]),
    "connection_closed_500": (500, "Connection Closed"),
    "not_loaded": (500, "Cannot read properties of undefined (reading 'sendMessage')"),
    "unauthorized": (401, "Unauthorized"),
    "no_instance": (404, ['The "x" instance does not exist']),
    "rate_limited": (429, "Too Many Requests"),
    "bad_gateway": (502, "Bad Gateway"),
}
LICENSE_REQUIRED = {"error": "service not activated", "code": "LICENSE_REQUIRED", "message": "not activated"}


@dataclass(kw_only=True)
class Fault:
    """What the next matching requests suffer.

    `kind`: a key of `REFUSALS`, "license", "refuse_with" (status and body), "hang" and "reset" (nothing is taken),
    "accept_then_hang", "accept_then_reset", "accept_then_500", "accept_without_id", "delay".
    """

    kind: str
    times: int = 1
    number: str = ""
    instance: str = ""
    text_contains: str = ""
    delay_s: float = 0.0
    status: int = 500
    body: Any = None

    def matches(self, sent: "Sent") -> bool:
        """Whether this request is to suffer it."""
        return (
            self.times != 0
            and self.number in ("", sent.number)
            and self.instance in ("", sent.instance)
            and self.text_contains in sent.text
        )


@dataclass(kw_only=True)
class Sent:
    """One request that arrived. `delivered` is what WhatsApp would have shown to the person."""

    sequence: int
    path: str
    instance: str
    number: str
    text: str
    time_ms: int
    first_byte_ms: int
    apikey: str = ""
    presence: str = ""
    delivered: bool = False
    message_id: str = ""
    fault: str = ""


def message(sent: Sent) -> dict[str, Any]:
    """What Evolution answers, and echoes, for a message that it took."""
    number = sent.number if "@" in sent.number else f"{sent.number}@s.whatsapp.net"
    return {
        "key": {"remoteJid": number, "fromMe": True, "id": sent.message_id},
        "pushName": "Você",
        "status": "PENDING",
        "message": {"conversation": sent.text},
        "messageType": "conversation",
        "messageTimestamp": sent.time_ms // 1000,
        "instanceId": "11111111-2222-4333-8444-555555555555",
        "source": "web",
    }


def refused(status: int, said: Any) -> web.Response:
    """Evolution's envelope around an error."""
    body = {"status": status, "error": "Error", "response": {"message": said}}
    return web.json_response(body, status=status)


def refusal_of(fault: Fault, sent: Sent) -> web.Response:
    """The answer that the fault asks for."""
    if fault.kind == "license":
        return web.json_response(LICENSE_REQUIRED, status=503)
    if fault.kind == "refuse_with":
        if isinstance(fault.body, str):
            return web.Response(text=fault.body, status=fault.status)
        return web.json_response(fault.body, status=fault.status)
    status, said = REFUSALS[fault.kind]
    if fault.kind == EXISTS_FALSE:
        said = [{"jid": sent.number, "exists": False, "number": sent.number.partition("@")[0]}]
    return refused(status, said)
