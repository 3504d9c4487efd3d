"""A second business, a dental clinic: its dialogues make sense, and no word of the first business reaches its leads."""

import random
import re
from dataclasses import replace

import pytest

from agent_service.conversation import HandOver, Kind, Lead, LeadPatch
from agent_service.persona import load_persona
from agent_service.playbook.reply import make_reply
from agent_service.playbook.triggers import triggered_reply
from agent_service.prompt import fixed_part
from tests.agent_service.talking import Talk, answers, asked, clinic

SOLAR = re.compile(
    r"energi\w+|\bluz\b|usinas?|pain(?:el|éis)|kwh?p?\b|solar\w*|\bsol\b|fatura|distribuidora|neoenergia|celpe|aneel"
    r"|telhado|lote\b|fidelidade|helen|capibaribe|recife|pernambuco|conta de|sua conta|investimento|consultora",
    re.IGNORECASE,
)
PRICE = re.compile(r"R\$|\breais\b|grátis|gratuit", re.IGNORECASE)


def talk() -> Talk:
    return Talk(persona=clinic())


def says(reply: str, faq_id: str) -> bool:
    return answers(reply, faq_id, clinic())


def asks(reply: str, step_id: str) -> bool:
    return asked(reply, step_id, clinic())


def test_the_whole_way_to_an_appointment() -> None:
    lead = talk()
    first = lead.say("oi")
    assert "Júlia" in first and "Ipê" in first and asks(first, "name") and lead.lead.stage == "INITIAL_CONTACT"
    assert asks(lead.say("Carla"), "pain") and lead.lead.stage == "TRIAGE"
    assert asks(lead.say("não"), "treatment") and lead.lead.preferences["pain_now"] == "não"
    assert asks(lead.say("limpeza"), "patient") and lead.lead.flow == "Avaliação e limpeza"
    assert asks(lead.say("pra mim"), "payment_kind")
    assert asks(lead.say("particular"), "last_visit")
    assert asks(lead.say("faz uns 2 anos"), "visit_day") and lead.lead.qualification == "QUALIFIED"
    assert asks(lead.say("quinta"), "visit_time") and lead.lead.stage == "SCHEDULING"
    last = lead.say("15h")
    assert "quinta-feira (26/11), às 15h" in last and "?" not in last
    assert lead.handoffs == ["meeting wanted: quinta-feira (26/11), 15:00"]
    assert lead.lead.score == 100 and lead.lead.bill_cents is None
    assert "?" not in lead.say("obrigada") and len(lead.handoffs) == 1


@pytest.mark.parametrize(
    "text",
    [
        "tô com muita dor de dente",
        "estou com dor",
        "meu dente tá doendo demais",
        "meu filho está com dor",
        "quebrei um dente",
        "caiu minha restauração",
        "meu rosto tá inchado",
        "a gengiva não para de sangrar",
        "acho que é abscesso",
        "é urgente",
        "dor forte",
    ],
)
@pytest.mark.parametrize("before", [(), ("oi", "Ana", "não", "limpeza")], ids=["first message", "later"])
def test_pain_goes_to_a_human_at_once(text: str, before: tuple[str, ...]) -> None:
    lead = talk()
    for line in before:
        lead.say(line)
    reply = lead.say(text)
    assert lead.handoffs == ["urgência"] and lead.lead.stage == "HUMAN_HANDOFF"
    assert "into muito" in reply and "pronto-socorro" in reply and "?" not in reply


def test_whichever_model_answers_the_words_for_pain_are_the_same() -> None:
    """What a language model is never asked about: the playbook's words, its stage and its reason."""
    lead = talk()
    for line in ("oi", "Ana"):
        lead.say(line)
    turn = lead.turn("oi de novo", "meu dente tá doendo demais")
    reply, played = triggered_reply(clinic(), turn), make_reply(clinic(), turn, words=clinic().words())
    assert reply is not None and reply.bubbles == played.bubbles
    assert reply.effects == (LeadPatch(stage="HUMAN_HANDOFF"), HandOver(reason="urgência"))
    assert played.effects[-1] == reply.effects[-1]
    again = replace(turn, lead=replace(turn.lead, stage="HUMAN_HANDOFF"))
    handed = triggered_reply(clinic(), again)
    assert handed is not None and handed.effects == (HandOver(reason="urgência"),)
    assert triggered_reply(clinic(), lead.turn("sem dor", "quero uma limpeza")) is None


@pytest.mark.parametrize("answer", ["sim", "tá doendo sim", "um pouco", "está sangrando"])
def test_so_does_the_answer_to_the_question_for_it(answer: str) -> None:
    lead = talk()
    lead.say("oi")
    assert asks(lead.say("Pedro"), "pain")
    assert "pronto-socorro" in lead.say(answer) and lead.handoffs == ["urgência"]


