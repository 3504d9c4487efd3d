"""The curve of added wait against replies per thought, for every fixed hold and the adaptive one.

`python -m bench.hold_curve [--thoughts N] [--json FILE]`. The product's state machine on its real store, in virtual
time: one worker, a model that takes a fixed time, sends that take none. Nothing here is measured with a clock, so the
same seed prints the same numbers everywhere.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from agentic_sdr.common.v1 import message_pb2
from bench.burst_generator import Pace, Thought, thoughts
from buffer_service.cues import read_cue
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import Policy, Strategy, TurnTaking
from buffer_service.turn_taking.entities import Incoming, Scope, SendOutcome
from buffer_service.turn_taking.frames import Assign, Committed, Frame, Joined
from buffer_service.turn_taking.hold import AdaptiveHold
from buffer_service.turn_taking.sessions import Commit

FIXED = (0, 200, 400, 700, 1_000, 1_500, 2_000, 3_000, 4_000)
BETWEEN_THOUGHTS_MS = 60_000
WORKER = 1


@dataclass(frozen=True, kw_only=True)
class Point:
    """One hold on the curve. Waits in milliseconds, added to what the model needs after the last message."""

    hold: str
    model_ms: int
    thoughts: int
    replies_per_thought: float
    in_one_reply: float
    median_added_ms: float
    mean_added_ms: float
    p90_added_ms: float
    restarts: int


class VirtualBuffer:
    """TurnTaking with one worker whose model takes `model_ms`, driven by a heap of instants."""

    def __init__(self, store: SqliteStore, policy: Policy, *, model_ms: int) -> None:
        self.store = store
        self.core = TurnTaking(store=store, policy=policy, read_cue=read_cue)
        self.now = 1_000_000
        self.replies: list[tuple[str, int]] = []
        self.restarts = 0
        self._model_ms = model_ms
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._asks = itertools.count(1)
        self._runs: dict[str, object] = {}
        self._lanes: dict[str, str] = {}
        self._person: dict[str, str] = {}
        self._step(lambda: self.core.hello(self.now, WORKER, worker="w", capacity=1_000, holding=[]))

    def at(self, when: int, work: Callable[[], None]) -> None:
        """Puts something on the agenda."""
        heapq.heappush(self._agenda, (when, next(self._order), work))

    def lane_for(self, conversation: str) -> None:
        """A conversation to write in."""
        with self.store.step():
            lane = self.store.create_lane(Scope("default", "bench", ""), self.now)
        self._lanes[conversation] = lane.conversation_id
        self._person[lane.conversation_id] = conversation

    def write(self, conversation: str, message_id: str, text: str) -> None:
        """A lead's message, now."""
        body = message_pb2.Message(type=message_pb2.MESSAGE_TYPE_TEXT, text=text).SerializeToString()
        incoming = Incoming(message_id=message_id, body=body, provider_at=self.now)
        self._step(lambda: self.core.enqueue(self.now, self._lanes[conversation], incoming))

    def run(self) -> None:
        """Until nothing is left to do."""
        while True:
            due = self.core.timers.next()
            planned = self._agenda[0][0] if self._agenda else None
            if planned is None and due is None:
                return
            if planned is None or (due is not None and due < planned):
                assert due is not None
                self.now = max(self.now, due)
                self._beat()
                self._step(lambda: self.core.tick(self.now))
                continue
            when, _, work = heapq.heappop(self._agenda)
            self.now = max(self.now, when)
            self._beat()
            work()

    def _beat(self) -> None:
        self.core.heartbeat(self.now, WORKER)

    def _step(self, work: Callable[[], object]) -> None:
        with self.store.step():
            work()
            self.core.settle(self.now)
        self.core.keep_frames()
        for _, frame in self.core.take_frames():
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Assign):
            self._generate(frame.turn_id, frame.epoch, frame.revision, 0)
        elif isinstance(frame, Joined):
            self.restarts += 1
            self._generate(frame.turn_id, 1, frame.revision, frame.wait)
        elif isinstance(frame, Committed) and frame.go:
            self._sent(frame)
        elif isinstance(frame, Committed) and frame.complete and frame.turn_id in self._runs:
            del self._runs[frame.turn_id]
            turn, epoch = frame.turn_id, frame.epoch
            ask = next(self._asks)
            self.at(
                self.now,
                lambda: self._step(
                    lambda: self.core.finish(self.now, WORKER, ask=ask, turn_id=turn, epoch=epoch, version=1)
                ),
            )

    def _generate(self, turn_id: str, epoch: int, revision: int, wait: int) -> None:
        # A later generation of the turn takes its place.
        run = self._runs[turn_id] = object()

        def done() -> None:
            if self._runs.get(turn_id) is not run:
                return
            commit = Commit(
                ask=next(self._asks), turn_id=turn_id, epoch=epoch, revision=revision, parts=("ok",), last=True
            )
            self._step(lambda: self.core.commit(self.now, WORKER, commit))

        self.at(self.now + wait + self._model_ms, done)

    def _sent(self, frame: Committed) -> None:
        assert frame.go
        conversation = self._person[self.core.runs[frame.turn_id].conversation_id]
        self.replies.append((conversation, self.now))
        go, ask = frame.go, next(self._asks)

        def report() -> None:
            self._step(
                lambda: self.core.result(
                    self.now,
                    WORKER,
                    ask=ask,
                    turn_id=frame.turn_id,
                    epoch=frame.epoch,
                    part=go.index,
                    attempt=go.part.attempt,
                    outcome=SendOutcome.SENT,
                )
            )

        self.at(self.now, report)


