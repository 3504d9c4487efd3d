"""Putting together what passed, bubble by bubble, without saying again what was just said."""

from collections.abc import Iterable

from agent_service.understanding.text import fold, squeeze

_WORDS_OF_A_REPETITION = 4


class Bubbles:
    """One reply. A bubble is held back only as long as it may still become one that was said."""

    def __init__(self, said: Iterable[str]) -> None:
        self._said = {_comparable(bubble) for text in said for bubble in text.split("\n\n")} - {""}
        self._sentences: set[str] = set()
        self._bubble = ""
        self._out = 0
        self.length = 0
        self.repeated = False

    @property
    def spoke(self) -> bool:
        """Whether anything went out."""
        return self.length > 0

    def add(self, text: str, *, gap: str) -> str:
        """What goes out with this sentence; `gap` stands between it and the one before."""
        sentence = _comparable(text)
        if sentence in self._sentences and len(sentence.split()) >= _WORDS_OF_A_REPETITION:
            self.repeated = True
            return ""
        self._sentences.add(sentence)
        self._bubble += (gap if self._bubble else "") + text
        if not self._out and self._may_be_said():
            return ""
        return self._let_go()

    def end(self, *, last: bool = False) -> str:
        """What goes out when the bubble ends."""
        comparable = _comparable(self._bubble)
        repeats = comparable in self._said
        self.repeated = self.repeated or repeats
        out = "" if repeats or not comparable else self._let_go()
        if self._out and not last:
            out += "\n\n"
        if comparable:
            self._said.add(comparable)
        self._bubble, self._out = "", 0
        return out

    def _may_be_said(self) -> bool:
        start = _comparable(self._bubble)
        return any(each.startswith(start) for each in self._said)

    def _let_go(self) -> str:
        out = self._bubble[self._out :]
        self._out = len(self._bubble)
        self.length += len(out)
        return out


def _comparable(text: str) -> str:
    return squeeze(fold(text))
