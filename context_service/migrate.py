"""`make migrate`: brings the database of a Supabase project to the schema of this version.

    SUPABASE_DB_URL=postgresql://… python -m context_service.migrate
    python -m context_service.migrate --print [--from N]     # the same as SQL, for the project's SQL editor

Each migration is one transaction; nothing is done twice, and two that run at once wait for each other. What is dropped
of an existing database is told.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from context_service.migrations import BOOTSTRAP, Migration, migrations
from context_service.settings import SupabaseSettings
from service_kit.settings import ConfigurationError, load

if TYPE_CHECKING:
    import psycopg

_LOCK = 7_241_533
_RELOAD = "NOTIFY pgrst, 'reload schema'"
# A project ends every statement after two minutes, which is too short for hundreds of thousands of messages.
_NO_TIME_LIMIT = "SET LOCAL statement_timeout = 0"
# Whoever waits for a table lets nobody else at it: rather again later.
_LOCK_LIMIT = "SET LOCAL lock_timeout = '10s'"


class MigrationError(Exception):
    """The database cannot be brought to this version; the text says why, and what was done until then."""


def main() -> int:
    """0 when the schema is that of this version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", dest="only_print", help="write the SQL instead of running it")
    parser.add_argument("--from", type=int, default=0, dest="after", metavar="N", help="with --print: N are applied")
    parser.add_argument("--status", action="store_true", help="say what would be done")
    given = parser.parse_args()
    if given.only_print:
        print(script(after=given.after))
        return 0
    try:
        url = load(SupabaseSettings).supabase_db_url.get_secret_value()
        if not url:
            raise ConfigurationError(
                "SUPABASE_DB_URL is not set. It is under Project Settings > Database > Connection string (URI); "
                "or run the SQL of `make migrate ARGS=--print` in the project's SQL editor."
            )
        with _connect(url) as connection:
            done = pending(connection) if given.status else migrate(connection)
    except (ConfigurationError, MigrationError) as error:
        print(error, file=sys.stderr)
        return 1
    verb = "to be applied" if given.status else "applied"
    print("\n".join(f"{one.name} {verb}" for one in done) or "Nothing to do.")
    print(f"Schema version {len(migrations()) - (len(done) if given.status else 0)}.")
    return 0


def migrate(connection: "psycopg.Connection") -> tuple[Migration, ...]:
    """Apply what is missing, and say what that was. Raises MigrationError; what was applied before stays."""
    done: list[Migration] = []
    while (one := _apply_next(connection)) is not None:
        done.append(one)
    # Also when there was nothing to do: the last time may have ended before it said so.
    connection.execute(_RELOAD)
    return tuple(done)


def _apply_next(connection: "psycopg.Connection") -> Migration | None:
    import psycopg

    # The lock is the transaction's, not the session's: behind a pooler there is no session.
    with connection.transaction():
        connection.execute(_NO_TIME_LIMIT)
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(BOOTSTRAP)
        todo = pending(connection)
        if not todo:
            return None
        connection.execute(_LOCK_LIMIT)
        try:
            connection.execute(todo[0].sql.encode())
        except psycopg.Error as error:
            raise MigrationError(f"{todo[0].name} failed, and nothing of it was kept: {error}") from error
        connection.execute(
            "INSERT INTO public.sdr_migrations (version, name, digest) VALUES (%s, %s, %s)",
            (todo[0].version, todo[0].name, todo[0].digest),
        )
        return todo[0]


def pending(connection: "psycopg.Connection") -> tuple[Migration, ...]:
    """What is missing. Raises MigrationError when the database is newer, or was migrated with other files."""
    known = migrations()
    applied: list[tuple[int, str, str]] = []
    if connection.execute("SELECT to_regclass('public.sdr_migrations') IS NOT NULL").fetchone() == (True,):
        listed = connection.execute("SELECT version, name, digest FROM public.sdr_migrations ORDER BY version")
        applied = listed.fetchall()
    if len(applied) > len(known):
        raise MigrationError(
            f"The database has schema version {len(applied)}, newer than the {len(known)} of this version."
        )
    for (version, name, digest), one in zip(applied, known, strict=False):
        if (version, digest) != (one.version, one.digest):
            raise MigrationError(f"Migration {version} ({name}) was applied from another file than {one.name}.sql.")
    return known[len(applied) :]


def script(*, after: int = 0) -> str:
    """The migrations after that version as one script."""
    lines = ["BEGIN;", f"{_NO_TIME_LIMIT};", f"{_LOCK_LIMIT};", BOOTSTRAP.strip()]
    for one in migrations()[after:]:
        lines += [
            f"-- {one.name}",
            one.sql.strip(),
            f"INSERT INTO public.sdr_migrations (version, name, digest) VALUES "
            f"({one.version}, '{one.name}', '{one.digest}');",
        ]
    return "\n\n".join([*lines, f"{_RELOAD};", "COMMIT;"])


def _connect(url: str) -> "psycopg.Connection":
    try:
        import psycopg
    except ImportError:
        raise ConfigurationError("psycopg is not installed: pip install 'agentic-sdr[migrate]'") from None
    try:
        # Of a URL with a password, psycopg's errors tell the host and the user at most.
        connection = psycopg.connect(url, autocommit=True, connect_timeout=10, prepare_threshold=None)
    except psycopg.Error as error:
        raise ConfigurationError(f"The database cannot be reached: {error}") from None
    connection.add_notice_handler(_tell)
    return connection


def _tell(notice: "psycopg.errors.Diagnostic") -> None:
    """What a migration says of itself; PostgreSQL's own remarks begin with another severity or are of no interest."""
    text = notice.message_primary or ""
    if text.startswith(("dropped: ", "taken back: ", "look at it: ")):
        print(text)


if __name__ == "__main__":
    sys.exit(main())
