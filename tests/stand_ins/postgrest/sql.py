"""SQL text with its values beside it: values are always bound, identifiers always quoted."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, LiteralString

from psycopg import sql


@dataclass(frozen=True)
class Snippet:
    """A piece of a statement in psycopg's format (`%s` for a value), and the values in order."""

    text: str
    values: tuple[object, ...] = ()

    def __add__(self, other: "Snippet") -> "Snippet":
        return Snippet(self.text + other.text, self.values + other.values)

    def __bool__(self) -> bool:
        return bool(self.text)


EMPTY: Final = Snippet("")


def raw(text: LiteralString) -> Snippet:
    """SQL that stands in this program, never in a request."""
    return Snippet(text.replace("%", "%%"))


def name(*parts: str) -> Snippet:
    """A quoted, perhaps qualified, identifier. `%` is doubled, or `%s` in a column's name would take a value away."""
    return Snippet(sql.Identifier(*parts).as_string(None).replace("%", "%%"))


def value(bound: object) -> Snippet:
    """A bound value whose type PostgreSQL infers from where it stands, as PostgREST lets it."""
    return Snippet("%s", (bound,))


def text_value(bound: str) -> Snippet:
    """A bound value where nothing tells PostgreSQL the type."""
    return Snippet("%s::text", (bound,))


def join(separator: LiteralString, snippets: Iterable[Snippet]) -> Snippet:
    """All of them, with `separator` between."""
    every = list(snippets)
    text = separator.replace("%", "%%").join(snippet.text for snippet in every)
    return Snippet(text, tuple(bound for snippet in every for bound in snippet.values))
