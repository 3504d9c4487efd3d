"""What real leads wrote to the running system and were annoyed by; each case is a story that must not happen again."""

import pytest

from agent_service.conversation import Lead
from agent_service.understanding.clauses import clauses
from agent_service.understanding.intents import Answer, Intent, intents, read_answer
from agent_service.understanding.moments import excludes_day, excludes_moment, find_day, proposes_meeting, show_moment
from tests.agent_service.talking import Talk, answers, asked, demo
from tests.agent_service.test_understanding import SUNDAY

OWN, DISCOUNT = "Instalação Usina Própria", "Compra com Desconto"


def talk_until(*lines: str) -> Talk:
    talk = Talk()
    for line in lines:
        talk.say(line)
    return talk


def offered(flow: str) -> Talk:
    """A lead who chose an offer and was asked whether it makes sense."""
    talk = talk_until("oi, sou a Maria, minha conta é 700", "usina" if flow == OWN else "desconto")
    assert talk.lead.flow == flow and talk.lead.interested is None
    return talk


# 1. "Bom dia! quanto custa e como funciona?" got only the price.


@pytest.mark.parametrize(
    ("text", "faqs"),
    [
        ("Bom dia! quanto custa e como funciona?", ("price", "how")),
        ("quanto custa, como funciona?", ("price", "how")),
        ("quanto custa e tem garantia", ("price", "warranty")),
        ("queria saber quanto custa e se tem garantia e quanto tempo demora", ("price", "warranty", "lead_time")),
        ("oi boa tarde vi o anuncio de voces quanto custa isso e como funciona", ("price", "how")),
        ("tem garantia, precisa de manutenção e dá pra parcelar?", ("warranty", "maintenance", "financing")),
        ("tudo bem? é golpe ou é sério? e onde vocês ficam", ("smalltalk", "scam", "where")),
        ("kero sabe qto custa", ("price",)),
        ("moro em apartamento, serve?", ("apartment",)),
    ],
)
def test_every_question_of_one_message_is_answered(text: str, faqs: tuple[str, ...]) -> None:
    reply = Talk().say(text)
    for faq in faqs:
        assert answers(reply, faq), faq


def test_what_is_asked_beside_a_known_question_is_noted() -> None:
    talk = talk_until("oi, sou a Ana")
    reply = talk.say("quanto custa e qual a cor do inversor de vocês?")
    assert answers(reply, "price") and "inversor" in talk.lead.preferences["open_question"]


def test_reasons_are_no_questions() -> None:
    talk = talk_until("oi, sou o Roberto, pago 700")
    reply = talk.say("prefiro a usina, porque pretendo ficar nessa casa, e quem mora aqui gasta muito")
    assert talk.lead.flow == OWN and "open_question" not in talk.lead.preferences and asked(reply, "interest")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("quanto custa e como funciona?", [("quanto custa", True), ("como funciona?", True)]),
        (
            "pago 1.200,50, e quero saber o prazo",
            [("pago 1.200,50", False), ("e", False), ("quero saber o prazo", True)],
        ),
        ("não tenho contrato", [("não tenho contrato", False)]),
        ("tenho pressa, mas dá pra financiar?", [("tenho pressa", False), ("dá pra financiar?", True)]),
    ],
)
def test_a_message_is_taken_apart(text: str, pieces: list[tuple[str, bool]]) -> None:
    assert [(each.text, each.asks) for each in clauses(text)] == pieces


# 2. After "Te interessa seguir por esse caminho?": "financiado" was lost, "tenho pressa sim" became other_properties,
# "sou eu que decido" was ignored, "não tenho usina nem contrato" was answered as a question about contracts, and
# "pode ser quinta às 15h" was stored as the address.


