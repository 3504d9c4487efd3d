"""INSERT, UPDATE and DELETE, each as the statement that yields the rows it changed."""

import json
from dataclasses import dataclass
from typing import Any

from tests.stand_ins.postgrest.catalog import SCHEMA, Table
from tests.stand_ins.postgrest.errors import PostgrestError, invalid_body, not_covered, unknown_column
from tests.stand_ins.postgrest.query import Preferences, Query
from tests.stand_ins.postgrest.reading import conditions
from tests.stand_ins.postgrest.sql import EMPTY, Snippet, join, name, raw, value
from tests.stand_ins.postgrest.syntax import Level


@dataclass(frozen=True, kw_only=True)
class Payload:
    """A body of rows as a JSON text, and the columns it sets."""

    text: str
    columns: tuple[str, ...]
    is_object: bool
    is_empty: bool


def parse_json(body: bytes) -> tuple[str, Any]:
    """A body's text and what it says. Raises PGRST102."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is Python's, not JSON's")

    try:
        text = body.decode()
        return text, json.loads(text, parse_constant=refuse)
    except ValueError:
        raise invalid_body("Empty or invalid json") from None


def parse_payload(body: bytes, columns: tuple[str, ...] | None) -> Payload:
    """Rows of a body. Without `columns` all objects have the same keys; with it, other keys are ignored."""
    text, rows = parse_json(body)
    if isinstance(rows, dict):
        return Payload(text=text, columns=columns or tuple(rows), is_object=True, is_empty=False)
    if not isinstance(rows, list):
        raise not_covered("a body that is neither an object nor an array")
    if not all(isinstance(row, dict) for row in rows):
        raise invalid_body("All object keys must match")
    if columns is None and any(row.keys() != rows[0].keys() for row in rows):
        raise invalid_body("All object keys must match")
    return Payload(text=text, columns=columns or (tuple(rows[0]) if rows else ()), is_object=False, is_empty=not rows)


def insert(table: Table, payload: Payload, query: Query, preferences: Preferences, returning: Snippet) -> Snippet:
    """`resolution` decides what a duplicate does: fails, changes the row that is there, or is left out."""
    _check_columns(table, payload)
    target = name(SCHEMA, table.name)
    if payload.is_empty:
        none = raw("INSERT INTO ") + target + raw(" SELECT * FROM ") + target + raw(" WHERE false")
        return none + returning
    if not payload.columns:
        if not payload.is_object:
            raise not_covered("several rows without columns")
        return raw("INSERT INTO ") + target + raw(" DEFAULT VALUES") + returning
    columns = join(", ", [name(column) for column in payload.columns])
    statement = raw("INSERT INTO ") + target + raw(" (") + columns + raw(") SELECT ") + _from_body(table, payload)
    statement += _rows(table, payload, defaults=preferences.missing_default)
    keys = query.on_conflict or table.primary_key
    if preferences.resolution and keys:
        # How many rows are new, which decides between 201 and 200: up for each row, down for each duplicate.
        statement += (
            raw(" WHERE ") + _counted("+ 1", unlike="0") if preferences.resolution == "merge-duplicates" else EMPTY
        )
        statement += _on_conflict(payload, preferences.resolution, keys)
    return statement + returning


def update(table: Table, payload: Payload, level: Level, preferences: Preferences, returning: Snippet) -> Snippet:
    """The body's columns on every row that the filters let through."""
    _check_columns(table, payload)
    _require_filters(level, "UPDATE")
    target = name(SCHEMA, table.name)
    if not payload.columns:
        return raw("SELECT * FROM ") + target + raw(" WHERE false")
    changes = [name(column) + raw(" = ") + name("pgrst_body", column) for column in payload.columns]
    statement = raw("UPDATE ") + target + raw(" SET ") + join(", ", changes) + raw(" ")
    statement += _rows(table, payload, defaults=preferences.missing_default)
    return statement + _where(target, level) + returning


def delete(table: Table, level: Level, returning: Snippet) -> Snippet:
    """Every row that the filters let through."""
    _require_filters(level, "DELETE")
    target = name(SCHEMA, table.name)
    return raw("DELETE FROM ") + target + _where(target, level) + returning


def returning(table: Table, columns: tuple[str, ...] | None) -> Snippet:
    """`columns` of the changed rows, for which the role needs SELECT; None only counts them."""
    if columns is None:
        return raw(" RETURNING 1")
    target = name(SCHEMA, table.name)
    if "*" in columns:
        return raw(" RETURNING ") + target + raw(".*")
    return raw(" RETURNING ") + join(", ", [target + raw(".") + name(column) for column in columns])


def _check_columns(table: Table, payload: Payload) -> None:
    for column in payload.columns:
        if column not in table.columns:
            raise unknown_column(table.name, column)


def _require_filters(level: Level, word: str) -> None:
    # Supabase loads pg-safeupdate for the authenticator: this is its refusal.
    if not level.filters:
        raise PostgrestError(status=400, code="21000", message=f"{word} requires a WHERE clause")


def _where(target: Snippet, level: Level) -> Snippet:
    return raw(" WHERE ") + join(" AND ", conditions(target, level))


def _from_body(table: Table, payload: Payload) -> Snippet:
    return join(", ", [name("pgrst_body", column) for column in payload.columns]) + raw(" ")


def _rows(table: Table, payload: Payload, *, defaults: bool) -> Snippet:
    """`FROM` with the body's rows as `pgrst_body`; a missing column is NULL, or with `defaults` its default."""
    types = join(", ", [name(column) + Snippet(f" {_type(table, column)}") for column in payload.columns])
    given = raw("FROM (SELECT ") + value(payload.text)
    function = raw("json_to_record" if payload.is_object else "json_to_recordset")
    if not defaults:
        given += raw("::json AS json_data) pgrst_payload, ")
    else:
        filled = _defaults(table, payload) + raw(" || ")
        function = raw("jsonb_to_record" if payload.is_object else "jsonb_to_recordset")
        if payload.is_object:
            filled += raw("given")
        else:
            filled = raw("(SELECT jsonb_agg(") + filled + raw("one) FROM jsonb_array_elements(given) one)")
        given += raw("::jsonb AS given) pgrst_given, LATERAL (SELECT ") + filled
        given += raw(" AS json_data) pgrst_payload, ")
    return given + raw("LATERAL (SELECT * FROM ") + function + raw("(json_data) AS _(") + types + raw(")) pgrst_body")


def _defaults(table: Table, payload: Payload) -> Snippet:
    pairs = [
        value(column) + raw("::text, ") + Snippet(table.defaults[column].replace("%", "%%"))
        for column in payload.columns
        if column in table.defaults
    ]
    return raw("jsonb_build_object(") + join(", ", pairs) + raw(")")


def _type(table: Table, column: str) -> str:
    return table.columns[column].replace("%", "%%")


def _on_conflict(payload: Payload, resolution: str, keys: tuple[str, ...]) -> Snippet:
    start = raw(" ON CONFLICT (") + join(", ", [name(key) for key in keys]) + raw(")")
    if resolution == "ignore-duplicates":
        return start + raw(" DO NOTHING")
    changes = [name(column) + raw(" = EXCLUDED.") + name(column) for column in payload.columns]
    return start + raw(" DO UPDATE SET ") + join(", ", changes) + raw(" WHERE ") + _counted("- 1", unlike="-1")


def _counted(step: str, *, unlike: str) -> Snippet:
    current = "coalesce(nullif(current_setting('pgrst.inserted', true), ''), '0')::int"
    return Snippet(f"set_config('pgrst.inserted', ({current} {step})::text, true) <> '{unlike}'")
