"""The prompt's bytes: what must not change, and where what changes stands."""

import hashlib
import json
from dataclasses import replace

from agent_service.conversation import Author, Lead, Line, Turn
from agent_service.persona import load_persona
from agent_service.prompt import build_prompt, fixed_part, tool_part
from tests.agent_service.talking import MONDAY_10H, demo, messages

TURN = Turn(
    messages=messages("quanto custa?"),
    lead=Lead(name="Ana", bill_cents=450_000, preferences={"b": "2", "a": "1"}),
    history=(Line(author=Author.LEAD, text="oi"), Line(author=Author.ASSISTANT, text="Bom dia!")),
    now_ms=MONDAY_10H,
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_fixed_part_is_the_same_bytes_for_everybody() -> None:
    again = load_persona("demo-solar")
    other = replace(TURN, lead=Lead(), history=(), messages=messages("oi"), now_ms=MONDAY_10H + 86_400_000)
    first, second = build_prompt(demo(), TURN), build_prompt(again, other)
    assert digest(first.fixed + first.tools) == digest(second.fixed + second.tools)


def test_history_is_only_appended_to() -> None:
    longer = replace(TURN, history=(*TURN.history, Line(author=Author.LEAD, text="e aí?")), now_ms=MONDAY_10H + 60_000)
    before, after = build_prompt(demo(), TURN).history, build_prompt(demo(), longer).history
    assert after[: len(before)] == before


def test_what_changes_comes_after_history() -> None:
    lines = build_prompt(demo(), TURN).lines()
    assert [line.role for line in lines] == ["system", "user", "assistant", "system", "user"]
    assert "R$ 4.500" in lines[3].content and "10:00" in lines[3].content
    assert "R$ 4.500" not in lines[0].content and "Ana" not in lines[0].content


def test_facts_are_sorted() -> None:
    swapped = replace(TURN, lead=replace(TURN.lead, preferences={"a": "1", "b": "2"}))
    assert build_prompt(demo(), TURN).changing == build_prompt(demo(), swapped).changing


def test_tools_are_sorted_json() -> None:
    tools = json.loads(tool_part(demo()))
    assert [tool["function"]["name"] for tool in tools] == ["handoff_to_human", "update_lead"]
    assert tool_part(demo()) == json.dumps(tools, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_no_placeholder_is_left() -> None:
    assert "{" not in fixed_part(demo())


def test_said_parts_end_the_prompt() -> None:
    lines = build_prompt(demo(), replace(TURN, said=("Oi!", "Tudo bem?"))).lines()
    assert lines[-1].role == "assistant" and lines[-1].content == "Oi!\n\nTudo bem?"


def test_a_missing_history_is_told() -> None:
    assert "não se apresente" in build_prompt(demo(), replace(TURN, degraded=True)).changing
