"""Tool calls in the dialects of the servers that speak the protocol."""

from types import SimpleNamespace
from typing import Any

import pytest

from agent_service.chat import ModelTrouble, Trouble
from agent_service.models.tool_deltas import MAX_ARGUMENT_CHARS, MAX_CALLS, ToolDeltas


def delta(index: int | None, call_id: str | None = None, name: str | None = None, arguments: str | None = None) -> Any:
    return SimpleNamespace(index=index, id=call_id, function=SimpleNamespace(name=name, arguments=arguments))


def together(*deltas: Any) -> list[tuple[str, str, str]]:
    made = ToolDeltas()
    for each in deltas:
        made.add(each)
    return [(call.call_id, call.name, call.arguments) for call in made.calls()]


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        (
            [delta(0, "a", "f", ""), delta(1, "b", "g", ""), delta(1, None, None, '{"y"'), delta(0, None, None, "{}")],
            [("a", "f", "{}"), ("b", "g", '{"y"')],
        ),
        ([delta(0, "a", "f", "{}"), delta(0, "b", "g", "{}")], [("a", "f", "{}"), ("b", "g", "{}")]),
        ([delta(None, "a", "f", "{}"), delta(None, "b", "g", "{}")], [("a", "f", "{}"), ("b", "g", "{}")]),
        ([delta(0, "a", "f", '{"x":'), delta(0, "a", "f", "1}")], [("a", "f", '{"x":1}')]),
        ([delta(0, None, "f", None), delta(0, None, None, None)], [("call_0", "f", "{}")]),
        ([SimpleNamespace(index=0, id="a", function=None)], [("a", "", "{}")]),
    ],
    ids=["parallel", "one index for all", "no index", "id and name repeated", "no id", "no function"],
)
def test_dialects(deltas: list[Any], calls: list[tuple[str, str, str]]) -> None:
    assert together(*deltas) == calls


def test_nothing_is_no_call() -> None:
    assert ToolDeltas().calls() == ()


@pytest.mark.parametrize(
    "deltas",
    [
        [delta(0, "a", "f", "x" * (MAX_ARGUMENT_CHARS + 1))],
        [delta(number, f"id{number}", "f", "{}") for number in range(MAX_CALLS + 1)],
    ],
    ids=["arguments", "calls"],
)
def test_what_does_not_end_is_ended(deltas: list[Any]) -> None:
    with pytest.raises(ModelTrouble) as caught:
        together(*deltas)
    assert caught.value.trouble is Trouble.ENDLESS
