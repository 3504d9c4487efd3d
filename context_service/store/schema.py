"""The database file: opened for one process alone, checked, and brought to the schema of this version."""

import os
from importlib import resources
from pathlib import Path

import apsw

from service_kit import logs
from service_kit.settings import ConfigurationError

# "SDRc", so that another program's file is not taken for ours.
APPLICATION_ID = 0x53445263
# synchronous=FULL is 2; `foreign_keys` and `secure_delete` read back as 1.
_PRAGMAS: tuple[tuple[str, str, str | int], ...] = (
    ("locking_mode", "EXCLUSIVE", "exclusive"),
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
    ("secure_delete", "ON", 1),
)
_log = logs.get(__name__)


def migrations() -> tuple[str, ...]:
    """The scripts of this version in their order; the n-th one leads to schema version n."""
    folder = resources.files("context_service.store") / "migrations"
    scripts = sorted((item for item in folder.iterdir() if item.name.endswith(".sql")), key=lambda item: item.name)
    return tuple(item.read_text(encoding="utf-8") for item in scripts)


def open_database(path: Path, scripts: tuple[str, ...]) -> apsw.Connection:
    """Open the file, creating it if needed. Raises ConfigurationError with a sentence for who starts the service."""
    _create_private(path)
    try:
        connection = apsw.Connection(str(path))
    except apsw.Error as error:
        raise ConfigurationError(f"The context database {path} cannot be opened: {error}.") from error
    try:
        _configure(connection, path)
        _migrate(connection, path, scripts)
    except BaseException as error:
        connection.close()
        raise _explained(error, path) from error
    return connection


def _create_private(path: Path) -> None:
    """Personal data: only this user may read the file, and SQLite gives its companions the same rights."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"The context database {path} cannot be written: {error.strerror or type(error).__name__}. "
            "Choose another folder with SDR_DATA_DIR or SDR_CONTEXT_STORE."
        ) from error


def _configure(connection: apsw.Connection, path: Path) -> None:
    for name, value, expected in _PRAGMAS:
        connection.execute(f"PRAGMA {name} = {value}").fetchall()
        actual = connection.execute(f"PRAGMA {name}").get
        if actual != expected:
            raise ConfigurationError(
                f"The context database {path} does not accept PRAGMA {name} = {value} (it says {actual!r}); "
                "is it on a local file system?"
            )
    # In exclusive mode the lock is taken by the first access and kept.
    connection.execute("BEGIN IMMEDIATE; COMMIT")


def _migrate(connection: apsw.Connection, path: Path, scripts: tuple[str, ...]) -> None:
    version = connection.execute("PRAGMA user_version").get
    owner = connection.execute("PRAGMA application_id").get
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if tables and owner != APPLICATION_ID:
        raise ConfigurationError(
            f"The file {path} is another program's database; name a new file in SDR_CONTEXT_STORE."
        )
    if version > len(scripts):
        raise ConfigurationError(
            f"The context database {path} has schema version {version}, newer than the {len(scripts)} that this "
            "version of the service knows. Start the newer version again, or restore a backup."
        )
    if tables and connection.execute("PRAGMA quick_check(1)").get != "ok":
        raise apsw.CorruptError
    for number, script in enumerate(scripts[version:], start=version + 1):
        with connection:
            connection.execute(script)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}")
        _log.info("schema_migrated", version=number)


def _explained(error: BaseException, path: Path) -> BaseException:
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return ConfigurationError(
                f"The context database {path} is in use by another process; stop that one first, "
                "or give this one a file of its own with SDR_CONTEXT_STORE."
            )
        case apsw.NotADBError() | apsw.CorruptError():
            return ConfigurationError(f"The file {path} is not a usable database; restore a backup or name a new file.")
        case apsw.Error():
            return ConfigurationError(f"The context database {path} cannot be used: {error}.")
        case _:
            return error
