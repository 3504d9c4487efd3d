"""Whether the other side is a machine too: two machines talk for ever, and each word of ours costs money.

Conservative: an impatient person writes in bursts, repeats "oi?" and pastes the same question twice. What gives a
machine away is that it says the same long thing over and over to whatever it is told, calls itself automatic, or
answers every reply within seconds, many times on end.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean, pstdev

from agent_service.conversation import Author, Line, Turn
from agent_service.understanding.text import clip, fold, squeeze

SAME_WORDS = "same words again and again"
PING_PONG = "the same few messages in turns"
AUTOMATIC = "an automatic reply"
TOO_FAST = "too fast for a person"
TOO_EVEN = "too regular for a person"

RECENT_LINES = 80
WINDOW_MS = 24 * 3_600_000
# Shorter than this a person says the same thing often: "oi", "sim", "ok, obrigado".
LONG_CHARS = 25
SAME_LONG, SAME_SHORT = 4, 8
CYCLES, LONGEST_CYCLE = 3, 4
AUTOMATIC_ALIKE, AUTOMATIC_ANY = 2, 3
FAST_ROUNDS, FAST_MS = 8, 3_000
EVEN_ROUNDS, EVEN_MS, EVEN_BELOW_MS = 10, 150, 60_000

_AUTOMATIC = re.compile(
    r"\b(?:(?:mensagem|resposta|atendimento) automatic[ao]|automatic (?:reply|response|message)|auto[- ]?reply"
    r"|out of office|nao responda (?:a )?est[ae] (?:mensagem|numero)|este (?:numero|canal) nao recebe"
    r"|sou (?:o|a) assistente virtual|nosso horario de atendimento|fora do (?:nosso )?horario de atendimento"
    r"|(?:agradecemos|obrigad[oa] por|obrigad[oa] pelo) [^\n]{0,20}contato[^\n]{0,80}(?:breve|logo|instantes|retorn))"
    r"|\bdigite\s+(?:o numero\s+)?\*?\d\*?\s*(?:para|pra|-|:)|\b(?:press|type|reply)\s+\d\s+(?:for|to)\b"
)
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class _Round:
    """What the other side wrote between two replies of ours, and how long after ours; None when nobody knows."""

    words: str
    gap_ms: int | None

    @property
    def long(self) -> bool:
        return len(self.words) >= LONG_CHARS


def suspect(turn: Turn) -> str:
    """Why the other side looks like a machine; empty when it doesn't."""
    rounds = [each for each in _rounds(turn) if each.words]
    words = [each.words for each in rounds]
    if _same(rounds):
        return SAME_WORDS
    if any(_cycles(words, period) for period in range(2, LONGEST_CYCLE + 1)):
        return PING_PONG
    if _automatic(words):
        return AUTOMATIC
    return _by_the_clock(rounds)


def _rounds(turn: Turn) -> Iterator[_Round]:
    """Oldest first; the last one is this turn."""
    theirs: list[tuple[str, int]] = []
    replied_ms = 0
    for line in _recent(turn):
        if line.author is Author.LEAD:
            theirs.append((line.text, line.sent_ms))
            continue
        if theirs:
            yield _round(theirs, replied_ms)
            theirs = []
        replied_ms = line.sent_ms
    theirs += [(message.text, message.sent_ms) for message in turn.messages]
    if theirs:
        yield _round(theirs, replied_ms)


def _recent(turn: Turn) -> Iterable[Line]:
    return (
        line for line in turn.history[-RECENT_LINES:] if not line.sent_ms or line.sent_ms >= turn.now_ms - WINDOW_MS
    )


def _round(theirs: list[tuple[str, int]], replied_ms: int) -> _Round:
    words = squeeze(fold(" ".join(clip(text) for text, _ in theirs)))
    first_ms = theirs[0][1]
    known = replied_ms > 0 and first_ms >= replied_ms
    # A ticket number or a clock makes no difference.
    return _Round(
        words=_NUMBERS.sub("0", words) if len(words) >= LONG_CHARS else words,
        gap_ms=first_ms - replied_ms if known else None,
    )


def _same(rounds: list[_Round]) -> bool:
    if not rounds:
        return False
    last = rounds[-1]
    if last.long:
        return sum(each.words == last.words for each in rounds) >= SAME_LONG
    tail = rounds[-SAME_SHORT:]
    return len(tail) == SAME_SHORT and all(each.words == last.words for each in tail)


def _cycles(words: list[str], period: int) -> bool:
    tail = words[-period * CYCLES :]
    whole = len(tail) == period * CYCLES and any(len(each) >= LONG_CHARS for each in tail)
    return whole and all(each == tail[at % period] for at, each in enumerate(tail))


def _automatic(words: list[str]) -> bool:
    """A shop's own greeting comes once and then a person; twice the same, or again and again, there is nobody."""
    if not words or not _AUTOMATIC.search(words[-1]):
        return False
    found = [each for each in words if len(each) >= LONG_CHARS and _AUTOMATIC.search(each)]
    return found.count(words[-1]) >= AUTOMATIC_ALIKE or len(found) >= AUTOMATIC_ANY


def _by_the_clock(rounds: list[_Round]) -> str:
    fast = rounds[-FAST_ROUNDS:]
    if len(fast) == FAST_ROUNDS and all(
        each.long and each.gap_ms is not None and each.gap_ms <= FAST_MS for each in fast
    ):
        return TOO_FAST
    gaps = [each.gap_ms for each in rounds[-EVEN_ROUNDS:] if each.gap_ms is not None]
    if len(gaps) == EVEN_ROUNDS and fmean(gaps) <= EVEN_BELOW_MS and pstdev(gaps) <= EVEN_MS:
        return TOO_EVEN
    return ""
