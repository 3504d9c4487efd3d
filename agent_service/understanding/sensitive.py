"""Data that is never asked for and never stored: documents, cards, bank details, keys."""

import re

from agent_service.understanding.text import fold

_NUMBERS = re.compile(
    r"\b\d{3}[. ]?\d{3}[. ]?\d{3}[-. ]?\d{2}\b|\b\d{2}\.?\d{3}\.?\d{3}/?\d{4}-?\d{2}\b|\b(?:\d{4}[ .-]?){3}\d{4}\b"
    r"|\b\d{1,2}\.\d{3}\.\d{3}-?[\dx]?\b"
)
_NAMED = re.compile(
    r"\b(?:cpf|rg|cnpj|identidade|cnh|pis|titulo|cartao|cvv|senha|agencia|conta corrente|conta bancaria|poupanca"
    r"|pix|chave)\b\D{0,25}\d[\d.\-/x ]{2,}"
)
_PHONE = re.compile(r"(?<!\d)(?:\+?55\s?)?\(?\d{2}\)?\s?9?\s?\d{4}[- ]?\d{4}\b")
REMOVED = "[removido]"


def has_sensitive(text: str) -> bool:
    """Whether the text holds a document or bank detail (a phone number alone is none)."""
    folded = fold(text)
    if _NAMED.search(folded):
        return True
    return any(not _PHONE.fullmatch(match.group()) for match in _NUMBERS.finditer(folded))


def without_sensitive(text: str) -> str:
    """The text with documents, bank details and phone numbers removed."""
    for pattern in (_NAMED, _NUMBERS, _PHONE):
        folded = fold(text)
        for match in reversed(list(pattern.finditer(folded))):
            text = text[: match.start()] + REMOVED + text[match.end() :]
    return text