def test_answers_out_of_order_find_their_own_place() -> None:
    talk = offered(OWN)
    assert asked(talk.say("financiado"), "other_properties") and talk.lead.interested is True
    assert asked(talk.say("tenho pressa sim"), "other_properties")
    talk.say("sou eu que decido")
    reply = talk.say("não tenho usina nem contrato")
    assert not answers(reply, "contract") and not answers(reply, "own_plant_info")
    facts = talk.lead.preferences
    assert facts["payment"] == "financiamento" and "pressa" in facts["urgency"] and facts["decision_maker"] == "sim"
    assert facts["own_plant_today"] == "não" and facts["fidelity_contract"] == "não"
    assert "other_properties" not in facts and "installation_address" not in facts
    talk.say("pode ser quinta às 15h")
    facts = talk.lead.preferences
    assert (facts["meeting_day"], facts["meeting_time"]) == ("quinta-feira (26/11)", "15:00")
    assert "installation_address" not in facts
    assert talk.lead.qualification == "QUALIFIED" and talk.lead.score == 100 and talk.lead.stage == "SCHEDULING"
    assert talk.handoffs == ["meeting wanted: quinta-feira (26/11), 15:00"]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("quero financiar", {"payment": "financiamento"}),
        ("vou pagar à vista", {"payment": "à vista"}),
        ("financiar, que à vista não dá", {"payment": "financiamento"}),
        ("não tenho pressa", {"urgency": "não tenho pressa"}),
        ("quem decide sou eu", {"decision_maker": "sim"}),
        ("minha esposa que resolve", {"decision_maker": "não"}),
        ("não sou eu que decido", {"decision_maker": "não"}),
        ("tenho contrato não", {"fidelity_contract": "não"}),
        ("meu contrato acabou", {"fidelity_contract": "não"}),
        ("não tenho placas, contrato nem desconto", dict.fromkeys(("own_plant_today", "has_discount"), "não")),
        ("já tenho placas", {"own_plant_today": "sim"}),
        ("tenho mais uma loja em Gravatá", {"other_properties": "tenho mais uma loja em Gravatá", "city": ""}),
        ("só tenho essa casa", {"other_properties": "só tenho essa casa"}),
        ("já tenho 10% de desconto", {"has_discount": "sim", "discount_percent": "10%"}),
        ("sim, sou eu que decido e quero financiar", {"decision_maker": "sim", "payment": "financiamento"}),
        ("não tenho espaço pra placas", {"own_plant_today": ""}),
        ("não tenho dinheiro", {"payment": "", "has_discount": ""}),
        ("hoje não tenho tempo", {"meeting_day": ""}),
        ("a conta vence dia 10", {"meeting_day": ""}),
    ],
)
def test_an_answer_is_recognised_by_what_it_says(text: str, known: dict[str, str]) -> None:
    talk = offered(OWN)
    talk.say(text)
    assert {key: talk.lead.preferences.get(key, "") for key in known} == known


@pytest.mark.parametrize(
    "text",
    ["não tenho contrato", "sou eu que decido", "pode ser quinta às 15h", "tem garantia?", "não tenho cachorro", "hmm"],
)
@pytest.mark.parametrize("step", ["other_properties", "installation_address"])
def test_free_text_is_kept_only_where_it_answers(step: str, text: str) -> None:
    talk = offered(OWN)
    talk.say("sim")
    if step == "installation_address":
        talk.say("só essa")
    talk.say(text)
    assert step not in talk.lead.preferences


def test_a_statement_is_no_question() -> None:
    talk = offered(DISCOUNT)
    talk.say("sim")
    reply = talk.say("não tenho contrato")
    assert not answers(reply, "contract") and talk.lead.preferences["fidelity_contract"] == "não"
    assert asked(reply, "has_discount")
    assert answers(talk.say("e qual a multa do contrato?"), "contract")


@pytest.mark.parametrize(
    ("text", "faq"),
    [("acho que isso é golpe", "scam"), ("achei muito caro", "price"), ("não tenho dinheiro", "no_money")],
)
def test_objections_are_answered_although_they_are_no_questions(text: str, faq: str) -> None:
    assert answers(offered(OWN).say(text), faq)


