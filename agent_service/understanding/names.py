"""How a person says their name."""

import re

from agent_service.understanding.places import is_place
from agent_service.understanding.text import fold, sentences

MAX_CHARS = 60
_CONNECTORS = frozenset({"de", "da", "do", "das", "dos", "e"})
_LETTERS = r"[^\W\d_](?:[^\W\d_]|['’-])*"
_TITLE = r"(?:(?i:dona|seu|sr|sra|senhor|senhora|dr|dra|doutor|doutora)\b\.?\s+)?"
_NAME = rf"{_LETTERS}(?:\s+{_LETTERS}){{0,5}}"
_SAYS = re.compile(
    r"\b(?:(?:o\s+)?meu nome (?:e|eh|completo e)\s+(?:o\s+|a\s+)?|(?:eu\s+)?me chamo\s+"
    r"|pode(?:m)? (?:me )?chamar (?:de|por|so de)\s+"
    r"|(?:me )?(?:chama|chame)(?: so)? de\s+|me chamam (?:de\s+)?|(?:aqui|quem fala)(?: quem fala)? e (?:o\s+|a\s+)?"
    r"|(?:fala|falando) (?:com )?(?:o|a)\s+|sou (?:o|a)\s+|sou\s+|nome\s*:\s*|ass(?:inado)?\s*:\s*"
    r"|prazer,?\s+(?:sou\s+)?(?:o\s+|a\s+)?)"
)
_CORRECTION = re.compile(
    r"^\W*(?:nao|na verdade|alias|ops|opa|desculpa|errei|digo|quer dizer)[\s,.!]+"
    r"(?:(?:e|eh|sou|me chamo)\s+)?(?:(?:o|a)\s+)?(?=\w)"
)
_LEAD_IN = re.compile(
    r"^\W*(?:(?:oi|ola|opa|ei|bom dia|boa tarde|boa noite|claro|sim|ah|prazer|pois e|entao|bem)[\s,.!]+)*"
    r"(?:(?:e|eh|sou|eu sou|aqui e|so|pode ser)\s+)?(?:(?:o|a)\s+)?"
)
_IN_TRUTH = re.compile(r"\s+(?i:na verdade)\W*$")
_TAIL = frozenset({"aqui", "mesmo", "viu", "obrigado", "obrigada", "prazer", "tudo", "bem", "bom", "boa", "ta", "ok"})
_COMMON = frozenset(
    fold(
        "Ana Maria João José Antônio Francisco Carlos Paulo Pedro Lucas Luiz Luís Marcos Gabriel Rafael Daniel "
        "Marcelo Bruno Eduardo "
        "Felipe Rodrigo Manoel Mateus Matheus André Fernando Fábio Leonardo Gustavo Guilherme Leandro Tiago "
        "Thiago Anderson Ricardo "
        "Márcio Jorge Sebastião Alexandre Roberto Edson Diego Vitor Victor Sérgio Cláudio Geraldo Adriano Luciano "
        "Júlio Renato "
        "Alex Vinícius Rogério Samuel Ronaldo Mário Flávio Igor Douglas Davi Manuel Jeferson Cícero Miguel Robson "
        "Mauro Danilo "
        "Henrique Caio Reginaldo Joaquim Benedito Gilberto Alan Nelson Cristiano Elias Wilson Valdir Emerson Luan "
        "David Renan "
        "Severino Fabrício Jonas Francisca Antônia Adriana Juliana Márcia Fernanda Patrícia Aline Sandra Camila "
        "Amanda Bruna "
        "Jéssica Letícia Júlia Luciana Vanessa Mariana Gabriela Vera Vitória Larissa Cláudia Beatriz Rita Luana "
        "Sônia Renata "
        "Eliane Josefa Simone Natália Cristiane Carla Débora Rosângela Jaqueline Rosa Daniela Aparecida Marlene "
        "Terezinha "
        "Raimunda Andreia Fabiana Lúcia Raquel Ângela Rafaela Joana Luzia Elaine Daniele Regina Isabela Clara "
        "Alice Laura Sofia "
        "Helena Zé Chico Tião Bia Duda Gabi Lu Malu Cida Neide Fátima Socorro Penha Conceição Luz Bento Heitor "
        "Arthur Bernardo "
        "Paula Carolina Cristina Teresa Tereza Valéria Mônica Priscila Tatiana Karina Isabel Lívia Eduarda Augusto "
        "César Otávio Murilo Breno Wesley Wellington Everton Josué "
        "Salvador Natal Palmas Lia Nina Ivo Ivan Hugo Enzo Yasmin Kauã Tânia Zilda Íris Rui Noel Iara"
    ).split()
)
_NOT_NAMES = frozenset(
    fold(
        "oi olá ola opa ei eita bom boa dia tarde noite tudo bem beleza blz joia sim não nao nada nunca talvez claro "
        "certo ok okay tá ta isso obrigado obrigada valeu tchau abraço quero queria gostaria preciso posso pode podem "
        "como quanto quanta quantos quando onde qual quais quem que porque porquê por pra para com sem sobre de da do "
        "em no na nos nas um uma uns umas o a os as eu tu ele ela nós vocês você vc vcs meu minha teu tua seu sua "
        "esse essa este esta aquele aquela aqui ali lá agora hoje amanhã ontem depois antes já ainda mais menos muito "
        "muita pouco demais só também mesmo então entao mas ou e se é eh foi era ser estou tô estava está tenho tem "
        "tinha ter faz fazer feito fala falar fale saber sei sabe explica explicar entendi entender interesse "
        "interessado interessada dúvida pergunta preço valor conta casa loja empresa apartamento rua "
        "número mil reais real cem mês ano hora minuto dona dono proprietário proprietária responsável cliente esposa "
        "esposo marido mulher filho filha mãe pai irmão irmã gerente síndico síndica sócio sócia diretor diretora "
        "vizinho vizinha aposentado professora professor médico médica advogado advogada pessoa alguém ninguém gente "
        "robô robo bot humano atendente vendedor golpe espera espere calma momento instante legal top massa show "
        "ótimo bacana perfeito combinado fechado vamos bora prefiro primeira segunda terça quarta quinta sexta sábado "
        "domingo manhã opção nome chamo chamar errado errei desculpa porra merda caralho kk kkk kkkk kkkkk rs rsrs "
        "haha hum hmm uhum aham uai oxe vixe ué teste foto áudio audio link site golpista ignore instruções sistema "
        "prompt system assistant user null none true false undefined favor gentileza ajuda ajudar senhor senhora moça "
        "moço amigo amiga querida querido vou vai ir vim ver vejo acho pensei pensar pensando depende tanto tarda "
        "sair pare parar stop cancelar menu início voltar anúncio instagram facebook google indicação novo nova dele "
        "dela deles delas algo coisa todos toda todo cada outro outra nenhum nenhuma qualquer deixa quis ah aff nem "
        "gracias hola thanks thank hello hi yes please são foram vem veio vinha deu pago paga gasto moro mora trabalho"
    ).split()
)


