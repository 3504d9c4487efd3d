"""Businesses that are like neither example: one that asks for another sum of money, and one with hardly anything."""

import copy
import random
from typing import Any

import pytest

from agent_service import persona_files
from agent_service.conversation import Author, Kind, Line, Message, Turn
from agent_service.persona import Persona
from agent_service.persona_check import check
from agent_service.playbook.media import wordless_reply
from agent_service.prompt import fixed_part
from tests.agent_service.talking import Talk, asked
from tests.agent_service.test_persona_clinic import LINES

_CLINIC = persona_files.read(persona_files.find("demo-clinica")).documents().data


def persona(**keys: Any) -> Persona:
    return Persona.model_validate(copy.deepcopy(_CLINIC) | keys)


def rentals() -> Persona:
    """An estate agency: the amount is a rent, and routes by it."""
    names = [step for step in _CLINIC["script"] if step["reads"] in ("name", "day", "time")]
    budget = {
        "id": "budget",
        "field": "amount",
        "reads": "money",
        "stage": "BUDGET",
        "ask": ["Até quanto você quer pagar de aluguel?", "Qual é o seu orçamento por mês?"],
        "amount": {
            "topic": "alugue(?:l|is)|orcamento",
            "noted": ["Certo, aluguel de até {amount}.", "Anotei um orçamento de {amount}."],
        },
    }
    high = {
        "id": "garage",
        "field": "garage",
        "reads": "yes_no",
        "when": {"amount_from": 3000},
        "ask": ["Precisa de garagem?", "Quer vaga na garagem?"],
    }
    return persona(
        name="rentals",
        stages=["INITIAL_CONTACT", "BUDGET", "SCHEDULING", "VISIT", "HUMAN_HANDOFF", "NOT_INTERESTED"],
        meeting_stage="VISIT",
        script=[names[0], budget, high, *names[2:]],
        offers=[
            {"id": "flat", "flow": "Apartamento", "patterns": ["apartamento"], "pitch": ["Temos vários.", "Há muitos."]}
        ],
        criteria=[{"id": "budget", "points": 50, "any_of": [{"amount_from": 1000}]}],
        objections=[],
        handoff_triggers=[],
    )


def barest() -> Persona:
    """As little as can be loaded."""
    return persona(
        name="barest",
        stages=["SOME", "GONE"],
        handoff_stage="SOME",
        refused_stage="GONE",
        scheduling_stage="SOME",
        meeting_stage="SOME",
        script=[{"id": "wish", "field": "wish", "reads": "text", "ask": ["O que deseja?", "Como ajudo?"]}],
        offers=[{"id": "it", "flow": "Isso", "patterns": ["isso aqui"], "pitch": ["É bom.", "É ótimo."]}],
        criteria=[{"id": "wish", "points": 1, "any_of": [{"known": ["wish"]}]}],
        faq=[{"id": "when", "patterns": ["quando"], "answers": ["Amanhã.", "Logo."]}],
        objections=[],
        handoff_triggers=[],
        never_say=[],
    )


@pytest.mark.parametrize(
    ("text", "reais"),
    [
        ("2.500", 2500),
        ("meu orçamento é 2500", 2500),
        ("quero um aluguel de uns 1.800", 1800),
        ("até 3 mil de aluguel", 3000),
        ("ganho 9 mil", None),
        ("conta corrente 1234", None),
    ],
)
def test_the_amount_is_whatever_the_step_asks_for(text: str, reais: int | None) -> None:
    """A rent was taken for other money than the business's own, and "meu orçamento é 2500" was not read."""
    talk = Talk(persona=rentals())
    talk.say("oi")
    assert asked(talk.say("Ana"), "budget", talk.persona)
    talk.say(text)
    assert talk.lead.bill_cents == (None if reais is None else reais * 100)


def test_conditions_and_scores_follow_that_amount() -> None:
    talk = Talk(persona=rentals())
    for line in ("oi", "Ana"):
        talk.say(line)
    reply = talk.say("uns 3.500")
    assert "R$ 3.500" in reply and asked(reply, "garage", talk.persona)
    assert (talk.lead.score, talk.lead.qualification) == (50, "QUALIFIED")
    cheap = Talk(persona=rentals())
    for line in ("oi", "Ana"):
        cheap.say(line)
    assert asked(cheap.say("800"), "visit_day", cheap.persona) and cheap.lead.qualification != "QUALIFIED"


def picture(of: Persona, *said: str) -> str:
    history = tuple(Line(author=Author.ASSISTANT, text=text) for text in said)
    reply = wordless_reply(of, Turn(messages=(Message(text="", kind=Kind.IMAGE),), history=history))
    assert reply is not None
    return reply.bubbles[0]


def test_without_words_for_a_picture_it_is_a_picture_like_any_other() -> None:
    agency = rentals()
    question = next(step.ask[0] for step in agency.script if step.id == "budget")
    assert picture(agency, question) == agency.media_sentence


def test_what_is_said_to_a_picture_has_its_placeholders_filled() -> None:
    sentences = {**_CLINIC["sentences"], "media_again": ["{agent} só lê texto.", "Aqui é {agent}: escreva, por favor."]}
    assert picture(persona(sentences=sentences), persona().media_sentence) == "Júlia só lê texto."


def test_who_comes_back_finds_a_stage_even_where_no_step_has_one() -> None:
    talk = Talk(persona=barest())
    talk.say("oi")
    talk.say("não tenho interesse")
    assert talk.lead.stage == "GONE"
    talk.say("mudei de ideia, quero continuar")
    assert talk.lead.stage == "SOME"


@pytest.mark.parametrize("make", [rentals, barest])
def test_they_are_without_errors(make: Any) -> None:
    assert not [each for each in check(make()) if each.error]


@pytest.mark.parametrize("make", [rentals, barest])
def test_any_persona_holds_any_conversation(make: Any) -> None:
    for seed in range(15):
        chance, talk = random.Random(seed), Talk(persona=make(), degraded=seed % 5 == 4)
        for _ in range(15):
            talk.say(*chance.choices(LINES, k=chance.choice((1, 1, 2, 3))))
        assert "{" not in fixed_part(talk.persona)
