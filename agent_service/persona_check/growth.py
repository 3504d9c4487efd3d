"""Noticing patterns whose time explodes with the length of the text: one pasted message would hold up every lead."""

import re
import time
from functools import lru_cache

from agent_service.persona_check.samples import repeated
from agent_service.understanding.text import MAX_READ

# Processor time of this thread. A harmless pattern needs a thousandth of it for the longest text.
LIMIT_S = 0.2
_SHORTEST, _FACTOR = 4, 1.15
# Up to here by single characters: each one more may multiply the time.
_SINGLY = 48
_UNITS = ("a", "a ", " a", "1", " ")
# A text whose end doesn't fit makes a pattern go back and try everything else; one of these doesn't.
_ENDS = ("!", "_")


@lru_cache(maxsize=8_192)
def grows(pattern: re.Pattern[str]) -> bool:
    """Whether some text of the length that is read takes too long.

    The texts become longer in small steps and the first slow one ends the search, so that even an exponential pattern
    costs seconds here and not for ever.
    """
    units = dict.fromkeys([*_UNITS, *repeated(pattern.pattern)])
    return any(_slow(pattern, unit, end) for unit in units for end in _ENDS)


def _slow(pattern: re.Pattern[str], unit: str, end: str) -> bool:
    length = float(_SHORTEST)
    while length <= MAX_READ:
        text = (unit * (int(length) // len(unit) + 1))[: int(length)] + end
        started = time.thread_time()
        pattern.search(text)
        if time.thread_time() - started > LIMIT_S:
            return True
        length = length + 1 if length < _SINGLY else length * _FACTOR
    return False
