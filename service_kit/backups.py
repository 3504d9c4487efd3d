"""A copy of a live SQLite store in a folder of its own: made in small steps, checked, and durable."""

import asyncio
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import apsw

from agentic_sdr.common.v1 import backup_pb2
from service_kit import logs
from service_kit.errors import InvalidArgument, Unavailable, WrongState

T = TypeVar("T")
FOLDER = "backups"
# 256 KiB: a fraction of a millisecond, while whoever waits for the store waits.
STEP_PAGES = 64
# A copy must not be what fills the disk.
SPARE_BYTES = 256 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_log = logs.get(__name__)


class Owner(Protocol):
    """Runs work in the thread that owns the store's connection, outside of any transaction."""

    async def __call__(self, work: Callable[[apsw.Connection], T]) -> T: ...


@dataclass(frozen=True, kw_only=True)
class Copied:
    """A finished copy."""

    file_name: str
    bytes: int
    sha256: str
    schema_version: int
    duration_ms: float
    longest_step_ms: float

    def to_pb(self) -> backup_pb2.StoreCopy:
        """As it goes on the wire."""
        out = backup_pb2.StoreCopy(
            file_name=self.file_name, bytes=self.bytes, sha256=self.sha256, schema_version=self.schema_version
        )
        out.duration.FromMicroseconds(round(self.duration_ms * 1000))
        out.longest_step.FromMicroseconds(round(self.longest_step_ms * 1000))
        return out


class Backups:
    """Copies of one service's store, one at a time."""

    def __init__(self, *, data_dir: Path, file_name: str) -> None:
        self._folder = data_dir / FOLDER
        self._file_name = file_name
        self._making = False
        self._stopped = False

    def stop(self) -> None:
        """The service stops: what is being copied is given up."""
        self._stopped = True

    async def make(self, name: str, *, owner: Owner, seal: Callable[[apsw.Connection], T]) -> tuple[Copied, T]:
        """Copies the store to FOLDER/name/file_name. `seal` may look at the copy and change it before it is checked.

        Errors: InvalidArgument, WrongState, Unavailable. Whatever is raised, there is no copy then.
        """
        if not _NAME.fullmatch(name):
            raise InvalidArgument("The name has to be a plain one: letters, digits, points, _ and -.", field="name")
        target = self._folder / name / self._file_name
        if self._making:
            raise WrongState("A copy is being made.", backup=name, state="running")
        if target.exists():
            raise WrongState("There is such a copy already.", backup=name, state="exists")
        self._making = True
        partial = target.with_name(f"{self._file_name}.partial")
        try:
            return await self._make(partial, target, owner, seal)
        except (OSError, apsw.Error) as error:
            _log.error("backup_failed", error=type(error).__name__, result=getattr(error, "extendedresult", 0))
            raise Unavailable("The copy cannot be written.", component="backup") from error
        finally:
            self._making = False
            remove_store(partial)

    async def _make(
        self, partial: Path, target: Path, owner: Owner, seal: Callable[[apsw.Connection], T]
    ) -> tuple[Copied, T]:
        began = time.perf_counter()
        _create(partial)
        longest_step_s = await self._copy(partial, owner)
        found, version = await asyncio.to_thread(_seal, partial, seal)
        size, sha256 = await asyncio.to_thread(_publish, partial, target)
        copied = Copied(
            file_name=self._file_name,
            bytes=size,
            sha256=sha256,
            schema_version=version,
            duration_ms=(time.perf_counter() - began) * 1000,
            longest_step_ms=longest_step_s * 1000,
        )
        _log.info("backup_made", bytes=size, took_ms=copied.duration_ms, longest_step_ms=copied.longest_step_ms)
        return copied, found

    async def _copy(self, partial: Path, owner: Owner) -> float:
        steps = await owner(lambda db: _Steps(db, partial))
        try:
            while not await owner(lambda _: steps.next()):
                if self._stopped:
                    raise Unavailable("The service stops.", component="backup")
        finally:
            await owner(lambda _: steps.close())
        return steps.longest_s


class _Steps:
    """What is written through the same connection meanwhile goes into the copy too, so that it never starts again."""

    def __init__(self, source: apsw.Connection, partial: Path) -> None:
        size = source.execute("PRAGMA page_count").get * source.execute("PRAGMA page_size").get
        if shutil.disk_usage(partial.parent).free < size + SPARE_BYTES:
            raise Unavailable("There is no room on the disk for a copy.", component="backup")
        self.longest_s = 0.0
        self._copy = apsw.Connection(str(partial))
        # A copy that is not finished is thrown away; a finished one is made durable as a whole. The small cache keeps
        # the last step from having to write all of it.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = 128"):
            self._copy.execute(f"PRAGMA {pragma}").fetchall()
        self._backup = self._copy.backup("main", source, "main")

    def next(self) -> bool:
        """Copies some pages; True when those were the last."""
        began = time.perf_counter()
        try:
            done = bool(self._backup.step(STEP_PAGES))
            if done:
                self._backup.finish()
            return done
        finally:
            self.longest_s = max(self.longest_s, time.perf_counter() - began)

    def close(self) -> None:
        """Lets go of both stores; a second call does nothing."""
        self._backup.close(force=True)
        self._copy.close(force=True)


def _create(partial: Path) -> None:
    """The data are personal: the folder and the file are the owner's alone."""
    for folder in (partial.parent.parent, partial.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_store(partial)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _seal(partial: Path, seal: Callable[[apsw.Connection], T]) -> tuple[T, int]:
    copy = apsw.Connection(str(partial))
    try:
        # The copy is one file, without a log beside it.
        copy.execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE").fetchall()
        with copy:
            found = seal(copy)
        if copy.execute("PRAGMA quick_check(1)").get != "ok":
            raise apsw.CorruptError("the copy is damaged")
        return found, copy.execute("PRAGMA user_version").get
    finally:
        copy.close()


def _publish(partial: Path, target: Path) -> tuple[int, str]:
    with partial.open("r+b") as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    partial.rename(target)
    for folder in (target.parent, target.parent.parent, target.parent.parent.parent):
        sync_folder(folder)
    return size, sha256


def remove_store(path: Path) -> None:
    """Removes a database file and what SQLite puts beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
