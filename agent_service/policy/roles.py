"""Who a model says is speaking: its own label is taken off, and where it goes on as the lead, the reply has ended."""

import re

from agent_service.persona import Persona

_OWN = (
    r"assistente(?: virtual)?|assistant|ai|ia|bot|rob[oô]|atendente|consultora?|vendedora?|sdr|model|modelo|resposta"
    r"|response|reply|final answer|resposta final"
)
_OTHERS = (
    r"user|usu[aá]ri[oa]|cliente|customer|lead|humano?|system|developer|instructions?|instruç(?:ão|ões)"
    r"|instrucoes|input"
)
_BEFORE = r"^[\s\W]{0,6}(?:\[?\d{1,2}:\d{2}(?::\d{2})?\]?\s*(?:-\s*)?)?"
_BEHIND = r"(?:\s*\([^()\n]{0,60}\))?[*_\s]{0,4}:(?!//)[*_\s]{0,4}"


class Roles:
    """The labels of one persona."""

    def __init__(self, persona: Persona) -> None:
        names = "|".join(re.escape(each) for each in (persona.agent, persona.company))
        own = rf"(?:{_OWN}|{names})(?:\s*(?:,|-|da|do)?\s*(?:{names}))?"
        self._label = re.compile(rf"{_BEFORE}(?:{own}){_BEHIND}", re.IGNORECASE)
        self._alone = re.compile(rf"\s*(?:{_OWN})\s*", re.IGNORECASE)
        self._other = re.compile(rf"{_BEFORE}(?:{_OTHERS}){_BEHIND}", re.IGNORECASE)

    def speaks_for_others(self, line: str) -> bool:
        """Whether the line begins as somebody else's."""
        return self._other.match(line) is not None

    def without_label(self, line: str) -> str:
        """The line without the assistant's own label."""
        return "" if self._alone.fullmatch(line) else self._label.sub("", line, count=1)
