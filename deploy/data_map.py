"""Writes docs/reference/data-map.md from `data_map.yaml` and the stores' real schemas, or checks that it is up to date.

The record of processing that LGPD art. 37 asks for: what is kept about people, why, how long, and how it is erased.
PostgreSQL's columns are compared by a test, which has a database.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import yaml

from buffer_service.store.connection import Connection
from context_service.store import schema
from service_kit import logs

SOURCE = Path(__file__).with_name("data_map.yaml")
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "data-map.md"
KINDS = ("personal", "linked", "none")
_FACTS = ("holds", "purpose", "kept", "erased")
_HEADER = """\
# Data map

What the system keeps about people: the record of processing operations of LGPD art. 37, as far as the system can know
it. Your legal bases, your contacts and your processors are yours to add: [privacy.md](../howto/privacy.md).
Written by `make data-map` from `deploy/data_map.yaml` and the schemas; `make check` fails when they differ.

`make export` hands over every row of a person, from both services, with these columns; `make forget` erases the same.

**personal**: about a person, or in their words. **linked**: says nothing by itself, but belongs to one person: ids,
times, states. **none**: about nobody.
"""

Columns = Mapping[str, set[str]]


class DataMapError(Exception):
    """Map and schema differ; the text lists every difference."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the map; columns by kind, each with what it holds."""

    name: str
    facts: Mapping[str, str]
    columns: Mapping[str, Mapping[str, str]]
    only: str

    @property
    def column_names(self) -> list[str]:
        """All of them, as often as they are listed."""
        return [column for kind in KINDS for column in self.columns[kind]]


@dataclass(frozen=True, kw_only=True)
class Store:
    """One service's store."""

    name: str
    title: str
    where: str
    service: str
    tables: tuple[Table, ...]

    def columns(self, engine: str) -> dict[str, set[str]]:
        """By table, the columns that this database engine is to have."""
        return {table.name: set(table.column_names) for table in self.tables if table.only in ("", engine)}


def main() -> int:
    """Write the page; with --check, compare, and answer 1 when it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when something is out of date")
    given = parser.parse_args()
    logs.configure(service="data-map", level="ERROR")
    try:
        text = page()
    except DataMapError as error:
        print(error, file=sys.stderr)
        return 1
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if given.check:
        print(f"{PAGE.name} is out of date: make data-map", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE}")
    return 0


def page() -> str:
    """The page, when the map fits the schemas. Raises DataMapError."""
    source = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    stores = read(source)
    found = schemas()
    problems = [
        problem
        for store in stores
        for problem in differences(store.columns("sqlite"), found[store.name], where=store.name)
    ]
    if problems:
        raise DataMapError("\n".join([*problems, f"Describe it in {SOURCE.name}, then make data-map."]))
    return "\n".join([_HEADER, *(_store(store) for store in stores), _elsewhere(source["elsewhere"])])


def read(source: Mapping[str, Any]) -> tuple[Store, ...]:
    """The map. Raises DataMapError for an entry that lacks something, or a column that is listed twice."""
    stores = []
    for store in source["stores"]:
        tables = tuple(_table(f"{store['name']}.{name}", name, given) for name, given in store["tables"].items())
        stores.append(Store(**{**store, "tables": tables}))
    return tuple(stores)


def _table(where: str, name: str, given: Mapping[str, Any]) -> Table:
    unknown = given.keys() - {*_FACTS, *KINDS, "only"}
    lacking = [key for key in (*_FACTS, *KINDS) if key not in given]
    if unknown or lacking:
        raise DataMapError(f"{where}: lacks {lacking or 'nothing'}, has the unknown {sorted(unknown) or 'nothing'}")
    table = Table(
        name=name,
        facts={key: given[key] for key in _FACTS},
        columns={kind: given[kind] for kind in KINDS},
        only=given.get("only", ""),
    )
    names = table.column_names
    twice = sorted({column for column in names if names.count(column) > 1})
    empty = sorted(column for kind in KINDS for column, holds in table.columns[kind].items() if not holds)
    if twice or empty:
        raise DataMapError(f"{where}: listed twice {twice}, described by nothing {empty}")
    return table


def schemas() -> dict[str, Columns]:
    """By store, the columns of each table of an empty SQLite store of this version."""
    with tempfile.TemporaryDirectory() as folder:
        opened = {
            "buffer": Connection(Path(folder) / "buffer.db").db,
            "context": schema.open_database(Path(folder) / "context.db", schema.migrations()),
        }
        found: dict[str, Columns] = {name: _columns(db) for name, db in opened.items()}
        for db in opened.values():
            db.close()
    return found


def _columns(db: apsw.Connection) -> dict[str, set[str]]:
    found: Any = db.execute(
        "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_xinfo(t.name) c "
        "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    columns: dict[str, set[str]] = {}
    for table, column in found:
        columns.setdefault(table, set()).add(column)
    return columns


def differences(mapped: Columns, real: Columns, *, where: str) -> list[str]:
    """Every table and column that only one of them has."""
    found = []
    for table in sorted(mapped.keys() | real.keys()):
        ours, theirs = mapped.get(table, set()), real.get(table, set())
        found += [f"{where}.{table}.{column} is not in the map" for column in sorted(theirs - ours)]
        found += [f"{where}.{table}.{column} is in the map only" for column in sorted(ours - theirs)]
    return found


def _store(store: Store) -> str:
    head = f"## {store.title}\n\n{store.where}; only `{store.service}` opens it.\n"
    return "\n".join([head, *(_table_text(table) for table in store.tables)])


def _table_text(table: Table) -> str:
    only = " (PostgreSQL only)" if table.only else ""
    rows = [f"| `{column}` | {kind} | {holds} |" for kind in KINDS for column, holds in table.columns[kind].items()]
    facts = table.facts
    return "\n".join(
        [
            f"### {table.name}{only}\n",
            f"{facts['holds']} **Why:** {facts['purpose']} **How long:** {facts['kept']} **Erased by:** "
            f"{facts['erased']}\n",
            "| column | data | what it holds |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _elsewhere(places: Iterable[Mapping[str, str]]) -> str:
    rows = [f"| {one['place']} | {one['holds']} | {one['kept']} | {one['erased']} |" for one in places]
    head = ["## Elsewhere", "", "| where | what it holds | how long | erased by |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


if __name__ == "__main__":
    sys.exit(main())
