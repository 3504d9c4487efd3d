"""How people write: the bursts that the hold is chosen and judged by. Documented in docs/turn-taking.md.

A *thought* is one message (40 %) or a burst of 2 to 6; one in ten is followed by a correction ("*600"). A person has a
pace: the median gap between two messages of a thought, itself log-normal over people; gaps are log-normal around it.
What is written depends on the place in the thought only loosely: of the messages that others follow, a good half
sounds unfinished or neutral like any last one. `blind=True` draws the texts of both from one pot, so that the words
say nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

UNFINISHED = ["oi", "olá, tudo bem?", "bom dia", "queria saber sobre", "moro em Olinda e", "na verdade,", "e também"]
NEUTRAL = [
    "me chamo Ana",
    "600 reais",
    "energia solar",
    "conta de luz",
    "casa própria",
    "pode ser amanhã",
    "vi o anúncio",
]
FINISHED = ["quanto custa?", "vocês atendem em Olinda?", "quero um orçamento.", "obrigada!", "tem garantia?"]
CORRECTION = ["*600", "*amanhã", "*Olinda"]
FOLLOWED = (0.45, 0.40, 0.15)
LAST = (0.08, 0.42, 0.50)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Gaps in seconds: the median over people, its spread over people, and the spread of one person's gaps."""

    median_s: float = 1.0
    people_sigma: float = 0.5
    sigma: float = 0.4


@dataclass(frozen=True, kw_only=True)
class Thought:
    """Messages with their offset from the first one, in milliseconds."""

    person: int
    messages: tuple[tuple[int, str], ...]


def thoughts(
    seed: int, *, people: int, each: int, pace: Pace, lone: float = 0.4, corrected: float = 0.1, blind: bool = False
) -> Iterator[Thought]:
    """`each` thoughts of every person, in turns."""
    dice = random.Random(seed)
    medians = [pace.median_s * math.exp(dice.gauss(0, pace.people_sigma)) for _ in range(people)]
    for _ in range(each):
        for person, median in enumerate(medians):
            yield Thought(person=person, messages=tuple(_messages(dice, median, pace.sigma, lone, corrected, blind)))


def _messages(
    dice: random.Random, median_s: float, sigma: float, lone: float, corrected: float, blind: bool
) -> Iterator[tuple[int, str]]:
    count = 1 if dice.random() < lone else dice.randint(2, 6)
    at = 0
    for number in range(count):
        if number:
            at += _gap(dice, median_s, sigma)
        weights = FOLLOWED if number < count - 1 and not blind else LAST
        yield at, dice.choice(dice.choices((UNFINISHED, NEUTRAL, FINISHED), weights)[0])
    if dice.random() < corrected:
        yield at + _gap(dice, 1.5 * median_s, sigma), dice.choice(CORRECTION)


def _gap(dice: random.Random, median_s: float, sigma: float) -> int:
    return max(1, round(1000 * median_s * math.exp(dice.gauss(0, sigma))))
