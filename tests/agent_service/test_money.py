"""Amounts of money as Brazilians type them."""

import re

import pytest

from agent_service.understanding.money import read_money, show_money

TOPIC = re.compile(r"\b(?:contas?|luz|energia|faturas?)\b")

# text, whether an amount is expected (the last question was about it), reais or None
ROWS: list[tuple[str, bool, float | None]] = [
    ("400", True, 400),
    ("400", False, None),
    ("não, 4 mil", True, 4000),
    ("não, 4 mil", False, 4000),
    ("4.500", True, 4500),
    ("4.500", False, 4500),
    ("às vezes 5 mil", False, 5000),
    ("R$ 4.500", False, 4500),
    ("R$4.500,00", False, 4500),
    ("r$ 389,90", False, 389.90),
    ("rs 500", False, 500),
    ("4mil", False, 4000),
    ("4 MIL", False, 4000),
    ("4,5 mil", False, 4500),
    ("4.5 mil", False, 4500),
    ("4k", False, 4000),
    ("4,5k", False, 4500),
    ("12.000", False, 12000),
    ("12.000,00", False, 12000),
    ("12mil reais", False, 12000),
    ("uns 400 reais", False, 400),
    ("400 conto", False, 400),
    ("uns 400 pila", False, 400),
    ("mil reais", False, 1000),
    ("mil e duzentos", True, 1200),
    ("quatro mil e quinhentos", False, 4500),
    ("quinhentos reais", False, 500),
    ("trezentos e cinquenta", True, 350),
    ("4 mil e 500", False, 4500),
    ("4 mil e quinhentos", False, 4500),
    ("minha conta vem 380", False, 380),
    ("a luz deu 612,35 mês passado", False, 612.35),
    ("pago 300 na casa e 450 na loja", False, 750),
    ("300 na casa e 450 na loja", True, 750),
    ("300 + 450", True, 750),
    ("são duas contas, 300 e 450", False, 750),
    ("R$ 1.200 da casa, R$ 800 do sítio e R$ 2.000 da padaria", False, 4000),
    ("300 na casa, 450 na loja, total 750", True, 750),
    ("entre 300 e 400", True, 400),
    ("entre 300 e 400 reais", False, 400),
    ("de 300 a 400", True, 400),
    ("300 a 400", True, 400),
    ("300-400", True, 400),
    ("300 ou 400", True, 400),
    ("uns 400, às vezes 500", True, 500),
    ("é 400 e pouco", True, 400),
    ("400 e poucos reais", False, 400),
    ("400, não, 4 mil", True, 4000),
    ("400, na verdade 450", True, 450),
    ("R$ 400... ops, R$ 500", False, 500),
    ("quase 2 mil por mês", False, 2000),
    ("em média 700", True, 700),
    ("700 mais ou menos", True, 700),
    ("pago uns 400, quero saber como funciona", False, 400),
    ("na rua 250", True, None),
    ("rua das flores, 250", True, None),
    ("moro na rua das flores 250, pago 400", True, 400),
    ("av. Boa Viagem nº 1200", True, None),
    ("meu cep é 50030-230", True, None),
    ("cpf 123.456.789-00", True, None),
    ("12345678900", True, None),
    ("(81) 99999-1234", True, None),
    ("81 99999 1234", True, None),
    ("81999991234", True, None),
    ("+55 81 99999-1234", True, None),
    ("15/03", True, None),
    ("dia 15 às 15h", True, None),
    ("15:30", True, None),
    ("só depois das 18h", True, None),
    ("20%", True, None),
    ("30 por cento", True, None),
    ("2 casas", True, None),
    ("tenho 35 anos", True, None),
    ("350 kwh", True, None),
    ("350kWh por mês", True, None),
    ("uns 10 kwp", True, None),
    ("100 m2 de telhado", True, None),
    ("12 vezes", True, None),
    ("12x", True, None),
    ("ganho 3 mil", False, None),
    ("o vizinho investiu 20 mil", False, None),
    ("quanto custa?", True, None),
    ("mil desculpas", True, None),
    ("uma dúvida", True, None),
    ("4", True, None),
    ("999999999999", True, None),
    ("", True, None),
    ("sim", True, None),
    ("tenho 2 filhos e pago 400 de luz", False, 400),
    ("conta de luz: R$ 389,90 venc 10/12", False, 389.90),
]


@pytest.mark.parametrize(("text", "expected", "reais"), ROWS, ids=[f"{t}|{e}" for t, e, _ in ROWS])
def test_the_amount_of_a_message(text: str, expected: bool, reais: float | None) -> None:
    money = read_money(text, topic=TOPIC, expected=expected)
    counted = money if money is not None and money.certain else None
    assert (counted.cents / 100 if counted else None) == reais


def test_rows_are_enough() -> None:
    assert len(ROWS) >= 60


def test_what_comes_on_top_is_told_apart() -> None:
    for text in ("mais 450 da loja", "e tem a da loja, 450 reais", "fora 450 reais do sítio"):
        money = read_money(text, topic=TOPIC, expected=True)
        assert money is not None and money.adds and money.cents == 45_000


@pytest.mark.parametrize(
    ("cents", "shown"),
    [(45_000, "R$ 450"), (450_000, "R$ 4.500"), (38_990, "R$ 389,90"), (123_456_789, "R$ 1.234.567,89")],
)
def test_money_is_shown_the_brazilian_way(cents: int, shown: str) -> None:
    assert show_money(cents) == shown


def test_ignored_numbers_are_the_business_own() -> None:
    ignore = re.compile(r"\buc\D{0,15}\d+")
    assert read_money("uc 7012345", topic=TOPIC, expected=True, ignore=ignore) is None
