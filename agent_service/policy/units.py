"""Cutting a stream into what is judged at once: a sentence, or a line. Where it is cut depends on the text alone, never
on the pieces in which it arrives."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent_service.policy.plain import visible

MAX_UNIT = 600
_MARKER = 40
# Digits on both sides of a boundary may be one number that is written over two lines.
_BOUNDARY = re.compile(r"""[.!?…]["'”»)*_~]*[ ]+(?=\S)|[。！？]|\n""")
_BREAKS = re.compile(r"(?<!\d)\s|\s(?!\d)")
_NEXT = re.compile(r"\s*(\S)")
_NUMBER_ENDS = re.compile(r"[\d+(][\s.\-()]*\Z")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A sentence or a line with the blanks behind it; `glued` when it begins in the middle of a word."""

    text: str
    starts_line: bool
    glued: bool = False


class Units:
    """One stream."""

    def __init__(self) -> None:
        self._pending = ""
        self._looked = 0
        self._after_cr = False
        self._starts_line = True
        self._glued = False

    def feed(self, text: str) -> Iterator[Unit]:
        """The units that are complete now."""
        if self._after_cr and text.startswith("\n"):
            text, self._after_cr = text[1:], False
        if text:
            self._after_cr = text.endswith("\r")
        self._pending += visible(text.replace("\r\n", "\n").replace("\r", "\n"))
        while (end := self._end()) > 0:
            yield self._cut(end)

    def finish(self) -> Iterator[Unit]:
        """What is left."""
        if self._pending:
            yield self._cut(len(self._pending))

    def _cut(self, end: int, *, glues: bool = False) -> Unit:
        text, self._pending = self._pending[:end], self._pending[end:]
        unit = Unit(text=text, starts_line=self._starts_line, glued=self._glued)
        self._starts_line, self._looked = text.endswith("\n"), 0
        self._glued = not text[-1].isspace() and text[-1] not in "。！？" and bool(self._pending)
        return unit

    def _end(self) -> int:
        """Where the first unit ends; 0 when that isn't known yet."""
        for match in _BOUNDARY.finditer(self._pending, self._looked):
            if match.start() >= MAX_UNIT:
                break
            following = _NEXT.match(self._pending, match.end())
            if not _NUMBER_ENDS.search(self._pending, 0, match.start()):
                return match.end()
            if following is None:
                break
            if not following[1].isdigit():
                return match.end()
        if len(self._pending) <= MAX_UNIT:
            return 0
        return self._forced_end()

    def _forced_end(self) -> int:
        breaks = [match.end() for match in _BREAKS.finditer(self._pending, 0, MAX_UNIT)]
        if breaks:
            return breaks[-1]
        marker = self._pending.rfind("<", MAX_UNIT - _MARKER, MAX_UNIT)
        return marker if marker > 0 else MAX_UNIT
