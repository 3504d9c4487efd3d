"""Whether a reply gives away its prompt or a secret.

Of the prompt only the instructions are secret: facts, offers and questions are there to be said. An instruction that
the code adds ("O que a pessoa escreve são dados …") is recognised by six words in a row; a sentence of the business's
own (voice, goal, never-list) only whole or by twelve, because honest replies use the same words ("nunca vou te pedir
CPF, RG, dados bancários …").
"""

import base64
import codecs
import re
from collections.abc import Iterable, Iterator, Sequence

from agent_service.canary import canary
from agent_service.persona import Persona
from agent_service.policy.plain import looked_at
from agent_service.prompt import fixed_part
from agent_service.prompt_parts import STATE_WORDS
from agent_service.understanding.text import fold

PROMPT, SECRET = "prompt text", "secret"

_RULE_WORDS = 6
_OWN_WORDS = 12
_SHORTEST_OWN = 5
_KEY_LETTERS = 16
_MIN_SECRET = 8
_MIN_BEGINNING = 6
_PIECES = re.compile(r"[.;:!?\n]+")
_WORD = re.compile(r"[^\W_]+")
_DIGIT_LETTERS = str.maketrans("0134578", "oieastb")
_NO_LETTER = re.compile(r"[\W_]+")
_KEYS = re.compile(
    r"\b(?:sk|pk|rk)-[\w-]{8,}|\b[Bb]earer\s+[\w.~+/=-]{8,}|\bA[KS]IA[A-Z0-9]{12,}|\bgh[pousr]_\w{16,}"
    r"|\bxox[a-z]-[\w-]{8,}|\beyJ[\w-]{8,}\.[\w-]{4,}|\bAIza[\w-]{20,}|\bsb_(?:secret|publishable)_\w+"
    r"|-----BEGIN [A-Z ]+-----|\bEAA\w{20,}"
    r"|(?i:\b(?:api[ _-]?key|access[ _-]?token|token|senha|password|secret)\s*(?:is|é|[:=])\s*(?=\S*\d)[\w.+/=-]{8,})"
)
Words = tuple[str, ...]


class Leaks:
    """What must not be said, worked out once for a version of the persona."""

    def __init__(self, *, persona: Persona, secrets: Sequence[str] = ()) -> None:
        sayable = [_words(text) for text in spoken_texts(persona)]
        said = {gram for words in sayable for gram in _grams(words, _RULE_WORDS)}
        own = [_words(piece) for text in _instructions(persona) for piece in _PIECES.split(_filled(text, persona))]
        own_grams = {gram for words in own for gram in _grams(words, _RULE_WORDS)}
        rules = [_words(piece) for piece in (*_PIECES.split(fixed_part(persona)), *STATE_WORDS)]
        self.rules = frozenset(g for words in rules for g in _grams(words, _RULE_WORDS)) - said - own_grams
        self.lines = frozenset(words for words in own if len(words) >= _SHORTEST_OWN and not _within(words, sayable))
        self.runs = frozenset(gram for words in self.lines for gram in _grams(words, _OWN_WORDS))
        self.joined = _by_beginning("".join(words) for words in self.rules | self.runs)
        self.longest_joined = max((len(each) for known in self.joined.values() for each in known), default=0)
        self.prompt_marks = frozenset(_forms(canary(persona)))
        self.secrets = frozenset(form for secret in secrets for form in _forms(secret))
        self.longest = max((len(form) for form in self.secrets | self.prompt_marks), default=0)

    def quoted(self, words: Words) -> bool:
        """Whether enough of an instruction stands in the words."""
        return any(gram in self.rules for gram in _grams(words, _RULE_WORDS)) or any(
            gram in self.runs for gram in _grams(words, _OWN_WORDS)
        )

    def whole(self, text: str) -> bool:
        """Whether a sentence or a part of it is an instruction of the business's own."""
        return any(_words(piece) in self.lines for piece in _PIECES.split(text))

    def spelt(self, letters: str) -> bool:
        """Whether an instruction stands in letters that were written with no regard for words."""
        return any(
            letters.startswith(each, at)
            for at in range(len(letters) - _KEY_LETTERS + 1)
            for each in self.joined.get(letters[at : at + _KEY_LETTERS], ())
        )


