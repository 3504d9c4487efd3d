"""The grammar of PostgREST's parameters: `select`, filters, logic trees, `order`.

What it doesn't know is an error: PGRST100 where PostgREST would say so, 501 where PostgREST knows more than this does.
"""

from collections.abc import Callable
from typing import Final

from tests.stand_ins.postgrest.errors import PostgrestError, not_covered
from tests.stand_ins.postgrest.scanner import Mismatch, Reader, separated, whole
from tests.stand_ins.postgrest.syntax import Column, Embed, EmbedPath, Field, Filter, Logic, Order

OPERATORS: Final = {
    "eq": "=",
    "neq": "<>",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "like": "LIKE",
    "ilike": "ILIKE",
    "match": "~",
    "imatch": "~*",
    "cs": "@>",
    "cd": "<@",
    "ov": "&&",
}
IS_OPERANDS: Final = {
    "null": "NULL",
    "not_null": "NOT NULL",
    "true": "TRUE",
    "false": "FALSE",
    "unknown": "UNKNOWN",
}
_KNOWN_TO_POSTGREST: Final = frozenset(["sl", "sr", "nxr", "nxl", "adj", "isdistinct", "fts", "plfts", "phfts", "wfts"])
_DIRECTIONS: Final = {"asc": "ASC", "desc": "DESC"}
_NULLS: Final = {"nullsfirst": "NULLS FIRST", "nullslast": "NULLS LAST"}


def parse_select(text: str) -> tuple[Column | Embed, ...]:
    """`id,name:full_name,preferences->>city,messages!inner(id,content)`."""
    return whole(text, _items, "select parameter")


def parse_filter(key: str, text: str) -> tuple[EmbedPath, Filter]:
    """`messages.role` = `not.eq.user`: of which table, and what."""
    path, field = whole(key, _tree_path, "tree path")
    return path, whole(text, lambda reader: _operation(reader, field, _everything), "filter")


def parse_logic(key: str, text: str) -> tuple[EmbedPath, Logic]:
    """`messages.not.or` = `(a.eq.1,and(b.is.null,c.gt.2))`."""
    *path, operator = key.split(".")
    negated = bool(path) and path[-1] == "not"
    tree = whole(operator + text, _tree, "logic tree")
    return tuple(path[:-1] if negated else path), Logic(operator=tree.operator, terms=tree.terms, negated=negated)


def parse_order(text: str) -> tuple[Order, ...]:
    """`created_at.desc.nullslast,id`."""
    return whole(text, lambda reader: separated(reader, _order_term), "order")


def parse_columns(text: str, parameter: str) -> tuple[str, ...]:
    """`"a","b"`, of `columns` and `on_conflict`."""
    return whole(text, lambda reader: separated(reader, _name), f"{parameter} parameter")


def parse_path(key: str) -> EmbedPath:
    """The tables before the last dot of `messages.limit`."""
    return tuple(key.split(".")[:-1])


def is_operation(text: str) -> bool:
    """Whether a parameter's value looks like a filter; if not, it is a function's argument."""
    first, dot, _ = text.partition(".")
    word = first.partition("(")[0]
    known = word in OPERATORS or word in _KNOWN_TO_POSTGREST or word in ("not", "is", "in")
    return known and (bool(dot) or "(" in first)


def _items(reader: Reader) -> tuple[Column | Embed, ...]:
    return separated(reader, _item)


def _item(reader: Reader) -> Column | Embed:
    if reader.rest.startswith("..."):
        raise not_covered("spread embeds (`...table(…)`) in select")
    if reader.take("*"):
        return Column(field=Field(column="*"))
    alias = reader.attempt(_alias)
    name = _name(reader)
    if (embed := reader.attempt(lambda inner: _embed(inner, name, alias))) is not None:
        return embed
    field = _json_path(reader, name)
    cast = _identifier(reader) if reader.take("::") else None
    _refuse_aggregates(reader, name)
    return Column(field=field, alias=alias, cast=cast)


def _alias(reader: Reader) -> str:
    name = _name(reader)
    if reader.rest.startswith("::"):
        raise reader.mismatch("':'")
    reader.expect(":")
    return name


def _embed(reader: Reader, name: str, alias: str | None) -> Embed:
    hint, inner = None, False
    while reader.take("!"):
        word = _name(reader)
        if word in ("inner", "left"):
            inner = word == "inner"
        else:
            hint = word
    reader.expect("(")
    if reader.rest.startswith(")"):
        if name == "count":
            raise _no_aggregates()
        raise not_covered("an embed without columns in select")
    items = _items(reader)
    reader.expect(")")
    return Embed(name=name, items=items, alias=alias, hint=hint, inner=inner)


def _refuse_aggregates(reader: Reader, name: str) -> None:
    for function in ("sum", "avg", "count", "max", "min"):
        if reader.rest.startswith(f".{function}()"):
            raise _no_aggregates()
    if name == "count" and reader.rest.startswith("()"):
        raise _no_aggregates()


def _no_aggregates() -> PostgrestError:
    # Off in a Supabase project unless its owner turns them on.
    return PostgrestError(status=400, code="PGRST123", message="Use of aggregate functions is not allowed")


