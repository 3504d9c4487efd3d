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
_BETWEEN_DIGITS = " \n.-()"
_WIDE_ENDS = "。！？"


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
        self._start = 0
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
        while end := self._end():
            yield self._cut(end)
        # Once for all units: cutting the rest off after each one copies a long text over and over.
        self._pending = self._pending[self._start :]
        self._looked -= self._start
        self._start = 0

    def finish(self) -> Iterator[Unit]:
        """What is left."""
        if self._pending:
            yield self._cut(len(self._pending))

    def _cut(self, end: int) -> Unit:
        text = self._pending[self._start : end]
        unit = Unit(text=text, starts_line=self._starts_line, glued=self._glued)
        self._starts_line = text.endswith("\n")
        self._glued = not text[-1].isspace() and text[-1] not in _WIDE_ENDS
        self._start = self._looked = end
        return unit

    def _end(self) -> int:
        """Where the first unit ends; 0 when that isn't known yet.

        Nothing behind the limit is looked at, so that it makes no difference whether that has arrived.
        """
        limit = self._start + MAX_UNIT
        for match in _BOUNDARY.finditer(self._pending, self._looked, limit):
            if not self._ends_in_digit(match.start()):
                return match.end()
            following = _NEXT.match(self._pending, match.end(), limit)
            if following is None:
                break
            if not following[1].isdigit():
                return match.end()
            self._looked = match.end()
        return self._forced_end(limit) if len(self._pending) > limit else 0

    def _ends_in_digit(self, end: int) -> bool:
        before = self._pending[max(self._start, end - _MARKER) : end].rstrip(_BETWEEN_DIGITS)
        return before[-1:].isdigit()

    def _forced_end(self, limit: int) -> int:
        breaks = [match.end() for match in _BREAKS.finditer(self._pending, self._start, limit)]
        if breaks:
            return breaks[-1]
        marker = self._pending.rfind("<", limit - _MARKER, limit)
        return marker if marker > self._start else limit
