"""Frames and entities to the contract's messages and back."""

from __future__ import annotations

from collections.abc import Iterable

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import error_reason_pb2, message_pb2, turn_pb2
from buffer_service.store.copies import Unfinished
from buffer_service.store.sqlite import DeadLetter
from buffer_service.turn_taking import frames as fr
from buffer_service.turn_taking.assignment import in_order, who
from buffer_service.turn_taking.entities import InboxMessage, Lane, Part, Scope, Turn
from buffer_service.turn_taking.sessions import Commit
from service_kit.backups import Copied
from service_kit.durations import ms_to_duration, ms_to_timestamp
from service_kit.errors import ServiceError

REFUSALS = {
    fr.Reason.SUPERSEDED: "More messages belong to the turn than the reply was made from.",
    fr.Reason.STALE_EPOCH: "The turn was given to another worker.",
    fr.Reason.PAUSED: "A human answers this conversation.",
    fr.Reason.WRONG_STATE: "The turn is not in a state that allows this.",
}


def scope_to_pb(scope: Scope) -> message_pb2.Scope:
    """Where."""
    return message_pb2.Scope(tenant=scope.tenant, channel=scope.channel, instance=scope.instance)


def contact_to_pb(who: fr.Who) -> message_pb2.Contact:
    """Who."""
    return message_pb2.Contact(
        contact=who.contact, aliases=who.aliases, address=who.address, display_name=who.display_name
    )


def messages_to_pb(messages: Iterable[InboxMessage]) -> list[message_pb2.Message]:
    """Stored messages with what the buffer adds."""
    out = []
    for message in messages:
        decoded = message_pb2.Message.FromString(message.body)
        decoded.sequence = message.sequence
        decoded.accept_time.CopyFrom(ms_to_timestamp(message.accepted_at))
        out.append(decoded)
    return out


def parts_to_pb(parts: Iterable[Part]) -> list[turn_pb2.Part]:
    """A reply."""
    return [part_to_pb(index, part) for index, part in enumerate(parts)]


def part_to_pb(index: int, part: Part) -> turn_pb2.Part:
    """One bubble."""
    return turn_pb2.Part(
        index=index,
        text=part.text,
        state=turn_pb2.PartState.ValueType(int(part.state)),
        attempt=part.attempt,
        provider_message_id=part.provider_message_id,
    )


def effects_to_pb(effects: Iterable[bytes]) -> list[turn_pb2.Effect]:
    """Stored effects."""
    return [turn_pb2.Effect.FromString(e) for e in effects]


def refused_frame_to_pb(frame: pb.RunTurnsRequest, error: ServiceError) -> pb.RunTurnsResponse:
    """The answer to a frame that was not taken; `ask` is 0 where the frame has none."""
    body = getattr(frame, frame.WhichOneof("frame") or "", None)
    refusal = pb.Refusal(
        reason=error_reason_pb2.ErrorReason.Value(error.reason), message=error.message, metadata=error.metadata
    )
    return pb.RunTurnsResponse(
        committed=pb.Committed(
            ask=getattr(body, "ask", 0),
            # Repeated as it came, unless it is what is wrong.
            turn_id="" if error.metadata.get("field") == "turn_id" else getattr(body, "turn_id", ""),
            epoch=getattr(body, "epoch", 0),
            refusal=refusal,
        )
    )


def record_to_pb(record: fr.RecordedTurn) -> turn_pb2.TurnRecord:
    """What goes into history: parts that the lead saw or may have seen."""
    turn, who = record.turn, record.who
    said = [p for p in parts_to_pb(turn.parts) if p.state in (turn_pb2.PART_STATE_SENT, turn_pb2.PART_STATE_UNKNOWN)]
    out = turn_pb2.TurnRecord(
        turn_id=turn.turn_id,
        conversation_id=turn.conversation_id,
        scope=scope_to_pb(who.scope),
        contact=contact_to_pb(who),
        kind=turn_pb2.TurnKind.ValueType(int(turn.kind)),
        messages=messages_to_pb(turn.messages),
        parts=said,
        effects=effects_to_pb(turn.effects),
        truncated=turn.truncated,
        needs_human=turn.needs_human,
        handoff=turn.handoff,
        open_time=ms_to_timestamp(turn.opened_at),
        merged_conversation_ids=record.merged,
    )
    if turn.ended_at:
        out.end_time.CopyFrom(ms_to_timestamp(turn.ended_at))
    return out


def _assign(f: fr.Assign) -> pb.Assign:
    return pb.Assign(
        turn_id=f.turn_id,
        epoch=f.epoch,
        revision=f.revision,
        kind=turn_pb2.TurnKind.ValueType(int(f.kind)),
        conversation_id=f.who.conversation_id,
        scope=scope_to_pb(f.who.scope),
        contact=contact_to_pb(f.who),
        messages=messages_to_pb(f.messages),
        parts=parts_to_pb(f.parts),
        last=f.last,
        effects=effects_to_pb(f.effects),
        min_version=f.min_version,
        unrecorded=[record_to_pb(r) for r in f.unrecorded],
        more_unrecorded=f.more_unrecorded,
        remaining=ms_to_duration(f.remaining),
        waited=ms_to_duration(f.waited),
        kept=f.kept,
        truncated=f.truncated,
    )


def _joined(f: fr.Joined) -> pb.Joined:
    return pb.Joined(
        turn_id=f.turn_id, revision=f.revision, messages=messages_to_pb(f.messages), wait=ms_to_duration(f.wait)
    )


