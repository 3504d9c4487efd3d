"""One thing that the check found."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

Loc = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong at which key; list items go by their id where they have one."""

    loc: Loc
    what: str
    error: bool = False

    @property
    def key(self) -> str:
        """The key as people write it: script.pain.ask.0."""
        return ".".join(str(part) for part in self.loc)


def error(loc: Loc, what: str) -> Finding:
    """Something that leads would notice."""
    return Finding(loc=loc, what=what, error=True)


def warning(loc: Loc, what: str) -> Finding:
    """Something that may be meant."""
    return Finding(loc=loc, what=what)


def known_are(given: str, known: Iterable[str]) -> str:
    """ " (did you mean não?)", or the list of what is known when it is short."""
    names = sorted(known)
    if near := get_close_matches(given, names, n=1):
        return f" (did you mean {near[0]}?)"
    return f" (known are {', '.join(names)})" if 0 < len(names) <= 10 else ""