# 3. "não tenho desconto hoje" closed the conversation as NOT_INTERESTED.


@pytest.mark.parametrize(
    "text", ["não tenho desconto hoje", "não tenho contrato", "não tenho dinheiro", "não entendi", "não sei"]
)
def test_not_having_something_is_no_refusal(text: str) -> None:
    talk = offered(DISCOUNT)
    talk.say(text)
    assert talk.lead.stage != "NOT_INTERESTED" and talk.lead.interested is not False


@pytest.mark.parametrize(
    "text", ["não tenho interesse", "não quero", "deixa pra lá", "não, obrigada", "não quero mais"]
)
def test_a_refusal_is_one(text: str) -> None:
    talk = offered(DISCOUNT)
    assert "?" not in talk.say(text)
    assert talk.lead.stage == "NOT_INTERESTED" and talk.lead.interested is False


@pytest.mark.parametrize(("first", "second"), [(OWN, DISCOUNT), (DISCOUNT, OWN)])
def test_a_plain_no_shows_the_other_path_once(first: str, second: str) -> None:
    talk = offered(first)
    reply = talk.say("não")
    assert asked(reply, "interest") and talk.lead.flow == second and talk.lead.stage == "OFFER"
    assert talk.lead.preferences["declined_flow"] == first
    assert "?" not in talk.say("não") and talk.lead.stage == "NOT_INTERESTED"


def test_the_other_path_may_please() -> None:
    talk = offered(OWN)
    talk.say("não")
    assert asked(talk.say("pode ser"), "has_discount")
    assert talk.lead.flow == DISCOUNT and talk.lead.interested is True


@pytest.mark.parametrize("text", ["tenho não", "quero não", "tenho nada disso não", "tbm não"])
def test_a_no_may_come_last(text: str) -> None:
    assert read_answer(text) is Answer.NO


# 4. "Boa noite!" to somebody who says "Bom dia!".


@pytest.mark.parametrize("said", ["Bom dia", "Boa tarde", "Boa noite"])
def test_the_leads_own_greeting_comes_back(said: str) -> None:
    assert Talk().say(f"Oi, {said.lower()}!").startswith(said)
    assert Talk().say("oi").startswith("Bom dia")


# 5. "Não posso terça" was read as Tuesday.


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("não posso terça", None),
        ("terça não", None),
        ("terça eu não posso", None),
        ("não posso terça nem quarta", None),
        ("qualquer dia menos sexta", None),
        ("não posso terça, pode ser quarta", "quarta-feira (25/11)"),
        ("segunda não dá, terça sim", "terça-feira (24/11)"),
        ("não, terça", "terça-feira (24/11)"),
        ("não sei, terça talvez", "terça-feira (24/11)"),
    ],
)
def test_a_day_that_does_not_fit_is_no_day(text: str, day: str | None) -> None:
    assert find_day(text, today=SUNDAY) == day
    assert excludes_moment(text) is (day != "terça-feira (24/11)" or "segunda" in text)


def test_another_day_is_asked_for() -> None:
    talk = offered(DISCOUNT)
    for line in ("sim", "não", "não", "não", "eu decido"):
        talk.say(line)
    reply = talk.say("não posso terça")
    assert asked(reply, "meeting_day") and "meeting_day" not in talk.lead.preferences
    talk.say("quarta de manhã")
    assert talk.handoffs == ["meeting wanted: quarta-feira (25/11), manhã"]


# 6. After NOT_INTERESTED "oi de novo" got "Oi! Tô por aqui." and "Certo! Se surgir qualquer dúvida…".


