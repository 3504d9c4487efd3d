"""Whether the keys fit together: conditions that can hold, steps that are reached, answers that exist."""

from collections.abc import Iterator

from agent_service.persona import OWN_FIELDS, Condition, Outcome, Persona, Reads, Step
from agent_service.persona_check.finding import Finding, Loc, error, known_are, warning
from agent_service.playbook import facts
from agent_service.understanding.intents import Answer
from agent_service.understanding.places import STATES

_YES_NO = frozenset(each.value for each in Answer)
_UNSURE = frozenset({Answer.UNSURE.value})
# What is read of a lead without any step that asks for it.
_ALWAYS_READ = frozenset({facts.FLOW, facts.INTERESTED, facts.CITY, facts.STATE, facts.LOCATION, facts.OPEN_QUESTION})
_READERS = {
    facts.NAME: Reads.NAME,
    facts.AMOUNT: Reads.MONEY,
    facts.FLOW: Reads.OFFER,
    facts.INTERESTED: Reads.YES_NO,
}
_MOMENTS = frozenset({Reads.DAY, Reads.TIME})


def check(persona: Persona) -> Iterator[Finding]:
    """Contradictions between parts of the persona."""
    for loc, condition in _conditions(persona):
        yield from _condition(persona, loc, condition)
    for step in persona.script:
        yield from _step(persona, step)
    yield from _never_asked(persona)
    yield from _stages(persona)
    if not any(step.reads in _MOMENTS for step in persona.script):
        yield warning(("script",), "no step reads a day or a time, so nothing ends in a meeting")
    if any(Outcome.OTHER_OFFER in step.outcomes.values() for step in persona.script):
        for offer in persona.offers:
            if not offer.instead and not offer.handoff:
                yield warning(("offers", offer.id), "has no instead: who declines it is shown no other offer")
    if persona.language != "pt-BR":
        yield warning(("language",), "the playbook reads and speaks Brazilian Portuguese (pt-BR) alone")


def answers_of(persona: Persona, field: str) -> frozenset[str] | None:
    """The values that a field can have; None when it can have any."""
    if field == facts.STATE:
        return STATES
    if field in (facts.FLOW, facts.DECLINED):
        return frozenset(offer.flow for offer in persona.offers)
    found: frozenset[str] = frozenset()
    for step in persona.script:
        if step.field == field:
            values = answers_to(step)
            if values is None:
                return None
            found |= values
    return found or None


def answers_to(step: Step) -> frozenset[str] | None:
    """The values that a step can give its field; None when it can give any."""
    named = frozenset({*step.choices, *step.heard})
    if step.reads is Reads.YES_NO:
        return _YES_NO | named
    return named | _UNSURE if step.reads is Reads.CHOICE else None


def _conditions(persona: Persona) -> Iterator[tuple[Loc, Condition]]:
    for step in persona.script:
        yield ("script", step.id, "when"), step.when
    for offer in persona.offers:
        yield ("offers", offer.id, "when"), offer.when
    for criterion in persona.criteria:
        for at, condition in enumerate(criterion.any_of):
            yield ("criteria", criterion.id, "any_of", at), condition


def _condition(persona: Persona, loc: Loc, condition: Condition) -> Iterator[Finding]:
    fields = {*persona.lead_fields, *_ALWAYS_READ, facts.DECLINED}
    for field in sorted(facts.fields_of(condition) - fields):
        yield error(loc, f"no step finds out {field}{known_are(field, fields)}")
    for name, wanted in (("equals", condition.equals), ("differs", condition.differs)):
        for field, values in wanted.items():
            possible = answers_of(persona, field) if field in fields else None
            for value in values:
                if possible is not None and value not in possible:
                    yield error((*loc, name, field), f"{value} is no answer to it{known_are(value, possible)}")
    if why := _never_holds(condition):
        yield error(loc, f"can never hold: {why}")


def _never_holds(condition: Condition) -> str:
    if both := ({*condition.known, *condition.equals} & set(condition.unknown)):
        return f"{', '.join(sorted(both))} would have to be known and unknown"
    lowest, limit = condition.amount_from, condition.amount_below
    if lowest is not None and limit is not None and lowest >= limit:
        return f"no amount is from {lowest} on and below {limit}"
    if facts.AMOUNT in condition.unknown and (lowest is not None or limit is not None):
        return "the amount would have to be known and unknown"
    for field, values in condition.equals.items():
        if not set(values) - set(condition.differs.get(field, ())):
            return f"{field} would have to be one of {', '.join(values)} and none of them"
    return ""


def _step(persona: Persona, step: Step) -> Iterator[Finding]:
    loc: Loc = ("script", step.id)
    expected = _READERS.get(step.field)
    if expected is not None and step.reads is not expected:
        yield error((*loc, "reads"), f"the field {step.field} is for a step that reads {expected}")
    if step.reads is Reads.OFFER and step.field != facts.FLOW:
        yield error((*loc, "field"), f"a chosen offer is kept in the field {facts.FLOW}")
    if step.field not in OWN_FIELDS and step.field != step.field.strip().replace(" ", "_"):
        yield error((*loc, "field"), "is a name without blanks")
    possible = answers_to(step)
    if step.reads is Reads.YES_NO:
        possible = _YES_NO
        for source in ("choices", "heard"):
            for value in getattr(step, source).keys() - _YES_NO:
                what = f"is no answer to a yes or no question{known_are(value, _YES_NO)}"
                yield error((*loc, source, value), what)
    if step.reads is Reads.OFFER:
        possible = answers_of(persona, facts.FLOW)
    for source, values in (("replies", [*step.replies]), ("outcomes", [*step.outcomes]), ("implied", [step.implied])):
        for value in values:
            if value and possible is not None and value not in possible:
                yield error((*loc, source), f"{value} is no answer to this step{known_are(value, possible)}")


def _never_asked(persona: Persona) -> Iterator[Finding]:
    """Steps that wait for what only they themselves, or others that wait as well, would find out."""
    found = set(_ALWAYS_READ)
    found |= {step.field for step in persona.script if step.heard or step.reads in {*_MOMENTS, Reads.MONEY, Reads.NAME}}
    waiting = list(persona.script)
    while asked := [step for step in waiting if _needs(step) <= found]:
        found |= {step.field for step in asked}
        waiting = [step for step in waiting if step not in asked]
    for step in waiting:
        missing = ", ".join(sorted(_needs(step) - found))
        yield error(("script", step.id), f"is never asked: {missing} has to be known first, and nothing finds it out")


def _needs(step: Step) -> frozenset[str]:
    amount = step.when.amount_from is not None or step.when.amount_below is not None
    return frozenset({*step.when.known, *step.when.equals, *([facts.AMOUNT] * amount)})


def _stages(persona: Persona) -> Iterator[Finding]:
    reached = {step.stage for step in persona.script}
    reached |= {persona.handoff_stage, persona.refused_stage, persona.scheduling_stage, persona.meeting_stage}
    for stage in persona.stages:
        if stage not in reached:
            yield warning(("stages",), f"{stage} is reached by no step")