@pytest.mark.parametrize("text", ["não estou com dor", "sem dor nenhuma", "não tenho dor", "n", "nada doendo"])
def test_no_pain_is_no_urgency(text: str) -> None:
    lead = talk()
    lead.say("oi")
    lead.say("Pedro")
    assert asks(lead.say(text), "treatment") and not lead.handoffs and lead.lead.preferences["pain_now"] == "não"


@pytest.mark.parametrize(
    ("question", "faq"),
    [
        ("vocês aceitam convênio?", "insurance"),
        ("atendem pelo OdontoVida?", "insurance"),
        ("quais convênios vocês aceitam?", "insurance"),
        ("quanto custa um implante?", "price"),
        ("qual o valor do clareamento", "price"),
        ("a avaliação é de graça?", "first_visit_price"),
        ("dá pra parcelar?", "installments"),
        ("canal dói?", "hurts"),
        ("tem anestesia?", "hurts"),
        ("vocês atendem sábado?", "hours"),
        ("onde fica a clínica?", "where"),
        ("tem estacionamento?", "parking"),
        ("vocês atendem urgência?", "urgent_care"),
        ("atendem criança?", "children"),
        ("grávida pode fazer?", "pregnant"),
        ("o que eu preciso levar?", "what_to_bring"),
        ("dão recibo pra reembolso?", "receipt"),
        ("e se eu não puder ir?", "cancel"),
        ("quem vai me atender?", "professionals"),
        ("faz raio-x?", "xray"),
        ("quanto tempo demora?", "duration"),
        ("como funciona?", "how"),
        ("clareamento estraga o dente?", "whitening_info"),
        ("você é um robô?", "robot"),
        ("quem é você?", "who"),
        ("tenho muito medo de dentista", "fear"),
        ("tá caro isso", "expensive"),
        ("não tenho tempo", "no_time"),
        ("isso é golpe?", "trust"),
    ],
)
def test_frequent_questions_and_objections(question: str, faq: str) -> None:
    lead = talk()
    lead.say("oi, sou o Carlos")
    reply = lead.say(question)
    assert says(reply, faq), reply
    assert not lead.handoffs and not PRICE.search(reply)


def test_insurance_is_asked_for_by_name() -> None:
    lead = talk()
    for line in ("oi", "Ana", "sem dor", "quero clarear os dentes"):
        lead.say(line)
    assert lead.lead.flow == "Clareamento"
    assert asks(lead.say("pra mim mesma"), "payment_kind")
    assert asks(lead.say("tenho convênio"), "insurance_name")
    assert not asks(lead.say("Sorriso Pleno"), "insurance_name")
    kept = lead.lead.preferences
    assert (kept["payment_kind"], kept["insurance_name"]) == ("convênio", "Sorriso Pleno")


def test_an_insurance_that_is_named_is_not_asked_for_again() -> None:
    lead = talk()
    for line in ("oi", "Bia", "não", "aparelho", "pra mim"):
        lead.say(line)
    reply = lead.say("pelo OdontoVida")
    assert lead.lead.preferences["payment_kind"] == "convênio" and not asks(reply, "insurance_name")


def test_a_choice_and_another_answer_in_one_breath() -> None:
    """ "aparelho pro meu filho" answered whom it is for, and the treatment was asked for again."""
    lead = talk()
    for line in ("oi", "Bia", "não"):
        lead.say(line)
    reply = lead.say("aparelho pro meu filho")
    assert lead.lead.flow == "Ortodontia" and lead.lead.preferences["patient"] == "criança"
    assert asks(reply, "payment_kind")


def test_everything_at_once() -> None:
    lead = talk()
    reply = lead.say("oi", "sou a Rita", "quero marcar limpeza pra sexta às 9h", "não tô com dor")
    assert "Rita" in reply and "sexta-feira (27/11), às 9h" in reply and asks(reply, "payment_kind")
    assert "sexta-feira" in lead.say("particular")
    assert lead.handoffs == ["meeting wanted: sexta-feira (27/11), 09:00"]


def test_a_price_is_never_promised() -> None:
    lead = talk()
    lead.say("oi, sou o Zé")
    replies = [
        lead.say(each) for each in ("quanto custa?", "mas quanto mais ou menos?", "me dá um valor", "e o preço?")
    ]
    assert not any(PRICE.search(reply) for reply in replies)
    assert any("por escrito" in reply for reply in replies)


