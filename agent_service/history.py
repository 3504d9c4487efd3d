"""History as a model reads it: append-only, and when it grows too long, let go in blocks.

A prefix cache lives from bytes that don't change. Dropping the oldest line every turn would change the first byte after
the fixed prompt every turn; dropping up to a fixed place, which moves on by a whole block, changes it every few turns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from agent_service.conversation import Author, Line
from agent_service.quoting import LINE_CHARACTERS, beginning_and_end, cut, shown, words

Size = Callable[[str], int]

# Tokens that a chat template spends on a message besides its text.
MESSAGE_TOKENS = 5
# Places at which history may begin, in messages of the conversation; finer ones only where the coarse leave too little.
_BLOCKS = (16, 4, 1)


@dataclass(frozen=True, kw_only=True)
class ShownLine:
    """A line as the model reads it. `place` is its position in the conversation, from 1."""

    role: str
    text: str
    place: int


def shown_lines(history: Sequence[Line]) -> tuple[ShownLine, ...]:
    """What a model may read of history: no fallback sentences, which are no knowledge, and nothing empty."""
    lines: list[ShownLine] = []
    place = 0
    for line in history:
        # Lines that are not recorded yet have no sequence; they will get the next ones.
        place = line.sequence or place + 1
        text = "" if line.fallback else text_of(line)
        if text:
            lines.append(ShownLine(role="user" if line.author is Author.LEAD else "assistant", text=text, place=place))
    return tuple(lines)


def text_of(line: Line) -> str:
    """One line's text: the lead's in one line, the business's own with its line breaks."""
    return shown(line) if line.author is Author.LEAD else cut(words(beginning_and_end(line.text)), LINE_CHARACTERS)


def tokens(lines: Sequence[ShownLine], size: Size) -> int:
    """What the lines take in a prompt."""
    return sum(size(line.text) + MESSAGE_TOKENS for line in lines)


def window(lines: Sequence[ShownLine], *, size: Size, most: int, cut_before: bool) -> tuple[ShownLine, ...]:
    """The newest lines that fit into `most` tokens, beginning at a place that stays the same for many turns.

    `cut_before`: earlier lines were left out already, by a limit that moves with every message; then a block is let go
    even if all would fit, so that the beginning stands still.
    """
    # What the lines from each index on take.
    rest = list(accumulate((tokens((line,), size) for line in reversed(lines)), initial=0))[::-1]
    if not cut_before and rest[0] <= most:
        return tuple(lines)
    for block in _BLOCKS:
        for first in _beginnings(lines, block):
            if rest[first] <= most and (len(lines) - first) * 2 >= min(len(lines), block):
                return tuple(lines[first:])
    return ()


def _beginnings(lines: Sequence[ShownLine], block: int) -> list[int]:
    """Indices of the lines that are the first ones of their block, oldest first."""
    before = [line.place - 1 for line in lines[:1]] + [line.place for line in lines[:-1]]
    return [index for index, line in enumerate(lines) if line.place // block != before[index] // block]
