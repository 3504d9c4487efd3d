"""The parameters of a URL, sorted by what they mean."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tests.stand_ins.postgrest.errors import PostgrestError, bad_range, not_covered
from tests.stand_ins.postgrest.grammar import (
    is_operation,
    parse_columns,
    parse_filter,
    parse_logic,
    parse_order,
    parse_path,
    parse_select,
)
from tests.stand_ins.postgrest.syntax import Column, Embed, EmbedPath, Field, Level, Window

ALL_COLUMNS = (Column(field=Field(column="*")),)
ROOT: EmbedPath = ()


@dataclass(kw_only=True)
class Query:
    """What is asked of each table of the answer, and how it is to look."""

    items: tuple[Column | Embed, ...] = ALL_COLUMNS
    levels: dict[EmbedPath, Level] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] | None = None
    arguments: dict[str, str] = field(default_factory=dict)
    """Parameters whose value is no filter: arguments of a function."""

    @property
    def root(self) -> Level:
        """What is asked of the table in the path."""
        return self.levels.get(ROOT, Level())


def parse_query(pairs: Iterable[tuple[str, str]]) -> Query:
    """Raises PostgrestError for what is not PostgREST's grammar, and for what this stand-in does not know."""
    query = Query()
    seen: set[str] = set()
    for key, text in pairs:
        last = key.rpartition(".")[2]
        single = key in ("select", "columns", "on_conflict") or last in ("order", "limit", "offset")
        if single and key in seen:
            raise not_covered(f"a second `{key}` parameter")
        seen.add(key)
        _take(query, key, last, text)
    return query


def _take(query: Query, key: str, last: str, text: str) -> None:
    if key == "select":
        query.items = parse_select(text)
    elif key == "columns":
        query.columns = parse_columns(text, key)
    elif key == "on_conflict":
        query.on_conflict = parse_columns(text, key)
    elif last == "order":
        _change(query, parse_path(key), order=parse_order(text))
    elif last in ("limit", "offset"):
        path = parse_path(key)
        window = query.levels.get(path, Level()).window
        _change(query, path, window=replace(window, **{last: _number(last, text)}))
    elif last in ("and", "or"):
        path, logic = parse_logic(key, text)
        _change(query, path, filters=(*query.levels.get(path, Level()).filters, logic))
    elif "." in key or is_operation(text):
        path, condition = parse_filter(key, text)
        _change(query, path, filters=(*query.levels.get(path, Level()).filters, condition))
    elif key in query.arguments:
        raise not_covered(f"the argument `{key}` given twice")
    else:
        query.arguments[key] = text


def _change(query: Query, path: EmbedPath, **what: object) -> None:
    query.levels[path] = replace(query.levels.get(path, Level()), **what)  # type: ignore[arg-type]


def _number(key: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise not_covered(f"a `{key}` that is no number") from None
    if number < 0:
        raise bad_range("Limit should be greater than or equal to zero." if key == "limit" else "Offset is negative.")
    return number


def with_range_header(window: Window, header: str | None) -> Window:
    """The rows that both the parameters and `Range: 0-9` let through."""
    if header is None:
        return window
    first, dash, last = header.partition("-")
    if not dash or not first.isdecimal() or (last and not last.isdecimal()):
        raise not_covered(f"the header `Range: {header}`")
    if last and int(last) < int(first):
        raise bad_range("The lower boundary must be lower than or equal to the upper boundary in the Range header.")
    if window.offset and int(first):
        raise not_covered("a Range header together with an offset")
    asked = Window(offset=window.offset or int(first), limit=window.limit)
    return asked.within(int(last) - int(first) + 1) if last else asked


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """The `Prefer` header. Of contradicting ones the first counts; unknown ones count only with handling=strict."""

    returns: str = "minimal"
    count: str | None = None
    resolution: str | None = None
    missing_default: bool = False
    max_affected: int | None = None
    applied: tuple[str, ...] = ()


_KNOWN: Mapping[str, tuple[str, ...]] = {
    "return": ("representation", "minimal", "headers-only"),
    "count": ("exact", "planned", "estimated"),
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "handling": ("strict", "lenient"),
    "tx": ("commit", "rollback"),
}


def parse_preferences(headers: Iterable[str]) -> Preferences:
    """Raises PostgrestError when handling is strict and a preference is unknown."""
    given = [preference.strip() for header in headers for preference in header.split(",") if preference.strip()]
    chosen: dict[str, str] = {}
    invalid: list[str] = []
    for preference in given:
        key, _, word = preference.partition("=")
        if key == "timezone" or preference in ("return=headers-only", "count=estimated"):
            raise not_covered(f"the preference `{preference}`")
        if word in _KNOWN.get(key, ()) or (key == "max-affected" and word.isdecimal()):
            chosen.setdefault(key, word)
        else:
            invalid.append(preference)
    if chosen.get("handling") == "strict" and invalid:
        raise PostgrestError(
            status=400,
            code="PGRST122",
            message="Invalid preferences given with handling=strict",
            details=f"Invalid preferences: {', '.join(invalid)}",
        )
    strict = chosen.get("handling") == "strict"
    return Preferences(
        returns=chosen.get("return", "minimal"),
        count=chosen.get("count"),
        resolution=chosen.get("resolution"),
        missing_default=chosen.get("missing") == "default",
        max_affected=int(chosen["max-affected"]) if strict and "max-affected" in chosen else None,
        applied=tuple(f"{key}={word}" for key, word in chosen.items() if key not in ("tx", "max-affected")),
    )
