"""What is wrong in a persona's files, in words for people who edit texts and do not program."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

Loc = tuple[str | int, ...]

_YAML = {
    "mapping values are not allowed here": "a text that holds ': ' has to stand in quotes",
    "could not find expected ':'": "a key is followed by ':', and a text goes on further to the right than its key",
    "found character '\\t' that cannot start any token": "indent with spaces, not with a tab",
    "found unexpected end of stream": "a quote that was opened is not closed",
}


def of_yaml(problem: str) -> str:
    """What the YAML reader found; as it said it where nothing better is known."""
    return _YAML.get(problem, problem)


def of_validation(item: Mapping[str, Any], keys: frozenset[str]) -> Iterator[tuple[Loc, str]]:
    """Each problem of one of pydantic's errors with the path to its key; `keys` are the names of all keys."""
    loc = tuple(item["loc"])
    for message in _messages(item, str(loc[-1]) if loc else "", keys):
        if loc:
            yield loc, f"{'.'.join(str(part) for part in loc)}: {message}"
        else:
            yield tuple(message.partition(":")[0].split(".")), message


def _messages(item: Mapping[str, Any], key: str, keys: frozenset[str]) -> list[str]:
    given, context = item.get("input"), item.get("ctx", {})
    match item["type"]:
        case "missing":
            return ["is missing"]
        case "extra_forbidden":
            nearest = get_close_matches(key, keys, n=1)
            return [f"is no key here{f' (did you mean {nearest[0]}?)' if nearest else ''}"]
        case "too_short":
            least = context["min_length"]
            # What is wrong with one of its entries is told already.
            short = not isinstance(given, list) or len(given) < least
            return [f"needs {least} entries or more, and has {context['actual_length']}"] if short else []
        case "string_type" if given is None:
            return ["is empty"]
        case "string_type":
            return [f"has to be a text; YAML reads {given!r} as something else, so put it in quotes"]
        case "string_pattern_mismatch" if key == "state":
            return ["has to be two capital letters, like PE"]
    message = str(item["msg"]).removeprefix("Value error, ").split("\n")
    return [each.replace("Input should be", "should be") for each in message]
