"""Characters: nothing that is invisible or turns the direction of writing."""

import re
import unicodedata

_LINE_ENDS = "\n\v\f\x85\u2028\u2029"
# A joiner between two pictographs makes one picture ("👨‍👩‍👧"); anywhere else it hides something.
_PICTOGRAPH = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_STRAY_JOINER = re.compile(rf"(?<![{_PICTOGRAPH}])\u200d|\u200d(?![{_PICTOGRAPH}])")


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
    """The text as checks see it: full-width and ringed letters are plain ones. Never sent."""
    return unicodedata.normalize("NFKC", text)