def _name(reader: Reader) -> str:
    if reader.rest.startswith('"'):
        return _quoted(reader)
    name = reader.while_(lambda character: character.isalnum() or character in "_$ ")
    while reader.rest.startswith("-") and not reader.rest.startswith("->"):
        reader.take("-")
        name += "-" + reader.while_(lambda character: character.isalnum() or character in "_$ ")
    if not name.strip():
        raise reader.mismatch("field name (* or [a..z0..9_$])")
    return name.strip()


def _identifier(reader: Reader) -> str:
    word = reader.while_(lambda character: character.isalnum() or character in "_ ")
    if not word.strip():
        raise reader.mismatch("letter or digit")
    return word.strip()


def _quoted(reader: Reader) -> str:
    reader.expect('"')
    text = ""
    while not reader.take('"'):
        reader.take("\\")
        if not reader.rest:
            raise reader.mismatch("'\"'")
        text += reader.rest[0]
        reader.take(reader.rest[0])
    return text


def _json_path(reader: Reader, column: str) -> Field:
    path: list[str | int] = []
    as_text = False
    while reader.rest.startswith("->"):
        if as_text:
            raise not_covered("`->>` in the middle of a JSON path")
        as_text = reader.take("->>")
        if not as_text:
            reader.expect("->")
        path.append(_json_step(reader))
    return Field(column=column, path=tuple(path), as_text=as_text)


def _json_step(reader: Reader) -> str | int:
    if reader.rest.startswith('"'):
        return _quoted(reader)
    sign = "-" if reader.take("-") else ""
    word = reader.while_(lambda character: character not in "(-:.,>)")
    if word.isdecimal():
        return int(sign + word)
    if sign or not word.strip():
        raise reader.mismatch("any non reserved character different from: .,>()")
    while reader.rest.startswith("-") and not reader.rest.startswith("->"):
        reader.take("-")
        word += "-" + reader.while_(lambda character: character not in "(-:.,>)")
    return word.strip()


def _tree_path(reader: Reader) -> tuple[EmbedPath, Field]:
    names = [_name(reader)]
    while reader.take("."):
        names.append(_name(reader))
    return tuple(names[:-1]), _json_path(reader, names[-1])


def _operation(reader: Reader, field: Field, operand: Callable[[Reader], str]) -> Filter:
    negated = reader.take("not.")
    word = reader.while_(lambda character: character.isalpha() or character == "_")
    if word in _KNOWN_TO_POSTGREST or (word in OPERATORS and reader.rest.startswith("(")):
        raise not_covered(f"the filter operator `{word}{reader.rest.partition('.')[0]}`")
    if word not in OPERATORS and word not in ("is", "in"):
        raise reader.mismatch("operator (eq, gt, ...)")
    reader.expect(".")
    if word == "in":
        return Filter(field=field, operator=word, operand=_list(reader), negated=negated)
    text = operand(reader)
    if word == "is" and text.lower() not in IS_OPERANDS:
        raise Mismatch("expecting isVal: (null, not_null, true, false, unknown)")
    return Filter(field=field, operator=word, operand=text.lower() if word == "is" else text, negated=negated)


def _everything(reader: Reader) -> str:
    return reader.while_(lambda character: True)


def _list(reader: Reader) -> tuple[str, ...]:
    reader.expect("(")
    elements = separated(reader, _element)
    reader.expect(")")
    return () if elements == ("",) else elements


def _element(reader: Reader) -> str:
    quoted = reader.attempt(_whole_quoted)
    return quoted if quoted is not None else reader.while_(lambda character: character not in ",)")


def _whole_quoted(reader: Reader) -> str:
    text = _quoted(reader)
    if reader.rest and reader.rest[0] not in ",)":
        raise reader.mismatch("',' or ')'")
    return text


def _tree(reader: Reader) -> Logic:
    negated = reader.take("not.")
    operator = "and" if reader.take("and") else "or"
    if operator == "or":
        reader.expect("or")
    reader.expect("(")
    terms = separated(reader, _term)
    reader.expect(")")
    return Logic(operator=operator, terms=terms, negated=negated)


def _term(reader: Reader) -> Filter | Logic:
    reader.while_(str.isspace)
    term = reader.attempt(_tree) or _operation_in_tree(reader)
    reader.while_(str.isspace)
    return term


def _operation_in_tree(reader: Reader) -> Filter:
    field = _json_path(reader, _name(reader))
    reader.expect(".")
    return _operation(reader, field, _operand_in_tree)


def _operand_in_tree(reader: Reader) -> str:
    array = reader.attempt(_array_literal)
    return array if array is not None else _element(reader)


def _array_literal(reader: Reader) -> str:
    reader.expect("{")
    inside = reader.while_(lambda character: character not in "{}")
    reader.expect("}")
    return "{" + inside + "}"


def _order_term(reader: Reader) -> Order:
    name = _name(reader)
    if reader.rest.startswith("("):
        raise not_covered("ordering by a column of an embedded table")
    field = _json_path(reader, name)
    words: list[str] = []
    while reader.take("."):
        words.append(reader.while_(str.isalpha))
    direction = _DIRECTIONS.get(words[0]) if words else None
    if direction:
        words = words[1:]
    nulls = _NULLS.get(words[0]) if words else None
    if len(words) > 1 or (words and not nulls):
        raise reader.mismatch('"asc", "desc", "nullsfirst" or "nullslast"')
    return Order(field=field, direction=direction or "", nulls=nulls or "")
