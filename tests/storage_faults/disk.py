"""A disk that can lose power, fill up, fail to sync, or stop the world at any operation: an apsw VFS over the real one.

What was written but not synced is kept apart. `power_loss` makes the image that a machine could find after a cut: all
that was synced, and of the rest a random part, torn at sectors. `freeze_at` keeps the image that kill -9 leaves: the
page cache lives on, the process does nothing more.
"""

from __future__ import annotations

import random
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512


@dataclass
class Kept:
    """One file: its content when it was synced last, and the operations since. `synced` is None before the first."""

    synced: bytes | None
    since: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None): truncated


class Frozen(Exception):
    """The process is dead from here on."""


class FaultyFile(apsw.VFSFile):
    """Tells its disk about every change before it is made."""

    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "")
        super().__init__(disk.base, name, flags)
        disk.opened(self._path)

    def xWrite(self, data: Any, offset: int) -> None:
        self._disk.change(self._path, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.change(self._path, size, None)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        self._disk.sync(self._path)
        super().xSync(flags)


class FaultyDisk(apsw.VFS):
    """The default VFS of the process while `mounted`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Kept] = {}
        self.writes = self.syncs = 0
        self.freeze_at: tuple[str, int] | None = None
        self.full_from = 0
        self.sync_fails_from = 0
        self.image: Path | None = None
        self._name = f"faulty-{uuid.uuid4().hex}"
        self.base = apsw.vfs_names()[0]
        super().__init__(self._name, self.base, makedefault=True)

    # ---- as SQLite sees it

    def xOpen(self, name: Any, flags: list[int]) -> FaultyFile:
        return FaultyFile(self, name, flags)

    def xDelete(self, name: str, sync_dir: bool) -> None:
        self.files.pop(name, None)
        super().xDelete(name, sync_dir)

    def opened(self, path: str) -> None:
        """A file that is there already is safe; a new one is not before its first sync."""
        if path and path not in self.files:
            there = Path(path)
            self.files[path] = Kept(there.read_bytes() if there.exists() and there.stat().st_size else None)

    def change(self, path: str, offset: int, data: bytes | None) -> None:
        """A write or a truncation is about to happen. Temporary files have no name, and nobody looks for them later."""
        if not path:
            return
        self.writes += 1
        self._maybe_freeze("write", self.writes)
        if self.full_from and self.writes >= self.full_from and data is not None:
            raise apsw.FullError("no space left on device")
        self.files[path].since.append((offset, data))

    def sync(self, path: str) -> None:
        """A sync is about to happen."""
        if not path:
            return
        self.syncs += 1
        self._maybe_freeze("sync", self.syncs)
        if self.sync_fails_from and self.syncs >= self.sync_fails_from:
            raise apsw.IOError("input/output error")
        self.files[path] = Kept(Path(path).read_bytes())

    def _maybe_freeze(self, kind: str, number: int) -> None:
        if self.freeze_at and (self.image or (kind, number) == self.freeze_at):
            if self.image is None:
                self.image = self.folder.with_name(f"{self.folder.name}-{kind}-{number}")
                shutil.copytree(self.folder, self.image)
            raise Frozen

    # ---- afterwards

    def power_loss(self, dice: random.Random, image: Path) -> None:
        """Writes what a machine could find."""
        image.mkdir(parents=True)
        for path, kept in self.files.items():
            content = bytearray(kept.synced or b"")
            survived = [self._torn(dice, one) for one in kept.since if dice.random() < 0.5]
            for offset, data in survived:
                if data is None:
                    del content[offset:]
                else:
                    content.extend(bytes(max(0, offset + len(data) - len(content))))
                    content[offset : offset + len(data)] = data
            if kept.synced is not None or survived:
                (image / Path(path).name).write_bytes(content)

    @staticmethod
    def _torn(dice: random.Random, change: tuple[int, bytes | None]) -> tuple[int, bytes | None]:
        offset, data = change
        if data is None or dice.random() < 0.6:
            return change
        return offset, data[: SECTOR * dice.randint(0, len(data) // SECTOR)]


@contextmanager
def mounted(folder: Path) -> Iterator[FaultyDisk]:
    """Every database that is opened meanwhile lies on the faulty disk."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = FaultyDisk(folder)
    try:
        yield disk
    finally:
        # What a dead process still holds is closed by the garbage collector, on a disk that works again.
        disk.freeze_at, disk.full_from, disk.sync_fails_from = None, 0, 0
        disk.unregister()
