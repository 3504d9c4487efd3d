"""Phone numbers, documents, e-mails and links: only those that the business or the lead gave may be said."""

import re
from collections.abc import Iterable
from functools import cached_property

from agent_service.policy.plain import looked_at
from agent_service.policy.spoken_numbers import mobiles
from agent_service.understanding.text import fold

MIN_DIGITS = 8
_WITHOUT_COUNTRY = 11
_SEPARATORS = r"[\s().+\-–—/·•*_~\u20e3\ufe0f]"
_NUMBER = re.compile(rf"\d(?:{_SEPARATORS}{{0,3}}\d){{{MIN_DIGITS - 1},}}")
_AMOUNT = r"[1-9](?:\d{0,2}(?:\.\d{3}){1,2}|\d{0,2}[05]0)"
_HARMLESS = re.compile(
    rf"(?<![\d.,/-])(?:{_AMOUNT}\s?[-–/]\s?{_AMOUNT}"
    r"|r\$\s?(?:\d{1,3}(?:\.\d{3}){0,2}|\d{1,7})(?:,\d{2})?|\d{1,3}(?:\.\d{3}){1,2}(?:,\d{2})?"
    r"|\d{1,2}[/.-]\d{1,2}[/.-](?:19|20)\d{2}|(?:19|20)\d{2}-\d{2}-\d{2}"
    r"|(?:19|20)\d{2}\s?[-–/]\s?(?:19|20)\d{2}|\d{1,2}[:h]\d{2}"
    # A law: "Lei 14.300/2022".
    r"|\d{1,3}\.\d{3}/(?:19|20)\d{2})(?![\d]|[.,/-]\d)"
)
_DIGIT_WORD = (
    r"(?:zero|uma?|dois|duas|tres|quatro|cinco|seis|meia|sete|oito|nove"
    r"|one|two|three|four|five|six|seven|eight|nine|\d)"
)
_SPELT = re.compile(rf"\b{_DIGIT_WORD}(?:[\s,.\-]+(?:e\s+)?{_DIGIT_WORD}\b){{{MIN_DIGITS - 1},}}")
_EMAIL = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")
_SPELT_EMAIL = re.compile(r"\w\s*(?:\barroba\b|[\[(]\s*(?:at|arroba)\s*[\])])\s*\w")
_ENDINGS = (
    "com|net|org|br|io|app|dev|info|xyz|gov|edu|ly|gl|me|co|pt|site|online|shop|store|club|vip|top|link|click|bio"
    "|live|page|website|space|tech|digital|chat|pro|biz|gg|tv"
)
# "golpe[.]com", "golpe ponto com ponto br"; not "o ponto com mais sol".
_SPELT_LINK = re.compile(
    rf"\w\s*[\[({{]\s*(?:\.|ponto|dot)\s*[\])}}]\s*(?:{_ENDINGS})\b"
    r"|\w\s+(?:ponto|dot)\s+(?:com|net|org|app|site)\b(?=\s+(?:ponto|dot|barra)\b|\s*(?:[,.!?;:)]|\Z))"
)
_LINK = re.compile(
    r"(?:https?|ftp)://\S+|www\.\S+"
    rf"|(?<![\w@.-])(?:[\w-]{{1,63}}\.){{1,5}}(?:{_ENDINGS})(?![\w-])(?:/\S*)?"
    r"|(?<![\w@.-])(?:[\w-]{1,63}\.){1,4}[a-z]{2,10}/\S+"
    # An account somewhere else: "@outra_loja".
    r"|(?<![\w@.%+-])@[a-z_][\w.]{2,29}",
    re.IGNORECASE,
)
# "Anotei aqui.Com essa conta", "Certo.Me diz" lack a blank and are no addresses: of the endings these begin sentences.
_JOINED = re.compile(r"(?<![\w.@/:-])([A-Za-zÀ-ú][a-zà-ú]*)\.(?=(?:Com|Me|Pro)\s)")
_LINK_END = " /.,;:!?)»”\"'*_~>]"


class Contacts:
    """What is known to be the business's own or the lead's."""

    def __init__(self, texts: Iterable[str], *, beyond: "Contacts | None" = None) -> None:
        self._texts = texts
        self._beyond = beyond

    def foreign(self, text: str) -> str:
        """What the text holds that nobody gave: "phone number", "e-mail", "link"; empty when nothing."""
        seen = _JOINED.sub(r"\1. ", looked_at(text))
        if not all(self.knows_link(match.group()) for match in _LINK.finditer(seen)):
            return "link"
        folded = fold(_LINK.sub(" x ", seen))
        if _SPELT_LINK.search(folded):
            return "link"
        if _SPELT_EMAIL.search(folded) or any(not self._knows(each, "emails") for each in _EMAIL.findall(folded)):
            return "e-mail"
        folded = _EMAIL.sub(" x ", folded)
        if _SPELT.search(folded) or any(not self._knows_number(each) for each in _numbers(folded)):
            return "phone number"
        return ""

    def without_known(self, text: str) -> str:
        """The text, in which nothing is foreign, without links and e-mails."""
        return _EMAIL.sub(" x ", _LINK.sub(" x ", looked_at(text)))

    def knows_link(self, link: str) -> bool:
        """Whether the business or the lead gave that address."""
        return self._knows(_plain_link(link), "links")

    def _knows_number(self, digits: str) -> bool:
        core = digits.lstrip("0") if len(digits.lstrip("0")) >= MIN_DIGITS else digits
        core = core.removeprefix("55") if len(core) > _WITHOUT_COUNTRY else core
        mine = any(known.endswith(core) or core.endswith(known) for known in self._given["numbers"])
        return mine or (self._beyond is not None and self._beyond._knows_number(digits))

    def _knows(self, value: str, kind: str) -> bool:
        return value in self._given[kind] or (self._beyond is not None and self._beyond._knows(value, kind))

    @cached_property
    def _given(self) -> dict[str, frozenset[str]]:
        """Read only when a reply holds something to look up, which is rare."""
        seen = [looked_at(text) for text in self._texts]
        return {
            "numbers": frozenset(digits for text in seen for digits in _numbers(fold(text))),
            "emails": frozenset(each for text in seen for each in _EMAIL.findall(fold(text))),
            "links": frozenset(_plain_link(each.group()) for text in seen for each in _LINK.finditer(text)),
        }


def _numbers(folded: str) -> list[str]:
    left = _HARMLESS.sub(" x ", folded)
    return [*(re.sub(r"\D", "", each) for each in _NUMBER.findall(left)), *mobiles(left)]


def _plain_link(link: str) -> str:
    return re.sub(r"^(?:(?:https?|ftp)://)?(?:www\.)?", "", link.strip().lower()).rstrip(_LINK_END)
