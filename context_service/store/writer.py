"""One thread that owns the database connection. What waits together is written together: one COMMIT, one fsync."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import apsw

from service_kit import logs
from service_kit.errors import Unavailable

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]
_MAX_BATCH = 256
_log = logs.get(__name__)


@dataclass(frozen=True, kw_only=True)
class _Job:
    work: Work[Any]
    future: Future[Any]
    writes: bool
    alone: bool = False

    def run(self, connection: apsw.Connection) -> tuple[Any, Exception | None]:
        """The result or what went wrong; never raises, or the thread would die and leave everybody waiting."""
        try:
            return self.work(connection), None
        except Exception as error:
            return None, error

    def settle(self, result: Any, error: Exception | None) -> None:
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(_as_service_error(error))


class DatabaseThread:
    """Runs reads at once and writes in batches, each of them in a savepoint of its own.

    A read sees only what is committed. The answer to a write is given after the COMMIT.
    """

    def __init__(self, open_connection: Callable[[], apsw.Connection]) -> None:
        self._open_connection = open_connection
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._opened: Future[None] = Future()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._main, name="context-store", daemon=True)

    async def open(self) -> None:
        """Start the thread; raises what opening the connection raised."""
        self._opened.set_running_or_notify_cancel()
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def read(self, work: Work[T]) -> T:
        """Run a query."""
        return await self._submit(work, writes=False)

    async def write(self, work: Work[T]) -> T:
        """Run inside a transaction; all of `work` is kept, or nothing when it raises."""
        return await self._submit(work, writes=True)

    async def maintain(self, work: Work[T]) -> T:
        """Run outside of any transaction (VACUUM, checkpoint)."""
        return await self._submit(work, writes=True, alone=True)

    async def close(self) -> None:
        """Finish what was asked for before, then close the connection."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _submit(self, work: Work[T], *, writes: bool, alone: bool = False) -> T:
        job = _Job(work=work, future=Future(), writes=writes, alone=alone)
        with self._lock:
            if self._closed:
                raise Unavailable("The store is closed.", component="store")
            self._jobs.put(job)
        result: T = await asyncio.wrap_future(job.future)
        return result

    def _main(self) -> None:
        try:
            connection = self._open_connection()
        except Exception as error:
            self._closed = True
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        running = True
        while running:
            batch = self._waiting()
            running = None not in batch
            self._run(connection, [job for job in batch if job and job.future.set_running_or_notify_cancel()])
        _close(connection)

    def _waiting(self) -> list[_Job | None]:
        batch = [self._jobs.get()]
        while len(batch) < _MAX_BATCH and not self._jobs.empty():
            batch.append(self._jobs.get_nowait())
        return batch

    def _run(self, connection: apsw.Connection, jobs: list[_Job]) -> None:
        for job in jobs:
            if not job.writes:
                job.settle(*job.run(connection))
        _write_together(connection, [job for job in jobs if job.writes and not job.alone])
        done: dict[Work[Any], tuple[Any, Exception | None]] = {}
        for job in jobs:
            if job.alone:
                # Once for all that wait together: it stops everybody else meanwhile.
                if job.work not in done:
                    done[job.work] = job.run(connection)
                job.settle(*done[job.work])


def _write_together(connection: apsw.Connection, jobs: list[_Job]) -> None:
    if not jobs:
        return
    outcomes: list[tuple[Any, Exception | None]] = []
    failure: Exception | None = None
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            outcomes.append(_in_savepoint(connection, job))
        connection.execute("COMMIT")
    except Exception as error:
        failure = error
        with suppress(apsw.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    for index, job in enumerate(jobs):
        if failure is not None:
            job.settle(None, failure)
        else:
            job.settle(*outcomes[index])


def _in_savepoint(connection: apsw.Connection, job: _Job) -> tuple[Any, Exception | None]:
    connection.execute("SAVEPOINT job")
    result, error = job.run(connection)
    if error is not None:
        if not connection.in_transaction:
            # SQLite has rolled everything back by itself (disk full, input/output error): the whole batch failed.
            raise error
        connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")
    return result, error


def _as_service_error(error: Exception) -> Exception:
    if not isinstance(error, apsw.Error):
        return error
    _log.error("store_failed", error=type(error).__name__, result=getattr(error, "extendedresult", 0))
    unavailable = Unavailable("The store cannot do it now; try again.", component="store")
    unavailable.__cause__ = error
    return unavailable


def _close(connection: apsw.Connection) -> None:
    try:
        connection.close()
    except apsw.Error as error:
        _log.error("store_close_failed", error=type(error).__name__)
