"""SELECTs: columns, filters, order, windows, and related tables embedded as JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count as numbers
from typing import Final

from tests.stand_ins.postgrest.catalog import SCHEMA, Catalog
from tests.stand_ins.postgrest.errors import PostgrestError, not_covered
from tests.stand_ins.postgrest.grammar import IS_OPERANDS, OPERATORS
from tests.stand_ins.postgrest.query import ROOT
from tests.stand_ins.postgrest.relations import Relation, find_relation
from tests.stand_ins.postgrest.sql import EMPTY, Snippet, join, name, raw, text_value, value
from tests.stand_ins.postgrest.syntax import Column, Embed, EmbedPath, Field, Filter, Level, Logic, Order

SOURCE: Final = "pgrst_source"
_TYPE_NAMES: Final = {"int": "int4", "integer": "int4", "bigint": "int8", "smallint": "int2", "boolean": "bool"}
_TYPE_NAMES_OF_FLOATS: Final = {"real": "float4", "decimal": "numeric", "float": "float8"}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One table of the answer with what is asked of it. `called` is how the statement refers to it."""

    origin: Snippet
    called: Snippet
    columns: tuple[Column, ...]
    level: Level
    children: tuple["Child", ...] = ()
    joins: tuple[Snippet, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Child:
    """An embedded node. `alias` is its name in the statement, `key` in the answer."""

    key: str
    alias: str
    node: Node
    relation: Relation
    inner: bool


@dataclass(kw_only=True)
class Planner:
    """Turns a query into nodes. `max_rows` cuts every level silently, as `db-max-rows` does."""

    catalog: Catalog
    levels: Mapping[EmbedPath, Level]
    max_rows: int | None
    _aliases: Iterator[int] = field(default_factory=lambda: numbers(1))

    def root(self, table: str | None, items: tuple[Column | Embed, ...], *, source: bool) -> Node:
        """The answer's node: of `table`, or with `source` of the rows that a write or a function has yielded."""
        self._refuse_unknown_paths(items)
        called = name(SOURCE) if source or table is None else name(SCHEMA, table)
        return self._node(table, items, ROOT, origin=called, called=called, joins=())

    def _node(
        self,
        table: str | None,
        items: tuple[Column | Embed, ...],
        path: EmbedPath,
        *,
        origin: Snippet,
        called: Snippet,
        joins: tuple[Snippet, ...],
    ) -> Node:
        level = self.levels.get(path, Level())
        embeds = [item for item in items if isinstance(item, Embed)]
        self._refuse_filters_on_embeds(level, {embed.key for embed in embeds})
        return Node(
            origin=origin,
            called=called,
            columns=tuple(item for item in items if isinstance(item, Column)),
            level=replace(level, window=level.window.within(self.max_rows)),
            children=tuple(self._child(table, embed, (*path, embed.key), called) for embed in embeds),
            joins=joins,
        )

    def _child(self, parent: str | None, embed: Embed, path: EmbedPath, parent_called: Snippet) -> Child:
        relation = find_relation(self.catalog, parent or SOURCE, embed)
        alias = f"{relation.target}_{next(self._aliases)}"
        called = name(alias)
        joins = tuple(
            called + raw(".") + name(theirs) + raw(" = ") + parent_called + raw(".") + name(ours)
            for ours, theirs in relation.pairs
        )
        origin = name(SCHEMA, relation.target) + raw(" AS ") + called
        node = self._node(relation.target, embed.items, path, origin=origin, called=called, joins=joins)
        return Child(key=embed.key, alias=f"{alias}_rows", node=node, relation=relation, inner=embed.inner)

    def _refuse_unknown_paths(self, items: tuple[Column | Embed, ...]) -> None:
        known = set(_paths(items, ROOT))
        for path in self.levels:
            if path not in known:
                raise PostgrestError(
                    status=400,
                    code="PGRST108",
                    message=f"'{path[-1]}' is not an embedded resource in this request",
                    hint=f"Verify that '{path[-1]}' is included in the 'select' query parameter.",
                )

    @staticmethod
    def _refuse_filters_on_embeds(level: Level, keys: set[str]) -> None:
        for condition in level.filters:
            if isinstance(condition, Filter) and condition.field.column in keys:
                raise not_covered("a filter that asks whether an embedded table has rows")


def _paths(items: tuple[Column | Embed, ...], path: EmbedPath) -> Iterator[EmbedPath]:
    yield path
    for item in items:
        if isinstance(item, Embed):
            yield from _paths(item.items, (*path, item.key))


def select(node: Node) -> Snippet:
    """The statement that yields the node's rows."""
    columns = [_column(node.called, column) for column in node.columns] + [_embedded(c) for c in node.children]
    statement = raw("SELECT ") + join(", ", columns) + raw(" FROM ") + node.origin
    for child in node.children:
        statement += _lateral(child)
    statement += _where(node, [])
    if node.level.order:
        statement += raw(" ORDER BY ") + join(", ", [_order(node.called, term) for term in node.level.order])
    window = node.level.window
    if window.limit is not None:
        statement += raw(" LIMIT ") + value(window.limit)
    if window.offset:
        statement += raw(" OFFSET ") + value(window.offset)
    return statement


def count(node: Node) -> Snippet:
    """A row per row of the whole, without window and order; an inner embed is an EXISTS."""
    nested = [raw("EXISTS (") + count(child.node) + raw(")") for child in node.children if child.inner]
    return raw("SELECT 1 FROM ") + node.origin + _where(node, nested)


def needed_columns(node: Node) -> tuple[str, ...]:
    """The columns of the node's own table that `select` refers to; `*` among them is all."""
    chosen = [column.field.column for column in node.columns]
    chosen += [ours for child in node.children for ours, _ in child.relation.pairs]
    return tuple(dict.fromkeys(chosen))


def conditions(called: Snippet, level: Level) -> list[Snippet]:
    """The level's filters, to be joined by AND."""
    return [_condition(called, condition) for condition in level.filters]


def _where(node: Node, more: list[Snippet]) -> Snippet:
    every = [*conditions(node.called, node.level), *node.joins, *more]
    return raw(" WHERE ") + join(" AND ", every) if every else EMPTY


def _embedded(child: Child) -> Snippet:
    rows = name(child.alias)
    if child.relation.to_one:
        return raw("row_to_json(") + rows + raw(".*) AS ") + name(child.key)
    return raw("COALESCE(") + name(child.alias, child.alias) + raw(", '[]') AS ") + name(child.key)


def _lateral(child: Child) -> Snippet:
    rows = name(child.alias)
    joined = raw(" INNER" if child.inner else " LEFT") + raw(" JOIN LATERAL (")
    if child.relation.to_one:
        return joined + select(child.node) + raw(") AS ") + rows + raw(" ON TRUE")
    gathered = raw("SELECT json_agg(") + rows + raw(") AS ") + rows + raw(" FROM (") + select(child.node)
    there = rows + raw(" IS NOT NULL") if child.inner else raw("TRUE")
    return joined + gathered + raw(") AS ") + rows + raw(") AS ") + rows + raw(" ON ") + there


def _column(called: Snippet, column: Column) -> Snippet:
    if column.field.column == "*" and not column.field.path:
        return called + raw(".*")
    chosen = _field(called, column.field)
    if column.cast:
        known = _TYPE_NAMES | _TYPE_NAMES_OF_FLOATS
        chosen = raw("CAST(") + chosen + raw(" AS ") + name(known.get(column.cast.lower(), column.cast)) + raw(")")
    keys = [step for step in column.field.path if isinstance(step, str)]
    label = column.alias or (keys[-1] if keys else None)
    if label is None and (column.field.path or column.cast):
        label = column.field.column
    return chosen + raw(" AS ") + name(label) if label else chosen


def _field(called: Snippet, chosen: Field) -> Snippet:
    column = called + raw(".") + name(chosen.column)
    if not chosen.path:
        return column
    column = raw("to_jsonb(") + column + raw(")")
    for index, step in enumerate(chosen.path):
        last = index == len(chosen.path) - 1
        arrow = raw("->>" if last and chosen.as_text else "->")
        column += arrow + (text_value(step) if isinstance(step, str) else value(step) + raw("::int"))
    return column


def _order(called: Snippet, term: Order) -> Snippet:
    words = " ".join(word for word in (term.direction, term.nulls) if word)
    return _field(called, term.field) + (Snippet(f" {words}") if words else EMPTY)


def _condition(called: Snippet, condition: Filter | Logic) -> Snippet:
    negation = raw("NOT ") if condition.negated else EMPTY
    if isinstance(condition, Logic):
        terms = [_condition(called, term) for term in condition.terms]
        return negation + raw("(") + join(" AND " if condition.operator == "and" else " OR ", terms) + raw(")")
    return negation + _field(called, condition.field) + raw(" ") + _comparison(condition)


def _comparison(condition: Filter) -> Snippet:
    if isinstance(condition.operand, tuple):
        return raw("= ANY (") + value(_array_literal(condition.operand)) + raw(")")
    if condition.operator == "is":
        return Snippet(f"IS {IS_OPERANDS[condition.operand]}")
    operand = condition.operand
    if condition.operator in ("like", "ilike"):
        operand = operand.replace("*", "%")
    return Snippet(OPERATORS[condition.operator] + " ") + value(operand)


def _array_literal(elements: tuple[str, ...]) -> str:
    quoted = ['"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"' for element in elements]
    return "{" + ",".join(quoted) + "}"
