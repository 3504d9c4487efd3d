"""What a backup consists of. The manifest is written last: a folder without one is no backup."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from service_kit.backups import FOLDER, sync_folder

FILE = "manifest.json"
_FORMAT = 1
_NAME = re.compile(r"(?:backups/)?([A-Za-z0-9][A-Za-z0-9._-]{0,63})/?")


class BackupError(Exception):
    """The backup cannot be made or used; the text says why, to whoever asked."""


@dataclass(frozen=True, kw_only=True)
class StoreFile:
    """One service's store."""

    file_name: str
    bytes: int
    sha256: str
    schema_version: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished backup. `quiesced`: no worker ran, and nothing came in, from the copy to the stop of the services.
    Without `context` its data are kept elsewhere, by somebody who makes the backups of them."""

    name: str
    created: str
    version: str
    quiesced: bool
    open_turns: int
    pending_messages: int
    unrecorded_turns: int
    buffer: StoreFile
    context: StoreFile | None

    @property
    def stores(self) -> tuple[StoreFile, ...]:
        """The files that belong to it."""
        return (self.buffer, self.context) if self.context else (self.buffer,)


def folder_of(data_dir: Path, given: str) -> Path:
    """The folder of a backup that somebody named as NAME or backups/NAME. Raises BackupError."""
    found = _NAME.fullmatch(given)
    if found is None:
        raise BackupError(
            f"{given!r} does not name a backup: it has to be backups/NAME, a folder in {data_dir / FOLDER}, "
            "and NAME of letters, digits, points, _ and -."
        )
    return data_dir / FOLDER / found[1]


def write(folder: Path, manifest: Manifest) -> None:
    """Make the folder a backup, durably."""
    partial = folder / f"{FILE}.partial"
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"format": _FORMAT, **asdict(manifest)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / FILE)
    sync_folder(folder)


def read(folder: Path) -> Manifest:
    """The manifest of a backup. Raises BackupError."""
    if not folder.is_dir():
        known = ", ".join(found.name for found in sorted(folder.parent.glob("*")) if (found / FILE).is_file())
        raise BackupError(f"There is no backup {folder.name} in {folder.parent}. There is: {known or 'none'}.")
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackupError(f"{folder} is no backup: it has no {FILE}, so it was never finished.") from None
    except (OSError, ValueError) as error:
        raise BackupError(f"{folder / FILE} cannot be read: {type(error).__name__}.") from None
    try:
        if values.pop("format") != _FORMAT:
            raise BackupError(f"{folder / FILE} was written by another version of this tool, in a format of its own.")
        given = {name: values.pop(name) for name in ("buffer", "context")}
        stores = {name: None if one is None else StoreFile(**one) for name, one in given.items()}
        if stores["buffer"] is None:
            raise KeyError
        return Manifest(**{**values, **stores})
    except (KeyError, TypeError, AttributeError):
        raise BackupError(f"{folder / FILE} is not a manifest of this tool.") from None


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare the files with the manifest. Raises BackupError."""
    for store in manifest.stores:
        path = folder / Path(store.file_name).name
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BackupError(f"{path} cannot be read: {error.strerror}.") from None
        if sha256 != store.sha256:
            raise BackupError(
                f"{path} is not what was backed up: its SHA-256 is {sha256}, and the manifest says {store.sha256}."
            )
