"""What is known of a lead as plain words, so that what two models found out can be compared."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation

from agent_service.conversation import Lead
from agent_service.understanding.money import show_money

_PREFERENCE = "preferences."


def facts_of(lead: Lead) -> dict[str, str]:
    """Every fact by its name on the wire; preferences by their own. What is unknown is left out."""
    facts = {
        "name": lead.name,
        "email": lead.email,
        "bill_value": "" if lead.bill_cents is None else show_money(lead.bill_cents),
        "interested": {None: "", True: "sim", False: "não"}[lead.interested],
        "chosen_flow": lead.flow,
        "qualification_status": lead.qualification,
        **dict(sorted(lead.preferences.items())),
    }
    return {name: value for name, value in facts.items() if value}


def with_stored(lead: Lead, field: str, value: str | None) -> Lead:
    """The lead after one row of `lead_changes`; a field that no model is told about changes nothing."""
    text = value or ""
    if field.startswith(_PREFERENCE):
        key = field.removeprefix(_PREFERENCE)
        preferences: Mapping[str, str] = {**lead.preferences, key: text}
        return replace(lead, preferences={name: each for name, each in preferences.items() if each})
    match field:
        case "name":
            return replace(lead, name=text)
        case "email":
            return replace(lead, email=text)
        case "bill_value":
            return replace(lead, bill_cents=_cents(text))
        case "current_stage":
            return replace(lead, stage=text)
        case "interested":
            return replace(lead, interested={"1": True, "0": False}.get(text))
        case "chosen_flow":
            return replace(lead, flow=text)
        case "qualification_score":
            return replace(lead, score=int(text) if text.isdigit() else 0)
        case "qualification_status":
            return replace(lead, qualification=text)
        case "do_not_contact":
            return replace(lead, do_not_contact=text == "1")
    return lead


def _cents(stored: str) -> int | None:
    try:
        return int(Decimal(stored) * 100) if stored else None
    except InvalidOperation:
        return None
