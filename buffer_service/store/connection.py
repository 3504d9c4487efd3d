"""One SQLite connection as the promises want it: EXCLUSIVE, WAL, FULL, a schema that is checked and lifted at start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from buffer_service.store.schema import MIGRATIONS, VERSION
from service_kit.settings import ConfigurationError

PRAGMAS: tuple[tuple[str, str | int, str | int], ...] = (
    # Name, what is set, what must be read back.
    ("locking_mode", "EXCLUSIVE", "exclusive"),
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
    ("trusted_schema", "OFF", 0),
    ("secure_delete", "ON", 1),
    ("cell_size_check", "ON", 1),
    ("journal_size_limit", 64 << 20, 64 << 20),
)


class Connection:
    """Owns the file. Every method must run in the thread that owns the store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = self._open(path)
        try:
            self._migrate()
        except (apsw.NotADBError, apsw.CorruptError):
            # Damage that the check trips over instead of reporting it.
            raise ConfigurationError(f"{path} is damaged; restore a backup") from None

    # ---- opening and closing

    @staticmethod
    def _open(path: Path) -> apsw.Connection:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # the data is personal; SQLite gives its log the same mode
            db = apsw.Connection(str(path))
            for name, value, _ in PRAGMAS:
                db.execute(f"PRAGMA {name} = {value}").fetchall()
            db.execute("BEGIN IMMEDIATE; COMMIT")
        except apsw.BusyError:
            raise ConfigurationError(f"{path} is in use by another buffer; one file belongs to one buffer") from None
        except (apsw.CantOpenError, apsw.ReadOnlyError, OSError) as error:
            raise ConfigurationError(f"{path} cannot be written: {error}; check SDR_DATA_DIR") from None
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise ConfigurationError(f"{path} is not a healthy buffer database: {error}") from None
        for name, _, expected in PRAGMAS:
            found = db.execute(f"PRAGMA {name}").fetchall()[0][0]
            if found != expected:
                raise ConfigurationError(
                    f"SQLite refused {name}: {found} instead of {expected}; is {path} on a local disk?"
                )
        return db

    def _migrate(self) -> None:
        found = self.one("PRAGMA user_version")[0]
        if found > VERSION:
            raise ConfigurationError(
                f"{self.path} was written by a newer version (schema {found}, this one knows {VERSION}); upgrade first"
            )
        if found and self.db.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
            raise ConfigurationError(f"{self.path} is damaged; restore a backup")
        for version in range(found + 1, VERSION + 1):
            with self.transaction():
                self.db.execute(MIGRATIONS[version])
                self.db.execute(f"PRAGMA user_version = {version}")

    def close(self) -> None:
        """Writes the WAL back and closes the file."""
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.db.close()

    # ---- transactions

    def begin(self) -> None:
        """Opens the transaction of a group of steps."""
        self.db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Makes the group durable. Whatever this raises, nothing of the group may be answered."""
        self.db.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction around one block."""
        self.begin()
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.commit()

    def query(self, sql: str, args: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows."""
        return self.db.execute(sql, args).fetchall()

    def one(self, sql: str, args: tuple[object, ...] = ()) -> tuple[Any, ...]:
        """The only row of a query."""
        row: tuple[Any, ...] = self.db.execute(sql, args).fetchall()[0]
        return row
