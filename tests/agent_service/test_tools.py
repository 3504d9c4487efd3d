"""What a model's tool calls may do: typed arguments, the persona's own values, nothing that must not be kept."""

import json
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.conversation import HandOver, LeadPatch
from agent_service.tools import HAND_OVER, UPDATE_LEAD, ToolRefused, read_call, tools_json
from agent_service.wire import decode_turn, encode_effect
from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.common.v1 import lead_pb2
from tests.agent_service.talking import demo

# A Monday.
TODAY = date(2026, 11, 23)
TYPED = {"name", "email", "bill_value", "chosen_flow", "interested", "stage", "do_not_contact", "preferences"}


def update(**fields: object) -> LeadPatch:
    effect = read_call(demo(), UPDATE_LEAD, json.dumps(fields), today=TODAY)
    assert isinstance(effect, LeadPatch)
    return effect


def refusal(name: str, arguments: str) -> str:
    with pytest.raises(ToolRefused) as refused:
        read_call(demo(), name, arguments, today=TODAY)
    return str(refused.value)


def test_the_tools_are_sorted_and_the_same_bytes_each_time() -> None:
    tools = json.loads(tools_json(demo()))
    assert [tool["function"]["name"] for tool in tools] == [HAND_OVER, UPDATE_LEAD]
    assert tools_json(demo()) == json.dumps(tools, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_no_tool_takes_a_recipient_a_conversation_or_an_account() -> None:
    """I15: who is answered comes from the envelope; a field that doesn't exist can't be set."""
    hand_over, update_lead = (tool["function"]["parameters"] for tool in json.loads(tools_json(demo())))
    assert set(hand_over["properties"]) == {"reason"} and set(update_lead["properties"]) == TYPED
    assert hand_over["additionalProperties"] is False and update_lead["additionalProperties"] is False
    for foreign in ("to", "recipient", "phone", "phone_number", "conversation_id", "instance", "tenant", "lead_id"):
        assert "Campo desconhecido" in refusal(UPDATE_LEAD, json.dumps({"name": "Ana", foreign: "5581999990000"}))
        assert "Campo desconhecido" in refusal(HAND_OVER, json.dumps({"reason": "x", foreign: "5581999990000"}))


@pytest.mark.parametrize(
    ("said", "cents"),
    [
        ("4mil", 400_000),
        ("4.500,00", 450_000),
        ("R$ 4.500", 450_000),
        ("R$ 4.500/mês", 450_000),
        ("uns 400 reais por mês", 40_000),
        ("400 mensal", 40_000),
        ("quatrocentos", 40_000),
        ("entre 300 e 400", 40_000),
        ("4500.50", 450_050),
        (4500, 450_000),
        (4500.5, 450_050),
        # Of "1 250,50" only the part behind the blank was read: 250.50.
        ("1 250,50", 125_050),
        ("R$ 1\u00a0250", 125_000),
        ("1.250,50", 125_050),
        ("mil e duzentos", 120_000),
        ("R$ 1,2 mil", 120_000),
        ("450 reais/mês", 45_000),
    ],
)
def test_money_is_read_as_it_is_said(said: object, cents: int) -> None:
    assert update(bill_value=said).bill_cents == cents


@pytest.mark.parametrize("said", [4.5, 0, -400, 1e12, 10**400, True, [400], "não sei", "4,500.00", "12%", "9" * 120])
def test_what_is_no_amount_is_refused(said: object) -> None:
    assert refusal(UPDATE_LEAD, json.dumps({"bill_value": said})).startswith("bill_value: ")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(constant: str) -> None:
    assert refusal(UPDATE_LEAD, f'{{"bill_value": {constant}}}')


@pytest.mark.parametrize(
    ("said", "name"),
    [("Ana", "Ana"), ("dona Maria", "Maria"), ("me chamo João da Silva", "João da Silva"), ("A\u200bna", "Ana")],
)
def test_names_are_cleaned(said: str, name: str) -> None:
    assert update(name=said).name == name


@pytest.mark.parametrize(
    "said", ["não informado", "Desconhecido", "cliente", "123", "81988887777", "a" * 101, "<b>", 7, ["Ana"]]
)
def test_what_is_no_name_is_refused(said: object) -> None:
    assert refusal(UPDATE_LEAD, json.dumps({"name": said})).startswith("name: ")


def test_an_email_needs_the_shape_of_one() -> None:
    assert update(email=" Ana.Souza@Exemplo.com.br ").email == "ana.souza@exemplo.com.br"
    for said in ("ana", "ana@exemplo", "a@b..com", "a b@exemplo.com", f"{'a' * 100}@b.com", "x@y.com, z@y.com", 3):
        assert refusal(UPDATE_LEAD, json.dumps({"email": said})).startswith("email: ")


def test_flow_and_stage_are_the_personas() -> None:
    assert update(chosen_flow="compra com desconto").flow == "Compra com Desconto"
    assert update(stage="QUALIFYING").stage == "QUALIFYING"
    assert "Compra com Desconto" in refusal(UPDATE_LEAD, '{"chosen_flow": "Consórcio"}')
    assert refusal(UPDATE_LEAD, '{"stage": "PAID"}').startswith("stage: ")


def test_only_a_person_confirms_the_meeting() -> None:
    """Design section 7: the agent collects day and time and hands over; a human sets the stage."""
    assert demo().meeting_stage not in tools_json(demo())
    assert "pessoa da equipe" in refusal(UPDATE_LEAD, json.dumps({"stage": demo().meeting_stage}))


def test_yes_and_no_are_booleans() -> None:
    patch = update(interested=False, do_not_contact=True)
    assert patch.interested is False and patch.do_not_contact is True
    for field in ("interested", "do_not_contact"):
        assert refusal(UPDATE_LEAD, json.dumps({field: "sim"})).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "said", "kept"),
    [
        ("payment", "a vista", "à vista"),
        ("fidelity_contract", False, "não"),
        ("fidelity_contract", "não tenho", "não"),
        ("decision_maker", "nao sabe", "não sabe"),
        ("discount_percent", 20, "20%"),
        ("discount_percent", "12,5 %", "12,5%"),
        ("meeting_day", "amanhã", "terça-feira (24/11)"),
        ("meeting_day", "quinta", "quinta-feira (26/11)"),
        ("meeting_day", "qualquer dia", "qualquer dia"),
        ("meeting_day", "2026-12-01", "01/12"),
        ("meeting_day", "dia 15 de janeiro", "15/01"),
        ("urgency", 20261127, "20261127"),
        ("meeting_time", "3 da tarde", "15:00"),
        ("meeting_time", "manhã", "manhã"),
        ("state", "Pernambuco", "PE"),
        ("state", "ba", "BA"),
        ("city", "Olinda", "Olinda"),
        ("urgency", "com  pressa", "com pressa"),
        ("other_properties", "uma loja, cpf 529.982.247-25", "uma loja, [removido]"),
        ("other_properties", "falar com 81 98888-7777", "falar com [removido]"),
        # A number that began with the country's 55 and held no blank was kept: no boundary stands between 55 and 81.
        ("other_properties", "falar com 5581988887777", "falar com [removido]"),
        ("other_properties", "falar com +55 (81) 98888-7777", "falar com [removido]"),
        ("other_properties", "código 12345581988887777", "código 12345581988887777"),
    ],
)
def test_preferences_are_kept_as_the_script_reads_them(field: str, said: object, kept: str) -> None:
    assert update(preferences={field: said}).preferences == {field: kept}


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("payment", "bitcoin"),
        ("fidelity_contract", "azul"),
        ("discount_percent", "muito"),
        ("discount_percent", 300),
        ("state", "Atlântida"),
        ("other_properties", "529.982.247-25"),
        ("other_properties", "x" * 1_025),
        ("other_properties", ["loja"]),
        ("other_properties", {"loja": 1}),
        ("other_properties", "\u200b"),
        ("shoe_size", "42"),
    ],
)
def test_a_preference_that_makes_no_sense_is_refused(field: str, said: object) -> None:
    assert refusal(UPDATE_LEAD, json.dumps({"preferences": {field: said}})).startswith("preferences: ")


