"""Calls of functions: which one is meant, and the statement that calls it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.stand_ins.postgrest.catalog import SCHEMA, Catalog, Function, Parameter
from tests.stand_ins.postgrest.errors import PostgrestError, not_covered
from tests.stand_ins.postgrest.sql import Snippet, join, name, raw, value
from tests.stand_ins.postgrest.writing import parse_json

_JSON_TYPES: Final = ("json", "jsonb")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A function and its arguments as a JSON text: an object of them, or the one unnamed argument."""

    function: Function
    given: tuple[str, ...]
    payload: str

    @property
    def is_scalar(self) -> bool:
        """Whether a row of the answer is one value."""
        return not self.function.returns_rows

    @property
    def is_one(self) -> bool:
        """Whether the answer is one value or object, not an array."""
        return not self.function.returns_set


def call_with_body(catalog: Catalog, function: str, body: bytes) -> Call:
    """POST: named arguments in a JSON object, or the whole body for a single unnamed json argument."""
    text, parsed = parse_json(body or b"{}")
    given = tuple(parsed) if isinstance(parsed, dict) else ()
    found = _find(catalog, function, given, unnamed=True)
    takes_body = bool(found.parameters) and not found.parameters[0].name
    if not isinstance(parsed, dict) and not takes_body:
        # PostgREST calls it once per element of an array; nothing here needs that.
        raise not_covered("a call whose body is no object")
    return Call(function=found, given=() if takes_body else given, payload=text)


def call_with_parameters(catalog: Catalog, function: str, arguments: Mapping[str, str]) -> Call:
    """GET: arguments in the query string."""
    found = _find(catalog, function, tuple(arguments), unnamed=False)
    return Call(function=found, given=tuple(arguments), payload=json.dumps(arguments))


def source(call: Call) -> Snippet:
    """The statement that yields the function's rows."""
    called = name(SCHEMA, call.function.name)
    parameters = call.function.parameters
    if parameters and not parameters[0].name:
        argument = value(call.payload) + Snippet(f"::{parameters[0].type}")
        return _from(call, called + raw("(") + argument + raw(")"), raw(""))
    chosen = [parameter for parameter in parameters if parameter.name in call.given]
    if not chosen:
        return _from(call, called + raw("()"), raw(""))
    types = join(", ", [name(parameter.name) + Snippet(f" {_type(parameter)}") for parameter in chosen])
    before = raw("(SELECT ") + value(call.payload) + raw("::json AS json_data) pgrst_payload, ")
    before += raw("LATERAL (SELECT * FROM json_to_record(json_data) AS _(") + types + raw(")) pgrst_body, LATERAL ")
    arguments = [_argument(parameter) for parameter in chosen]
    return _from(call, called + raw("(") + join(", ", arguments) + raw(")"), before)


def _from(call: Call, invocation: Snippet, before: Snippet) -> Snippet:
    if call.is_scalar:
        rows = raw("(SELECT ") + invocation + raw(" pgrst_scalar) pgrst_call")
        return raw("SELECT pgrst_call.pgrst_scalar FROM ") + before + rows
    return raw("SELECT pgrst_call.* FROM ") + before + invocation + raw(" pgrst_call")


def _argument(parameter: Parameter) -> Snippet:
    variadic = raw("VARIADIC ") if parameter.variadic else raw("")
    return variadic + name(parameter.name) + raw(" := ") + name("pgrst_body", parameter.name)


def _type(parameter: Parameter) -> str:
    return parameter.type.replace("%", "%%")


def _find(catalog: Catalog, function: str, given: tuple[str, ...], *, unnamed: bool) -> Function:
    overloads = catalog.functions.get(function, ())
    matching = [overload for overload in overloads if _matches(overload, set(given))]
    if not matching and unnamed:
        matching = [overload for overload in overloads if _takes_body(overload)]
    if not matching:
        raise _no_function(function, given, unnamed=unnamed)
    if len(matching) > 1:
        raise _ambiguous(matching)
    return matching[0]


def _matches(function: Function, given: set[str]) -> bool:
    named = {parameter.name for parameter in function.parameters}
    required = {parameter.name for parameter in function.parameters if parameter.required and not parameter.variadic}
    return "" not in named and required <= given <= named


def _takes_body(function: Function) -> bool:
    parameters = function.parameters
    return len(parameters) == 1 and not parameters[0].name and parameters[0].type in _JSON_TYPES


def _no_function(function: str, given: Iterable[str], *, unnamed: bool) -> PostgrestError:
    names = ", ".join(given)
    asked = f"({names})" if names else " without parameters"
    searched = f" with parameter{'s' if ',' in names else ''} {names}" if names else " without parameters"
    or_body = " or with a single unnamed json/jsonb parameter" if unnamed else ""
    return PostgrestError(
        status=404,
        code="PGRST202",
        message=f"Could not find the function public.{function}{asked} in the schema cache",
        details=f"Searched for the function public.{function}{searched}{or_body}, "
        "but no matches were found in the schema cache.",
    )


def _ambiguous(functions: Iterable[Function]) -> PostgrestError:
    signatures = ", ".join(
        f"public.{function.name}({', '.join(f'{p.name} => {p.type}' for p in function.parameters)})"
        for function in functions
    )
    return PostgrestError(
        status=300,
        code="PGRST203",
        message=f"Could not choose the best candidate function between: {signatures}",
        hint="Try renaming the parameters or the function itself in the database "
        "so function overloading can be resolved",
    )
