"""Words of people as data inside a prompt: one message, one line, and no way to pass for anything else.

Chat templates turn roles into special tokens written with `<…>` or `[…]`, and local engines read such tokens wherever
they stand in the text. So both kinds of brackets belong to this system alone: what people wrote has look-alikes.
"""

import re

from agent_service.conversation import Kind, Line, Message

LINE_CHARACTERS = 1_600
CUT = " […] "
# Of a pasted book no more is even looked at: cleaning it would take a second, in which no other lead is answered.
_LOOKED_AT = 4 * LINE_CHARACTERS
_LOOK_ALIKES = str.maketrans({"<": "‹", ">": "›", "＜": "‹", "＞": "›", "[": "(", "]": ")", "［": "(", "］": ")"})
# Controls, zero-width characters, directional overrides and tags: invisible, and no word needs them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
_BREAKS = re.compile(r"\s*\n\s*")
_LABELS = {
    Kind.IMAGE: "[imagem]",
    Kind.VIDEO: "[vídeo]",
    Kind.AUDIO: "[áudio]",
    Kind.DOCUMENT: "[documento]",
    Kind.STICKER: "[figurinha]",
    Kind.LOCATION: "[localização]",
    Kind.CONTACT_CARD: "[contato]",
    Kind.UNSUPPORTED: "[mensagem de um tipo que não abre aqui]",
}


def words(text: str) -> str:
    """The text with line breaks, but without what could be read as a role, a token or one of this system's marks."""
    return _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).translate(_LOOK_ALIKES).strip()


def one_line(text: str) -> str:
    """`words` without line breaks, so that no line can pretend to be somebody else's."""
    return _BREAKS.sub(" / ", words(text))


def shown(message: Message | Line, *, most: int = LINE_CHARACTERS) -> str:
    """What the model reads of a message. It is made from its words and kind alone, so that a message looks the same in
    its turn and later in history."""
    label = _LABELS.get(message.kind, "")
    return " ".join(part for part in (label, cut(one_line(beginning_and_end(message.text)), most)) if part)


def cut_shown(message: Message, shown_text: str, most: int) -> str:
    """`shown` of the message with less room, made from what it was with all room."""
    label = _LABELS.get(message.kind, "")
    text = shown_text.removeprefix(label).removeprefix(" ") if label else shown_text
    return " ".join(part for part in (label, cut(text, most)) if part)


def beginning_and_end(text: str) -> str:
    """All of the text that anybody looks at: far more than is shown of it."""
    half = _LOOKED_AT // 2
    return text if len(text) <= _LOOKED_AT else text[:half] + CUT + text[-half:]


def cut(text: str, most: int) -> str:
    """The text in at most so many characters: its beginning and its end, with a mark between them."""
    if len(text) <= most:
        return text
    room = max(0, most - len(CUT))
    head = room * 2 // 3
    return text[:head] + CUT + text[len(text) - (room - head) :]