def test_an_empty_field_says_nothing_and_erases_nothing() -> None:
    """Models fill in every field they see. An empty value that erased would lose the lead's facts."""
    patch = update(name="Ana", email="", bill_value=None, preferences={"city": "", "urgency": "sem pressa"})
    assert patch == LeadPatch(name="Ana", preferences={"urgency": "sem pressa"})
    assert refusal(UPDATE_LEAD, '{"name": ""}') == refusal(UPDATE_LEAD, "{}") == "Não há nada para guardar."


def test_of_two_values_in_one_call_the_latest_counts() -> None:
    effect = read_call(demo(), UPDATE_LEAD, '{"bill_value": "400", "bill_value": "4 mil"}')
    assert effect == LeadPatch(bill_cents=400_000)


@pytest.mark.parametrize("arguments", ["", "{}", '{"reason": ""}', '{"reason": "\u202e"}'])
def test_a_human_is_called_even_without_a_reason(arguments: str) -> None:
    effect = read_call(demo(), HAND_OVER, arguments)
    assert isinstance(effect, HandOver) and effect.reason


def test_the_reason_is_short_and_without_what_must_not_be_kept() -> None:
    effect = read_call(
        demo(), HAND_OVER, json.dumps({"reason": "ligar\nno 81 98888-7777, cpf 529.982.247-25 " + "a" * 999})
    )
    assert isinstance(effect, HandOver)
    assert (
        len(effect.reason) <= 200 and not any(digit.isdigit() for digit in effect.reason) and "\n" not in effect.reason
    )


