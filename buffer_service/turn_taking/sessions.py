"""Volatile state: which worker is connected, which turn it has, and what is timed. Gone with the process."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Session:
    """One stream of one worker process."""

    sid: int
    worker: str
    capacity: int
    beat: int
    # A dict for its order: what is done for several turns at once is done in the order in which they were given.
    held: dict[str, None] = field(default_factory=dict)
    connected: bool = True


@dataclass(slots=True)
class Parked:
    """An answer that is held back on purpose. With a `commit` it is judged again when it is let go."""

    sid: int
    ask: int
    since: int
    until: int
    commit: Commit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A worker's request to send; `parts` are all parts so far, `revision` is what their text was generated from."""

    ask: int
    turn_id: str
    epoch: int
    revision: int
    parts: tuple[str, ...]
    last: bool
    effects: tuple[bytes, ...] = ()
    handoff: bool = False
    truncated: bool = False
    needs_human: bool = False


@dataclass(slots=True)
class Run:
    """What is known about a turn in flight besides what is stored. `given`: its epoch was handed out."""

    conversation_id: str
    given: bool = False
    holder: Session | None = None
    sign: int | None = None
    window: int | None = None
    not_before: int = 0
    restarts: int = 0
    parked: Parked | None = None


@dataclass(slots=True)
class LaneClock:
    """Timers of a lane that outlive its turns. `record_upto` is the end number of the last turn that was handed out."""

    composing: int | None = None
    record_after: int = 0
    record_tries: int = 0
    record_upto: int = 0


class Timers:
    """Earliest due instant per key; setting a key again replaces it. Of one instant the first that was set is first."""

    def __init__(self) -> None:
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._numbers = itertools.count()

    def set(self, key: str, at: int | None) -> None:
        """Sets or, with None, clears."""
        if at is None:
            self._due.pop(key, None)
        elif self._due.get(key) != at:
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._numbers), key))

    def pop_due(self, now: int) -> Iterator[str]:
        """Keys that are due, each once."""
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == at:
                del self._due[key]
                yield key

    def next(self) -> int | None:
        """The earliest instant."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
