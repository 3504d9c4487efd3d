"""Reads JSON that a stranger may have shaped. Pure; whatever is wrong with it ends in `Unreadable`."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 64
# Above it, building the objects would stop everybody else for seconds. A history of thousands of messages stays below.
MAX_CONTAINERS = 200_000
_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")
_UTF8_BOM = b"\xef\xbb\xbf"


class Unreadable(Exception):
    """The body is not JSON as we accept it; the reason is a word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Repeated(dict[str, Any]):
    """A JSON object in which a key occurred more than once, so that two readers may disagree about it."""


def loads(body: bytes) -> Any:
    """Parse UTF-8 JSON (a byte order mark is tolerated); raises `Unreadable`."""
    body = body.removeprefix(_UTF8_BOM)
    if not body.strip():
        raise Unreadable("empty")
    _check_nesting(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("not_utf8") from None
    return _parse(text)


def text_of(value: object) -> str:
    """A string without what the stores behind us refuse (lone surrogates, U+0000); "" for anything else."""
    if not isinstance(value, str):
        return ""
    if "\x00" in value:
        value = value.replace("\x00", "")
    return value if value.isascii() else _SURROGATES.sub("\ufffd", value)


def object_of(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def number_of(value: object) -> float | None:
    """A finite number, from a number, a string of digits, or a `{low, high}` pair of 32-bit halves."""
    if isinstance(value, dict):
        return _long_of(value)
    if isinstance(value, str) and len(value) <= 32 and value.isascii():
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _long_of(pair: dict[str, Any]) -> float | None:
    low, high = pair.get("low"), pair.get("high", 0)
    for half in (low, high):
        if isinstance(half, bool) or not isinstance(half, int) or not -(2**31) <= half < 2**32:
            return None
    return float((high << 32) + (low & 0xFFFFFFFF)) if isinstance(low, int) else None


def _parse(text: str) -> Any:
    try:
        try:
            return _decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:
            # An integer with more digits than Python converts. Nobody needs its value, but its neighbours are needed.
            return _decode(text, parse_int=_huge_int)
    except json.JSONDecodeError:
        raise Unreadable("not_json") from None
    except RecursionError:
        raise Unreadable("too_deep") from None


def _decode(text: str, *, parse_int: Callable[[str], int | float] | None = None) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=parse_int)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    return result if len(result) == len(pairs) else Repeated(result)


def _refuse_constant(_: str) -> float:
    raise Unreadable("not_a_number")


def _huge_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= 32 else float(digits)


def _check_nesting(body: bytes) -> None:
    containers = body.count(b"{") + body.count(b"[")
    if containers <= MAX_DEPTH:
        return
    if containers > MAX_CONTAINERS:
        raise Unreadable("too_many_objects")
    depth = 0
    for match in _BRACKETS.finditer(body):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
            if depth > MAX_DEPTH:
                raise Unreadable("too_deep")
        elif token in (b"}", b"]"):
            depth -= 1
