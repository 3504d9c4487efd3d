"""The one thread that owns store and state machine. Commands are done one by one; those that wait together share one
commit (group commit), and nothing is answered and no frame leaves before it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import apsw

from buffer_service.store import copies
from buffer_service.store.sqlite import SqliteStore
from buffer_service.turn_taking import Policy, TurnTaking
from buffer_service.turn_taking.frames import Frame
from buffer_service.turn_taking.hold import Cue
from buffer_service.turn_taking.ports import UnknownConversation
from service_kit import logs
from service_kit.clock import Clock
from service_kit.errors import Internal, NotFound, ServiceError, Unavailable

T = TypeVar("T")
MAX_GROUP = 256
# A disk that stalls must not fill the memory: whoever asked has long given up, and asks again.
MAX_QUEUED = 4_096
MAX_WAIT_S = 0.2
SLEPT_MS = 1_500
QUIET_MS = 5_000
SMALL_FILE = 64 << 20
SCRUB_AGAIN_MS = 600_000
_log = logs.get(__name__)


@dataclass(slots=True)
class _Command:
    work: Callable[[int], Any]
    future: asyncio.Future[Any] | None
    result: Any = None
    error: BaseException | None = None


class _Aside(_Command):
    """Done between two commits; `work` takes no notice of the time."""


class Engine:
    """Runs commands against a store. `deliver` gets the frames of a commit, in the event loop."""

    def __init__(
        self,
        *,
        open_store: Callable[[], SqliteStore],
        policy: Policy,
        read_cue: Callable[[bytes], Cue],
        clock: Clock,
        deliver: Callable[[list[tuple[int, Frame]]], None],
        housekeeping: Callable[[SqliteStore, int], None] = lambda store, now: None,
    ) -> None:
        self._open_store = open_store
        self._policy = policy
        self._read_cue = read_cue
        self._clock = clock
        self._deliver = deliver
        self._housekeeping = housekeeping
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._live, name="buffer-engine", daemon=True)
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._next_housekeeping = 0
        self._next_scrub = 0
        self._changes = 0
        self._last_change = 0
        self._last_tick = clock.now_ms()
        self._in_hand: list[_Command] = []
        self.store: SqliteStore
        self.turns: TurnTaking

    # ---- from the event loop

    async def open(self) -> None:
        """Opens the store; raises what the store raises."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def call(self, work: Callable[[int], T]) -> T:
        """Does `work(now)` as one step and returns its result once it is durable. Raises ServiceError; UNAVAILABLE when
        the engine has stopped, or cannot keep up."""
        if not self.alive or self._commands.qsize() >= MAX_QUEUED:
            raise Unavailable(component="store")
        future: asyncio.Future[T] = self._loop.create_future()
        self._commands.put(_Command(work, future))
        return await future

    async def outside(self, work: Callable[[SqliteStore], T]) -> T:
        """Does `work(store)` between two commits, outside of any transaction; everybody waits for it. Raises what it
        raises, and UNAVAILABLE when the engine has stopped."""
        if not self.alive:
            raise Unavailable(component="store")
        future: asyncio.Future[T] = self._loop.create_future()
        self._commands.put(_Aside(lambda now: work(self.store), future))
        return await future

    def post(self, work: Callable[[int], object]) -> None:
        """Like call, without an answer."""
        self._commands.put(_Command(work, None))

    @property
    def alive(self) -> bool:
        """The engine takes commands."""
        return self._thread.is_alive() and not self._failed.done()

    async def wait_failed(self) -> None:
        """Returns never, or raises what the engine died of."""
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Does what is queued, then closes the store."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)

    # ---- in the thread

    def _live(self) -> None:
        # From now on a start that is broken off cannot cancel it, so that there is something to be told.
        if not self._opened.set_running_or_notify_cancel():
            return
        try:
            self.store = self._open_store()
            self.turns = TurnTaking(store=self.store, policy=self._policy, read_cue=self._read_cue)
            self._restore()
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while self._turn_of_the_crank():
                pass
            self.store.close()
        except BaseException as error:
            # After a failed commit memory and disk may differ: the only safe way on is a new process.
            _log.critical("engine_failed", exc_info=True)
            self._loop.call_soon_threadsafe(self._fail, error)

    def _restore(self) -> None:
        with self.store.transaction(), self.store.step():
            lanes = [self.store.lane(name) for name in self.store.live_lanes()]
            backup = copies.mark_of(self.store.db)
            if backup is None:
                self.turns.restore(self._clock.now_ms(), lanes)
            else:
                handed = self.turns.hand_over(self._clock.now_ms(), lanes, reason="restored")
                copies.unmark(self.store.db)
                _log.warning("backup_restored", backup=backup, handed_to_human=handed)
            self.turns.take_frames()

    def _turn_of_the_crank(self) -> bool:
        group, going_on = self._collect()
        self._in_hand = group
        self._commit([c for c in group if not isinstance(c, _Aside)])
        self._do_asides([c for c in group if isinstance(c, _Aside)])
        return going_on

    def _collect(self) -> tuple[list[_Command], bool]:
        group: list[_Command] = []
        timeout = self._timeout_s()
        while len(group) < MAX_GROUP:
            try:
                command = self._commands.get(timeout=timeout) if not group else self._commands.get_nowait()
            except queue.Empty:
                break
            if command is None:
                return group, False
            group.append(command)
        return group, True

    def _timeout_s(self) -> float:
        due = self.turns.timers.next()
        if due is None:
            return MAX_WAIT_S
        return min(max(due - self._clock.now_ms(), 0) / 1000 + 0.0005, MAX_WAIT_S)

    def _commit(self, group: list[_Command]) -> None:
        with self.store.transaction():
            for command in group:
                self._do(command)
            with self.store.step():
                now = self._clock.now_ms()
                # Also after a slow step or disk: leases must not end because this side was late.
                (self.turns.woke if now - self._last_tick > SLEPT_MS else self.turns.tick)(now)
                self._last_tick = now
                self._housekeep(now)
            self.turns.keep_frames()
        if self.store.erased and self._last_tick >= self._next_scrub:
            self._scrub()
        frames = self.turns.take_frames()
        if group or frames:
            self._loop.call_soon_threadsafe(self._answer, group, frames)

    def _scrub(self) -> None:
        """Leaves nothing of what was erased. A disk without room for it must not stop the turns, also not after the
        next start."""
        try:
            self.store.vacuum(at_most_bytes=1 << 62 if self._quiet() else SMALL_FILE)
        except apsw.FullError:
            self._next_scrub = self._last_tick + SCRUB_AGAIN_MS
            _log.error("erased_rest_kept", cause="no room on the disk to rebuild the file")

    def _quiet(self) -> bool:
        """Nothing was written for a while. Heartbeats and probes come all the time, and write nothing."""
        changes, now = self.store.db.total_changes(), self._clock.now_ms()
        if changes != self._changes:
            self._changes, self._last_change = changes, now
        return not self.turns.runs and now - self._last_change > QUIET_MS

    def _do_asides(self, asides: list[_Command]) -> None:
        for command in asides:
            try:
                command.result = command.work(self._clock.now_ms())
            except Exception as error:
                command.error = error
        if asides:
            self._loop.call_soon_threadsafe(self._answer, asides, [])

    def _do(self, command: _Command) -> None:
        if command.future is not None and command.future.cancelled():
            return
        try:
            with self.store.step():
                now = self._clock.now_ms()
                command.result = command.work(now)
                self.turns.settle(now)
            self.turns.keep_frames()
        except UnknownConversation:
            self._undo()
            command.error = NotFound("There is no such conversation.", resource="conversation")
        except ServiceError as error:
            self._undo()
            command.error = error
        except Exception as error:
            # A bug in one command must not stop the others.
            error_id = secrets.token_hex(4)
            _log.error("step_failed", error_id=error_id, exc_info=error)
            self._undo()
            command.error = Internal(error_id=error_id)

    def _undo(self) -> None:
        """The store has rolled the step back; the core follows it."""
        conversations = self.turns.abandon()
        if conversations:
            with self.store.step():
                self.turns.resync(self._clock.now_ms(), conversations)
            self.turns.keep_frames()

    def _housekeep(self, now: int) -> None:
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + 1_000
            self._housekeeping(self.store, now)

    def _answer(self, group: list[_Command], frames: list[tuple[int, Frame]]) -> None:
        self._deliver(frames)
        for command in group:
            if command.future is None or command.future.done():
                continue
            if command.error is not None:
                command.future.set_exception(command.error)
            else:
                command.future.set_result(command.result)

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)
        for in_hand in self._in_hand:
            if in_hand.future and not in_hand.future.done():
                in_hand.future.set_exception(Unavailable(component="store"))
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if command and command.future and not command.future.done():
                command.future.set_exception(Unavailable(component="store"))
