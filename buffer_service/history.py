"""What the buffer decided, line by line, at level debug: who got which turn, which attempts were allowed, what was
refused. Frames are noted when their transaction is durable; the chaos rig judges runs by these lines."""

from __future__ import annotations

from buffer_service.turn_taking.frames import Assign, Committed, Frame, Revoke
from service_kit import logs

_log = logs.get(__name__)


def note(sid: int, frame: Frame) -> None:
    """One line, or none."""
    match frame:
        case Assign():
            _log.debug(
                "turn_given",
                turn_id=frame.turn_id,
                epoch=frame.epoch,
                stream=sid,
                conversation_id=frame.who.conversation_id,
            )
        case Committed(refusal=reason) if reason is not None:
            _log.debug("ask_refused", turn_id=frame.turn_id, epoch=frame.epoch, stream=sid, reason=str(reason))
        case Committed(go=go) if go is not None:
            _log.debug(
                "attempt_allowed",
                turn_id=frame.turn_id,
                epoch=frame.epoch,
                stream=sid,
                part=go.index,
                attempt=go.part.attempt,
            )
        case Revoke():
            _log.debug("turn_revoked", turn_id=frame.turn_id, epoch=frame.epoch, stream=sid, reason=str(frame.reason))