def test_who_comes_back_is_welcomed_with_one_sentence() -> None:
    talk = talk_until("oi, sou a Maria Clara, minha conta é 700", "não tenho interesse")
    reply = talk.say("oi de novo")
    assert "\n" not in reply and "Maria" in reply and reply.endswith("?") and "Clara" not in reply
    assert asked(talk.say("quanto custa? minha conta subiu pra 900"), "routing_low")
    assert talk.lead.stage == "ROUTING" and talk.lead.bill_cents == 90_000


def test_without_a_name_too() -> None:
    talk = talk_until("oi", "não tenho interesse")
    assert talk.say("bom dia") in demo().sentences.back_again


# 7. A day that came early was lost, or scheduled before anybody was qualified.


def test_an_early_day_is_noted_and_only_what_is_essential_is_asked() -> None:
    talk = talk_until("oi, sou a Maria, minha conta é 700", "usina")
    reply = talk.say("sim, pode ser quinta às 15h?")
    assert "quinta-feira (26/11), às 15h" in reply and asked(reply, "fidelity") and not talk.handoffs
    assert talk.lead.qualification != "QUALIFIED" and "open_question" not in talk.lead.preferences
    assert asked(talk.say("não"), "own_plant_today")
    assert asked(talk.say("não"), "decision_maker")
    assert "?" not in talk.say("eu decido")
    assert talk.lead.qualification == "QUALIFIED" and talk.lead.score == 100 and talk.lead.stage == "SCHEDULING"
    assert talk.handoffs == ["meeting wanted: quinta-feira (26/11), 15:00"]
    assert "?" not in talk.say("obrigada") and len(talk.handoffs) == 1


def test_a_day_in_the_very_first_message_is_not_lost() -> None:
    talk = talk_until("quero marcar reunião quinta às 15h, minha conta é 2 mil", "Bruno", "usina")
    assert talk.lead.preferences["meeting_day"] == "quinta-feira (26/11)" and not talk.handoffs
    talk.say("não tenho usina, nem contrato, eu decido")
    assert talk.handoffs == ["meeting wanted: quinta-feira (26/11), 15:00"]


def test_a_day_is_handed_over_even_when_the_rest_is_evaded() -> None:
    talk = talk_until("oi, sou a Maria, minha conta é 700", "usina", "sim, pode ser quinta às 15h")
    for _ in range(8):
        talk.say("hmm")
    assert talk.handoffs == ["meeting wanted: quinta-feira (26/11), 15:00"]
    assert talk.lead.qualification != "QUALIFIED"


def test_a_day_without_a_time_is_handed_over_in_the_end() -> None:
    talk = offered(DISCOUNT)
    for line in ("sim", "não", "não", "não", "eu decido", "quinta", "hmm", "kkk"):
        talk.say(line)
    assert talk.handoffs == ["meeting wanted: quinta-feira (26/11)"]


def test_nobody_is_qualified_whose_decision_maker_will_not_come() -> None:
    talk = offered(DISCOUNT)
    for line in ("sim", "não", "não", "não"):
        talk.say(line)
    assert asked(talk.say("não, quem decide é meu pai"), "decider_invited")
    assert talk.lead.qualification != "QUALIFIED" and "open_question" not in talk.lead.preferences
    talk.say("ele participa sim")
    assert talk.lead.qualification == "QUALIFIED"


def test_a_contract_told_early_disqualifies_when_it_matters_and_may_end() -> None:
    talk = talk_until("Boa tarde, sou a Júlia, pago 900, mas tenho contrato de fidelidade", "desconto")
    assert talk.lead.qualification == "NOT_QUALIFIED" and talk.lead.score == 0 and talk.lead.stage == "NOT_INTERESTED"
    talk.say("oi de novo")
    assert "?" in talk.say("meu contrato acabou mês passado, quero sim")
    assert talk.lead.qualification == "PENDING" and talk.lead.stage == "QUALIFYING"


