"""Whether the other side is a machine too: two machines talk for ever, and each word of ours costs money.

Conservative: an impatient person writes in bursts, repeats "oi?" and pastes the same question twice. What gives a machine
away is that it says the same long thing over and over to whatever it is told, calls itself automatic, or answers every
reply within seconds, many times on end.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import pstdev

from agent_service.conversation import Author, Line, Turn
from agent_service.understanding.text import clip, fold, squeeze

SAME_WORDS = "same words again and again"
PING_PONG = "the same words in turns"
AUTOMATIC = "an automatic reply"
TOO_FAST = "too fast for a person"

RECENT_LINES = 60
SAME_LONG, SAME_SHORT, AUTOMATIC_TIMES = 3, 6, 2
LONG_CHARS = 25
FAST_ROUNDS, FAST_GAP_MS, EVEN_MS = 8, 4_000, 700
WINDOW_MS = 24 * 3_600_000

_AUTOMATIC = re.compile(
    r"\b(?:mensagem automatica|resposta automatica|atendimento automatico|automatic (?:reply|response|message)"
    r"|auto[- ]?reply|out of office|(?:esta|essa) e uma (?:mensagem|resposta) automatica|nao responda (?:a )?est[ae]"
    r"|este (?:numero|canal) nao recebe|sou (?:o|a) assistente virtual|nosso horario de atendimento|fora do (?:nosso )?horario"
    r"|(?:agradecemos|obrigad[oa] por (?:entrar em contato|seu contato))[^\n]{0,80}(?:breve|logo|em instantes|retorn))"
    r"|\bdigite\s+(?:o numero\s+)?\*?\d\*?\s*(?:para|-|:)|\b(?:press|type|reply)\s+\d\s+(?:for|to)\b"
)


@dataclass(frozen=True, kw_only=True)
class _Round:
    """What the other side wrote between two replies of ours."""

    words: str
    gap_ms: int | None


def suspect(turn: Turn) -> str:
    """Why the other side looks like a machine; empty when it doesn't."""
    rounds = _rounds(turn)
    if not rounds:
        return ""
    return _automatic(rounds) or _same(rounds) or _ping_pong(rounds) or _too_fast(rounds)
