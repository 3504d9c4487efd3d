"""Whether a lead is qualified, and how much speaks for them: derived from the facts, never from the way there."""

from agent_service.conversation import Lead
from agent_service.persona import Outcome, Persona
from agent_service.playbook import facts

PENDING, QUALIFIED, NOT_QUALIFIED = "PENDING", "QUALIFIED", "NOT_QUALIFIED"


def looked_at(persona: Persona) -> frozenset[str]:
    """The fields that the judgement is made from."""
    conditions = [each for criterion in persona.criteria for each in criterion.any_of]
    fields = {step.field for step in persona.script if Outcome.DISQUALIFY in step.outcomes.values()}
    return frozenset(fields.union(*(facts.fields_of(each) for each in conditions)))


def disqualified(persona: Persona, lead: Lead) -> bool:
    """Whether an answer that is known rules the lead out."""
    return any(
        step.outcomes.get(facts.value_of(lead, step.field)) is Outcome.DISQUALIFY and facts.holds(step.when, lead)
        for step in persona.script
    )


def judge(persona: Persona, lead: Lead) -> tuple[str, int]:
    """Status and score; a lead who is ruled out has no score."""
    if disqualified(persona, lead):
        return NOT_QUALIFIED, 0
    met = {each.id for each in persona.criteria if any(facts.holds(condition, lead) for condition in each.any_of)}
    score = sum(each.points for each in persona.criteria if each.id in met)
    qualified = all(each.id in met for each in persona.criteria if each.required)
    return (QUALIFIED if qualified else PENDING), score
