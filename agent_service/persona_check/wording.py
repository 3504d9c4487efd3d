"""Whether the sentences may be sent to a lead as they are."""

import re
from collections import defaultdict
from collections.abc import Iterator
from string import Formatter

from agent_service.persona import Persona
from agent_service.persona_check.finding import Finding, Loc, error, warning
from agent_service.persona_check.said import Said, texts
from agent_service.playbook.past import comparable
from agent_service.understanding.sensitive import has_sensitive
from agent_service.understanding.text import fold

LONG_CHARS = 300
TOO_LONG_CHARS = 1000
# Nobody keeps them: the assistant speaks only when it is written to.
_PROMISES = re.compile(
    r"\b(?:te retorno|retorn(?:o|arei|aremos) (?:em breve|logo|ja|o contato|pra|para)|retornaremos"
    r"|entr(?:o|arei|aremos) em contato|te (?:ligo|ligarei|ligamos|chamo depois|aviso depois)|volto (?:ja|logo)"
    r"|ja volto|(?:um|so um) (?:momento|minutinho|instante)|aguarde"
    r"|vou (?:verificar|checar|consultar|pesquisar) e)\b"
)
_DOCUMENT = (
    r"(?:cpf|rg|cnpj|cnh|documentos?|senha|dados bancarios|numero do cartao|cvv|(?:numero da )?carteirinha|chave pix)"
)
_ASKS_FOR_DOCUMENT = re.compile(
    r"(?<!nao )(?<!nao me )(?<!nunca )(?<!nunca me )"
    r"\b(?:me (?:passa|passe|manda|mande|envia|envie|informa|informe|diz|diga)|informe|envie|mande"
    r"|(?:qual|quais) (?:e |sao )?(?:o |os )?(?:seus?|sua)|preciso d[eoa]s?)"
    rf"(?: \w+){{0,3}}? {_DOCUMENT}\b"
)
_PRICE = re.compile(
    r"\b(?:custa|custam|sai por|saem por|fica por|fica em|por apenas|por so|valor e de|preco e|parcelas? de|entrada de)"
    r"(?: \w+){0,2} r\$ ?\d"
)
_MARKUP = re.compile(r"\*\*|__|`|^\s*(?:#+|[-*•]|\d+\.)\s|\[[^\]]*\]\(|<[a-z/][^>]*>", re.MULTILINE)
_UNACCENTED = re.compile(
    r"\b(?:nao|voce|voces|tambem|ate|ja|so|horario|servico|preco|amanha|duvida|numero|medico|clinica|reuniao|possivel"
    r"|facil|dificil|agencia|familia|saude|otimo|proximo|minimo|maximo|orcamento|convenio|credito|debito|\w{3,}(?:cao|coes))\b"
)
_ENGLISH = re.compile(r"\b(?:the|you|your|please|thank|thanks|we|are|is|would|like|have|with|this|our)\b")
_ENGLISH_WORDS = 3
# What a persona says is shown to language models and may be said to leads: nothing in it is secret.
_SECRET = re.compile(
    r"\b(?:sk|pk|rk|ghp|gho|xox[abp])[-_][\w-]{16,}|\bAKIA[A-Z0-9]{12,}|\beyJ[\w-]{10,}\.|\bBearer\s+\S{12,}"
    r"|\b(?:senha|password|token|api[_ -]?key)\s*[:=]\s*\S+",
    re.IGNORECASE,
)


def check(persona: Persona) -> Iterator[Finding]:
    """Each sentence by itself, then all of them together."""
    everything = list(texts(persona))
    for said in everything:
        yield from _placeholders(said)
        yield from _form(said)
        yield from _private(said)
        if said.spoken:
            yield from _content(persona, said)
    yield from _twice(everything)


def _placeholders(said: Said) -> Iterator[Finding]:
    for name in {name for _, name, _, _ in Formatter().parse(said.text) if name} - said.filled:
        if said.filled and said.spoken:
            yield error(said.loc, f"{{{name}}} may be unknown here, and the sentence would have a hole")
        else:
            yield error(said.loc, f"{{{name}}} isn't filled here and would be seen as it stands")


def _form(said: Said) -> Iterator[Finding]:
    text = said.text
    if found := _UNACCENTED.search(text.lower()):
        yield warning(said.loc, f"{found.group()} looks as if its accent were missing")
    if len(_ENGLISH.findall(text.lower())) >= _ENGLISH_WORDS:
        yield warning(said.loc, "looks like English; leads read Brazilian Portuguese")
    if not said.spoken:
        return
    if len(text) > TOO_LONG_CHARS:
        yield error(said.loc, f"{len(text)} characters are no chat message; above {TOO_LONG_CHARS} it is cut in pieces")
    elif len(text) > LONG_CHARS:
        yield warning(said.loc, f"{len(text)} characters are long for WhatsApp; up to {LONG_CHARS} are read")
    if found := _MARKUP.search(text):
        yield warning(said.loc, f"WhatsApp shows {found.group().strip()} as it stands")
    if said.asks and "?" not in text:
        yield error(said.loc, "needs its question mark: by it the question is recognised when it is answered")
    if said.last and "?" in text:
        yield warning(said.loc, "asks something, and nobody here is left to read the answer")


def _private(said: Said) -> Iterator[Finding]:
    if _SECRET.search(said.text):
        yield error(said.loc, "holds a key or password, which every language model and in the end every lead may see")
    elif has_sensitive(said.text):
        yield warning(said.loc, "holds what looks like a document or bank detail")


def _content(persona: Persona, said: Said) -> Iterator[Finding]:
    folded = fold(said.text)
    for pattern in persona.never_say:
        if found := pattern.search(folded):
            yield error(said.loc, f"says what never_say rules out: {found.group()}")
    if found := _PROMISES.search(folded):
        yield error(said.loc, f"promises what nobody will do: {found.group()}")
    if found := _ASKS_FOR_DOCUMENT.search(folded):
        yield error(said.loc, f"asks for what must not be asked for: {found.group()}")
    if found := _PRICE.search(folded):
        yield warning(said.loc, f"names a price, which a lead will hold you to: {found.group()}")


def _twice(everything: list[Said]) -> Iterator[Finding]:
    places: dict[str, list[Said]] = defaultdict(list)
    for said in everything:
        if said.spoken:
            places[comparable(said.text)].append(said)
    for same in places.values():
        first = same[0]
        for other in same[1:]:
            where = _key(first.loc)
            if first.asks and other.asks and first.loc[1] != other.loc[1]:
                yield error(other.loc, f"is also {where}: an answer could not be told to which question it belongs")
            else:
                yield warning(other.loc, f"is the same as {where}")


def _key(loc: Loc) -> str:
    return ".".join(str(part) for part in loc)
