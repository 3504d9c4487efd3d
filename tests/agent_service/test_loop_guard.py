"""Bots that talk to us are found out; people, however impatient, are not."""

import random
from collections.abc import Sequence

import pytest

from agent_service.conversation import Author, Line, Message, Turn
from agent_service.loop_guard import AUTOMATIC, PING_PONG, SAME_WORDS, TOO_EVEN, TOO_FAST, suspect
from tests.agent_service.talking import MONDAY_10H, Talk

GREETING = "Olá! Agradecemos seu contato. Em breve um de nossos atendentes responderá. Protocolo 48151623."
MENU = "Bem-vindo à Loja Exemplo! Digite 1 para vendas, digite 2 para financeiro."
UNKNOWN = "Desculpe, não entendi. Por favor, escolha uma das opções do menu."


def turn_of(rounds: Sequence[str | Sequence[str]], *, gaps_ms: Sequence[int] = (), end_ms: int = MONDAY_10H) -> Turn:
    """A conversation in which each round of the other side was answered, up to the last one, which is the turn."""
    texts = [(each,) if isinstance(each, str) else tuple(each) for each in rounds]
    gaps = list(gaps_ms) or [20_000 + 7_000 * (at % 5) for at in range(len(texts))]
    now = end_ms - sum(gaps) - 2_000 * len(texts)
    history: list[Line] = []
    for at, (round_, gap) in enumerate(zip(texts, gaps, strict=True)):
        now += gap
        messages = tuple(Message(text=text, sent_ms=now + 500 * index) for index, text in enumerate(round_))
        if at == len(texts) - 1:
            return Turn(messages=messages, history=tuple(history), now_ms=now)
        history += [Line(author=Author.LEAD, text=each.text, sent_ms=each.sent_ms) for each in messages]
        now += 2_000
        history.append(Line(author=Author.ASSISTANT, text=f"Nossa resposta número {at}.", sent_ms=now))
    raise AssertionError("a conversation needs a round")


LONG = "Oi, quero saber quanto custa uma usina aqui na minha casa"
PEOPLE: dict[str, Turn] = {
    "first words": turn_of(["oi"]),
    "the burst of an evening": turn_of(
        [("400", "não, 4 mil", "4.500", "às vezes 5 mil", "quero saber como funciona", "pode me explicar?")]
    ),
    "greeting in pieces": turn_of([("oi", "tudo bem?", "quanto custa?")]),
    "25 messages at once": turn_of([["?"] * 25]),
    "impatient": turn_of(["oi", "oi?", "oi??", "alguém aí?", "oi", "oi", "alô"]),
    "only yes and no": turn_of(["sim", "não", "sim", "não", "sim", "não", "sim", "não", "sim"]),
    "one word all the time": turn_of(["ok"] * 7),
    "the same question pasted three times": turn_of([LONG, LONG, LONG]),
    "insists, in words of their own": turn_of([LONG, LONG, LONG + "?", LONG.upper() + "!!!", "vai responder ou não"]),
    "a shop owner whose greeting answers first": turn_of([GREETING, "oi, sou o João, quero sim", "400", "usina"]),
    "a shop owner whose greeting comes twice in a week": turn_of([GREETING, "oi", "quero sim", "tchau", "voltei"]),
    "asks whether we are a bot": turn_of(["isso é mensagem automática?", "parece resposta automática mesmo, viu"]),
    "tells of somebody's menu": turn_of(["liguei lá e ficou digite 1 para isso e aquilo", "aqui é melhor"]),
    "quick thumbs": turn_of(
        ["sim", "usina", "400", "não", "Recife", "à vista", "sim", "ok", "15h"], gaps_ms=[1_500] * 8 + [1_900]
    ),
    "quick and wordy, as people vary": turn_of(
        [f"{LONG} {number}, e também outra coisa" for number in "abcdefghij"],
        gaps_ms=[9_000, 14_000, 4_500, 21_000, 8_000, 2_800, 33_000, 6_100, 12_700, 5_000],
    ),
    "times that nobody noted": Turn(
        messages=(Message(text="última mensagem, uma bem comprida"),),
        history=tuple(
            Line(author=(Author.LEAD, Author.ASSISTANT)[at % 2], text=f"mensagem bem comprida, de número {'x' * at}")
            for at in range(40)
        ),
    ),
}
MACHINES: dict[str, tuple[Turn, str]] = {
    "the same notice to everything": (turn_of([LONG, *[UNKNOWN] * 4]), SAME_WORDS),
    "the same notice between others": (turn_of([UNKNOWN, "x", UNKNOWN, "y", UNKNOWN, "z", UNKNOWN]), SAME_WORDS),
    "a notice with a running number": (
        turn_of([f"Seu protocolo é {1000 + at}, aguarde na linha" for at in range(4)]),
        SAME_WORDS,
    ),
    "a short word for ever": (turn_of(["ok"] * 8), SAME_WORDS),
    "two messages in turns": (turn_of([MENU, UNKNOWN] * 3), PING_PONG),
    "three messages in turns": (turn_of([UNKNOWN, "um momento", "transferindo"] * 3), PING_PONG),
    "the shop's greeting to each reply": (turn_of([GREETING, GREETING.replace("4815", "9999")]), AUTOMATIC),
    "a menu in varying words": (
        turn_of([MENU, "Opção inválida! Digite 1 para vendas", "Atenção: digite 2 para falar com o financeiro"]),
        AUTOMATIC,
    ),
    "another assistant, as fast as a machine": (
        turn_of(
            [f"Entendi o ponto {word} que levantou, conte mais" for word in "abcdefghi"],
            gaps_ms=[900 + 37 * at for at in range(9)],
        ),
        TOO_FAST,
    ),
    "another assistant, with a fixed delay": (
        turn_of([f"ponto {word}" for word in "abcdefghijkl"], gaps_ms=[10_000 + 40 * (at % 3) for at in range(12)]),
        TOO_EVEN,
    ),
}


@pytest.mark.parametrize("who", PEOPLE)
def test_people_are_not_suspected(who: str) -> None:
    assert suspect(PEOPLE[who]) == ""


@pytest.mark.parametrize("what", MACHINES)
def test_machines_are_found_out(what: str) -> None:
    turn, reason = MACHINES[what]
    assert suspect(turn) == reason


def test_conversations_with_the_playbook_are_not_suspected() -> None:
    lines = (
        "oi",
        "Ana",
        "minha conta vem 4.500",
        "quanto custa?",
        "usina",
        "sim",
        "tem garantia?",
        "não",
        "kkk",
        "quinta às 15h",
    )
    for seed in range(30):
        chance, talk = random.Random(seed), Talk()
        for _ in range(12):
            turn = talk.turn(line := chance.choice(lines))
            assert suspect(turn) == "", seed
            talk.say(line)


def test_what_was_said_yesterday_counts_no_more() -> None:
    turn = turn_of([UNKNOWN] * 4)
    later = Turn(messages=turn.messages, history=turn.history, now_ms=turn.now_ms + 25 * 3_600_000)
    assert suspect(turn) == SAME_WORDS and suspect(later) == ""


def test_a_bot_that_repeats_itself_gets_three_replies() -> None:
    """What the guard lets a bot cost."""
    assert [suspect(turn_of([UNKNOWN] * rounds)) for rounds in range(1, 5)] == ["", "", "", SAME_WORDS]


def test_a_turn_without_words_is_no_reason() -> None:
    assert suspect(Turn(messages=(Message(text=""),), history=(Line(author=Author.LEAD, text=""),) * 9)) == ""
    assert suspect(Turn(messages=())) == ""
