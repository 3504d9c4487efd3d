"""Taking a message apart: one message often states, asks and answers, with or without punctuation."""

import re
from dataclasses import dataclass

from agent_service.understanding.intents import is_question
from agent_service.understanding.text import fold, sentences

_WORD = (
    r"como|quant[oa]s?|qto|qnto|qual|quais|quando|onde|quem|por que|pq|porque|o que|oq|sera que|tem como|da pra|da para"
    r"|e possivel|voces|vcs|vc"
)
_VERB = (
    r"tem|teria|pode|posso|podemos|precis\w+|funciona\w*|demora\w*|atend\w+|financia|financiam|parcela|parcelam|aceita\w*"
    r"|vale|compensa|serve|custa|da|e(?= (?!tem\b)\w)|existe|cobra\w*|instala|instalam|voces|vcs|vc|se|o prazo"
    r"|a garantia|o preco|o valor|garantia|prazo"
)
_ASKS_FOR = r"(?:queria|quero|gostaria de|preciso) (?:saber|entender)"
# A question in the middle of a sentence, unless it belongs to the words before it: "me diz quanto custa".
_INSIDE = (
    r"(?<!\bsaber)(?<!\bsei)(?<!\bexplica)(?<!\bexplicar)(?<!\bentender)(?<!\bdiz)(?<!\bfala)(?<!\bentendi)(?<!\be)(?<!\bde)(?<!\bpor)\s+"
    r"(?=(?:(?:quanto|qto|qnto) (?:custa|fica|sai|e)|como (?:que )?(?:e que )?(?:isso )?funciona"
    r"|qual (?:e )?o (?:valor|preco|prazo))\b)"
)
_BREAK = re.compile(
    rf",(?!\d)|\s+(?:mas|porem|so que)\s+|\s+e\s+(?=(?:{_WORD}|{_VERB})\b)|\s+(?={_ASKS_FOR}\b)|{_INSIDE}"
)
# In the middle of a statement these words join: "essa, porque quero ficar", "eu e quem mora aqui".
_BECAUSE = re.compile(r"^\W*(?:porque|pq)\b")
_RELATES = re.compile(r"^\W*(?:porque|pq|quem|quando|onde)\b")
_GOES_ON = re.compile(rf"^\W*(?:e\s+)?(?:{_WORD}|{_VERB})\b")


@dataclass(frozen=True, kw_only=True)
class Clause:
    """A piece of a sentence, whether it asks for something, and the sentence it is taken from."""

    text: str
    asks: bool
    sentence: str


def clauses(text: str) -> list[Clause]:
    """The pieces of a message in order: "quanto custa e como funciona?" asks twice."""
    return [clause for sentence in sentences(text) for clause in _of(sentence)]


def _of(sentence: str) -> list[Clause]:
    pieces = _split(sentence)
    marked, asking, found = sentence.endswith("?"), False, list[Clause]()
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        goes_on = (asking or marked) and _GOES_ON.match(fold(piece)) is not None
        relates = index > 0 and not marked and (_BECAUSE if asking else _RELATES).match(fold(piece)) is not None
        asking = (not relates and (is_question(piece) or goes_on)) or (marked and last)
        found.append(Clause(text=piece, asks=asking, sentence=sentence))
    return found


def _split(sentence: str) -> list[str]:
    # Folding keeps every position, so what is found in the folded text cuts the original.
    pieces, start = [], 0
    for match in _BREAK.finditer(fold(sentence)):
        pieces.append(sentence[start : match.start()])
        start = match.end()
    pieces.append(sentence[start:])
    return [piece.strip() for piece in pieces if re.search(r"[^\s,]", piece)]
