"""Whole conversations with different people. Facts, stages and taboos are fixed; the wording may change.

In every turn: nothing said twice, nothing asked for that is known, at most one question of the script.
"""

from dataclasses import dataclass, field

import pytest

from agent_service.conversation import Lead
from agent_service.playbook.facts import holds, value_of
from tests.agent_service.talking import Talk, asked, demo

OWN, DISCOUNT = "Instalação Usina Própria", "Compra com Desconto"


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Who writes what, and what is known in the end."""

    lines: tuple[str, ...]
    name: str
    reais: int
    flow: str
    facts: dict[str, str]
    status: str = "QUALIFIED"
    score: int = 100
    stage: str = "SCHEDULING"
    handoffs: tuple[str, ...] = ()
    stages: tuple[str, ...] = field(default=())


MET = {"own_plant_today": "não", "fidelity_contract": "não", "decision_maker": "sim"}

GOLDEN = {
    "terse": Golden(
        lines=("oi", "Zé", "350", "desconto", "ok", "n", "n", "n", "eu", "sexta", "9h", "blz"),
        name="Zé",
        reais=350,
        flow=DISCOUNT,
        facts=MET | {"has_discount": "não", "meeting_day": "sexta-feira (27/11)", "meeting_time": "09:00"},
        handoffs=("meeting wanted: sexta-feira (27/11), 09:00",),
        stages=("INITIAL_CONTACT", "BILL", "ROUTING", "OFFER", "QUALIFYING", "SCHEDULING"),
    ),
    "talkative": Golden(
        lines=(
            "Boa tarde, tudo bem? Meu nome é Roberto Almeida, moro em Jaboatão com minha esposa e dois filhos, e a "
            "conta de luz aqui de casa tá vindo um absurdo, mês passado veio 680 e esse mês 720. Vi o anúncio de vocês "
            "no Instagram e queria entender direitinho como funciona isso, se precisa de obra e quanto custa.",
            "Olha, eu acho que prefiro a usina, porque pretendo ficar nessa casa muitos anos, e um vizinho meu "
            "instalou e gostou demais",
            "Faz sim, mas eu queria saber se dá pra financiar, porque à vista não tenho condição agora",
            "Não, só essa casa mesmo, a loja que eu tinha fechei na pandemia",
            "Fica em Candeias, perto da praia",
            "Financiado, com certeza",
            "Sem muita pressa não, mas se der pra resolver esse ano seria ótimo",
            "Não tenho nada ainda",
            "Não, nunca assinei nada com ninguém",
            "Eu e minha esposa decidimos juntos, ela participa também",
            "Pode ser na quarta-feira, mas só depois das 19h que a gente chega do trabalho",
            "Muito obrigado Helen, até lá",
        ),
        name="Roberto Almeida",
        reais=720,
        flow=OWN,
        facts=MET
        | {
            "payment": "financiamento",
            "installation_address": "Fica em Candeias, perto da praia",
            "meeting_day": "quarta-feira (25/11)",
            "meeting_time": "19:00",
            "open_question": "",
        },
        handoffs=("meeting wanted: quarta-feira (25/11), 19:00",),
    ),
    "voice to text": Golden(
        lines=(
            "oi boa noite meu nome é Severino eu pago mais ou menos uns 900 reais de energia aqui em casa e queria "
            "saber quanto custa e como funciona e se tem garantia",
            "rapaz eu acho melhor a usina mesmo porque aí fica minha né mas eu quero financiar que à vista não dá",
            "tenho mais uma casa em gravatá que também paga luz",
            "seria aqui em recife mesmo na várzea",
            "eu tô com pressa sim porque a conta só faz aumentar",
            "não tenho placa nenhuma não e nem contrato com ninguém",
            "quem decide sou eu mesmo pode marcar pra terça às 10 da manhã",
        ),
        name="Severino",
        reais=900,
        flow=OWN,
        facts=MET
        | {
            "city": "Recife",
            "payment": "financiamento",
            "other_properties": "tenho mais uma casa em gravatá que também paga luz",
            "meeting_day": "terça-feira (24/11)",
            "meeting_time": "10:00",
            "open_question": "",
        },
        handoffs=("meeting wanted: terça-feira (24/11), 10:00",),
    ),
    "sceptic": Golden(
        lines=(
            "isso é golpe?",
            "como sei que não é golpe",
            "hum sei. e vocês são robô?",
            "Paulo. minha conta é 480",
            "tá caro isso, não tenho dinheiro pra investir",
            "e o desconto é de quanto?",
            "tá, pode ser o desconto",
            "não sei se confio",
            "tá bom. não recebo",
            "não tenho contrato nem placa",
            "eu decido",
            "não posso terça nem quarta",
            "sexta 10h",
        ),
        name="Paulo",
        reais=480,
        flow=DISCOUNT,
        facts=MET | {"has_discount": "não", "meeting_day": "sexta-feira (27/11)", "open_question": ""},
        handoffs=("meeting wanted: sexta-feira (27/11), 10:00",),
    ),
    "old lady": Golden(
        lines=(
            "Boa tarde minha filha",
            "Dona Lourdes",
            "Minha filha eu não entendo muito dessas coisas não, minha conta vem 280 reais, sou aposentada",
            "qual a senhora acha melhor?",
            "então quero sem obra que eu moro sozinha",
            "tá certo minha filha",
            "que desconto?",
            "não recebo não",
            "não meu bem",
            "não",
            "meu filho que resolve essas coisas pra mim",
            "vou chamar ele",
            "sexta-feira de manhã",
            "Deus te abençoe",
        ),
        name="Lourdes",
        reais=280,
        flow=DISCOUNT,
        facts={"decision_maker": "não", "decider_invited": "sim", "meeting_time": "manhã", "open_question": ""},
        handoffs=("meeting wanted: sexta-feira (27/11), manhã",),
    ),
    "another state, corrections and a contract": Golden(
        lines=(
            "bom dia, vocês atendem em São Paulo?",
            "Ricardo, moro em Campinas-SP",
            "520",
            "não, 5.200",
            "usina",
            "na verdade prefiro comprar energia",
            "mas no final a usina fica minha?",
            "sim",
            "já tenho 10% de desconto",
            "pode incluir",
            "tenho sim, com a Órigo",
            "ok",
        ),
        name="Ricardo",
        reais=5200,
        flow=DISCOUNT,
        facts={
            "state": "SP",
            "has_discount": "sim",
            "discount_percent": "10%",
            "free_audit": "sim",
            "fidelity_contract": "sim",
            "open_question": "",
        },
        status="NOT_QUALIFIED",
        score=0,
        stage="NOT_INTERESTED",
    ),
}


@pytest.mark.parametrize("golden", GOLDEN.values(), ids=list(GOLDEN))
def test_golden_conversations(golden: Golden) -> None:
    talk, stages = Talk(), list[str]()
    for line in golden.lines:
        known = talk.lead
        reply = talk.say(line)
        _check_turn(talk, known, reply)
        if talk.lead.stage and talk.lead.stage not in stages:
            stages.append(talk.lead.stage)
    lead = talk.lead
    assert (lead.name, lead.bill_cents, lead.flow) == (golden.name, golden.reais * 100, golden.flow)
    assert {key: lead.preferences.get(key, "") for key in golden.facts} == golden.facts
    assert (lead.qualification, lead.score, lead.stage) == (golden.status, golden.score, golden.stage)
    assert tuple(talk.handoffs) == golden.handoffs
    assert not golden.stages or tuple(stages) == golden.stages


def _check_turn(talk: Talk, known: Lead, reply: str) -> None:
    persona = demo()
    put = [step for step in persona.script if asked(reply, step.id)]
    assert len(put) <= 1, reply
    for step in put:
        assert not value_of(known, step.field) or step.field == "flow", reply
        assert holds(step.when, talk.lead), reply
    said = [bubble for each in talk.replies for bubble in each.bubbles]
    assert len(said) == len(set(said)), "a bubble was said twice"
    for taboo in ("R$ 0", "ser sua" if talk.lead.preferences.get("state") == "SP" else "\0", "cpf"):
        assert taboo not in reply
