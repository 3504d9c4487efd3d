"""The buffer without a network: inbox, state machine and store, one transaction per command as the engine does it, and
what it acknowledged. `found` compares a file with that."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from buffer_service.inbox import Inbox, Limits
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import Policy, Strategy, TurnTaking
from buffer_service.turn_taking.entities import PartState, SendOutcome
from buffer_service.turn_taking.frames import Assign, Committed
from buffer_service.turn_taking.sessions import Commit

LIMITS = Limits(messages=10_000, bytes=1 << 30, free_disk=0)
PEOPLE = 4


def event(message_id: str, person: int) -> pb.Event:
    """A text of an invented person."""
    phone = f"55819800000{person:02d}"
    return pb.Event(
        scope=message_pb2.Scope(channel="test", instance="one"),
        contact=message_pb2.Contact(contact=phone, aliases=[f"phone:{phone}"], address=phone),
        message=message_pb2.Message(
            message_id=message_id,
            author=message_pb2.AUTHOR_LEAD,
            type=message_pb2.MESSAGE_TYPE_TEXT,
            text=f"mensagem {message_id} " + "x" * 300,
        ),
    )


@dataclass
class Acknowledged:
    """What somebody was told, and may rely on."""

    messages: set[str] = field(default_factory=set)
    attempts: set[tuple[str, int, int]] = field(default_factory=set)
    sent: set[tuple[str, int]] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.messages) + len(self.attempts) + len(self.sent) + len(self.ended)


class Shop:
    """One buffer and one worker."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        self.turns = TurnTaking(store=self.store, policy=Policy(strategy=Strategy.ENQUEUE, quiet=0))
        self.inbox = Inbox(store=self.store, turns=self.turns, limits=LIMITS)
        self.acknowledged = Acknowledged()
        self.now = 1_700_000_000_000
        self.assigned: list[Assign] = []
        self._asks = itertools.count(1)
        self._do(lambda: self.turns.restore(self.now, [self.store.lane(n) for n in self.store.live_lanes()]))
        self._do(lambda: self.turns.hello(self.now, 1, worker="w", capacity=100, holding=[]))

    def _do(self, work: Callable[[], object]) -> list[Committed]:
        self.now += 10
        self.turns.heartbeat(self.now, 1)
        with self.store.transaction():
            with self.store.step():
                work()
                self.turns.settle(self.now)
            self.turns.keep_frames()
        frames = [frame for _, frame in self.turns.take_frames()]
        self.assigned += [f for f in frames if isinstance(f, Assign)]
        answers = [f for f in frames if isinstance(f, Committed)]
        for answer in answers:
            if answer.go:
                self.acknowledged.attempts.add((answer.turn_id, answer.go.index, answer.go.part.attempt))
        return answers

    def ingest(self, *message_ids: str, person: int = 0) -> None:
        """One webhook."""
        self._do(lambda: self.inbox.enqueue(self.now, [event(m, person) for m in message_ids]))
        self.acknowledged.messages.update(message_ids)

    def send(self, assign: Assign, *texts: str) -> None:
        """A whole reply: commit, results, finish."""
        commit = Commit(
            ask=next(self._asks), turn_id=assign.turn_id, epoch=assign.epoch, revision=assign.revision,
            parts=texts, last=True,
        )  # fmt: skip
        answers = self._do(lambda: self.turns.commit(self.now, 1, commit))
        while answers and (go := answers[-1].go):
            index, attempt = go.index, go.part.attempt
            answers = self._do(
                lambda index=index, attempt=attempt: self.turns.result(  # type: ignore[misc]
                    self.now, 1, ask=next(self._asks), turn_id=assign.turn_id, epoch=assign.epoch,
                    part=index, attempt=attempt, outcome=SendOutcome.SENT, provider_message_id=f"p{attempt}",
                )
            )  # fmt: skip
            self.acknowledged.sent.add((assign.turn_id, index))
        self._do(
            lambda: self.turns.finish(
                self.now, 1, ask=next(self._asks), turn_id=assign.turn_id, epoch=assign.epoch, version=1
            )
        )
        self.acknowledged.ended.add(assign.turn_id)

    def work(self, dice: random.Random, steps: int) -> None:
        """People write, replies leave."""
        numbers = itertools.count()
        for _ in range(steps):
            if self.assigned and dice.random() < 0.5:
                self.send(self.assigned.pop(0), *[f"resposta {n} " + "y" * 200 for n in range(dice.randint(1, 3))])
            else:
                ids = [f"m{next(numbers)}" for _ in range(dice.randint(1, 3))]
                self.ingest(*ids, person=dice.randrange(PEOPLE))


def found(path: Path, told: Acknowledged) -> list[str]:
    """What a file lacks of what was acknowledged, after a start as the service does it. Also repeats every webhook."""
    shop = Shop(path)
    store = shop.store
    problems = [f"integrity: {row[0]}" for row in store.query("PRAGMA integrity_check") if row[0] != "ok"]
    rows = [row[0] for row in store.query("SELECT message_id FROM message")]
    problems += [f"message {m} is lost" for m in sorted(told.messages - set(rows))]
    parts = {(r[0], r[1]): (r[2], r[3]) for r in store.query("SELECT turn_id, position, state, attempt FROM part")}
    for turn_id, index, attempt in sorted(told.attempts):
        state, stored = parts.get((turn_id, index), (0, 0))
        if stored < attempt or state == PartState.STORED:
            problems.append(f"a send of part {index} was allowed, and the file doesn't know")
    for turn_id, index in sorted(told.sent):
        if parts.get((turn_id, index), (0, 0))[0] != PartState.SENT:
            problems.append(f"part {index} was reported as sent, and the file doesn't know")
    ended = {row[0] for row in store.query("SELECT turn_id FROM turn WHERE ended_no > 0")}
    problems += [f"turn {t} ended, and the file doesn't know" for t in sorted(told.ended - ended)]
    for message_id in sorted(told.messages):
        shop.ingest(message_id, person=0)
    twice = len(store.query("SELECT message_id FROM message")) - len(set(rows) | told.messages)
    problems += [f"{twice} messages are there twice"] if twice else []
    store.close()
    return problems


def healthy(path: Path) -> bool:
    """Whether SQLite finds nothing wrong, without the service."""
    db = apsw.Connection(str(path))
    try:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        db.close()
