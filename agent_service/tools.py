"""The tools that a model may call, and what becomes of its arguments.

Nothing that a model writes is taken over unread: a field that the persona doesn't have, a wrong type or a value that
makes no sense is answered with a sentence for the model. Who is answered, in which conversation and through which
account is no argument of any tool: that comes from the envelope.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from typing import Any

from agent_service.conversation import Effect, HandOver, LeadPatch
from agent_service.persona import Persona, Reads
from agent_service.policy.plain import tidy, visible
from agent_service.preferences import PreferenceField, preference_fields, read_preference
from agent_service.tool_errors import ToolRefused
from agent_service.understanding.money import MAX_CENTS, MIN_CENTS, read_money
from agent_service.understanding.names import find_name
from agent_service.understanding.sensitive import has_sensitive, without_sensitive
from agent_service.understanding.text import fold, squeeze

__all__ = ["DEFAULT_REASON", "HAND_OVER", "UPDATE_LEAD", "ToolRefused", "read_call", "tools_json"]

HAND_OVER, UPDATE_LEAD = "handoff_to_human", "update_lead"
MAX_ARGUMENTS = 8_192
MAX_NAME = 100
MAX_EMAIL = 100
MAX_REASON = 200
MAX_AMOUNT_TEXT = 100
DEFAULT_REASON = "the model asked for a human"

_EMAIL = re.compile(r"[a-z0-9_%+-]+(?:\.[a-z0-9_%+-]+)*@(?:[a-z0-9]+(?:-+[a-z0-9]+)*\.)+[a-z]{2,24}")
_PER_MONTH = re.compile(r"\s*(?:/|por\s)\s*(?:m[eê]s|mensal)\b.*", re.IGNORECASE)
# "1 250,50", as spreadsheets and the standard for units write it.
_GROUPED = re.compile(r"(?<=\d) (?=\d{3}(?:\D|\Z))")
# What models write when they know nothing.
_NO_NAMES = frozenset(
    {"desconhecido", "desconhecida", "informado", "informada", "cliente", "lead", "usuario", "usuaria", "user", "nome"}
    | {"unknown", "null", "none", "anonimo", "anonima", "assistente", "atendente", "contato", "whatsapp"}
)
_NO_TOPIC = re.compile(r"(?!)")


def tools_json(persona: Persona) -> str:
    """The tools as a JSON list, sorted, so that the same persona gives the same bytes."""
    tools = [
        _tool(
            HAND_OVER, "Passa a conversa para uma pessoa da equipe.", {"reason": _text("motivo, em poucas palavras")}
        ),
        _tool(UPDATE_LEAD, "Guarda o que a pessoa disse de si. Só o que mudou.", _lead_properties(persona)),
    ]
    return json.dumps(tools, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def read_call(persona: Persona, name: str, arguments: str, *, today: date | None = None) -> Effect:
    """What a call asks for. `today`, where the business is, gives "amanhã" its date.

    Raises ToolRefused, whose text is for the model.
    """
    readers: dict[str, Callable[[Mapping[str, Any]], Effect]] = {
        HAND_OVER: _read_hand_over,
        UPDATE_LEAD: lambda given: _read_update(persona, given, today),
    }
    reader = readers.get(name)
    if reader is None:
        raise ToolRefused(f"Essa ferramenta não existe. Há só {HAND_OVER} e {UPDATE_LEAD}.")
    return reader(_parsed(arguments))


def _parsed(arguments: str) -> dict[str, Any]:
    if len(arguments) > MAX_ARGUMENTS:
        raise ToolRefused("Os argumentos são longos demais.")
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        raise ToolRefused("Os argumentos não são JSON válido.") from None
    if not isinstance(given, dict):
        raise ToolRefused("Os argumentos têm de ser um objeto JSON.")
    # Models fill in every field that they see: an empty one says nothing, and erases nothing.
    return {key: value for key, value in given.items() if value not in (None, "")}


def _read_hand_over(given: Mapping[str, Any]) -> HandOver:
    _only(given, {"reason"})
    reason = given.get("reason", DEFAULT_REASON)
    if not isinstance(reason, str):
        raise ToolRefused("reason: tem de ser um texto.")
    # A person is called in any case; what must not be kept is left out of the reason.
    return HandOver(reason=squeeze(without_sensitive(_shown(reason)))[:MAX_REASON] or DEFAULT_REASON)


def _read_update(persona: Persona, given: Mapping[str, Any], today: date | None) -> LeadPatch:
    _only(given, set(_lead_properties(persona)))
    patch = LeadPatch(
        name=_read(given, "name", _name),
        email=_read(given, "email", _email),
        bill_cents=_read(given, "bill_value", _bill),
        stage=_read(given, "stage", lambda value: _stage(persona, value)),
        interested=_read(given, "interested", _boolean),
        flow=_read(given, "chosen_flow", lambda value: _one_of(value, _flows(persona))),
        do_not_contact=_read(given, "do_not_contact", _boolean),
        preferences=_read(given, "preferences", lambda value: _preferences(persona, value, today)) or {},
    )
    if not patch:
        raise ToolRefused("Não há nada para guardar.")
    return patch


def _read(given: Mapping[str, Any], field: str, reader: Callable[[Any], Any]) -> Any:
    if field not in given:
        return None
    try:
        return reader(given[field])
    except ToolRefused as refused:
        raise ToolRefused(f"{field}: {refused}") from None


def _only(given: Mapping[str, Any], known: set[str]) -> None:
    if given.keys() - known:
        raise ToolRefused(f"Campo desconhecido. Há só {', '.join(sorted(known))}.")


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ToolRefused("tem de ser um texto.")
    return squeeze(_shown(value))


def _shown(value: str) -> str:
    return tidy(visible(value))


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ToolRefused("tem de ser true ou false.")
    return value


def _name(value: Any) -> str:
    text = _string(value)
    if len(text) > MAX_NAME or has_sensitive(text):
        raise ToolRefused("isso não é um nome.")
    name = find_name(text, asked=True)
    if name is None or set(fold(name).split()) & _NO_NAMES:
        raise ToolRefused("isso não parece o nome de uma pessoa; pergunte de novo ou deixe sem nome.")
    return name


def _email(value: Any) -> str:
    text = _string(value).lower()
    if len(text) > MAX_EMAIL or not _EMAIL.fullmatch(text):
        raise ToolRefused("isso não é um e-mail.")
    return text


def _bill(value: Any) -> int:
    if not isinstance(value, int | float | str):
        raise ToolRefused("tem de ser um valor em reais.")
    cents = _cents_said(value) if isinstance(value, str) else _cents(value)
    if cents is None or not MIN_CENTS <= cents <= MAX_CENTS:
        raise ToolRefused('não é um valor mensal plausível em reais; escreva como foi dito, por exemplo "4.500,00".')
    return cents


def _cents(reais: int | float) -> int | None:
    # JSON as Python reads it knows NaN and Infinity; neither passes the comparison.
    return round(reais * 100) if abs(reais) <= MAX_CENTS else None


def _cents_said(text: str) -> int | None:
    said = _GROUPED.sub(".", _PER_MONTH.sub("", _string(text)))
    money = read_money(said, topic=_NO_TOPIC, expected=True) if len(said) <= MAX_AMOUNT_TEXT else None
    return money.cents if money else None


def _stage(persona: Persona, value: Any) -> str:
    if _string(value) == persona.meeting_stage:
        raise ToolRefused("a reunião é confirmada só por uma pessoa da equipe; guarde dia e hora e passe a conversa.")
    return _one_of(value, _stages(persona))


def _one_of(value: Any, allowed: tuple[str, ...]) -> str:
    wanted = fold(_string(value))
    found = next((each for each in allowed if fold(each) == wanted), None)
    if found is None:
        raise ToolRefused(f"tem de ser um de: {', '.join(allowed)}.")
    return found


def _preferences(persona: Persona, value: Any, today: date | None) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ToolRefused("tem de ser um objeto JSON.")
    fields = preference_fields(persona)
    said = {key: each for key, each in value.items() if each not in (None, "")}
    _only(said, set(fields))
    return {key: _read(said, key, partial(read_preference, fields[key], today=today)) for key in said}


def _flows(persona: Persona) -> tuple[str, ...]:
    return tuple(sorted({offer.flow for offer in persona.offers}))


def _stages(persona: Persona) -> tuple[str, ...]:
    """Without the meeting: that one is a person's to confirm."""
    return tuple(stage for stage in persona.stages if stage != persona.meeting_stage)


def _lead_properties(persona: Persona) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "name": _text(),
        "email": _text(),
        "chosen_flow": {"type": "string", "enum": list(_flows(persona))},
        "interested": {"type": "boolean"},
        "stage": {"type": "string", "enum": list(_stages(persona))},
        "do_not_contact": {"type": "boolean", "description": "a pessoa pediu para não receber mais mensagens"},
    }
    if any(step.reads is Reads.MONEY for step in persona.script):
        properties["bill_value"] = _text("valor mensal em reais, como foi dito; o mais recente")
    if fields := preference_fields(persona):
        preferences = {field.name: _preference_property(field) for field in fields.values()}
        properties["preferences"] = {"type": "object", "properties": preferences, "additionalProperties": False}
    return properties


def _preference_property(field: PreferenceField) -> dict[str, Any]:
    return {"type": "string", "enum": list(field.answers)} if field.answers else _text()


def _text(description: str = "") -> dict[str, Any]:
    return {"type": "string", "description": description} if description else {"type": "string"}


def _tool(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
