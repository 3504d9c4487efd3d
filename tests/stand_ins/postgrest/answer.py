"""From a request's parts to an answer: plans the statement, runs it in a transaction, and shapes what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.stand_ins.postgrest import writing
from tests.stand_ins.postgrest.calling import Call, call_with_body, call_with_parameters, source
from tests.stand_ins.postgrest.catalog import Catalog, Table
from tests.stand_ins.postgrest.errors import (
    PostgrestError,
    bad_range,
    invalid_body,
    not_covered,
    not_one_row,
    unknown_table,
    unparsable,
)
from tests.stand_ins.postgrest.keys import Caller
from tests.stand_ins.postgrest.pool import Connection, Pool
from tests.stand_ins.postgrest.query import ROOT, Preferences, Query, with_range_header
from tests.stand_ins.postgrest.reading import SOURCE, Node, Planner, count, needed_columns, select
from tests.stand_ins.postgrest.sql import EMPTY, Snippet, name, raw
from tests.stand_ins.postgrest.syntax import Level, Window

ONE_OBJECT: Final = "application/vnd.pgrst.object+json"
ARRAY: Final = "application/json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request whose headers have been understood."""

    method: str
    table: str = ""
    function: str = ""
    query: Query
    preferences: Preferences
    media: str
    body: bytes = b""
    content_type: str = ARRAY
    range: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes back; `media` is empty where there is no body."""

    status: int
    body: str = ""
    media: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Statement:
    """`source` yields or changes the rows, `shown` are those of them that are answered, `counted` all of them."""

    source: Snippet
    shown: Snippet
    aggregate: str
    counted: Snippet = EMPTY
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class _Result:
    total: int | None
    shown: int
    body: str
    inserted: int | None


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """Answers with the catalog as it is now."""

    pool: Pool
    catalog: Catalog
    max_rows: int | None
    statements: list[Snippet] = field(default_factory=list)
    """Grows by each statement that is run, for whoever wants to see it or its plan."""

    async def answer(self, request: Request, caller: Caller) -> Answer:
        """Raises PostgrestError, and psycopg's errors as they come."""
        if request.function:
            return await self._call(request, caller)
        if request.query.arguments:
            key, text = next(iter(request.query.arguments.items()))
            details = f"unexpected {text[:1]!r} in `{key}`, expecting operator (eq, gt, ...)"
            raise unparsable(f'"failed to parse filter ({text})" (line 1, column 1)', details)
        table = self.catalog.tables.get(request.table)
        if table is None:
            raise unknown_table(request.table)
        if request.method in ("GET", "HEAD"):
            return await self._read(request, caller, table)
        return await self._write(request, caller, table)

    async def _read(self, request: Request, caller: Caller, table: Table) -> Answer:
        if request.query.columns or request.query.on_conflict:
            raise not_covered("`columns` or `on_conflict` when reading")
        levels = _levels_with_range(request)
        node = self._planner(levels).root(table.name, request.query.items, source=False)
        statement = _Statement(
            source=select(node),
            shown=raw("SELECT * FROM ") + name(SOURCE),
            counted=_counted(request.preferences, node),
            aggregate=_aggregate(scalar=False, one=request.media == ONE_OBJECT),
            read_only=True,
        )
        result = await self._run(request, caller, statement)
        return _ranged(request, result, levels[ROOT].window)

    async def _call(self, request: Request, caller: Caller) -> Answer:
        call = self._understood_call(request)
        levels = _levels_with_range(request)
        node = self._planner(levels).root(call.function.result_table, request.query.items, source=True)
        statement = _Statement(
            source=source(call),
            shown=select(node),
            counted=_counted(request.preferences, node),
            aggregate=_aggregate(scalar=call.is_scalar, one=call.is_one or request.media == ONE_OBJECT),
            read_only=request.method in ("GET", "HEAD") or not call.function.volatile,
        )
        if request.preferences.max_affected is not None or request.preferences.count == "planned":
            raise not_covered("max-affected or count=planned with a function")
        result = await self._run(request, caller, statement)
        answer = _ranged(request, result, levels[ROOT].window)
        return Answer(status=204, headers=answer.headers) if call.function.returns_void else answer

    def _understood_call(self, request: Request) -> Call:
        if request.query.columns or request.query.on_conflict:
            raise not_covered("`columns` or `on_conflict` with a function")
        if request.method in ("GET", "HEAD"):
            return call_with_parameters(self.catalog, request.function, request.query.arguments)
        if request.method != "POST":
            message = f"Cannot use the {request.method} method on RPC"
            raise PostgrestError(status=405, code="PGRST101", message=message)
        if request.query.arguments:
            raise not_covered("arguments in the query string of a POST")
        _require_json(request)
        return call_with_body(self.catalog, request.function, request.body)

    async def _write(self, request: Request, caller: Caller, table: Table) -> Answer:
        self._refuse_windows_of_writes(request)
        root = request.query.root
        shows = request.preferences.returns == "representation"
        levels = {path: level for path, level in request.query.levels.items() if path != ROOT}
        planner = Planner(catalog=self.catalog, levels=levels, max_rows=None)
        node = planner.root(table.name, request.query.items, source=True)
        returning = writing.returning(table, needed_columns(node) if shows else None)
        statement = _Statement(
            source=self._change(request, table, root, returning),
            shown=select(node) if shows else raw("SELECT * FROM ") + name(SOURCE),
            aggregate=_aggregate(scalar=False, one=request.media == ONE_OBJECT) if shows else "nothing",
        )
        result = await self._run(request, caller, statement)
        return _changed(request, result)

    def _change(self, request: Request, table: Table, root: Level, returning: Snippet) -> Snippet:
        query, preferences = request.query, request.preferences
        if request.method == "DELETE":
            return writing.delete(table, root, returning)
        _require_json(request)
        payload = writing.parse_payload(request.body, query.columns)
        if request.method == "PATCH":
            if preferences.resolution or query.on_conflict:
                raise not_covered("`resolution` or `on_conflict` with PATCH")
            if not payload.is_object:
                raise not_covered("a PATCH whose body is no object")
            return writing.update(table, payload, root, preferences, returning)
        if root.filters:
            raise not_covered("filters on an insert")
        return writing.insert(table, payload, query, preferences, returning)

    @staticmethod
    def _refuse_windows_of_writes(request: Request) -> None:
        root = request.query.root
        if root.order or root.window != Window():
            raise not_covered("order, limit and offset of a write")
        if request.preferences.count == "planned":
            raise not_covered("count=planned of a write")

    def _planner(self, levels: Mapping[tuple[str, ...], Level]) -> Planner:
        return Planner(catalog=self.catalog, levels=levels, max_rows=self.max_rows)

    async def _run(self, request: Request, caller: Caller, statement: _Statement) -> _Result:
        settings = {
            "request.method": request.method,
            "request.path": f"/rpc/{request.function}" if request.function else f"/{request.table}",
            **self.catalog.role_settings.get(caller.role, {}),
        }
        async with self.pool.transaction(caller, read_only=statement.read_only, settings=settings) as connection:
            planned = await _planned(connection, statement, request.preferences)
            query = _whole(statement, planned)
            self.statements.append(query)
            row: Any = await (await connection.execute(query.text.encode(), query.values)).fetchone()
            result = _result_of(row, planned)
            # Inside the transaction: a write that is refused for its rows has not happened.
            if request.media == ONE_OBJECT and result.shown != 1:
                raise not_one_row(result.shown)
            _check_affected(request, result)
        return result


