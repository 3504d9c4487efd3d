"""Mobile numbers in words, or in digits with anything between them: "oitenta e um nove 7777, meia meia …"."""

import re
from collections.abc import Iterator

from agent_service.understanding.numerals import numeral_value

_ONES = "uma?|dois|duas|tres|quatro|cinco|seis|meia|sete|oito|nove"
_TEENS = "dez|onze|doze|treze|quatorze|catorze|quinze|dezesseis|dezessete|dezoito|dezenove"
_TENS = "vinte|trinta|quarenta|cinquenta|sessenta|setenta|oitenta|noventa"
_HUNDREDS = "cem|cento|duzentos|trezentos|quatrocentos|quinhentos|seiscentos|setecentos|oitocentos|novecentos"
_BELOW_HUNDRED = rf"(?:{_TENS})(?: e (?:{_ONES}))?|{_TEENS}|{_ONES}"
_GROUP = re.compile(rf"\d{{1,9}}|\b(?:(?:{_HUNDREDS})(?: e (?:{_BELOW_HUNDRED}))?|{_BELOW_HUNDRED}|zero)\b")
# Between the pieces of one number: signs, and the words of somebody who dictates. A "mil" goes without its noughts.
_BETWEEN = re.compile(r"[^\w\n]{0,4}(?:(?:e|mil|depois|traco|hifen|espaco|ponto)[^\w\n]{1,4}){0,2}")
_ALONE = {"um": "1", "uma": "1", "meia": "6", "zero": "0"}
_AREA = re.compile(r"[1-9]{2}")
_SUBSCRIBER = 9


def mobiles(folded: str) -> Iterator[str]:
    """Each Brazilian mobile number whose area code stands by itself; lists of prices and times have other shapes."""
    groups: list[str] = []
    end = 0
    for match in _GROUP.finditer(folded):
        if not _BETWEEN.fullmatch(folded, end, match.start()):
            groups.clear()
        groups.append(_digits(match.group()))
        end = match.end()
        if number := _ending(groups):
            yield number


def _ending(groups: list[str]) -> str:
    """The number that the last groups are: an area code, and then nine digits with a nine in front."""
    tail, at = "", len(groups)
    while at and len(tail) < _SUBSCRIBER:
        at -= 1
        tail = groups[at] + tail
    area = groups[at - 1] if at else ""
    return area + tail if len(tail) == _SUBSCRIBER and tail[0] == "9" and _AREA.fullmatch(area) else ""


def _digits(group: str) -> str:
    if group.isdigit():
        return group
    return _ALONE.get(group) or f"{numeral_value(group) or 0:.0f}"
