"""PostgREST's schema cache: the tables, foreign keys and functions of `public`, as PostgreSQL's catalog has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

SCHEMA: Final = "public"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or view. `columns` gives each column's type; `defaults` the expression of those that have one."""

    name: str
    columns: Mapping[str, str]
    defaults: Mapping[str, str]
    primary_key: tuple[str, ...]
    unique_keys: frozenset[frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class ForeignKey:
    """`table.columns` point to `target.target_columns`."""

    name: str
    table: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """An argument of a function; an empty name is an unnamed one."""

    name: str
    type: str
    required: bool
    variadic: bool


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function under `/rpc`."""

    name: str
    parameters: tuple[Parameter, ...]
    returns_set: bool
    returns_rows: bool
    """Of a table type, TABLE(…) or OUT arguments; otherwise a scalar."""
    returns_void: bool
    result_table: str | None
    volatile: bool


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Everything, by name."""

    tables: Mapping[str, Table]
    foreign_keys: tuple[ForeignKey, ...]
    functions: Mapping[str, tuple[Function, ...]]
    role_settings: Mapping[str, Mapping[str, str]]
    """What ALTER ROLE … SET says; PostgREST applies it to the roles it changes to."""


_TABLES: Final = """
SELECT c.relname AS name,
       (SELECT json_object_agg(a.attname, format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
          FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       coalesce((SELECT json_object_agg(a.attname, pg_get_expr(d.adbin, d.adrelid))
          FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = c.oid AND a.attgenerated = '' AND NOT a.attisdropped), '{}') AS defaults,
       coalesce((SELECT json_agg(json_build_object('primary', i.indisprimary, 'columns',
            (SELECT json_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey))))
          FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL),
          '[]') AS unique_keys
  FROM pg_class c
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_FOREIGN_KEYS: Final = """
SELECT k.conname AS name, t.relname AS "table", r.relname AS target,
       (SELECT json_agg(a.attname ORDER BY u.n) FROM unnest(k.conkey) WITH ORDINALITY u(attnum, n)
          JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum) AS columns,
       (SELECT json_agg(a.attname ORDER BY u.n) FROM unnest(k.confkey) WITH ORDINALITY u(attnum, n)
          JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum) AS target_columns
  FROM pg_constraint k
  JOIN pg_class t ON t.oid = k.conrelid AND t.relnamespace = 'public'::regnamespace
  JOIN pg_class r ON r.oid = k.confrelid AND r.relnamespace = 'public'::regnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
 ORDER BY k.conname
"""
_FUNCTIONS: Final = """
SELECT p.proname AS name, p.proretset AS returns_set, p.provolatile = 'v' AS volatile,
       p.prorettype = 'void'::regtype AS returns_void, c.relname AS result_table,
       c.oid IS NOT NULL OR coalesce(p.proargmodes::text[] && '{t,b,o}', false) AS returns_rows,
       coalesce((SELECT json_agg(json_build_object('name', coalesce(a.name, ''), 'type', format_type(a.type, NULL),
                'required', a.n <= p.pronargs - p.pronargdefaults, 'variadic', coalesce(a.mode = 'v', false))
                ORDER BY a.n)
          FROM (SELECT x.type, p.proargnames[x.i] AS name, p.proargmodes[x.i] AS mode,
                       row_number() OVER (ORDER BY x.i) AS n
                  FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY x(type, i)
                 WHERE coalesce(p.proargmodes[x.i], 'i') IN ('i', 'b', 'v')) a), '[]') AS parameters
  FROM pg_proc p
  JOIN pg_type t ON t.oid = p.prorettype
  LEFT JOIN pg_class c ON c.oid = t.typrelid AND t.typtype = 'c'
 WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f' AND t.typname NOT IN ('trigger', 'event_trigger')
"""
_ROLE_SETTINGS: Final = """
SELECT r.rolname AS role, split_part(s, '=', 1) AS name, substr(s, strpos(s, '=') + 1) AS value
  FROM pg_db_role_setting d JOIN pg_roles r ON r.oid = d.setrole, unnest(d.setconfig) s
 WHERE d.setdatabase = 0
"""


async def load_catalog(connection: AsyncConnection[Any]) -> Catalog:
    """Read it all, in one transaction of the caller's."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        tables = [_table(row) for row in await (await cursor.execute(_TABLES)).fetchall()]
        foreign_keys = [
            ForeignKey(**row | {"columns": tuple(row["columns"]), "target_columns": tuple(row["target_columns"])})
            for row in await (await cursor.execute(_FOREIGN_KEYS)).fetchall()
        ]
        functions: dict[str, tuple[Function, ...]] = {}
        for row in await (await cursor.execute(_FUNCTIONS)).fetchall():
            parameters = tuple(Parameter(**parameter) for parameter in row["parameters"])
            function = Function(**row | {"parameters": parameters})
            functions[function.name] = (*functions.get(function.name, ()), function)
        settings: dict[str, dict[str, str]] = {}
        for row in await (await cursor.execute(_ROLE_SETTINGS)).fetchall():
            settings.setdefault(row["role"], {})[row["name"]] = row["value"]
    return Catalog(
        tables={table.name: table for table in tables},
        foreign_keys=tuple(foreign_keys),
        functions=functions,
        role_settings=settings,
    )


def _table(row: Mapping[str, Any]) -> Table:
    unique = row["unique_keys"]
    return Table(
        name=row["name"],
        columns=row["columns"] or {},
        defaults=row["defaults"],
        primary_key=tuple(next((key["columns"] for key in unique if key["primary"]), ())),
        unique_keys=frozenset(frozenset(key["columns"]) for key in unique),
    )
