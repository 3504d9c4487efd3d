"""What must never happen, whatever a lead writes."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.conversation import Author, Kind, Lead, Line, Message, Turn
from agent_service.playbook.reply import make_reply
from tests.agent_service.talking import MONDAY_10H, Talk, demo, words

pytestmark = pytest.mark.slow

_LINES = (
    "oi|tudo bem?|quanto custa?|400|4 mil|R$ 1.200,50|não|sim|usina|desconto|como funciona|pode me explicar?"
    "|kkk|?|...|👍|me chamo Ana|não, é Bia|Recife|moro em São Paulo|na rua 250|terça|15h|amanhã de manhã"
    "|vou pensar|tchau|obrigado|tem garantia? e prazo?|é golpe?|quero financiar|à vista|20%|não sei|tanto faz"
    "|qualquer coisa|asdf qwer|ok|beleza|e aí|ignore tudo|{name}|%s|{}|{0.__class__}|minha conta é 900"
    "|entre 300 e 400|não tenho interesse|mudei de ideia|quero falar com humano|péssimo|só essa|tenho uma loja"
    "|pago 300 na casa e 450 na loja|meu cpf é 123.456.789-00|oi?|financiado|tenho pressa sim|sou eu que decido"
    "|não tenho usina nem contrato|pode ser quinta às 15h|não posso terça|oi de novo|tenho contrato sim"
    "|quanto custa e como funciona?|meu contrato acabou|não quero|deixa pra lá|usina ou desconto, qual é melhor?"
)
LINES = _LINES.split("|")
LINE = st.one_of(st.sampled_from(LINES), st.text(max_size=60))


@given(st.lists(st.lists(LINE.filter(str.strip), min_size=1, max_size=4), min_size=1, max_size=12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_conversation_breaks_the_rules(turns: list[list[str]], degraded: bool) -> None:
    """`Talk.say` checks each reply: never empty, never the last one again, no markup, no promises."""
    talk = Talk(degraded=degraded)
    for turn in turns:
        talk.say(*turn)
    assert talk.lead.bill_cents is None or 0 < talk.lead.bill_cents <= 9_999_999_999
    assert len(talk.lead.name) <= 100 and all(len(value) <= 200 for value in talk.lead.preferences.values())
    assert talk.lead.stage in ("", *demo().stages)


def test_long_conversations_never_loop() -> None:
    for seed in range(25):
        chance, talk = random.Random(seed), Talk()
        for _ in range(40):
            talk.say(*chance.choices(LINES, k=chance.choice((1, 1, 1, 2, 3))))
        bubbles = [bubble for reply in talk.replies for bubble in reply.bubbles]
        for step in demo().script:
            for ask in step.ask:
                assert sum(ask in bubble for bubble in bubbles) <= 1, (seed, ask)


def test_silence_fillers_are_not_repeated_for_ever() -> None:
    talk = Talk()
    replies = [talk.say("ok") for _ in range(40)]
    assert len(set(replies[-6:])) >= 3


_VALUE = st.one_of(st.just(""), st.text(max_size=40))


@given(
    st.text(min_size=1, max_size=300),
    st.lists(st.tuples(st.sampled_from(list(Author)), st.text(max_size=80)), max_size=8),
    st.builds(
        Lead,
        name=_VALUE,
        bill_cents=st.one_of(st.none(), st.integers(0, 9_999_999_999)),
        stage=_VALUE,
        interested=st.sampled_from([None, True, False]),
        flow=_VALUE,
        preferences=st.dictionaries(st.text(min_size=1, max_size=10), _VALUE, max_size=3),
    ),
    st.sampled_from(list(Kind)),
)
@settings(max_examples=200, deadline=None)
def test_nothing_that_a_store_may_hold_breaks_a_reply(
    text: str, history: list[tuple[Author, str]], lead: Lead, kind: Kind
) -> None:
    turn = Turn(
        messages=(Message(text=text, kind=kind),),
        history=tuple(Line(author=author, text=line) for author, line in history),
        lead=lead,
        now_ms=MONDAY_10H,
    )
    reply = make_reply(demo(), turn, words=words())
    assert reply.bubbles and reply == make_reply(demo(), turn, words=words())


def test_huge_and_hostile_texts_are_read_quickly() -> None:
    """A pattern that backtracks would hold up every other conversation of the process."""
    units = (
        "a",
        "1.",
        "não ",
        "1 e ",
        "R$",
        "sou o ",
        "?",
        "mil e ",
        "quero falar ",
        "123.456.",
        "oi, ",
        "me chamo a ",
        "não tenho, ",
        "nem terça ",
        "e quanto custa ",
        "tenho mais uma outra ",
    )
    hostile = [unit * (60_000 // len(unit)) for unit in units] + [" " * 60_000 + "x", "é " * 30_000 + "!"]
    for text in hostile:
        started = time.process_time()
        Talk().say(text, text)
        assert time.process_time() - started < 0.5, text[:20]
