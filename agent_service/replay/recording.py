"""Recorded conversations, read from what `ContextService.ExportContact` hands over."""

import json
from base64 import b64decode
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_service.conversation import Author, Kind, Lead, Line, Message, Turn
from agent_service.replay.facts import with_stored

# As many lines as a context holds; a summary's words as they were then are not in an export.
_HISTORY_LINES = 40
_FIRST_STAGE = "INITIAL_CONTACT"
_Row = Mapping[str, Any]


class RecordingUnreadable(Exception):
    """The document is no export. The text says what is missing; it quotes no message."""


@dataclass(frozen=True, kw_only=True)
class RecordedTurn:
    """One turn: what the agent was given then, what it said, and the lead after it."""

    turn_id: str
    turn: Turn
    said: tuple[str, ...]
    lead_after: Lead
    handed_over: bool


def read_export(document: str | bytes) -> tuple[RecordedTurn, ...]:
    """Every answered turn of the export, in the order in which it was recorded. Errors: RecordingUnreadable.

    The document itself, or the answers that hold its chunks as grpcurl prints them.

    The lead before each turn comes from the rows of `lead_changes`, which name the turn that made them; who was changed
    by hand in between is known as such. Turns that were only recorded (a colleague answered) are history.
    """
    try:
        data = json.loads(_joined(document))
        turns: list[_Row] = sorted(data["turns"], key=_by_row)
        lines = _lines_by_turn(data["messages"])
        changes = _changes_by_turn(data["lead_changes"])
        return tuple(_read(turns, lines, changes))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordingUnreadable(
            f"This is no export of ContextService.ExportContact: {type(error).__name__}"
        ) from None


def _joined(document: str | bytes) -> str | bytes:
    """The document of the chunks, if these are chunks."""
    text = document.decode() if isinstance(document, bytes) else document
    chunks, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        answer, end = decoder.raw_decode(text)
        if answer.keys() != {"chunk"}:
            return document
        chunks.append(b64decode(answer["chunk"]))
        text = text[end:]
    return b"".join(chunks)


@dataclass(frozen=True, kw_only=True)
class _Change:
    field: str
    value: str | None


def _read(
    turns: list[_Row], lines: Mapping[str, list[_Row]], changes: Mapping[tuple[str, str], list[_Change]]
) -> list[RecordedTurn]:
    leads: dict[str, Lead] = {}
    past: dict[str, list[Line]] = defaultdict(list)
    read: list[RecordedTurn] = []
    for row in turns:
        turn_id, conversation, lead_id = row["turn_id"], row["conversation_id"], row["lead_id"]
        before = _apply(leads.get(lead_id, Lead(stage=_FIRST_STAGE)), changes[lead_id, f"before {turn_id}"])
        made = changes[lead_id, turn_id]
        leads[lead_id] = after = _apply(before, made)
        own = lines.get(turn_id, [])
        asked = tuple(_message(line) for line in own if line["sender"] == Author.LEAD.value)
        if row["kind"] == "answer" and asked:
            turn = _turn(row, messages=asked, lead=before, past=past[conversation])
            said = tuple(line["content"] for line in own if line["sender"] == Author.ASSISTANT.value)
            recorded = RecordedTurn(
                turn_id=turn_id, turn=turn, said=said, lead_after=after, handed_over=bool(row["handoff"])
            )
            read.append(recorded)
        past[conversation] += [_line(line) for line in own]
    return read


def _turn(row: _Row, *, messages: tuple[Message, ...], lead: Lead, past: list[Line]) -> Turn:
    return Turn(
        messages=messages,
        conversation_id=row["conversation_id"],
        tenant=row["tenant"],
        lead=lead,
        history=tuple(past[-_HISTORY_LINES:]),
        history_cut=len(past) > _HISTORY_LINES,
        first_contact=not past,
        now_ms=max(message.sent_ms for message in messages),
    )


def _lines_by_turn(rows: list[_Row]) -> Mapping[str, list[_Row]]:
    lines: dict[str, list[_Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["conversation_id"], row["sequence"])):
        lines[row["turn_id"]].append(row)
    return lines


def _changes_by_turn(rows: list[_Row]) -> Mapping[tuple[str, str], list[_Change]]:
    """By lead and turn; what was changed by hand is found under "before" the next turn that changed anything."""
    changes: dict[tuple[str, str], list[_Change]] = defaultdict(list)
    by_hand: dict[str, list[_Change]] = defaultdict(list)
    for row in sorted(rows, key=_by_row):
        change = _Change(field=row["field"], value=row["new_value"])
        lead_id, by = row["lead_id"], row["changed_by"]
        if by == "api":
            by_hand[lead_id].append(change)
            continue
        changes[lead_id, f"before {by}"] += by_hand.pop(lead_id, [])
        changes[lead_id, by].append(change)
    return changes


def _apply(lead: Lead, changes: list[_Change]) -> Lead:
    for change in changes:
        lead = with_stored(lead, change.field, change.value)
    return lead


def _message(row: _Row) -> Message:
    place = _details(row).get("location")
    location = (place["latitude"], place["longitude"]) if place else None
    return Message(text=row["content"], kind=_kind(row), location=location, sent_ms=_at_ms(row))


def _line(row: _Row) -> Line:
    return Line(
        author=Author(row["sender"]),
        text=row["content"],
        kind=_kind(row),
        sequence=row["sequence"],
        sent_ms=_at_ms(row),
        fallback=bool(row.get("fallback") or _details(row).get("fallback")),
    )


def _details(row: _Row) -> _Row:
    details = row.get("details") or {}
    return json.loads(details) if isinstance(details, str) else details


def _kind(row: _Row) -> Kind:
    try:
        return Kind(row["message_type"])
    except ValueError:
        return Kind.UNSUPPORTED


def _at_ms(row: _Row) -> int:
    return round(datetime.fromisoformat(row["created_at"]).timestamp() * 1000)


def _by_row(row: _Row) -> int:
    number: int = row["row_id"]
    return number