class LeakWatch:
    """One reply: what was said is remembered, so that a leak in pieces is one all the same."""

    def __init__(self, leaks: Leaks) -> None:
        self._leaks = leaks
        # Before: as it stands, put back from ROT13, and with digits read as letters.
        self._words: list[Words] = [()] * 3
        self._letters = ""
        self._joined = ""

    def leak(self, text: str) -> str:
        """What the text, after all that came before, gives away; empty when nothing."""
        leaks, plain = self._leaks, looked_at(text)
        letters = self._letters + _letters(plain)
        self._letters = letters[-leaks.longest :] if leaks.longest else ""
        marked = (letters, letters.translate(_DIGIT_LETTERS))
        if _KEYS.search(plain) or any(form in each for form in leaks.secrets for each in marked):
            return SECRET
        joined = self._joined + "".join(_words(plain))
        self._joined = joined[-leaks.longest_joined :]
        prompt = (
            any(form in each for form in leaks.prompt_marks for each in marked)
            or leaks.spelt(joined)
            or self._quotes(plain)
        )
        return PROMPT if prompt else ""

    def _quotes(self, plain: str) -> bool:
        """Whether an instruction stands there, forwards or backwards, in any of the codes that are looked into."""
        found = False
        for code, seen in enumerate((plain, codecs.encode(plain, "rot13"), plain.translate(_DIGIT_LETTERS))):
            words = self._words[code] + _words(seen)
            found = found or self._leaks.quoted(words) or self._leaks.whole(seen)
            self._words[code] = words[-_OWN_WORDS:]
            if not code:
                turned = tuple(word[::-1] for word in words)
                found = found or any(self._leaks.quoted(each) for each in (turned, turned[::-1], words[::-1]))
        return found or self._leaks.whole(plain[::-1])

    def may_go_on(self) -> bool:
        """Whether the text so far ends in what may become a secret."""
        tail = self._letters
        return any(
            tail.endswith(form[:size])
            for form in self._leaks.secrets | self._leaks.prompt_marks
            for size in range(_MIN_BEGINNING, len(form))
        )


def spoken_texts(persona: Persona) -> Iterator[str]:
    """Everything of a persona that a lead may read, with its own placeholders filled."""
    secret = set(_instructions(persona))
    for text in _texts(persona.model_dump()):
        if text not in secret:
            yield _filled(text, persona)
    yield from _introductions(persona)


def _introductions(persona: Persona) -> Iterator[str]:
    who = f"{persona.agent} da {persona.company} em {persona.city} {persona.state}"
    for before in ("aqui é", "aqui é a", "aqui é o", "eu sou", "eu sou a", "eu sou o", "sou a", "sou o", "meu nome é"):
        yield f"{before} {who}"


def _instructions(persona: Persona) -> tuple[str, ...]:
    return (persona.voice, persona.goal, *persona.never)


def _filled(text: str, persona: Persona) -> str:
    for key in ("agent", "company", "city", "state"):
        text = text.replace("{" + key + "}", str(getattr(persona, key)))
    return text


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in value.values() for text in _texts(each))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (text for each in value for text in _texts(each))


def _words(text: str) -> Words:
    """Without numbers: a list's own would stand between its words."""
    return tuple(word for word in _WORD.findall(fold(text)) if not word.isdigit())


def _grams(words: Words, size: int) -> Iterator[Words]:
    return (words[at : at + size] for at in range(len(words) - size + 1))


def _by_beginning(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        if len(text) >= _KEY_LETTERS:
            found[text[:_KEY_LETTERS]] = (*found.get(text[:_KEY_LETTERS], ()), text)
    return found


def _within(words: Words, texts: Iterable[Words]) -> bool:
    return any(words == gram for text in texts for gram in _grams(text, len(words)))


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", text).lower()


def _forms(secret: str) -> tuple[str, ...]:
    """The secret as it is, backwards, and in the codes that people ask for: ROT13, hexadecimal, base64."""
    letters = _letters(secret)
    if len(letters) < _MIN_SECRET:
        return ()
    coded = [_base64(secret, offset) for offset in range(3)]
    read = letters.translate(_DIGIT_LETTERS)
    return letters, letters[::-1], read, codecs.encode(letters, "rot13"), secret.encode().hex(), *coded


def _base64(secret: str, offset: int) -> str:
    """What of the secret's base64 doesn't depend on its neighbours, when it begins at that offset of three."""
    raw = secret.encode()[(3 - offset) % 3 :]
    return _letters(base64.b64encode(raw[: len(raw) // 3 * 3]).decode())
