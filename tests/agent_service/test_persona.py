"""Persona files: what is refused, and how it is said."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import agent_service
from agent_service import persona_files
from agent_service.persona import load_persona, packaged
from service_kit.settings import ConfigurationError
from tests.agent_service.talking import demo


@pytest.fixture
def data() -> dict[str, Any]:
    loaded = persona_files.read(persona_files.find("demo-solar")).documents().data
    return yaml.safe_load(yaml.safe_dump(loaded, allow_unicode=True))  # type: ignore[no-any-return]


def test_the_demo_is_packaged_and_complete() -> None:
    persona = demo()
    assert (
        packaged() == ["demo-clinica", "demo-solar"]
        and persona.agent == "Helen"
        and persona.timezone == "America/Recife"
    )
    assert len(persona.faq) >= 25 and persona.honest_sentence and persona.media_sentence
    assert "retorno" not in persona.honest_sentence


def test_a_persona_may_be_a_file_or_a_folder(tmp_path: Path, data: dict[str, Any]) -> None:
    file = tmp_path / "persona.yaml"
    file.write_text(yaml.safe_dump(data | {"name": "other"}, allow_unicode=True), encoding="utf-8")
    assert load_persona(str(file)).name == load_persona(str(tmp_path)).name == "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("honest_sentence"), "honest_sentence: is missing"),
        (lambda d: d.update(colour="blue"), "colour: is no key here"),
        (lambda d: d.update(agente=d.pop("agent")), "agente: is no key here (did you mean agent?)"),
        (lambda d: d["faq"][0].update(answer=d["faq"][0].pop("answers")), "(did you mean answers?)"),
        (lambda d: d.update(agent=None), "agent: is empty"),
        (lambda d: d.update(agent=7), "agent: has to be a text; YAML reads 7 as something else"),
        (lambda d: d.update(state="Pernambuco"), "state: has to be two capital letters, like PE"),
        (lambda d: d["script"][0].update(reads="nome"), "script.0.reads: should be 'name', 'money'"),
        (lambda d: d.update(timezone="Mars/Base"), "timezone: Mars/Base is not a time zone"),
        (lambda d: d["script"][0].update(ask=["só uma"]), "script.0.ask: needs 2 entries or more, and has 1"),
        (lambda d: d["script"][0].update(stage="NOWHERE"), "script.name.stage: NOWHERE"),
        (lambda d: d["script"][1].update(id="name"), "script: id name is used twice"),
        (lambda d: d["faq"][0].update(patterns=["(broken"]), "faq.0.patterns.0: is not a regular expression"),
        (lambda d: d["faq"][0].update(patterns=["Preço"]), "faq.0.patterns.0: is matched against text in lower case"),
        (lambda d: d["sentences"].update(thanks=["Oi {x}", "Tchau"]), "sentences.thanks.0: unknown placeholder x"),
        (lambda d: d["script"][8].update(reads="choice", choices={}), "choices: a step that reads a choice"),
        (lambda d: d.update(refused_stage="GONE"), "stages: GONE is missing"),
        (lambda d: d["script"].append({**d["script"][1], "id": "bill2"}), "script: bill, bill2 all read money"),
        (lambda d: d["script"][1].update(field="bill"), "script.bill.field: a step that reads money keeps it in"),
        (lambda d: d["script"][0].update(field="amount"), "script.name.field: a step that reads money keeps it in"),
        (lambda d: d["script"][1].pop("amount"), "script.1: amount: belongs to a step that reads money"),
        (lambda d: d["handoff_triggers"][0].update(say=["Um."]), "handoff_triggers.0: say: needs a second variant"),
        # Such a word is in every turn's record, and the context service refused the turn for good.
        (lambda d: d["stages"].append("X" * 51), "String should have at most 50 characters"),
        (lambda d: d["offers"][0].update(flow="X" * 101), "offers.0.flow: String should have at most 100 characters"),
        (lambda d: d["script"][0].update(field="a\nb"), "script.0.field: String should match pattern"),
        (lambda d: d["handoff_triggers"][0].update(reason="X" * 201), "handoff_triggers.0.reason: String should have"),
        (lambda d: d.update(goal="{agent!r}"), "goal: a placeholder is a name in braces"),
        (lambda d: d.update(goal="{agent:>9999999}"), "goal: a placeholder is a name in braces"),
        (lambda d: d["objections"][0].update(id="price"), "faq: id price is used twice"),
        (lambda d: d["offers"][0].update(instead="Nada"), "offers.investment_plant.instead: Nada is not the flow"),
    ],
)
def test_errors_name_the_file_and_the_key(
    tmp_path: Path, data: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change(data)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_persona(str(file))
    assert str(file) in str(caught.value) and message in str(caught.value)


def test_one_mistake_is_told_once(tmp_path: Path, data: dict[str, Any]) -> None:
    """A placeholder that doesn't exist was told together with "Tuple should have at least 2 items after validation"."""
    data["sentences"]["thanks"] = ["Oi {x}", "Tchau"]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_persona(str(file))
    assert "; " not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "{", "\x00", ""])
def test_files_that_are_no_persona(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml"):
        load_persona(str(file))


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="demo-solar"):
        load_persona("demo-sollar")


def test_no_word_of_the_business_is_in_the_code() -> None:
    """Everything of a business lives in its persona, or the next business inherits the words of this one."""
    words = ("solar", "usina", "helen", "painel", "placas", "conta de luz", "neoenergia", "celpe", "kilowatt", "aneel")
    words = (*words, "energia", "distribuidora", "telhado", "consumo", "investimento")
    for file in Path(agent_service.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8").lower().replace("demo-solar", "")
        assert not [word for word in words if re.search(rf"\b{word}\b", text)], file
