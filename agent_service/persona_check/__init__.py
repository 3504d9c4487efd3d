"""What is wrong with a persona although it can be loaded. Errors reach leads; warnings are worth a second look."""

from collections.abc import Iterator, Sequence

from agent_service.persona import Persona
from agent_service.persona_check import meaning, patterns, wording
from agent_service.persona_check.finding import Finding, warning

__all__ = ["Finding", "check"]


def check(persona: Persona, *, examples: Sequence[Persona] = ()) -> tuple[Finding, ...]:
    """Everything that is found, errors first. Takes about a second: every pattern is tried on hostile texts.

    `examples` are personas of somebody else; what still stands there from one of them was forgotten.
    """
    found = [*meaning.check(persona), *wording.check(persona), *patterns.check(persona), *_left(persona, examples)]
    return tuple(sorted(found, key=lambda finding: not finding.error))


def _left(persona: Persona, examples: Sequence[Persona]) -> Iterator[Finding]:
    for example in examples:
        for key in ("agent", "company", "city") if example.name != persona.name else ():
            if (value := getattr(persona, key)) == getattr(example, key):
                yield warning((key,), f"is still {value}, from the example {example.name}")
