"""Copies both stores while everything runs. The buffer goes first: whatever its copy calls recorded is then in the
context's copy, and what is in both is recorded once, because a record is known by the id of its turn. A context in
Supabase is not copied: it has backups of its own."""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from agentic_sdr.common.v1 import backup_pb2
from agentic_sdr.context.v1 import context_service_pb2
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from deploy import manifest as manifests
from deploy import settings as settings_of
from deploy import version
from deploy.manifest import BackupError, Manifest, StoreFile
from deploy.probe import CHANNEL_OPTIONS, reachable
from deploy.settings import SystemSettings
from service_kit.backups import FOLDER
from service_kit.errors import parse

T = TypeVar("T")
_TIMEOUT_S = 1800.0
ELSEWHERE = (
    "the context is in Supabase and not in this copy: its backups are the project's (Database > Backups). "
    "One of the same time or later goes with this copy"
)
# A folder without a manifest may be a backup that is being made.
_UNFINISHED_S = 6 * 3600


def main() -> int:
    """0 when there is a backup, 1 when not, 2 when it was asked for wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="", help="the folder's name; default: the time")
    parser.add_argument("--keep", default="", metavar="N", help="delete all but the N latest backups; default: none")
    given = parser.parse_args()
    settings = settings_of.leniently()
    if given.keep and (not given.keep.isascii() or not given.keep.isdigit() or int(given.keep) < 1):
        print(f"KEEP={given.keep}: how many backups to keep has to be a number above 0.", file=sys.stderr)
        return 2
    try:
        folder, steps = make(settings, given.name or name_of_now())
    except BackupError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Backup     {folder}")
    for line in steps:
        print(f"  {line}")
    if given.keep:
        for old in prune(folder.parent, keep=int(given.keep), newest=folder):
            print(f"Deleted    {old}")
    print(f"Back to it: make restore FROM={FOLDER}/{folder.name}")
    print("It is personal data, also of people who ask to be forgotten later: docs/howto/backup.md")
    return 0


def name_of_now(prefix: str = "") -> str:
    """A name that sorts by time."""
    return prefix + datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def make(settings: SystemSettings, name: str, *, quiesced: bool = False) -> tuple[Path, list[str]]:
    """The folder of the finished backup, and a line on each file. `quiesced` is what the caller has seen to; it is
    believed only if no worker is there. Raises BackupError."""
    folder = manifests.folder_of(settings.data_dir, name)
    if folder.name != name:
        raise BackupError(f"{name!r} is no plain name.")
    if folder.exists():
        raise BackupError(f"{folder} is there already: another name, please.")
    try:
        of_buffer = _ask("buffer_service", settings.buffer_address, lambda channel: _buffer(channel, name))
        of_context = _ask("context_service", settings.context_address, lambda channel: _context(channel, name))
        manifest = Manifest(
            name=name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version.remembered(settings.data_dir) or version.current(),
            quiesced=quiesced and not of_buffer.workers,
            open_turns=of_buffer.open_turns,
            pending_messages=of_buffer.pending_messages,
            unrecorded_turns=of_buffer.unrecorded_turns,
            buffer=_store(of_buffer.copy),
            context=_store(of_context.copy) if of_context else None,
        )
        _look(folder, manifest)
        manifests.write(folder, manifest)
    except BaseException:
        # Half of it is no backup, and it is personal data.
        delete(folder)
        raise
    return folder, [_line(of_buffer.copy), _line(of_context.copy) if of_context else ELSEWHERE]


def prune(backups: Path, *, keep: int, newest: Path) -> list[Path]:
    """Delete all but the latest backups, and what was never finished; the folders that are gone."""
    folders = [path for path in backups.iterdir() if path.is_dir()]
    finished = [path for path in folders if (path / manifests.FILE).is_file()]
    finished.sort(key=lambda path: (path == newest, (path / manifests.FILE).stat().st_mtime), reverse=True)
    old = time.time() - _UNFINISHED_S
    unfinished = [path for path in folders if path not in finished and path.stat().st_mtime < old]
    gone = [*finished[keep:], *unfinished]
    for path in gone:
        delete(path)
    return gone


def delete(folder: Path) -> None:
    """The manifest goes first, so that what a crash leaves is not taken for a backup."""
    (folder / manifests.FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _buffer(channel: grpc.Channel, name: str) -> buffer_service_pb2.BackupResponse:
    return BufferServiceStub(channel).Backup(buffer_service_pb2.BackupRequest(name=name), timeout=_TIMEOUT_S)


def _context(channel: grpc.Channel, name: str) -> context_service_pb2.BackupResponse | None:
    """None when somebody else keeps its data."""
    try:
        return ContextServiceStub(channel).Backup(context_service_pb2.BackupRequest(name=name), timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        if parse(error).reason == "NOT_IMPLEMENTED":
            return None
        raise


def _ask(program: str, address: str, question: Callable[[grpc.Channel], T]) -> T:
    with grpc.insecure_channel(reachable(address), options=CHANNEL_OPTIONS) as channel:
        try:
            return question(channel)
        except grpc.RpcError as error:
            raise BackupError(_sentence(program, address, error)) from None


def _sentence(program: str, address: str, error: Any) -> str:
    code, failure = error.code(), parse(error)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"The {program} that runs is an older version, which makes no backups: make restart, then again."
    if code is grpc.StatusCode.UNAVAILABLE and not failure.reason:
        return f"{program} does not answer at {address}: the running services make the backup, so make up first."
    return f"{program} made no copy: {failure.message} ({failure.reason or code.name})"


def _store(copy: backup_pb2.StoreCopy) -> StoreFile:
    return StoreFile(file_name=copy.file_name, bytes=copy.bytes, sha256=copy.sha256, schema_version=copy.schema_version)


def _look(folder: Path, manifest: Manifest) -> None:
    for store in manifest.stores:
        if not (folder / store.file_name).is_file():
            raise BackupError(
                f"{folder / store.file_name} is not there: the services keep their data elsewhere. "
                f"Give the same SDR_DATA_DIR that they were started with, and delete {FOLDER}/{manifest.name} there."
            )


def _line(copy: backup_pb2.StoreCopy) -> str:
    took_ms, longest_ms = copy.duration.ToMilliseconds(), copy.longest_step.ToMicroseconds() / 1000
    return (
        f"{copy.file_name:<11} {copy.bytes / 1e6:8.1f} MB in {took_ms / 1000:.1f} s; "
        f"the service paused for {longest_ms:.1f} ms at most"
    )


if __name__ == "__main__":
    sys.exit(main())
