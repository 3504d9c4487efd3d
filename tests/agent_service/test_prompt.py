"""The prompt's bytes: what must not change, and where what changes stands."""

import hashlib
import json
from dataclasses import replace

from agent_service.conversation import Author, Lead, Line, Turn
from agent_service.persona import load_persona
from agent_service.prompt import Prompt, PromptBudget, build_prompt, fixed_part, prompt_budget, tool_part
from agent_service.token_sizes import estimate
from tests.agent_service.talking import MONDAY_10H, demo, messages

BUDGET = prompt_budget(demo(), total=6_000, size=estimate)
TURN = Turn(
    messages=messages("quanto custa?"),
    lead=Lead(name="Ana", bill_cents=450_000, preferences={"b": "2", "a": "1"}),
    history=(Line(author=Author.LEAD, text="oi"), Line(author=Author.ASSISTANT, text="Bom dia!")),
    now_ms=MONDAY_10H,
)


def prompt(turn: Turn, budget: PromptBudget = BUDGET) -> Prompt:
    return build_prompt(demo(), turn, size=estimate, budget=budget)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_fixed_part_is_the_same_bytes_for_everybody() -> None:
    other = replace(TURN, lead=Lead(), history=(), messages=messages("oi"), now_ms=MONDAY_10H + 86_400_000)
    first = prompt(TURN)
    second = build_prompt(load_persona("demo-solar"), other, size=estimate, budget=BUDGET)
    assert digest(first.fixed + first.tools) == digest(second.fixed + second.tools)


def test_what_changes_comes_after_history() -> None:
    lines = prompt(TURN).messages()
    assert [line.role for line in lines] == ["system", "user", "assistant", "user"]
    assert "R$ 4.500" in lines[3].content and "10:00" in lines[3].content
    assert "R$ 4.500" not in lines[0].content and "Ana" not in lines[0].content


def test_facts_are_sorted() -> None:
    swapped = replace(TURN, lead=replace(TURN.lead, preferences={"a": "1", "b": "2"}))
    assert prompt(TURN).state == prompt(swapped).state


def test_tools_are_sorted_json() -> None:
    tools = json.loads(tool_part(demo()))
    assert [tool["function"]["name"] for tool in tools] == ["handoff_to_human", "update_lead"]
    assert tool_part(demo()) == json.dumps(tools, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_no_placeholder_is_left() -> None:
    assert "{" not in fixed_part(demo())


def test_said_parts_are_told_and_the_user_has_the_last_word() -> None:
    lines = prompt(replace(TURN, said=("Oi!", "Tudo bem?"))).messages()
    assert lines[-2].role == "assistant" and lines[-2].content == "Oi!\n\nTudo bem?"
    assert lines[-1].role == "user" and "sem repetir" in lines[-1].content


def test_a_missing_history_is_told() -> None:
    assert "não se apresente" in prompt(replace(TURN, degraded=True)).state
