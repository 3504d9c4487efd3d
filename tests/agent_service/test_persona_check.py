"""The check of personas: each mistake is found at its key, and the packaged personas have none."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from agent_service import persona_files
from agent_service.persona import Persona, load_persona, packaged
from agent_service.persona_check import check
from agent_service.persona_check.growth import grows
from agent_service.persona_check.samples import samples
from agent_service.persona_parts import _pattern
from tests.agent_service.talking import clinic, demo

Data = dict[str, Any]
DATA = persona_files.read(persona_files.find("demo-clinica")).documents().data


@pytest.mark.parametrize("name", packaged())
def test_the_packaged_personas_are_clean(name: str) -> None:
    others = [load_persona(each) for each in packaged() if each != name]
    assert not check(load_persona(name), examples=others)


def item(data: Data, key: str, item_id: str) -> Data:
    found: Data = next(each for each in data[key] if each["id"] == item_id)
    return found


def changed(change: Callable[[Data], object]) -> Persona:
    data = copy.deepcopy(DATA)
    change(data)
    return Persona.model_validate(data)


def sentence(key: str, text: str) -> Callable[[Data], object]:
    return lambda d: d["sentences"].update({key: [text, "Outra frase qualquer aqui."]})


def step(step_id: str, **keys: Any) -> Callable[[Data], object]:
    return lambda d: item(d, "script", step_id).update(keys)


def faq(**keys: Any) -> Callable[[Data], object]:
    return lambda d: item(d, "faq", "price").update(keys)


ERRORS: list[tuple[str, Callable[[Data], object], str, str]] = [
    ("a hole in the sentence", sentence("thanks", "Por nada, {name}!"), "sentences.thanks.0", "{name} may be unknown"),
    ("a moment nobody named", sentence("noted", "Anotei {moment}."), "sentences.noted.0", "{moment} may be unknown"),
    ("an amount nobody asks for", faq(answers=["{amount}?", "Não sei."]), "faq.price.answers.0", "{amount} may be"),
    ("sent as it is", lambda d: d.update(honest_sentence="Aqui é a {agent}."), "honest_sentence", "isn't filled here"),
    ("prompt", lambda d: d.update(goal="Agradar {name}."), "goal", "{name} isn't filled here"),
    ("a promise", sentence("idle", "Te retorno em breve."), "sentences.idle.0", "never_say rules out: te retorno"),
    ("another promise", sentence("idle", "Só um momento."), "sentences.idle.0", "promises what nobody will do"),
    ("a price", faq(answers=["Sai por R$ 200.", "Depende."]), "faq.price.answers.0", "rules out: r$ 200"),
    ("a document", sentence("noted", "Me passa o seu RG?"), "sentences.noted.0", "must not be asked for"),
    (
        "a key",
        lambda d: d["facts"].append("O sistema usa sk-proj-abcdefghijklmnop1234."),
        "facts.7",
        "a key or password",
    ),
    ("a password", lambda d: d.update(hours="A senha: 123abc."), "hours", "a key or password"),
    ("a long one", sentence("idle", "Muito bem. " * 100), "sentences.idle.0", "are no chat message"),
    ("no question", step("patient", ask=["Para quem", "Para quem?"]), "script.patient.ask.0", "question mark"),
    (
        "the same question twice",
        step("visit_day", ask=["Como posso te chamar?", "Que dia?"]),
        "script.visit_day.ask.0",
        "is also script.name.ask.0",
    ),
    ("fits all", faq(patterns=[".*"]), "faq.price.patterns.0", "fits an empty text"),
    ("fits much", faq(patterns=["\\w+"]), "faq.price.patterns.0", "fits what everybody writes"),
    (
        "calls a human on yes",
        lambda d: d["handoff_triggers"][1].update(patterns=["sim"]),
        "handoff_triggers.1.patterns.0",
        "fits what everybody writes: sim",
    ),
    ("backtracks", faq(patterns=["(?:\\w+ ?)+preco"]), "faq.price.patterns.0", "longer and longer"),
    (
        "nobody's field",
        step("patient", when={"known": ["payment"]}),
        "script.patient.when",
        "did you mean payment_kind",
    ),
    (
        "no such answer",
        step("patient", when={"equals": {"payment_kind": ["convenio"]}}),
        "script.patient.when.equals.payment_kind",
        "did you mean convênio",
    ),
    ("no such state", step("patient", when={"equals": {"state": ["XX"]}}), "script.patient.when.equals.state", "XX is"),
    (
        "a contradiction",
        step("patient", when={"known": ["flow"], "unknown": ["flow"]}),
        "script.patient.when",
        "known and unknown",
    ),
    (
        "an empty choice",
        step("patient", when={"equals": {"pain_now": ["não"]}, "differs": {"pain_now": ["não"]}}),
        "script.patient.when",
        "and none of them",
    ),
    ("no amount", step("patient", when={"amount_from": 10}), "script.patient.when", "no step finds out amount"),
    ("an accent", step("pain", outcomes={"nao": "handoff"}), "script.pain.outcomes", "did you mean não"),
    ("a reply to nothing", step("pain", replies={"talvez": ["A.", "B."]}), "script.pain.replies", "is no answer"),
    (
        "a third answer",
        step("pain", choices={"talvez": ["talvez"]}),
        "script.pain.choices.talvez",
        "yes or no question",
    ),
    ("waits for itself", step("human_offer", when={"known": ["human_offer"]}), "script.human_offer", "is never asked"),
    ("wrong reader", step("name", reads="text"), "script.name.reads", "is for a step that reads name"),
    ("a lost choice", step("treatment", field="treatment"), "script.treatment.field", "kept in the field flow"),
]

WARNINGS: list[tuple[str, Callable[[Data], object], str, str]] = [
    ("no accents", sentence("idle", "Qualquer duvida, estou aqui."), "sentences.idle.0", "duvida looks as if"),
    ("English", sentence("idle", "Thank you, we are here for you."), "sentences.idle.0", "looks like English"),
    ("long", sentence("idle", "Muito bem, então. " * 20), "sentences.idle.0", "long for WhatsApp"),
    ("markup", sentence("idle", "Isto é **importante**."), "sentences.idle.0", "WhatsApp shows **"),
    ("a document", lambda d: d["facts"].append("CNPJ 12.345.678/0001-90."), "facts.7", "a document or bank detail"),
    ("a list", sentence("idle", "Temos:\n- limpeza"), "sentences.idle.0", "WhatsApp shows -"),
    ("a question at the end", sentence("refused", "Tem certeza?"), "sentences.refused.0", "nobody here is left"),
    ("twice", sentence("idle", "Imagina!"), "sentences.idle.0", "is the same as sentences.thanks.0"),
    ("fits nothing", faq(patterns=["quanto  custa"]), "faq.price.patterns.0", "a blank too many"),
    ("in two entries", faq(patterns=["anestesi\\w+", "preco"]), "faq.hurts", "that price has too"),
    ("a stage for nobody", lambda d: d["stages"].append("LATER"), "stages", "LATER is reached by no step"),
    ("another language", lambda d: d.update(language="en"), "language", "Brazilian Portuguese"),
    (
        "no other offer",
        step("human_offer", outcomes={"sim": "handoff", "não": "other_offer"}),
        "offers.braces",
        "has no instead",
    ),
]


@pytest.mark.parametrize(("change", "key", "what"), [each[1:] for each in ERRORS], ids=[each[0] for each in ERRORS])
def test_errors(change: Callable[[Data], object], key: str, what: str) -> None:
    found = check(changed(change))
    assert [each for each in found if each.error and each.key == key and what in each.what], found


@pytest.mark.parametrize(("change", "key", "what"), [each[1:] for each in WARNINGS], ids=[each[0] for each in WARNINGS])
def test_warnings(change: Callable[[Data], object], key: str, what: str) -> None:
    found = check(changed(change))
    assert [each for each in found if not each.error and each.key == key and what in each.what], found
    assert not [each for each in found if each.error]


def test_a_price_is_a_warning_where_the_persona_does_not_rule_it_out() -> None:
    def change(data: Data) -> None:
        data["never_say"] = []
        faq(answers=["A consulta custa R$ 200.", "Depende."])(data)

    (found,) = check(changed(change))
    assert not found.error and "names a price" in found.what


def test_errors_come_first() -> None:
    def change(data: Data) -> None:
        data["stages"].append("LATER")
        sentence("idle", "Só um momento.")(data)

    assert [each.error for each in check(changed(change))] == [True, False]


def test_what_was_left_of_an_example_is_told() -> None:
    mine = changed(lambda d: d.update(name="mine", agent="Bia"))
    assert {each.key for each in check(mine, examples=[clinic(), demo()])} == {"company", "city"}


def test_words_that_deny_are_no_request() -> None:
    assert not check(
        changed(sentence("sensitive", "Não me mande documentos nem o seu CPF? Não preciso de nada disso."))
    )[1:]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "pattern",
    [
        "(?:\\w+\\s*)+x",
        "(?:a|a)*b",
        "(?:a+)+",
        "(?: \\w+)*(?: \\w+)*(?: \\w+)*z",
        ".*.*.*=",
        "(?:quero |eu |quero eu )+x",
        "(?:y|(?:quero |eu |quero eu )+)x",
        # These took 26 seconds and more than a minute for the first sixteen characters.
        "(?:\\s*-?\\s*)*x",
        "(?:(?:a*)*)*b",
    ],
)
def test_patterns_that_explode_are_noticed(pattern: str) -> None:
    assert grows(_pattern(pattern))


@pytest.mark.parametrize("pattern", ["preco", "quanto (?:\\w+ ){0,3}custa", "a.{0,30}?b", "(?:sim|claro)+", "\\w+cao"])
def test_harmless_patterns_are_let_be(pattern: str) -> None:
    assert not grows(_pattern(pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        "preco",
        "(?:a|b)c?d+",
        "[^a-z ]x",
        "[a-c\\d]{2,3}",
        "\\bquanto\\b",
        "e(?= hoje)",
        "(?<=muito )caro",
        "(?<!nao )tenho",
        "(?>ab)c",
        "a++b",
        "x.y",
        "[^a]b",
    ],
)
def test_made_up_texts_fit(pattern: str) -> None:
    compiled = _pattern(pattern)
    assert any(compiled.search(text) for text in samples(pattern)), samples(pattern)
