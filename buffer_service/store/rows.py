"""Rows to entities and back. A row tuple is also the snapshot that tells what changed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from buffer_service.turn_taking.entities import (
    EndReason,
    InboxMessage,
    Lane,
    Part,
    PartState,
    Pause,
    Scope,
    Turn,
    TurnKind,
)

Row = tuple[Any, ...]

LANE = (
    "conversation_id, tenant, channel, instance, created_at, contact, address, display_name, aliases, pause_since, "
    "pause_renewed_at, pause_reason, needs_human, merged_into, waits_for, recorded_version, activity_at, turn_id, "
    "pending, unrecorded, echoes, average_gap"
)
TURN = (
    "number, turn_id, conversation_id, kind, opened_at, epoch, revision, last, truncated, handoff, needs_human, "
    "effects, attempts, attempt_no, tries, sender, ended_at, ended_no, end_reason, recorded"
)
MESSAGE = "sequence, message_id, conversation_id, accepted_at, provider_at, body, human, record_only, turn_id"
PART = "text, state, attempt, provider_message_id, closed_at"


def placeholders(columns: str) -> str:
    """As many question marks as columns."""
    return ", ".join("?" * len(columns.split(", ")))


def pack(blobs: Sequence[bytes]) -> bytes:
    """A list of byte strings as one."""
    return b"".join(struct.pack(">I", len(b)) + b for b in blobs)


def unpack(packed: bytes) -> tuple[bytes, ...]:
    """The inverse of pack."""
    blobs, at = [], 0
    while at < len(packed):
        (size,) = struct.unpack_from(">I", packed, at)
        blobs.append(packed[at + 4 : at + 4 + size])
        at += 4 + size
    return tuple(blobs)


def lane_row(lane: Lane) -> Row:
    """In the order of LANE."""
    pause = lane.pause
    return (
        lane.conversation_id,
        lane.scope.tenant,
        lane.scope.channel,
        lane.scope.instance,
        lane.created_at,
        lane.contact,
        lane.address,
        lane.display_name,
        "\n".join(lane.aliases),
        pause.since if pause else None,
        pause.renewed_at if pause else None,
        pause.reason if pause else None,
        int(lane.needs_human),
        lane.merged_into,
        "\n".join(lane.waits_for),
        lane.recorded_version,
        lane.activity_at,
        lane.turn.turn_id if lane.turn else "",
        len(lane.pending),
        lane.unrecorded,
        len(lane.echoes),
        lane.average_gap,
    )


def lane_of(row: Row) -> Lane:
    """Without turn, pending messages and echoes."""
    return Lane(
        conversation_id=row[0],
        scope=Scope(row[1], row[2], row[3]),
        created_at=row[4],
        contact=row[5],
        address=row[6],
        display_name=row[7],
        aliases=tuple(filter(None, row[8].split("\n"))),
        pause=None if row[9] is None else Pause(row[9], row[10], row[11]),
        needs_human=bool(row[12]),
        merged_into=row[13],
        waits_for=tuple(filter(None, row[14].split("\n"))),
        recorded_version=row[15],
        activity_at=row[16],
        unrecorded=row[19],
        average_gap=row[21],
    )


def turn_row(turn: Turn) -> Row:
    """In the order of TURN."""
    return (
        turn.number,
        turn.turn_id,
        turn.conversation_id,
        int(turn.kind),
        turn.opened_at,
        turn.epoch,
        turn.revision,
        int(turn.last),
        int(turn.truncated),
        int(turn.handoff),
        int(turn.needs_human),
        pack(turn.effects),
        turn.attempts,
        turn.attempt_no,
        turn.tries,
        turn.sender,
        turn.ended_at,
        turn.ended_no,
        int(turn.end_reason),
        int(turn.recorded),
    )


def turn_of(row: Row, messages: list[InboxMessage], parts: list[Part]) -> Turn:
    """A turn with what belongs to it."""
    return Turn(
        number=row[0],
        turn_id=row[1],
        conversation_id=row[2],
        kind=TurnKind(row[3]),
        messages=messages,
        opened_at=row[4],
        epoch=row[5],
        revision=row[6],
        parts=parts,
        last=bool(row[7]),
        truncated=bool(row[8]),
        handoff=bool(row[9]),
        needs_human=bool(row[10]),
        effects=unpack(row[11]),
        attempts=row[12],
        attempt_no=row[13],
        tries=row[14],
        sender=row[15],
        ended_at=row[16],
        ended_no=row[17],
        end_reason=EndReason(row[18]),
        recorded=bool(row[19]),
    )


def message_of(row: Row) -> InboxMessage:
    """In the order of MESSAGE."""
    return InboxMessage(row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6]), bool(row[7]), row[8])


def part_row(part: Part) -> Row:
    """In the order of PART."""
    return (part.text, int(part.state), part.attempt, part.provider_message_id, part.closed_at)


def part_of(row: Row) -> Part:
    """In the order of PART."""
    return Part(row[0], PartState(row[1]), row[2], row[3], row[4])
