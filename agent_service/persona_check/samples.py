"""Making up texts that a regular expression should fit."""

import random
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any

# What the standard library parses patterns with, since Python 3.11 under this name. There is no public one.
_parser: Any = import_module("re._parser")

TRIES = 16
_BODY_TRIES = 6
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_CATEGORIES = {"CATEGORY_DIGIT": "7", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a", "CATEGORY_NOT_WORD": " "}
_ANY = "abcdefghijklmnopqrstuvwxyz0123456789 ,.!?"


@lru_cache(maxsize=4_096)
def samples(pattern: str) -> tuple[str, ...]:
    """A few texts; what a lookaround forbids may be among them."""
    parsed = _parser.parse(pattern)
    return tuple(dict.fromkeys(_text(parsed, random.Random(seed)) for seed in range(TRIES)))


def repeated(pattern: str) -> tuple[str, ...]:
    """Texts for everything in the pattern that may be repeated without end."""
    bodies = list(_endless(_parser.parse(pattern)))
    found = dict.fromkeys(_text(body, random.Random(seed)) for body in bodies for seed in range(_BODY_TRIES))
    return tuple(text for text in found if text)


def _endless(parsed: Any) -> Iterator[Any]:
    for operation, argument in parsed:
        if str(operation) in _REPEATS and argument[1] == _parser.MAXREPEAT:
            yield argument[2]
        for part in _parts(argument):
            yield from _endless(part)


def _parts(argument: Any) -> Iterator[Any]:
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from _parts(each)


def _text(parsed: Any, chance: random.Random) -> str:
    return "".join(_one(str(operation), argument, chance) for operation, argument in parsed)


def _one(operation: str, argument: Any, chance: random.Random) -> str:
    match operation:
        case "LITERAL":
            return chr(argument)
        case "NOT_LITERAL":
            return next(char for char in _ANY if ord(char) != argument)
        case "ANY":
            return chance.choice("a ")
        case "IN":
            return _member(argument, chance)
        case "BRANCH":
            return _text(chance.choice(argument[1]), chance)
        case "SUBPATTERN":
            return _text(argument[3], chance)
        case "ATOMIC_GROUP":
            return _text(argument, chance)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, repeated = argument
            return "".join(_text(repeated, chance) for _ in range(chance.randint(least, min(int(most), least + 2))))
        case "ASSERT":
            return _text(argument[1], chance)
    return ""


def _member(members: Any, chance: random.Random) -> str:
    names = [(str(operation), argument) for operation, argument in members]
    if names[0][0] == "NEGATE":
        return next((char for char in _ANY if not any(_holds(*each, char) for each in names[1:])), "~")
    operation, argument = chance.choice(names)
    if operation == "RANGE":
        return chr(chance.randint(*argument))
    return chr(argument) if operation == "LITERAL" else _CATEGORIES.get(str(argument), "a")


def _holds(operation: str, argument: Any, char: str) -> bool:
    if operation == "LITERAL":
        return ord(char) == int(argument)
    if operation == "RANGE":
        return bool(argument[0] <= ord(char) <= argument[1])
    kinds = {"CATEGORY_DIGIT": char.isdigit(), "CATEGORY_SPACE": char.isspace()}
    return kinds.get(str(argument), char.isalnum() or char == "_")
