"""Folding text so that one pattern fits every way of typing it."""

import re
import unicodedata

MAX_READ = 2_000
_SPACES = re.compile(r"\s+")
_SENTENCE = re.compile(r"[^.!?;\n]*(?:\.(?=\d)[^.!?;\n]*)*[.!?;\n]*")


def fold(text: str) -> str:
    """Lower case without accents, one character for one character, so that positions still fit the original."""
    return unicodedata.normalize("NFC", text).translate(_FOLDED)


def clip(text: str) -> str:
    """What is read of a text: its beginning and its end, because patterns must stay cheap whatever a lead pastes."""
    plain = unicodedata.normalize("NFC", text)
    if len(plain) > MAX_READ:
        plain = plain[: MAX_READ * 3 // 4] + "\n" + plain[-MAX_READ // 4 :]
    return plain.strip()


def squeeze(text: str) -> str:
    """One space wherever there was any blank."""
    return _SPACES.sub(" ", text).strip()


def sentences(text: str) -> list[str]:
    """The sentences of a message, with their end marks; "4.500" is not an end."""
    return [piece.strip() for piece in _SENTENCE.findall(text) if piece.strip()]


def _fold_char(char: str) -> str:
    if char in "’‘´`":
        return "'"
    base = unicodedata.normalize("NFD", char)[0].lower()[:1]
    return base or char


class _Folding(dict[int, str]):
    """Character by character, remembered: a table is many times faster than a loop."""

    def __missing__(self, code: int) -> str:
        self[code] = folded = _fold_char(chr(code))
        return folded


_FOLDED = _Folding()