def test_a_judgement_made_by_people_is_not_touched_by_small_talk() -> None:
    talk = Talk(lead=Lead(name="Ana", qualification="QUALIFIED", score=70, stage="MEETING_SCHEDULED"))
    talk.say("oi", "tudo bem?")
    assert (talk.lead.qualification, talk.lead.score) == ("QUALIFIED", 70)


# And what twenty people played through found.


def test_a_grumble_about_the_bill_is_no_complaint_about_us() -> None:
    talk = Talk()
    talk.say("minha conta de luz tá um absurdo, mês passado veio 680 e esse mês 720")
    assert not talk.handoffs and talk.lead.bill_cents == 72_000
    talk.say("vou no procon por causa dessa conta, um absurdo")
    assert talk.handoffs == ["complaint"]


@pytest.mark.parametrize(
    ("text", "name"), [("Dona Lourdes", "Lourdes"), ("seu Biu", "Biu"), ("Paulo. pago 480", "Paulo")]
)
def test_names_with_a_title_or_with_more(text: str, name: str) -> None:
    talk = talk_until("oi")
    talk.say(text)
    assert talk.lead.name == name


def test_the_plant_at_the_end_is_not_offered_elsewhere() -> None:
    reply = talk_until("oi, sou o Ricardo, moro em Campinas-SP").say("5.200 por mês")
    assert asked(reply, "routing_elsewhere") and "no final" not in reply


def test_a_wish_is_no_yes_to_another_question() -> None:
    talk = talk_until("oi, sou o Beto, minha conta é 400", "sei não", "sei lá")
    assert asked("\n".join(talk.replies[-1].bubbles), "human_offer")
    talk.say("usina ou desconto, qual o melhor?")
    assert talk.lead.flow == ""
    talk.say("quero o desconto então")
    assert talk.lead.flow == DISCOUNT and not talk.handoffs


def test_thanks_in_other_words() -> None:
    assert Intent.THANKS in intents("Deus te abençoe")


def test_a_city_that_is_known_is_not_asked_for() -> None:
    talk = talk_until("oi, sou a Ana de Olinda, pago 500", "usina", "sim")
    reply = talk.say("só essa")
    assert asked(reply, "installation_district") and "cidade" not in reply
    talk.say("Bairro Novo")
    assert talk.lead.preferences["installation_address"] == "Bairro Novo"


@pytest.mark.parametrize(
    ("text", "proposes"),
    [
        ("quinta às 15h", True),
        ("podemos conversar sexta?", True),
        ("sexta-feira de manhã", True),
        ("marca pra amanhã", True),
        ("não tenho desconto hoje", False),
        ("paguei sexta", False),
        ("quinta eu não posso", False),
    ],
)
def test_a_meeting_is_proposed(text: str, proposes: bool) -> None:
    assert proposes_meeting(text, today=SUNDAY) is proposes


@pytest.mark.parametrize(
    ("time", "shown"),
    [("15:00", "D, às 15h"), ("15:30", "D, às 15h30"), ("01:00", "D, à 1h"), ("manhã", "D, de manhã"), ("", "D")],
)
def test_a_moment_is_said_as_people_say_it(time: str, shown: str) -> None:
    assert show_moment("D", time) == shown


# Somebody who tried the system as a new user met these.


@pytest.mark.parametrize("text", ["na verdade prefiro o desconto", "quero o desconto mesmo"])
def test_another_offer_counts_whatever_was_asked(text: str) -> None:
    """ "Na verdade prefiro o desconto" was kept as the list of other properties, and the plant was planned on."""
    talk = offered(OWN)
    assert asked(talk.say("sim"), "other_properties")
    reply = talk.say(text)
    assert talk.lead.flow == DISCOUNT and "other_properties" not in talk.lead.preferences
    assert asked(reply, "has_discount")


def test_an_interjection_before_another_offer() -> None:
    talk = offered(OWN)
    talk.say("ah entao o desconto")
    assert talk.lead.flow == DISCOUNT


