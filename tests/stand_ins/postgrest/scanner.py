"""Reading a text from left to right: what PostgREST's grammar is written with."""

from collections.abc import Callable
from typing import TypeVar

from tests.stand_ins.postgrest.errors import unparsable

T = TypeVar("T")


class Mismatch(Exception):
    """The text is not what the grammar wants at this place."""


class Reader:
    """A position in a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def rest(self) -> str:
        return self._text[self._at :]

    def take(self, wanted: str) -> bool:
        """Step over `wanted` if it comes next."""
        if not self._text.startswith(wanted, self._at):
            return False
        self._at += len(wanted)
        return True

    def expect(self, wanted: str) -> None:
        if not self.take(wanted):
            raise self.mismatch(repr(wanted))

    def while_(self, belongs: Callable[[str], bool]) -> str:
        start = self._at
        while self._at < len(self._text) and belongs(self._text[self._at]):
            self._at += 1
        return self._text[start : self._at]

    def mismatch(self, expected: str) -> Mismatch:
        found = repr(self._text[self._at]) if self.rest else "end of input"
        return Mismatch(f"unexpected {found} at column {self._at + 1}, expecting {expected}")

    def attempt(self, parse: Callable[["Reader"], T]) -> T | None:
        """What `parse` reads, or None with the position as it was."""
        start = self._at
        try:
            return parse(self)
        except Mismatch:
            self._at = start
            return None


def whole(text: str, parse: Callable[[Reader], T], what: str) -> T:
    """What `parse` makes of the entire text. Raises PGRST100."""
    reader = Reader(text)
    try:
        parsed = parse(reader)
        if reader.rest:
            raise reader.mismatch("end of input")
    except Mismatch as mismatch:
        raise unparsable(f'"failed to parse {what} ({text})" (line 1, column 1)', str(mismatch)) from None
    return parsed


def separated(reader: Reader, parse: Callable[[Reader], T]) -> tuple[T, ...]:
    """One or more, with commas between."""
    parsed = [parse(reader)]
    while reader.take(","):
        parsed.append(parse(reader))
    return tuple(parsed)
