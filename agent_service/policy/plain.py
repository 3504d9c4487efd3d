"""Characters: nothing that is invisible or turns the direction of writing."""

import re
import unicodedata

_LINE_ENDS = "\n\v\f\x85\u2028\u2029"
# A joiner between two pictographs makes one picture ("👨‍👩‍👧"); anywhere else it hides something.
_PICTOGRAPH = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_STRAY_JOINER = re.compile(rf"(?<![{_PICTOGRAPH}])\u200d|\u200d(?![{_PICTOGRAPH}])")


# Letters of no sound and blanks of no blank category, which look like nothing.
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
# Cyrillic and Greek letters that nobody can tell from Latin ones, and letters on flags and buttons.
_FOREIGN = (
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u03bf\u03bd"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
)
_OURS = "aeopcyxijshdqwovABEKMHOPCTYXIJSABEZHIKMNOPTYX"
_LOOK_ALIKES = dict(zip(map(ord, _FOREIGN), _OURS, strict=True)) | {
    start + at: chr(ord("a") + at) for start in (0x1F150, 0x1F170, 0x1F1E6) for at in range(26)
}


class _Plain(dict[int, str]):
    """Character by character, remembered: a digit in any ring or script is that digit."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        digit = unicodedata.digit(char, None)
        self[code] = plain = str(digit) if digit is not None else _LOOK_ALIKES.get(code, char)
        return plain


_PLAIN = _Plain()


class _Visible(dict[int, str]):
    """Character by character, remembered, so that a text may arrive in any pieces."""

    def __missing__(self, code: int) -> str:
        self[code] = shown = _shown(chr(code))
        return shown


def _shown(char: str) -> str:
    if char in _LINE_ENDS:
        return "\n"
    if char == "\t":
        return " "
    if char == "\u200d":
        return char
    if char in _BLANK_LETTERS:
        return ""
    match unicodedata.category(char):
        case "Cc" | "Cf" | "Cs" | "Co":
            return ""
        case "Zs":
            return " "
        case _:
            return char


_VISIBLE = _Visible()


def visible(text: str) -> str:
    """The text without control, invisible and direction characters; ends of lines are "\\n". One piece at a time: what
    looks at neighbours is left to `tidy`."""
    return text.translate(_VISIBLE)


def tidy(text: str) -> str:
    """A whole visible text without joiners that join nothing."""
    return _STRAY_JOINER.sub("", text)


def looked_at(text: str) -> str:
    """The text as checks see it: full-width, ringed and foreign letters that look like ours are ours. Never sent."""
    return unicodedata.normalize("NFKC", text).translate(_PLAIN)