def _levels_with_range(request: Request) -> dict[tuple[str, ...], Level]:
    root = request.query.root
    window = with_range_header(root.window, request.range if request.method == "GET" else None)
    return {**request.query.levels, ROOT: Level(filters=root.filters, order=root.order, window=window)}


def _counted(preferences: Preferences, node: Node) -> Snippet:
    return count(node) if preferences.count else EMPTY


def _aggregate(*, scalar: bool, one: bool) -> str:
    if scalar:
        return "scalar" if one else "scalars"
    return "row" if one else "rows"


_BODIES: Final = {
    "rows": "coalesce(json_agg(_postgrest_t), '[]')",
    "row": "coalesce(json_agg(_postgrest_t)->0, 'null')",
    "scalars": "coalesce(json_agg(_postgrest_t.pgrst_scalar), '[]')",
    "scalar": "coalesce(json_agg(_postgrest_t.pgrst_scalar)->0, 'null')",
    "nothing": "''",
}


def _whole(statement: _Statement, planned: int | None) -> Snippet:
    counted = statement.counted and planned is None
    query = raw("WITH ") + name(SOURCE) + raw(" AS (") + statement.source + raw(")")
    if counted:
        query += raw(", pgrst_source_count AS (") + statement.counted + raw(")")
    total = "(SELECT pg_catalog.count(*) FROM pgrst_source_count)" if counted else "null::bigint"
    query += Snippet(
        f" SELECT {total}, pg_catalog.count(_postgrest_t), {_BODIES[statement.aggregate]}::text,"
        " nullif(current_setting('pgrst.inserted', true), '')::int,"
        " nullif(current_setting('response.headers', true), '') IS NOT NULL"
        " OR nullif(current_setting('response.status', true), '') IS NOT NULL FROM ("
    )
    return query + statement.shown + raw(") _postgrest_t")


