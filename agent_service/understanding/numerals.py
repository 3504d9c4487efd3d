"""Brazilian number words from one to some hundred thousands."""

import re

_UNITS = {
    "um": 1, "uma": 1, "dois": 2, "duas": 2, "tres": 3, "quatro": 4, "cinco": 5, "seis": 6, "meia": 6, "sete": 7,
    "oito": 8, "nove": 9, "dez": 10, "onze": 11, "doze": 12, "treze": 13, "quatorze": 14, "catorze": 14, "quinze": 15,
    "dezesseis": 16, "dezessete": 17, "dezoito": 18, "dezenove": 19, "vinte": 20, "trinta": 30, "quarenta": 40,
    "cinquenta": 50, "sessenta": 60, "setenta": 70, "oitenta": 80, "noventa": 90, "cem": 100, "cento": 100,
    "duzentos": 200, "trezentos": 300, "quatrocentos": 400, "quinhentos": 500, "seiscentos": 600, "setecentos": 700,
    "oitocentos": 800, "novecentos": 900,
}  # fmt: skip
_ALONE = ("um", "uma", "meia")
NUMERAL = "|".join(sorted((*_UNITS, "mil"), key=len, reverse=True))
_SPLIT = re.compile(r"[^a-z]+")


def numeral_value(words: str) -> float | None:
    """ "mil e duzentos" is 1200; None for a lone article ("um") or for words that are no number."""
    tokens = [token for token in _SPLIT.split(words) if token and token != "e"]
    if not tokens or (len(tokens) == 1 and tokens[0] in _ALONE):
        return None
    total, group = 0, 0
    for token in tokens:
        if token == "mil":
            total += (group or 1) * 1_000
            group = 0
        elif token in _UNITS:
            group += _UNITS[token]
        else:
            return None
    return float(total + group)
