"""Going on after a crash: what the lead has seen of a reply is never said again."""

from collections.abc import Sequence


def rest_of(bubbles: Sequence[str], said: Sequence[str]) -> tuple[str, ...]:
    """What is left of a reply after the parts that were said, however they were cut.

    When `said` is not how this reply begins (the persona was changed in between), only a question that nobody has
    asked yet is added.
    """
    seen = _letters("".join(said))
    whole = _letters("".join(bubbles))
    if whole.startswith(seen):
        return tuple(_after(bubbles, len(seen)))
    if any("?" in part for part in said):
        return ()
    last = bubbles[-1:]
    return tuple(bubble for bubble in last if _letters(bubble) not in seen)


def _after(bubbles: Sequence[str], skip: int) -> list[str]:
    left: list[str] = []
    for bubble in bubbles:
        length = len(_letters(bubble))
        if skip >= length:
            skip -= length
            continue
        left.append(_drop(bubble, skip))
        skip = 0
    return left


def _drop(bubble: str, letters: int) -> str:
    position = 0
    while letters:
        letters -= not bubble[position].isspace()
        position += 1
    return bubble[position:].lstrip()


def _letters(text: str) -> str:
    return "".join(text.split())