def _committed(f: fr.Committed) -> pb.Committed:
    return pb.Committed(
        ask=f.ask,
        turn_id=f.turn_id,
        epoch=f.epoch,
        refusal=_refusal(f) if f.refusal else None,
        superseded=_joined(f.superseded) if f.superseded else None,
        go=part_to_pb(f.go.index, f.go.part) if f.go else None,
        parked=ms_to_duration(f.parked),
        stored_parts=f.stored_parts,
        complete=f.complete,
        record=record_to_pb(f.record) if f.record else None,
    )


def _refusal(f: fr.Committed) -> pb.Refusal:
    assert f.refusal is not None
    metadata = {"turn_id": f.turn_id, "epoch": str(f.epoch)}
    if f.superseded:
        metadata["revision"] = str(f.superseded.revision)
    reason = error_reason_pb2.ErrorReason.Value(f.refusal.value)
    return pb.Refusal(reason=reason, message=REFUSALS[f.refusal], metadata=metadata)


def frame_to_pb(f: fr.Frame) -> pb.RunTurnsResponse:
    """A frame for a worker."""
    match f:
        case fr.Assign():
            return pb.RunTurnsResponse(assign=_assign(f))
        case fr.Joined():
            return pb.RunTurnsResponse(joined=_joined(f))
        case fr.Committed():
            return pb.RunTurnsResponse(committed=_committed(f))
        case fr.Revoke():
            reason = error_reason_pb2.ErrorReason.Value(f.reason.value)
            return pb.RunTurnsResponse(revoke=pb.Revoke(turn_id=f.turn_id, epoch=f.epoch, reason=reason))
        case fr.Record():
            turns = [record_to_pb(r) for r in f.turns]
            return pb.RunTurnsResponse(record=pb.Record(conversation_id=f.conversation_id, turns=turns))
        case fr.Drain():
            return pb.RunTurnsResponse(drain=pb.Drain())


def commit_of(f: pb.Commit) -> Commit:
    """A worker's request to send."""
    return Commit(
        ask=f.ask,
        turn_id=f.turn_id,
        epoch=f.epoch,
        revision=f.revision,
        parts=tuple(f.parts),
        last=f.last,
        effects=tuple(e.SerializeToString() for e in f.effects),
        handoff=any(e.WhichOneof("effect") == "handoff" for e in f.effects),
        truncated=f.truncated,
        needs_human=f.needs_human,
    )


def turn_to_pb(turn: Turn, worker_id: str = "") -> pb.Turn:
    """A turn, for people."""
    out = pb.Turn(
        turn_id=turn.turn_id,
        kind=turn_pb2.TurnKind.ValueType(int(turn.kind)),
        state=pb.Turn.STATE_ENDED if turn.end_reason else pb.Turn.STATE_OPEN,
        end_reason=pb.Turn.EndReason.ValueType(int(turn.end_reason)),
        epoch=turn.epoch,
        revision=turn.revision,
        attempts=turn.attempts,
        messages=messages_to_pb(in_order(turn.messages)),
        parts=parts_to_pb(turn.parts),
        truncated=turn.truncated,
        recorded=turn.recorded,
        open_time=ms_to_timestamp(turn.opened_at),
        worker_id=worker_id,
        effects=effects_to_pb(turn.effects),
    )
    if turn.ended_at:
        out.end_time.CopyFrom(ms_to_timestamp(turn.ended_at))
    return out


def lane_state(lane: Lane, worker_id: str) -> pb.LaneState.ValueType:
    """Where a lane stands; a pause goes before everything else."""
    if lane.pause:
        return pb.LANE_STATE_PAUSED
    if lane.turn:
        return pb.LANE_STATE_RUNNING if worker_id else pb.LANE_STATE_WAITING
    return pb.LANE_STATE_COLLECTING if lane.pending else pb.LANE_STATE_IDLE


def lane_to_pb(lane: Lane, *, pending: Iterable[InboxMessage], worker_id: str, handoff_quiet: int) -> pb.Lane:
    """A lane without its ended turns, for people."""
    out = pb.Lane(
        conversation_id=lane.conversation_id,
        scope=scope_to_pb(lane.scope),
        contact=contact_to_pb(who(lane)),
        state=lane_state(lane, worker_id),
        turn=turn_to_pb(lane.turn, worker_id) if lane.turn else None,
        pending=messages_to_pb(pending),
        unrecorded=lane.unrecorded,
        needs_human=lane.needs_human,
        activity_time=ms_to_timestamp(lane.activity_at),
        recorded_version=lane.recorded_version,
    )
    if lane.pause:
        out.pause.reason = lane.pause.reason
        out.pause.start_time.CopyFrom(ms_to_timestamp(lane.pause.since))
        out.pause.resume_time.CopyFrom(ms_to_timestamp(lane.pause.renewed_at + handoff_quiet))
    return out


def dead_letter_to_pb(letter: DeadLetter, messages: Iterable[InboxMessage]) -> pb.DeadLetter:
    """A dead letter."""
    out = pb.DeadLetter(
        dead_letter_id=letter.dead_letter_id,
        turn_id=letter.turn_id,
        conversation_id=letter.conversation_id,
        reason=letter.reason,
        messages=messages_to_pb(messages),
        create_time=ms_to_timestamp(letter.created_at),
        replay_turn_id=letter.replay_turn_id,
    )
    if letter.replayed_at:
        out.replay_time.CopyFrom(ms_to_timestamp(letter.replayed_at))
    return out


def backup_to_pb(copied: Copied, unfinished: Unfinished, workers: int) -> pb.BackupResponse:
    """A copy of the store."""
    return pb.BackupResponse(
        copy=copied.to_pb(),
        open_turns=unfinished.open_turns,
        pending_messages=unfinished.pending_messages,
        unrecorded_turns=unfinished.unrecorded_turns,
        workers=workers,
    )
