"""The database functions without HTTP: as PostgREST calls them, on as many connections as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from context_service.domain import TurnRecord
from context_service.store import supabase_rows
from tests.context_service.keys import HASHER
from tests.stand_ins.postgres import Database

Connection = psycopg.Connection[tuple[Any, ...]]
Work = Callable[[Connection], Any]
NOW_MS = 1_700_000_000_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)


def rows(database: Database, statement: str) -> list[Any]:
    """As the owner of the tables, who sees everything."""
    with database.connect() as connection:
        return connection.execute(statement.encode()).fetchall()


@contextmanager
def service(database: Database) -> Iterator[Connection]:
    """A connection as PostgREST has one for the secret key, but with patience: no time limit hides a deadlock."""
    with database.connect("authenticator") as connection:
        connection.execute("SET ROLE service_role; SET statement_timeout = '60s'; SET lock_timeout = 0")
        yield connection


def one(connection: Connection, statement: str, *values: object) -> Any:
    row = connection.execute(statement.encode(), values).fetchone()
    return row[0] if row else None


def record_turn(connection: Connection, turn: TurnRecord) -> Any:
    hashes = HASHER.hashes(turn.scope.tenant, turn.contact.all_aliases)
    argument = supabase_rows.turn(turn, hashes=hashes, now_ms=NOW_MS)
    return one(connection, "SELECT sdr_record_turn(%s)", Jsonb(argument))


def forget(connection: Connection, alias: str, *conversations: str) -> Any:
    """As the store does it: again while the person's names change."""
    while True:
        names = one(connection, "SELECT sdr_names_of('default', %s, %s)", alias, list(conversations))
        hashes = Jsonb({name: name for name in (alias, *names)})
        statement = "SELECT sdr_forget('default', %s, %s, %s, false, %s)"
        try:
            return one(connection, statement, alias, list(conversations), hashes, NOW)
        except psycopg.Error as error:
            if error.sqlstate != "SDR08":
                raise


def update_lead(connection: Connection, lead_id: str, **values: object) -> Any:
    return one(connection, "SELECT sdr_update_lead(%s, '', %s, '{}', false, %s)", lead_id, Jsonb(values), NOW)


def put_summary(connection: Connection, conversation: str) -> Any:
    return one(connection, "SELECT sdr_put_summary(%s, 's', 1, 1, 5, 5, %s)", conversation, NOW)


def sweep(connection: Connection) -> Any:
    return one(connection, "SELECT sdr_sweep(%s, 4)", NOW + timedelta(days=1))


def at_once(database: Database, works: Sequence[Work], *, connections: int) -> list[Any]:
    """What each came to, a refusal included; they begin together, on that many connections."""
    barrier = threading.Barrier(connections)
    queue, taking = iter(list(enumerate(works))), threading.Lock()
    results: list[Any] = [None] * len(works)

    def work() -> None:
        with service(database) as connection:
            barrier.wait()
            while True:
                with taking:
                    taken = next(queue, None)
                if taken is None:
                    return
                place, step = taken
                try:
                    results[place] = step(connection)
                except psycopg.Error as error:
                    results[place] = error

    with ThreadPoolExecutor(connections) as pool:
        for future in [pool.submit(work) for _ in range(connections)]:
            future.result()
    return results
