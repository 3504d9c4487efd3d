"""All rows about a person, a page at a time: those that `erase` and `erase_quarantine` delete, and no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import apsw
from google.protobuf.json_format import MessageToDict

from agentic_sdr.common.v1 import message_pb2, turn_pb2
from buffer_service.store.rows import unpack

PAGE = 25
After = tuple[Any, ...] | None

_IDS = "(SELECT value FROM json_each(:ids))"
# One index for those that ended, another for the one under way.
_TURNS = (
    f"(SELECT turn_id FROM turn WHERE conversation_id IN {_IDS} AND ended_no > 0 UNION ALL "
    f"SELECT turn_id FROM conversation WHERE conversation_id IN {_IDS} AND turn_id <> '')"
)
_OF_CONVERSATIONS = f"conversation_id IN {_IDS}"
# By table, in the order of an export: which rows, and by what they are ordered.
TABLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "conversation": (_OF_CONVERSATIONS, ("conversation_id",)),
    "alias": (_OF_CONVERSATIONS, ("tenant", "channel", "instance", "alias")),
    "message": (f"(turn_id IN {_TURNS} OR ({_OF_CONVERSATIONS} AND turn_id = ''))", ("sequence",)),
    "turn": (f"turn_id IN {_TURNS}", ("number",)),
    "part": (f"turn_id IN {_TURNS}", ("turn_id", "position")),
    "echo": (_OF_CONVERSATIONS, ("conversation_id", "message_id")),
    "dead_letter": (_OF_CONVERSATIONS, ("dead_letter_id",)),
    "quarantine": (
        "tenant = :tenant AND EXISTS "
        "(SELECT 1 FROM json_each(:names) WHERE instr(body, CAST(json_each.value AS BLOB)) > 0)",
        ("quarantine_id",),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Person:
    """Their conversations, and how a body in quarantine may name them."""

    tenant: str
    conversation_ids: tuple[str, ...]
    names: tuple[str, ...]


def select(table: str, *, first: bool) -> str:
    """The query of a page; of the first one, or of one that follows another."""
    where, keys = TABLES[table]
    # The person's rows are few: without the +, the planner may read the whole table in the order of its keys.
    ordered = ", ".join(f"+{key}" for key in keys)
    after = "" if first else f" AND ({ordered}) > ({', '.join(f':after{n}' for n in range(len(keys)))})"
    return f"SELECT * FROM {table} WHERE {where}{after} ORDER BY {ordered} LIMIT {PAGE}"


def page(db: apsw.Connection, table: str, person: Person, after: After) -> tuple[list[dict[str, object]], After]:
    """Some rows by column, and where to go on (None: that was all)."""
    values = {
        "tenant": person.tenant,
        "ids": json.dumps(person.conversation_ids),
        "names": json.dumps(person.names),
        **{f"after{n}": value for n, value in enumerate(after or ())},
    }
    cursor = db.execute(select(table, first=after is None), values)
    found: list[dict[str, Any]] = []
    for row in cursor:
        found.append(dict(zip((column[0] for column in cursor.get_description()), row, strict=True)))
    last = tuple(found[-1][key] for key in TABLES[table][1]) if len(found) == PAGE else None
    return [{name: _readable(table, name, value) for name, value in row.items()} for row in found], last


def _readable(table: str, column: str, value: Any) -> object:
    read = _BLOBS.get((table, column))
    return read(value) if read else value


def _message(body: bytes) -> object:
    return MessageToDict(message_pb2.Message.FromString(body), preserving_proto_field_name=True)


def _effects(packed: bytes) -> object:
    return [MessageToDict(turn_pb2.Effect.FromString(one), preserving_proto_field_name=True) for one in unpack(packed)]


_BLOBS: Mapping[tuple[str, str], Callable[[bytes], object]] = {
    ("message", "body"): _message,
    ("echo", "body"): _message,
    ("turn", "effects"): _effects,
    ("quarantine", "body"): lambda body: body.decode(errors="replace"),
}
