"""What is known of a lead, by the names that persona files use."""

from dataclasses import replace

from agent_service.conversation import Lead, LeadPatch
from agent_service.persona import Condition

NAME, AMOUNT, FLOW, INTERESTED = "name", "amount", "flow", "interested"
CITY, STATE, LOCATION, OPEN_QUESTION = "city", "state", "location", "open_question"
DECLINED = "declined_flow"


def value_of(lead: Lead, field: str) -> str:
    """The value of a field as a word; empty when unknown."""
    if field == NAME:
        return lead.name
    if field == AMOUNT:
        return "" if lead.bill_cents is None else str(lead.bill_cents)
    if field == FLOW:
        return lead.flow
    if field == INTERESTED:
        return {None: "", True: "sim", False: "não"}[lead.interested]
    return lead.preferences.get(field, "")


def fields_of(condition: Condition) -> frozenset[str]:
    """The fields that a condition looks at."""
    amount = condition.amount_from is not None or condition.amount_below is not None
    named = (*condition.known, *condition.unknown, *condition.equals, *condition.differs)
    return frozenset({*named, AMOUNT} if amount else named)


def holds(condition: Condition, lead: Lead) -> bool:
    """Whether everything that the condition asks for is so."""
    reais = None if lead.bill_cents is None else lead.bill_cents / 100
    if condition.amount_from is not None and (reais is None or reais < condition.amount_from):
        return False
    if condition.amount_below is not None and (reais is None or reais >= condition.amount_below):
        return False
    return (
        all(value_of(lead, field) for field in condition.known)
        and not any(value_of(lead, field) for field in condition.unknown)
        and all(value_of(lead, field) in values for field, values in condition.equals.items())
        and not any(value_of(lead, field) in values for field, values in condition.differs.items())
    )


def with_field(patch: LeadPatch, field: str, value: str) -> LeadPatch:
    """The patch that also sets a field by its name in the persona."""
    if field == NAME:
        return replace(patch, name=value)
    if field == FLOW:
        return replace(patch, flow=value)
    if field == INTERESTED:
        return replace(patch, interested={"sim": True, "não": False}.get(value))
    return replace(patch, preferences={**patch.preferences, field: value})


def changed(lead: Lead, patch: LeadPatch) -> frozenset[str]:
    """The fields that the patch gives another value."""
    after = merged(lead, patch)
    names = {NAME, AMOUNT, FLOW, INTERESTED, *patch.preferences}
    return frozenset(name for name in names if value_of(after, name) != value_of(lead, name))


def merged(lead: Lead, patch: LeadPatch) -> Lead:
    """The lead after the patch."""
    return Lead(
        name=lead.name if patch.name is None else patch.name,
        email=lead.email if patch.email is None else patch.email,
        bill_cents=lead.bill_cents if patch.bill_cents is None else patch.bill_cents,
        stage=lead.stage if patch.stage is None else patch.stage,
        interested=lead.interested if patch.interested is None else patch.interested,
        flow=lead.flow if patch.flow is None else patch.flow,
        score=lead.score if patch.score is None else patch.score,
        qualification=lead.qualification if patch.qualification is None else patch.qualification,
        do_not_contact=lead.do_not_contact if patch.do_not_contact is None else patch.do_not_contact,
        preferences={**lead.preferences, **patch.preferences},
    )


def only_news(lead: Lead, patch: LeadPatch) -> LeadPatch:
    """The patch without what the lead has already."""
    return LeadPatch(
        name=patch.name if patch.name != lead.name else None,
        email=patch.email if patch.email != lead.email else None,
        bill_cents=patch.bill_cents if patch.bill_cents != lead.bill_cents else None,
        stage=patch.stage if patch.stage != lead.stage else None,
        interested=patch.interested if patch.interested != lead.interested else None,
        flow=patch.flow if patch.flow != lead.flow else None,
        score=patch.score if patch.score != lead.score else None,
        qualification=patch.qualification if patch.qualification != lead.qualification else None,
        do_not_contact=patch.do_not_contact if patch.do_not_contact != lead.do_not_contact else None,
        preferences={key: each for key, each in patch.preferences.items() if lead.preferences.get(key) != each},
    )