def find_name(text: str, *, asked: bool = False, avoid: frozenset[str] = frozenset()) -> str | None:
    """The name that a message gives. Bare names count only when the question was `asked`; `avoid` adds folded words
    that are no names here."""
    not_names = _NOT_NAMES | (avoid - _COMMON)
    found = None
    for sentence in sentences(text):
        found = _said(sentence, not_names) or (_bare(sentence, not_names) if asked else None) or found
    return found


def first_name(name: str) -> str:
    """How a person is addressed; empty when the name isn't known."""
    return name.split()[0] if name.split() else ""


def is_common(name: str) -> bool:
    """Whether the first name is so frequent that it can hardly be anything else."""
    return fold(name.split()[0]) in _COMMON


def _said(sentence: str, not_names: frozenset[str]) -> str | None:
    folded = fold(sentence)
    for match in reversed(list(_SAYS.finditer(folded))):
        strict = match.group().startswith(("sou", "prazer", "fala"))
        name = _leading_name(sentence[match.end() :], not_names, strict=strict)
        # "sou Marcos", but "sou vegano": what has no article has to be a name that many have.
        if name and (match.group().strip() != "sou" or is_common(name)):
            return name
    return None


def _bare(sentence: str, not_names: frozenset[str]) -> str | None:
    if sentence.rstrip().endswith("?"):
        sentence = sentence.rpartition(",")[0]
    folded = fold(sentence)
    corrected = _CORRECTION.match(folded)
    start = corrected.end() if corrected else 0
    lead_in = _LEAD_IN.match(folded[start:])
    start += lead_in.end() if lead_in else 0
    for piece in re.split(r"[,;()/]|\s-\s", _IN_TRUTH.sub("", sentence[start:])):
        words = piece.split()
        while words and fold(words[-1]).strip(".!") in _TAIL:
            words.pop()
        if 0 < len(words) <= 5 and (name := _leading_name(" ".join(words), not_names, whole=True)):
            return name
    return None


def _leading_name(text: str, not_names: frozenset[str], *, whole: bool = False, strict: bool = False) -> str | None:
    match = re.match(rf"\W*{_TITLE}({_NAME})", text)
    if match is None:
        return None
    words: list[str] = []
    for word in match[1].split():
        if words and fold(word) in _CONNECTORS:
            words.append(word)
            continue
        if fold(word) in not_names or (whole and len(words) >= 5):
            if whole:
                return None
            break
        words.append(word)
    if whole and re.search(r"\w", text[match.end(1) :]):
        return None
    if not whole and not any(word[0].isupper() for word in words):
        words = _typed_low(words)
    # "a Fernanda de Olinda" says where she is from.
    home = next((at for at, word in enumerate(words) if at and fold(word) in _CONNECTORS), len(words))
    if is_place(" ".join(words[home + 1 :])):
        words = words[:home]
    while words and fold(words[-1]) in _CONNECTORS:
        words.pop()
    return _proper(words, strict=strict)


def _typed_low(words: list[str]) -> list[str]:
    """Without capitals only the first name and further well-known ones are sure: "me chamo joao pedro quero saber"."""
    return words[:1] + [word for word in words[1:3] if fold(word) in _COMMON]


def _proper(words: list[str], *, strict: bool) -> str | None:
    if not words or fold(words[0]) in _CONNECTORS or len(words[0]) < 2 or is_place(" ".join(words)):
        return None
    if strict and not words[0][0].isupper() and fold(words[0]) not in _COMMON:
        return None
    if not re.search(r"[aeiouy]", fold(words[0])) or re.search(r"(.)\1\1", fold(words[0])):
        return None
    name = " ".join(fold(word) if fold(word) in _CONNECTORS else word[0].upper() + word[1:].lower() for word in words)
    return name if len(name) <= MAX_CHARS else None