@pytest.mark.parametrize("name", ["send_message", "", "UPDATE_LEAD", "update_lead ", "eval", "update_lead\u200b"])
def test_an_unlisted_tool_is_refused(name: str) -> None:
    assert "não existe" in refusal(name, '{"name": "Ana"}')


@pytest.mark.parametrize(
    "arguments",
    [
        "{",
        "[]",
        '"x"',
        "1",
        "null",
        "{'name': 'Ana'}",
        "[" * 5_000,
        '{"a":' * 1_200,
        '{"bill_value":' + "9" * 5_000 + "}",
    ],
)
def test_broken_arguments_are_refused(arguments: str) -> None:
    assert refusal(UPDATE_LEAD, arguments)


def test_long_arguments_are_refused_unread() -> None:
    assert "longos" in refusal(UPDATE_LEAD, json.dumps({"name": "Ana " * 10_000}))


def test_email_and_do_not_contact_travel_both_ways() -> None:
    patch = update(email="ana@exemplo.com.br", do_not_contact=True)
    begin = agent_pb.Begin(said_effects=[encode_effect(patch)])
    known = lead_pb2.ConversationContext(lead=lead_pb2.Lead(email="ana@exemplo.com.br", do_not_contact=True))
    turn = decode_turn(begin, known, now_ms=1)
    assert turn.said_effects == (patch,)
    assert turn.lead.email == "ana@exemplo.com.br" and turn.lead.do_not_contact


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*TYPED, "city", "state", "payment"]), inner)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from([HAND_OVER, UPDATE_LEAD, "x"]), JSON.map(json.dumps) | st.text(max_size=40))
def test_whatever_a_model_writes_is_an_effect_or_a_sentence(name: str, arguments: str) -> None:
    """Nothing else is raised, and every effect fits on the wire (a lone surrogate did not)."""
    try:
        effect = read_call(demo(), name, arguments, today=TODAY)
    except ToolRefused as refused:
        assert 0 < len(str(refused)) < 700
    else:
        encode_effect(effect).SerializeToString()


def test_a_lone_surrogate_never_reaches_the_wire() -> None:
    """JSON can spell half a character, which UTF-8 cannot hold: encoding the effect raised."""
    assert read_call(demo(), UPDATE_LEAD, r'{"name": "Ana\ud800"}') == LeadPatch(name="Ana")
