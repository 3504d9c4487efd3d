"""Brazilian states and large cities."""

import re
from dataclasses import dataclass

from agent_service.understanding.text import fold

_STATES = {
    "acre": "AC", "alagoas": "AL", "amapa": "AP", "amazonas": "AM", "bahia": "BA", "ceara": "CE",
    "distrito federal": "DF", "espirito santo": "ES", "goias": "GO", "maranhao": "MA", "mato grosso": "MT",
    "mato grosso do sul": "MS", "minas gerais": "MG", "minas": "MG", "para": "PA", "paraiba": "PB", "parana": "PR",
    "pernambuco": "PE", "piaui": "PI", "rio grande do norte": "RN", "rio grande do sul": "RS", "rondonia": "RO",
    "roraima": "RR", "santa catarina": "SC", "sergipe": "SE", "tocantins": "TO",
}  # fmt: skip
_CITIES = {
    "PE": (
        "Recife, Olinda, Jaboatão dos Guararapes, Jaboatão, Paulista, Cabo de Santo Agostinho, Camaragibe, "
        "Caruaru, Petrolina, Garanhuns, Vitória de Santo Antão, Igarassu, São Lourenço da Mata, Santa Cruz do "
        "Capibaribe, Abreu e Lima, Ipojuca, Serra Talhada, Gravatá, Carpina, Goiana, Belo Jardim, Arcoverde, "
        "Ouricuri, Escada, Pesqueira, Surubim, Palmares, Bezerros, Salgueiro, Limoeiro, Timbaúba, Porto de "
        "Galinhas, Fernando de Noronha, Itamaracá, Afogados da Ingazeira"
    ),
    "AL": "Maceió, Arapiraca, Maragogi",
    "PB": "João Pessoa, Campina Grande, Cabedelo, Bayeux",
    "SE": "Aracaju",
    "RN": "Mossoró, Parnamirim",
    "CE": "Fortaleza, Caucaia, Juazeiro do Norte, Sobral",
    "PI": "Teresina",
    "MA": "São Luís, Imperatriz",
    "BA": "Salvador, Feira de Santana, Vitória da Conquista, Camaçari, Juazeiro, Ilhéus, Porto Seguro, Paulo Afonso",
    "PA": "Belém, Ananindeua, Santarém",
    "AM": "Manaus",
    "AP": "Macapá",
    "RR": "Boa Vista",
    "RO": "Porto Velho",
    "AC": "Rio Branco",
    "TO": "Palmas",
    "MT": "Cuiabá",
    "MS": "Campo Grande",
    "GO": "Goiânia, Anápolis, Aparecida de Goiânia",
    "DF": "Brasília",
    "MG": "Belo Horizonte, Uberlândia, Contagem, Juiz de Fora, Betim, Montes Claros",
    "ES": "Vila Velha, Vitória",
    "RJ": "Rio de Janeiro, Niterói, Duque de Caxias, Nova Iguaçu",
    "PR": "Curitiba, Londrina, Maringá",
    "SP": (
        "São Paulo, Guarulhos, Campinas, Santo André, Osasco, Ribeirão Preto, Sorocaba, Santos, São Bernardo do Campo"
    ),
    "SC": "Florianópolis, Joinville, Blumenau",
    "RS": "Porto Alegre, Caxias do Sul, Canoas",
}
# Also first names, words or other cities' states: they count only behind "em", "de", "aqui em" or with a state.
_WEAK = frozenset(
    {"natal", "santos", "paulista", "salvador", "escada", "para", "minas", "palmas", "goiana", "acre", "contagem"}
)
_UF = "AC|AL|AP|AM|BA|CE|DF|ES|GO|MA|MT|MS|MG|PA|PB|PR|PE|PI|RJ|RN|RS|RO|RR|SC|SP|SE|TO"
STATES = frozenset(_UF.split("|"))
_NAMES: dict[str, tuple[str, str]] = {"natal": ("Natal", "RN")} | {
    fold(name): (name, state) for state, names in _CITIES.items() for name in names.split(", ")
}
_ANY_CITY = re.compile(r"\b(" + "|".join(sorted((re.escape(n) for n in _NAMES), key=len, reverse=True)) + r")\b")
_ANY_STATE = re.compile(r"\b(" + "|".join(sorted(_STATES, key=len, reverse=True)) + r")\b")
_UF_MARK = re.compile(rf"(?:[-/,(]\s*|\bem\s+|\bdo\s+|\bde\s+|^|\s)({_UF})\b(?![.'])")
_IN = re.compile(r"\b(?:em|de|do|da|no|na|aqui|pra|para|cidade)\s+(?:o\s+|a\s+)?$")
_LIVES = re.compile(
    r"\b(?:moro|mora|moramos|resido|sou|somos|fico|estou|to|fica|imovel|casa|loja|empresa|aqui"
    r"|cidade)\s+(?:e\s+)?(?:em|de|no|na)\s+"
)
_UNKNOWN_CITY = re.compile(r"[A-ZÀ-Ú][a-zà-ú]+(?:\s+(?:d[aeo]s?\s+)?[A-ZÀ-Ú][a-zà-ú]+){0,3}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A city, a state (two letters), or both; empty when not said."""

    city: str = ""
    state: str = ""


def find_place(text: str, *, asked: bool = False) -> Place | None:
    """The place that a message names; `asked` when the question was about it, then a weak name is enough."""
    folded = fold(text)
    city, state = _city(text, folded, asked=asked), _state(text, folded, asked=asked)
    if city is None and not state:
        return None
    name, home = city or ("", "")
    return Place(city=name, state=state or home)


def is_place(text: str) -> bool:
    """Whether the whole text is the name of a place (and not rather of a person)."""
    folded = fold(text).strip(" .!?")
    return (folded in _NAMES or folded in _STATES) and folded not in _WEAK


def _city(text: str, folded: str, *, asked: bool) -> tuple[str, str] | None:
    for match in _ANY_CITY.finditer(folded):
        if match[1] not in _WEAK or asked or _IN.search(folded[: match.start()]):
            return _NAMES[match[1]]
    lives = _LIVES.search(folded)
    if lives and (name := _UNKNOWN_CITY.match(text, lives.end())) and fold(name.group()) not in _STATES:
        return name.group(), ""
    return None


def _state(text: str, folded: str, *, asked: bool) -> str:
    for match in _ANY_STATE.finditer(folded):
        meant = match[1] not in _WEAK or (asked and folded == match[1])
        if meant or re.search(r"\b(?:em|do|no)\s+$", folded[: match.start()]):
            return _STATES[match[1]]
    code = _UF_MARK.search(text)
    return code[1] if code and (len(text) <= 4 or not text.isupper()) else ""