def test_who_says_everything_at_once_is_heard_and_greeted() -> None:
    """Name and bill hid the choice, "Fernanda de Olinda" became the name, and nobody said who was speaking."""
    talk = Talk()
    reply = talk.say(
        "Oi, sou a Fernanda de Olinda, minha conta é 650 reais, quero o desconto sem obra, não tenho desconto hoje nem "
        "fidelidade nem placas, eu que decido, pode ser sexta às 14h"
    )
    assert talk.lead.name == "Fernanda" and talk.lead.flow == DISCOUNT
    assert talk.handoffs == ["meeting wanted: sexta-feira (27/11), 14:00"] and "Helen" in reply


@pytest.mark.parametrize(
    ("text", "day", "excluded"),
    [
        ("não posso mais na terça", "terça-feira (24/11)", True),
        ("terça-feira não dá mais", "terça-feira (24/11)", True),
        ("não posso terça, só quarta", "terça-feira (24/11)", True),
        ("não posso terça, só quarta", "quarta-feira (25/11)", False),
        ("não posso dia 30", "dia 30", True),
        ("não posso dia 28", "dia 30", False),
        ("terça está ótimo", "terça-feira (24/11)", False),
        ("não posso terça", "", False),
    ],
)
def test_a_day_is_excluded_however_it_is_written(text: str, day: str, excluded: bool) -> None:
    """The text was cut at blanks: "terça-feira" and "terça," were no "terça", and the day stayed agreed."""
    assert excludes_day(text, day) is excluded


def test_a_day_that_was_agreed_and_does_not_fit_after_all() -> None:
    """The time was asked for instead, and the meeting went to the team for a day without a time."""
    talk = offered(DISCOUNT)
    for line in ("sim", "não", "não", "não", "sim", "sexta"):
        talk.say(line)
    assert asked(talk.say("não posso sexta"), "meeting_day")
    assert asked(talk.say("quinta então"), "meeting_time")
    talk.say("15h")
    assert talk.handoffs == ["meeting wanted: quinta-feira (26/11), 15:00"]


def test_who_finds_it_too_little_is_not_taken_for_interested() -> None:
    talk = offered(DISCOUNT)
    assert answers(talk.say("só 20%?"), "savings")
    assert answers(talk.say("o outro dá 25%"), "competitor")
    talk.say("aí não vale a pena")
    assert talk.lead.interested is not True and talk.lead.flow == OWN


def test_who_says_a_percentage_has_a_discount() -> None:
    talk = offered(DISCOUNT)
    assert asked(talk.say("sim"), "has_discount")
    assert asked(talk.say("já tenho 12% com a outra"), "audit")
    assert talk.lead.preferences["has_discount"] == "sim" and talk.lead.preferences["discount_percent"] == "12%"


def test_a_question_about_the_discount_keeps_no_scraps() -> None:
    talk = offered(OWN)
    talk.say("sim")
    reply = talk.say("de quanto é o desconto")
    assert answers(reply, "savings") and not answers(reply, "price") and "other_properties" not in talk.lead.preferences


@pytest.mark.parametrize(
    ("text", "faq"),
    [
        ("hello, do you speak english?", "language"),
        ("qto eh", "price"),
        ("mas me dá um preço", "price"),
        ("só quero o preço", "price"),
        ("me fala da garantia", "warranty"),
        ("vocês fazem por 100 reais?", "price"),
        ("mas precisa de muito espaço?", "space"),
        ("qual é a mais barata?", "difference"),
        ("por que você quer saber?", "why_ask"),
        ("meu vizinho colocou e se arrependeu", "bad_experience"),
        ("quem passou meu número?", "number_source"),
        ("tem às 19h?", "hours"),
        ("vocês atendem sábado?", "hours"),
    ],
)
def test_what_was_passed_over(text: str, faq: str) -> None:
    talk = Talk()
    assert answers(talk.say(text), faq) and "open_question" not in talk.lead.preferences
