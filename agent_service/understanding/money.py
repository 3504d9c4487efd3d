"""Amounts of money in Brazilian messages: "R$ 4.500", "4mil", "uns 400 reais", "300 na casa e 450 na loja".

Decisions: of a range ("entre 300 e 400", "às vezes 5 mil") the last amount counts, as it does for corrections; amounts
that are joined ("e", "mais", "+") add up; a stated total wins over both.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from agent_service.understanding.numerals import NUMERAL, numeral_value
from agent_service.understanding.text import fold

MAX_CENTS = 9_999_999_999
MIN_CENTS = 2_000

_NUMBER = re.compile(
    r"(?P<currency>r\s?\$\s*|\brs\s+(?=\d))?"
    r"(?:(?<![\d.,/:\-])(?P<digits>\d{1,3}(?:\.\d{3}){1,3}(?:,\d{1,2})?|\d{1,9}(?:[.,]\d{1,2})?)(?![\d/:]|[.,]\d|-\d)"
    r"(?:\s?(?P<scale>mil\b|k\b(?!wh?p?\b)|milh(?:ao|oes)\b)(?:\s+e\s+(?P<rest>\d{3}\b|(?:" + NUMERAL + r")\b))?)?"
    r"|\b(?P<words>(?:" + NUMERAL + r")(?:\s+(?:e\s+)?(?:" + NUMERAL + r"))*)\b)"
    r"(?P<currency_after>(?:\s+e\s+pouc[oa]s?)?\s*(?:reais|real|conto?s?|pilas?|pau|mangos)\b)?"
)
_FORMATTED = re.compile(r"\d{1,3}(?:\.\d{3})+(?:,\d{1,2})?|\d+,\d{2}")
_COUNTED = re.compile(r"\s*(?:[%º°ª²³]|por\s?cento|(?:k?wh?p?|h|hs|m|km|min|x)\b)")
# Any other word behind a bare number counts something: "2 casas", "10 anos", "350 kwh".
_MAY_FOLLOW = re.compile(
    r"reais|real|contos?|pilas?|por|mes|aos?|as?|nos?|nas?|d[aeo]s?|e|mais|em|media|mensal|mensais|mensalmente|tod[ao]|cada"
    r"|so|aqui|ou|ate|mas|pra|para|dependendo|q|que|quando|eu|mesmo|ja|nao|sim|mil|fixo|eh|tambem|poucos?|uns|umas|quase"
    r"|certo|ta|to|ok|ai|la|hoje|agora|como|quero|com|sem|se|acho|porem|entao|cravado|redondo"
)
_ADDRESS = (
    r"rua|r\.|avenida|av\.?|travessa|alameda|estrada|rodovia|bairro|numero|num|n[o°º]\.?|nr|apto?\.?"
    r"|apartamento n|bloco"
    r"|quadra|lote|km|br|pe|cep|cpf|cnpj|rg|pix|fone|telefone|celular|whats\w*|zap|ddd|protocolo|codigo|senha|dia|ano"
    r"|desde|idade|as(?! vezes)|sala|andar|conta corrente|agencia"
)
_OTHER_MONEY = (
    r"ganho|recebo|salario|renda|faturo|faturamento|custa|custou|custam|custaria|orcamento|orcaram|preco|investi\w*"
    r"|financi\w*|entrada|parcelas?|prestacao|prestacoes|desconto|economi\w*|multa|emprestimo|divida|aluguel"
    r"|premio|sorteio"
)
_PAID = r"pago|paga|pagamos|pagando|gasto|gasta|gastamos|gastando"
_PAYS = rf"{_PAID}|pagava|vem|veio|vinha|da|deu|media|fica|chega|chegou|mensal"
_ABOUT = re.compile(rf"\b(?:(?P<address>{_ADDRESS})|(?P<other>{_OTHER_MONEY})|(?P<pays>{_PAYS}))(?![a-z])")
_CORRECTS = re.compile(
    r"\b(?:nao|na verdade|alias|ops|opa|digo|quer dizer|corrig\w+|errei|melhor|ou melhor|desculpa|perai|\*)(?!\w)"
)
_RANGE = re.compile(
    r"\b(?:ou|a|ate|as vezes|tem mes|tem vezes|ja|quando|outras?|mas|(?:esse|este|nesse|neste|outro|ultimo) mes"
    r"|mes passado|chega\w*)\b|[-–~]|/"
)
_BETWEEN = re.compile(r"\b(?:entre|de|dos|uns|umas)\s*(?:r\$\s*)?$")
_JOINS = re.compile(r"\be\b|\bmais\b|\+|\bcom\b|,|;|\n")
_TO = re.compile(r"\s*(?:e|a|ate|ou|-)\s*(?:r\$\s*)?(?:uns\s*)?")
_TOTAL = re.compile(r"\b(?:total|somando|somadas?|ao todo|juntando|juntas?|tudo da|no fim)\b")
_PLACE = re.compile(
    r"\b(?:casa|loja|apartamento|ape|ap|sitio|chacara|fazenda|empresa|comercio|escritorio|galpao|padaria|restaurante"
    r"|mercado|mercadinho|salao|praia|mae|pai|sogra|outra|outro|primeira|segunda|uma|contas|duas|igreja|oficina)\b"
)
_PAYING = re.compile(rf"\b(?:{_PAID})\b")
# Percentages, phone numbers, documents, postal codes.
_NO_MONEY = re.compile(
    r"\b\d+\s*por\s*cento\b|(?:\+?55\s?)?\(?\b\d{2}\)?\s?9?\s?\d{4}[- ]?\d{4}\b|\b\d{4,5}-\d{4}\b"
    r"|\b\d{3}\.?\d{3}\.?\d{3}-?\d{2}\b"
    r"|\b\d{2}\.?\d{3}-\d{3}\b"
    r"|\b\d{2}\.?\d{3}\.?\d{3}/\d{4}-?\d{2}\b"
)
_DASHED_RANGE = re.compile(r"\b(\d{3,4})\s?-\s?(\d{3,4})\b")
_ADDS = re.compile(
    r"^\W*(?:ah?\W+)?(?:e\s+)?(?:mais|tambem|ainda|tem (?:mais|outra|tambem)|fora)\b|\be tem (?:a|outra|mais)\b"
)
_AND = re.compile(r"^\W*e\s+(?:uns?\s+|umas\s+)?(?:r\$\s*)?\d")


@dataclass(frozen=True, kw_only=True)
class Money:
    """What one message says about an amount. `adds` is True when it comes on top of what was said before."""

    cents: int
    certain: bool
    corrects: bool = False
    adds: bool = False
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class _Amount:
    cents: int
    start: int
    end: int
    marked: bool
    formatted: bool


def read_money(
    text: str, *, topic: re.Pattern[str], expected: bool, ignore: re.Pattern[str] | None = None
) -> Money | None:
    """The amount that the message gives for the topic; a bare number counts only when one is expected or named."""
    folded = fold(text)
    if ignore is not None:
        folded = ignore.sub(" ; ", folded)
    folded = _DASHED_RANGE.sub(r"\1 a \2", _NO_MONEY.sub(" ; ", folded))
    named = topic.search(folded) is not None or _PAYING.search(folded) is not None
    amounts = [amount for amount in _amounts(folded, topic) if amount.marked or expected or named or amount.formatted]
    if not amounts:
        return None
    cents = _combine(folded, amounts)
    if not MIN_CENTS <= cents <= MAX_CENTS:
        return None
    place = _PLACE.search(folded)
    return Money(
        cents=cents,
        certain=expected or named or any(amount.marked for amount in amounts) or _alone(folded, amounts),
        corrects=_CORRECTS.search(folded[: amounts[-1].start]) is not None,
        adds=adds_up(text),
        place=place.group() if place else "",
    )


def adds_up(text: str) -> bool:
    """Whether the text puts something on top of what was said before: "mais 450 da loja"."""
    folded = fold(text)
    return _ADDS.search(folded) is not None or bool(_AND.search(folded) and _PLACE.search(folded))


def names_payment(text: str, topic: re.Pattern[str]) -> bool:
    """Whether the text names the topic or says that something is paid."""
    folded = fold(text)
    return topic.search(folded) is not None or _PAYING.search(folded) is not None


def show_money(cents: int) -> str:
    """ "R$ 4.500" or "R$ 4.500,50"."""
    whole = f"{cents // 100:,}".replace(",", ".")
    return f"R$ {whole}" if cents % 100 == 0 else f"R$ {whole},{cents % 100:02d}"


def _alone(folded: str, amounts: list[_Amount]) -> bool:
    rest = folded[: amounts[0].start] + folded[amounts[-1].end :]
    return amounts[-1].formatted and len(re.findall(r"[a-z]+", rest)) <= 4


def _amounts(folded: str, topic: re.Pattern[str]) -> list[_Amount]:
    found: list[_Amount] = []
    previous_end = 0
    for match in _NUMBER.finditer(folded):
        before = folded[previous_end : match.start()]
        previous_end = match.end()
        amount = _amount(match)
        if amount is not None and _is_money(folded, match, before, topic, amount):
            found.append(amount)
    return found


def _amount(match: re.Match[str]) -> _Amount | None:
    words = match["words"]
    reais = numeral_value(words) if words else _digits_value(match)
    if reais is None:
        return None
    marked = bool(match["currency"] or match["currency_after"] or match["scale"] or (words and "mil" in words.split()))
    return _Amount(
        cents=round(reais * 100),
        start=match.start(),
        end=match.end(),
        marked=marked,
        formatted=bool(match["digits"] and _FORMATTED.fullmatch(match["digits"])),
    )


def _digits_value(match: re.Match[str]) -> float | None:
    digits, scale, rest = match["digits"], match["scale"] or "", match["rest"]
    if re.fullmatch(r"\d{1,3}(\.\d{3})+(,\d+)?", digits):
        value = float(digits.replace(".", "").replace(",", "."))
    else:
        value = float(digits.replace(",", "."))
    if scale.startswith("milh"):
        value *= 1_000_000
    elif scale and value < 1_000:
        value *= 1_000
    if rest:
        extra = float(rest) if rest.isdigit() else numeral_value(rest)
        if scale and extra and extra < 1_000:
            value += extra
    return value


def _is_money(folded: str, match: re.Match[str], before: str, topic: re.Pattern[str], amount: _Amount) -> bool:
    after = folded[match.end() :]
    if _COUNTED.match(after):
        return False
    if match["currency"] or match["currency_after"]:
        return _last_subject(before, topic) != "other"
    if match["words"] and not amount.marked and amount.cents < MIN_CENTS * 5:
        return False
    if (following := re.match(r"\s*([a-z]+)", after)) and not _MAY_FOLLOW.fullmatch(following[1]):
        return False
    subject = _last_subject(before, topic)
    return subject != "other" and not (subject == "address" and not match["scale"])


def _last_subject(before: str, topic: re.Pattern[str]) -> str:
    """What the words since the previous number are about: an address, other money, or the payment asked for."""
    last, at = "", -1
    for match in _ABOUT.finditer(before):
        last, at = str(match.lastgroup), match.start()
    # A rent or a price is other money for one business and the very topic of the next.
    named = [match.start() for match in topic.finditer(before)]
    if any(start > at or (start == at and last == "other") for start in named):
        return "topic"
    return last


def _combine(folded: str, amounts: list[_Amount]) -> int:
    total = amounts[0].cents
    for previous, current in pairwise(amounts):
        between = folded[previous.end : current.start]
        ranged = _BETWEEN.search(folded[max(0, previous.start - 20) : previous.start]) and _TO.fullmatch(between)
        replaces = ranged or any(each.search(_articles_off(between)) for each in (_TOTAL, _CORRECTS, _RANGE))
        if _JOINS.search(between) and not replaces:
            total += current.cents
        else:
            total = current.cents
    return total


def _articles_off(between: str) -> str:
    # The "a" of "na casa e a da loja" is an article, the one of "300 a 400" makes a range.
    return re.sub(r"\b[ao]s?\s+(?!vezes)(?=[a-z])", "", between)
