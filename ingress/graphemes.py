"""Where a text may be cut without breaking what a reader sees as one character."""

import regex  # type: ignore[import-untyped]

_GRAPHEME = regex.compile(r"\X")


def boundary_before(text: str, index: int) -> int:
    """The largest grapheme boundary that is at most `index`.

    A single grapheme that is longer than that is cut anyway, so the answer is 0 only when `index` is.
    """
    if index >= len(text):
        return len(text)
    start = 0
    # One character more than asked for: whether `index` is a boundary depends on the character after it.
    for match in _GRAPHEME.finditer(text, 0, index + 1):
        start = match.start()
    return start or index


def cut_utf8(text: str, max_bytes: int) -> str:
    """The longest beginning of the text, on a grapheme boundary, that fits into so many bytes of UTF-8."""
    if len(text) * 4 <= max_bytes:
        return text
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return text
    fits = len(encoded[:max_bytes].decode("utf-8", "ignore"))
    return text[: boundary_before(text, fits)]


def index_at_utf16(text: str, units: int) -> int:
    """How many characters of the text fit into so many UTF-16 units."""
    if len(text) * 2 <= units:
        return len(text)
    used = 0
    for index, char in enumerate(text):
        used += 2 if ord(char) > 0xFFFF else 1
        if used > units:
            return index
    return len(text)


def is_boundary(text: str, index: int) -> bool:
    """Whether no grapheme spans this place, judged by the two characters around it."""
    pair = text[max(0, index - 1) : index + 1]
    return len(pair) < 2 or _GRAPHEME.match(pair).end() == 1
