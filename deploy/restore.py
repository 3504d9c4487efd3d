"""Puts a backup in the place of the present data, which are kept aside."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import apsw

from buffer_service.settings import BufferSettings
from buffer_service.store.schema import VERSION as BUFFER_SCHEMA
from context_service.privacy import contact_hasher
from context_service.settings import ContextSettings
from context_service.store.schema import migrations as context_migrations
from deploy import manifest as manifests
from deploy import revenants, started
from deploy import settings as settings_of
from deploy.alone import Busy, alone
from deploy.backup import name_of_now
from deploy.manifest import BackupError, Manifest
from deploy.output import say
from deploy.settings import SystemSettings
from deploy.supervision import SupervisionError, Supervisor
from service_kit.backups import remove_store, sync_folder
from service_kit.settings import load

_CONTEXT_STAYED = (
    "The context is in Supabase and stayed as it is. If you go back there too, then to an instant after this copy was "
    "made: what the copy calls recorded has to be there, or those conversations are answered without their history."
)
_BESIDE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the stores are; the context's may be kept by somebody else."""

    buffer: Path
    context: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return (self.buffer, self.context) if self.context else (self.buffer,)


def main() -> int:
    """0 when the backup is in place and everything runs, 1 when not, 2 when it was asked for wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", default="", metavar="backups/NAME", help="the backup")
    parser.add_argument("--stop", default="", metavar="yes", help="yes: stop the system first if it runs")
    given = parser.parse_args()
    if not given.source:
        print("Which one? make restore FROM=backups/NAME", file=sys.stderr)
        return 2
    settings = settings_of.strictly()
    supervisor = Supervisor(settings.data_dir)
    ran = supervisor.is_running()
    # It goes on when the connection breaks from which it was started.
    signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        folder = manifests.folder_of(settings.data_dir, given.source)
        manifest = checked(folder)
        where = places()
        _check_kinds(folder, manifest, where)
        with alone(settings.data_dir, "restore"):
            _check_room(manifest, where)
            _stop(supervisor, allowed=given.stop == "yes")
            again = revenants.find(buffer=where.buffer, context=where.context, copy=folder / manifest.buffer.file_name)
            kept = put_in_place(settings, folder, manifest, where)
    except (BackupError, SupervisionError, Busy, KeyboardInterrupt) as error:
        say(str(error) or "Given up.", error=True)
        if ran and not supervisor.stays():
            say("The system was stopped for it, and its data are as before: make up", error=True)
        return 1
    revenants.carry(again, buffer=where.buffer, context=where.context)
    say(f"Restored   {folder}, made {manifest.created} by version {manifest.version}")
    if kept is not None:
        say(f"Kept aside {kept}: what was there until now. It is personal data too: delete it when it is not needed.")
    say(
        "What came in after that is not known any more, and is not answered again by itself. "
        f"Handed to a human: open turns {manifest.open_turns}, waiting messages {manifest.pending_messages}.",
    )
    if manifest.context is None:
        say(_CONTEXT_STAYED)
    code = start()
    context = load(ContextSettings)
    hasher = contact_hasher(context.privacy_key.get_secret_value(), context.data_dir)
    return revenants.forget(settings, again, hasher) or code


def places() -> Places:
    """Where the settings put the stores."""
    context = load(ContextSettings)
    return Places(buffer=load(BufferSettings).path, context=None if context.uses_supabase else context.sqlite_path())


def checked(folder: Path) -> Manifest:
    """The manifest of a backup that this version can start on. Raises BackupError."""
    manifest = manifests.read(folder)
    newest_known = (BUFFER_SCHEMA, len(context_migrations()))
    for store, newest in zip(manifest.stores, newest_known, strict=False):
        if store.schema_version > newest:
            raise BackupError(
                f"{folder / store.file_name} has schema {store.schema_version}, and this version knows {newest}: "
                f"it was made by version {manifest.version}, which can read it."
            )
    manifests.verify(folder, manifest)
    return manifest


def put_in_place(settings: SystemSettings, folder: Path, manifest: Manifest, where: Places) -> Path | None:
    """Replace the stores, which nobody may have open; the folder with what was there. Raises BackupError."""
    sources = {store.file_name: folder / store.file_name for store in manifest.stores}
    targets = dict(zip(sources, where.paths, strict=False))
    for target in targets.values():
        if in_use(target):
            raise BackupError(f"{target} is in use by a process that make up did not start: stop it first.")
    try:
        try:
            arrived = {name: _bring(source, targets[name]) for name, source in sources.items()}
            kept = _keep(settings.data_dir, targets)
        except BaseException:
            # Personal data, and on a full disk what fills it.
            for target in targets.values():
                remove_store(_incoming(target))
            raise
        for name, incoming in arrived.items():
            target = targets[name]
            for suffix in _BESIDE:
                # The log of the store that was there would spoil the one that comes.
                target.with_name(target.name + suffix).unlink(missing_ok=True)
            incoming.rename(target)
            sync_folder(target.parent)
    except OSError as error:
        raise BackupError(f"The files cannot be put in place: {error}.") from None
    return kept


def in_use(path: Path) -> bool:
    """Whether a process has this store open. Changes nothing in it."""
    if not path.exists():
        return False
    db = apsw.Connection(str(path))
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.execute("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; ROLLBACK").fetchall()
    except (apsw.BusyError, apsw.LockedError):
        return True
    except apsw.Error:
        return False  # Damaged, which is what a restore is for.
    finally:
        db.close(force=True)
    return False


def start() -> int:
    """`make up`, in a process of its own: its code may be another version than ours."""
    return subprocess.run([sys.executable, "-m", "deploy.up"], check=False, start_new_session=True).returncode


def _check_kinds(folder: Path, manifest: Manifest, where: Places) -> None:
    """Half of a backup is none. Raises BackupError."""
    if manifest.context is None and where.context is not None:
        raise BackupError(
            f"{folder} has no copy of the context, which was in Supabase when it was made; SDR_CONTEXT_STORE says that "
            "it is in a file now. With SDR_CONTEXT_STORE=supabase it can be restored."
        )
    if manifest.context is not None and where.context is None:
        raise BackupError(
            f"{folder} holds a copy of the context, and SDR_CONTEXT_STORE=supabase would not look at it. "
            "Without that setting it can be restored."
        )


def _check_room(manifest: Manifest, where: Places) -> None:
    """Before what runs is stopped for nothing. Raises BackupError."""
    needed: Counter[int] = Counter()
    for store, target in zip(manifest.stores, where.paths, strict=False):
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            needed[device := target.parent.stat().st_dev] += store.bytes
            free = shutil.disk_usage(target.parent).free
        except OSError as error:
            raise BackupError(f"{target} cannot be put in place: {error}.") from None
        if free < needed[device]:
            raise BackupError(
                f"There is no room for the copy beside {target}: {needed[device] / 1e6:.1f} MB are needed, and "
                f"{free / 1e6:.1f} MB are free."
            )


def _stop(supervisor: Supervisor, *, allowed: bool) -> None:
    if not supervisor.is_running() and not supervisor.left_over():
        return
    if not allowed:
        raise BackupError(
            "The system runs. Its data are replaced only when it does not: make down first, "
            "or let this stop it: make restore FROM=… STOP=yes"
        )
    if changed := started.differences(supervisor.data_dir, with_code=False):
        raise BackupError(
            f"What runs was started with other settings than these: {', '.join(changed)}. Give them as they were, on "
            "this line or in .env; or make down first."
        )
    say("Finishing what is under way, and stopping ...")
    supervisor.stop()


def _bring(source: Path, target: Path) -> Path:
    """A durable copy beside its place: from here on there is only renaming."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    incoming = _incoming(target)
    remove_store(incoming)
    with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        with source.open("rb") as copy:
            shutil.copyfileobj(copy, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())
    return incoming


def _incoming(target: Path) -> Path:
    return target.with_name(f"{target.name}.incoming")


def _keep(data_dir: Path, targets: dict[str, Path]) -> Path | None:
    """The present stores under a second name, so that at no instant there is none in its place."""
    if not any(target.exists() for target in targets.values()):
        return None
    kept = data_dir / name_of_now("replaced-")
    kept.mkdir(mode=0o700)
    for name, target in targets.items():
        for suffix in ("", *_BESIDE):
            present = target.with_name(target.name + suffix)
            if present.exists():
                _link(present, kept / (name + suffix))
    sync_folder(kept)
    sync_folder(data_dir)
    return kept


def _link(present: Path, second: Path) -> None:
    try:
        os.link(present, second)
    except OSError:  # Another file system, or one without links.
        shutil.copy2(present, second)


if __name__ == "__main__":
    sys.exit(main())