def play(world: Sequence[Thought], policy: Policy, *, model_ms: int, name: str) -> Point:
    """All thoughts under one policy."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "bench.db")
        with store.transaction():
            point = _play(store, world, policy, model_ms=model_ms, name=name)
        store.close()
    return point


def _play(store: SqliteStore, world: Sequence[Thought], policy: Policy, *, model_ms: int, name: str) -> Point:
    buffer = VirtualBuffer(store, policy, model_ms=model_ms)
    names = sorted({str(thought.person) for thought in world})
    for one in names:
        buffer.lane_for(one)
    begins: dict[str, list[tuple[int, int]]] = {one: [] for one in names}
    next_at = dict.fromkeys(names, buffer.now)
    numbers = itertools.count()
    for thought in world:
        person = str(thought.person)
        start = next_at[person]
        for offset, text in thought.messages:
            buffer.at(start + offset, partial(buffer.write, person, f"m{next(numbers)}", text))
        last = start + thought.messages[-1][0]
        begins[person].append((start, last))
        next_at[person] = last + BETWEEN_THOUGHTS_MS
    buffer.run()
    return _point(buffer, begins, name=name, model_ms=model_ms)


def _point(buffer: VirtualBuffer, begins: dict[str, list[tuple[int, int]]], *, name: str, model_ms: int) -> Point:
    counts: list[int] = []
    added: list[int] = []
    for person, spans in begins.items():
        sent = sorted(at for conversation, at in buffer.replies if conversation == person)
        for (start, last), (end, _) in zip(spans, [*spans[1:], (1 << 62, 0)], strict=True):
            mine = [at for at in sent if start <= at < end]
            counts.append(len(mine))
            # The answer to the last message; without a hold it would leave when the model is done.
            added.append(max(0, mine[-1] - last - model_ms))
    return Point(
        hold=name,
        model_ms=model_ms,
        thoughts=len(counts),
        replies_per_thought=round(statistics.fmean(counts), 4),
        in_one_reply=round(sum(c == 1 for c in counts) / len(counts), 4),
        median_added_ms=statistics.median(added),
        mean_added_ms=round(statistics.fmean(added), 1),
        p90_added_ms=statistics.quantiles(added, n=10)[-1],
        restarts=buffer.restarts,
    )


def policies(holds: Sequence[int] = FIXED) -> Iterator[tuple[str, Policy]]:
    """Adaptive, and every fixed one."""
    yield "adaptive", Policy(strategy=Strategy.PREEMPT, hold=AdaptiveHold())
    for hold in holds:
        yield str(hold), Policy(strategy=Strategy.PREEMPT, hold=hold)


def curve(*, count: int, seed: int, model_ms: int, pace: Pace, blind: bool = False) -> list[Point]:
    """All points for one world."""
    people = max(1, count // 15)
    world = list(thoughts(seed, people=people, each=15, pace=pace, blind=blind))
    return [play(world, policy, model_ms=model_ms, name=name) for name, policy in policies()]


def beaten(points: Sequence[Point]) -> list[Point]:
    """The fixed holds that are nowhere better than adaptive: it waits no longer and replies no more often."""
    best = next(p for p in points if p.hold == "adaptive")
    return [
        p
        for p in points
        if p is not best
        and p.median_added_ms >= best.median_added_ms
        and p.replies_per_thought >= best.replies_per_thought
    ]


def table(points: Sequence[Point]) -> str:
    """For people."""
    lines = [f"{'hold':>9} {'replies':>8} {'in one':>7} {'median':>7} {'mean':>7} {'p90':>7}  (added wait, ms)"]
    for p in points:
        lines.append(
            f"{p.hold:>9} {p.replies_per_thought:8.3f} {p.in_one_reply:7.1%} {p.median_added_ms:7.0f} "
            f"{p.mean_added_ms:7.0f} {p.p90_added_ms:7.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--thoughts", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {}
    for model_ms in (300, 1_500):
        for blind in (False, True):
            points = curve(count=arguments.thoughts, seed=arguments.seed, model_ms=model_ms, pace=Pace(), blind=blind)
            title = f"model {model_ms} ms" + (", words that say nothing" if blind else "")
            print(f"\n{title}\n{table(points)}")
            found[title] = [asdict(p) for p in points]
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
