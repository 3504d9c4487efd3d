"""Cuts streamed text into bubbles ("parts") where a person would. Pure."""

import re

from pydantic import Field

from ingress.graphemes import boundary_before, index_at_utf16, is_boundary
from service_kit.settings import Settings

# What WhatsApp takes in one message, in UTF-16 units.
HARD_CAP_UNITS = 4096
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n")
# Possessive and anchored at the first mark: thousands of dots in a row must not cost seconds.
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_~]*+(?=\s)|(?=\n)")
_SPACE = re.compile(r"\s")
# After them a full stop ends nothing, as after the number of a list's item.
_ABBREVIATIONS = frozenset({"av", "dr", "dra", "ex", "nº", "prof", "profa", "sr", "sra", "srta"})


class PartSettings(Settings):
    """How a reply is cut into bubbles."""

    ingress_part_max_chars: int = Field(
        1000,
        ge=20,
        le=HARD_CAP_UNITS,
        validation_alias="SDR_INGRESS_PART_MAX_CHARS",
        description="A bubble that grows longer is cut, at the end of a sentence if possible",
    )
    ingress_max_parts: int = Field(
        8,
        ge=1,
        le=50,
        validation_alias="SDR_INGRESS_MAX_PARTS",
        description="Bubbles of one reply; the rest goes into the last one",
    )


class PartCutter:
    """Takes text as it streams and gives the parts that are complete; how it was chunked makes no difference.

    An empty line ends a part. A part that grows too long is cut at the end of a sentence, else between words, else
    between graphemes. The last part takes all that is left; only what exceeds the provider's cap goes beyond it.
    """

    def __init__(self, *, max_chars: int = 1000, max_parts: int = 8) -> None:
        if max_chars < 1 or max_parts < 1:
            raise ValueError("a reply needs at least one part of at least one character")
        self._max_chars = max_chars
        self._max_parts = max_parts
        self._given = 0
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        """Add text; the parts that it completed."""
        self._rest += text
        parts = []
        while (part := self._next()) is not None:
            parts.append(part)
        return parts

    def finish(self) -> list[str]:
        """The stream has ended; the parts that are left."""
        parts = self.feed("")
        last = self._rest.rstrip()
        self._rest = ""
        return [*parts, last] if last else parts

    def _next(self) -> str | None:
        if not self._rest.strip():
            # Only space so far: what follows may combine with it.
            return None
        self._rest = _without_leading_space(self._rest)
        is_last = self._given >= self._max_parts - 1
        limit = index_at_utf16(self._rest, HARD_CAP_UNITS)
        if not is_last:
            limit = min(limit, self._max_chars)
            empty_line = _EMPTY_LINE.search(self._rest)
            if empty_line is not None and empty_line.start() <= limit:
                return self._take(empty_line.start(), empty_line.end())
        # A visible character beyond the limit decides; until then an empty line may still come.
        if len(self._rest.rstrip()) <= limit:
            return None
        at = _best_cut(self._rest, limit)
        return self._take(at, at)

    def _take(self, end: int, next_start: int) -> str:
        part = self._rest[:end].rstrip()
        self._rest = self._rest[next_start:]
        self._given += 1
        return part


def _best_cut(text: str, limit: int) -> int:
    window = text[: limit + 1]
    ends = (match for match in _SENTENCE_END.finditer(window) if match.end() <= limit)
    sentences = [match.end() for match in ends if not (match[0].startswith(".") and _goes_on(window[: match.start()]))]
    if sentences and sentences[-1] >= max(1, limit // 4):
        return sentences[-1]
    spaces = (match.start() for match in _SPACE.finditer(window))
    words = [at for at in spaces if 0 < at <= limit and is_boundary(text, at + 1)]
    return words[-1] if words else boundary_before(text, limit)


def _goes_on(before: str) -> bool:
    """Whether the full stop after this belongs to its last word: "Dra.", or "3." at the beginning of a line."""
    line = before.rpartition("\n")[2].strip(" *_")
    return line.isdigit() or line.rpartition(" ")[2].strip("*_(").lower() in _ABBREVIATIONS


def _without_leading_space(text: str) -> str:
    stripped = text.lstrip()
    start = len(text) - len(stripped)
    return stripped if start == 0 or is_boundary(text, start) else text[start - 1 :]
