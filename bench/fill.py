"""A buffer's file with many conversations, written by the product's own core and store, thousands in a transaction."""

from __future__ import annotations

import time
from pathlib import Path

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from buffer_service.inbox import Inbox, Limits
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import Policy, TurnTaking
from buffer_service.turn_taking.entities import SendOutcome
from buffer_service.turn_taking.frames import Assign
from buffer_service.turn_taking.sessions import Commit

SCOPE = message_pb2.Scope(channel="evolution", instance="bench")
QUESTION = "oi, queria saber quanto custa a energia solar"
REPLY = "Oi! Aqui é a Helen. Como posso te chamar?"
_DAY_MS = 86_400_000
_SID = 1
_IN_A_TRANSACTION = 5_000
_IN_A_STEP = 50


def event(number: int, message_id: str) -> pb.Event:
    """What the conversation with this number asks."""
    phone = f"55819{number:08d}"
    contact = message_pb2.Contact(
        contact=phone, aliases=[f"phone:{phone}"], address=f"{phone}@s.whatsapp.net", display_name="Cliente"
    )
    said = message_pb2.Message(
        message_id=message_id,
        author=message_pb2.AUTHOR_LEAD,
        type=message_pb2.MESSAGE_TYPE_TEXT,
        text=QUESTION,
    )
    return pb.Event(scope=SCOPE, contact=contact, message=said)


def fill(path: Path, conversations: int) -> None:
    """Each conversation has one turn, answered and recorded within the last day."""
    store = SqliteStore(path)
    try:
        filler = _Filler(store)
        now = int(time.time() * 1000) - _DAY_MS
        apart = (_DAY_MS - 60_000) // conversations
        for first in range(0, conversations, _IN_A_TRANSACTION):
            with store.transaction():
                for begin in range(first, min(first + _IN_A_TRANSACTION, conversations), _IN_A_STEP):
                    with store.step():
                        for number in range(begin, min(begin + _IN_A_STEP, conversations)):
                            filler.converse(now + number * apart, number)
    finally:
        store.close()


class _Filler:
    """One worker that answers at once."""

    def __init__(self, store: SqliteStore) -> None:
        self._turns = TurnTaking(store=store, policy=Policy(hold=0))
        self._inbox = Inbox(store=store, turns=self._turns, limits=Limits(messages=1 << 40, bytes=1 << 60, free_disk=0))

    def converse(self, now: int, number: int) -> None:
        self._turns.hello(now, _SID, worker="fill", capacity=1, holding=[])
        self._inbox.enqueue(now, [event(number, f"fill-{number}")])
        self._turns.settle(now)
        [turn] = [frame for _, frame in self._turns.take_frames() if isinstance(frame, Assign)]
        reply = Commit(ask=1, turn_id=turn.turn_id, epoch=turn.epoch, revision=turn.revision, parts=(REPLY,), last=True)
        self._turns.commit(now, _SID, reply)
        self._turns.result(
            now,
            _SID,
            ask=2,
            turn_id=turn.turn_id,
            epoch=turn.epoch,
            part=0,
            attempt=1,
            outcome=SendOutcome.SENT,
            provider_message_id=f"p-{turn.turn_id}",
        )
        self._turns.finish(now, _SID, ask=3, turn_id=turn.turn_id, epoch=turn.epoch, version=1)
        self._turns.settle(now)
        self._turns.take_frames()
        self._turns.keep_frames()
