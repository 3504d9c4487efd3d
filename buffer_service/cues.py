"""Does a message sound finished? A few rules that a person can check by reading them; in doubt it is neutral."""

from __future__ import annotations

import re

from agentic_sdr.common.v1 import message_pb2
from buffer_service.turn_taking.hold import Cue

LONG_WORDS = 12
READ_CHARACTERS = 2_000
_WORD = re.compile(r"\w+")
_HELLO = r"(?:oi+e?|ol[áa]|opa|al[ôo]|salve|hey|hi|hello|e a[íi])"
_GOOD_DAY = r"(?:bo[am] (?:dia|tarde|noite)|tudo (?:bem|bom|certo|joia|jóia)|como vai)"
_GREETING = re.compile(rf"(?:{_HELLO}|{_GOOD_DAY})(?:\W+(?:{_GOOD_DAY}|pessoal|gente|a todos))*\W*")
_CONNECTORS = frozenset(
    _WORD.findall(
        "e mas ou que se de do da dos das no na nos nas em com sem por para pra pro porque pois então como quando onde "
        "qual quais sobre até entre tipo o a os as um uma meu minha meus minhas seu sua esse essa este esta é eu "
        "queria quero preciso gostaria também"
    )
)
_GOING_ON = (",", ":", ";", "-", "...", "…", "(")
_CLOSED = (".", "!", ")", "👍", "🙏")
_THANKS = re.compile(r"(?:muito )?(?:obrigad[oa]|valeu|agradeço|tchau|até mais|até logo)\b.*")
_ALBUM = (message_pb2.MESSAGE_TYPE_IMAGE, message_pb2.MESSAGE_TYPE_VIDEO, message_pb2.MESSAGE_TYPE_DOCUMENT)


def read_cue(body: bytes) -> Cue:
    """The cue of a serialised contract message."""
    return cue_of(message_pb2.Message.FromString(body))


def cue_of(message: message_pb2.Message) -> Cue:
    """Files without a caption come in albums; a button is a whole answer; words speak for themselves."""
    if message.type == message_pb2.MESSAGE_TYPE_CHOICE:
        return Cue.FINISHED
    text = message.text[-READ_CHARACTERS:].strip().lower()
    if not text:
        return Cue.UNFINISHED if message.type in _ALBUM else Cue.NEUTRAL
    return _cue_of_text(text)


def _cue_of_text(text: str) -> Cue:
    if _GREETING.fullmatch(text) or text.endswith(_GOING_ON):
        return Cue.UNFINISHED
    if text.endswith("?") or text.startswith("*") or _THANKS.fullmatch(text):
        return Cue.FINISHED
    words = _WORD.findall(text)
    if words and words[-1] in _CONNECTORS:
        return Cue.UNFINISHED
    if len(words) >= LONG_WORDS or text.endswith(_CLOSED):
        return Cue.FINISHED
    return Cue.NEUTRAL