def _result_of(row: Any, planned: int | None) -> _Result:
    if row[4]:
        raise not_covered("response.status and response.headers set by a function")
    return _Result(total=row[0] if planned is None else planned, shown=row[1], body=row[2], inserted=row[3])


async def _planned(connection: Connection, statement: _Statement, preferences: Preferences) -> int | None:
    """PostgreSQL's estimate of the number of rows, when that is what is asked for."""
    if preferences.count != "planned" or not statement.counted:
        return None
    explain = raw("EXPLAIN (FORMAT JSON) ") + statement.counted
    row: Any = await (await connection.execute(explain.text.encode(), explain.values)).fetchone()
    return int(row[0][0]["Plan"]["Plan Rows"])


def _check_affected(request: Request, result: _Result) -> None:
    most = request.preferences.max_affected
    if most is not None and request.method in ("PATCH", "DELETE") and result.shown > most:
        raise PostgrestError(
            status=400,
            code="PGRST124",
            message="Query result exceeds max-affected preference constraint",
            details=f"The query affects {result.shown} rows",
        )


def _ranged(request: Request, result: _Result, window: Window) -> Answer:
    """200, 206 for a part of a counted whole, 416 for a start beyond its end."""
    first, last, total = window.offset, window.offset + result.shown - 1, result.total
    if total is not None and first > total:
        raise bad_range(f"An offset of {first} was requested, but there are only {total} rows.")
    span = f"{first}-{last}" if last >= first and total != 0 else "*"
    headers = {"Content-Range": f"{span}/{'*' if total is None else total}"} | _applied(request)
    partial = total is not None and result.shown < total
    body = "" if request.method == "HEAD" else result.body
    return Answer(status=206 if partial else 200, body=body, media=request.media, headers=headers)


def _changed(request: Request, result: _Result) -> Answer:
    total = str(result.shown) if request.preferences.count else "*"
    span = f"0-{result.shown - 1}" if request.method == "PATCH" and result.shown else "*"
    headers = {"Content-Range": f"{span}/{total}"} | _applied(request)
    shows = request.preferences.returns == "representation"
    if request.method == "POST":
        merged = request.preferences.resolution == "merge-duplicates" and (result.inserted or 0) <= 0
        status = 200 if merged and result.inserted is not None else 201
    else:
        status = 200 if shows else 204
    if not shows:
        return Answer(status=status, headers=headers)
    return Answer(status=status, body=result.body, media=request.media, headers=headers)


def _applied(request: Request) -> dict[str, str]:
    applied = ", ".join(request.preferences.applied)
    return {"Preference-Applied": applied} if applied else {}


def _require_json(request: Request) -> None:
    if request.content_type in ("text/csv", "application/x-www-form-urlencoded", "text/plain", "text/xml"):
        raise not_covered(f"bodies of type {request.content_type}")
    if request.content_type != "application/json":
        raise invalid_body(f"Content-Type not acceptable: {request.content_type}")