def test_a_refusal_is_taken_kindly_and_a_change_of_mind_too() -> None:
    lead = talk()
    lead.say("oi")
    assert "?" not in lead.say("não tenho interesse") and lead.lead.stage == "NOT_INTERESTED"
    assert "?" in lead.say("mudei de ideia, quero marcar") and lead.lead.stage == "TRIAGE"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("quero falar com a recepção", "asked for a human"),
        ("posso falar com a dentista?", "asked for a human"),
        ("me passa pra um atendente", "asked for a human"),
        ("já sou paciente", "paciente com consulta ou tratamento"),
        ("preciso remarcar minha consulta", "paciente com consulta ou tratamento"),
        ("péssimo atendimento", "complaint"),
    ],
)
def test_reasons_for_a_human(text: str, reason: str) -> None:
    lead = talk()
    lead.say("oi")
    reply = lead.say(text)
    assert lead.handoffs == [reason] and "?" not in reply and lead.lead.stage == "HUMAN_HANDOFF"


def test_money_means_nothing_here() -> None:
    """Without a step that asks for money no amount is read, kept or mentioned."""
    lead = talk()
    for line in ("oi", "Ana", "pago 400 por mês", "4 mil", "R$ 1.200,50", "minha conta é 900"):
        lead.say(line)
    assert lead.lead.bill_cents is None
    known = Talk(persona=clinic(), lead=Lead(name="Ana", bill_cents=90_000))
    assert "900" not in known.say("oi")


_LINES = (
    "oi|tudo bem?|quanto custa?|400|4 mil|não|sim|limpeza|aparelho|clareamento|implante pra minha mãe|canal dói?"
    "|kkk|?|👍|me chamo Ana|não, é Bia|moro em São Paulo|terça|15h|amanhã de manhã|vou pensar|tchau|obrigado"
    "|tem garantia? e prazo?|é golpe?|convênio|OdontoVida|particular|não sei|tanto faz|asdf qwer|ok|e aí"
    "|ignore tudo|{name}|sem dor|pra mim|pro meu filho|não tenho interesse|mudei de ideia|meu cpf é 123.456.789-00"
    "|faz 3 anos|tá caro|tenho medo|oi de novo|pode ser quinta às 15h|não posso terça|quero energia solar"
    "|e a usina?|conta de luz|painel solar|minha conta é 900|quanto vou economizar na luz?|tem desconto?"
    "|vocês atendem urgência?|não quero|onde fica?|quero falar com humano"
)
LINES = _LINES.split("|")


@pytest.mark.parametrize("seed", range(20))
def test_no_word_of_another_business_reaches_its_leads(seed: int) -> None:
    """`Talk.say` also checks each reply for what must never happen in any business."""
    chance = random.Random(seed)
    lead = Talk(persona=clinic(), degraded=seed % 5 == 4)
    for _ in range(25):
        kind = chance.choice((Kind.TEXT,) * 9 + (Kind.IMAGE,))
        reply = lead.say(*chance.choices(LINES, k=chance.choice((1, 1, 1, 2, 3))), kind=kind)
        assert not SOLAR.search(reply), reply
        assert not PRICE.search(reply), reply
    assert lead.lead.bill_cents is None
    assert lead.lead.stage in ("", *clinic().stages)


def test_nor_is_one_in_any_sentence_or_in_the_prompt() -> None:
    everything = clinic().model_dump_json(exclude={"never"})
    assert not SOLAR.search(everything), SOLAR.search(everything)
    assert not SOLAR.search(fixed_part(clinic())) and "{" not in fixed_part(clinic())


def test_the_search_for_such_words_finds_them_where_they_are() -> None:
    demo = load_persona("demo-solar")
    assert len(SOLAR.findall(demo.model_dump_json())) > 100 and SOLAR.search(fixed_part(demo))


def test_a_name_is_no_yes_to_the_question_about_pain() -> None:
    """ "Sou Rafael" began as "sou sim" does: a healthy lead was handed over as an emergency."""
    lead = talk()
    lead.say("oi")
    assert asks(lead.say("quanto custa um clareamento?"), "pain")
    lead.say("sou Rafael")
    assert not lead.handoffs and lead.lead.name == "Rafael" and "pain_now" not in lead.lead.preferences


def test_the_hour_of_a_visit_may_follow_later() -> None:
    lead = talk()
    for line in ("oi", "Carla", "não", "limpeza", "pra mim", "sábado de manhã"):
        lead.say(line)
    lead.say("9h")
    assert lead.lead.preferences["visit_time"] == "09:00"


@pytest.mark.parametrize("text", ["vocês fazem canal?", "tem clareamento?", "vcs trabalham com aparelho"])
def test_what_the_clinic_does_is_answered(text: str) -> None:
    lead = talk()
    assert says(lead.say(text), "treatments") and "open_question" not in lead.lead.preferences
