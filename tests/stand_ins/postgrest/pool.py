"""Connections to PostgreSQL as `authenticator`, and a request's transaction on one of them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg import AsyncConnection, OperationalError

from tests.stand_ins.postgrest.errors import PostgrestError
from tests.stand_ins.postgrest.keys import Caller

Connection = AsyncConnection[tuple[Any, ...]]


@dataclass(kw_only=True)
class Pool:
    """At most `size` connections; whoever waits longer than `patience_s` gets a 504."""

    url: str
    size: int = 10
    patience_s: float = 10.0
    _idle: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.size)

    async def close(self) -> None:
        """Close what is idle; what is in use closes when it comes back to a closed pool's semaphore."""
        while self._idle:
            await self._idle.pop().close()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, alone, in autocommit mode."""
        try:
            async with asyncio.timeout(self.patience_s):
                await self._free.acquire()
        except TimeoutError:
            message = "Timed out acquiring connection from connection pool."
            raise PostgrestError(status=504, code="PGRST003", message=message) from None
        connection: Connection | None = None
        try:
            connection = self._idle.pop() if self._idle else await _connect(self.url)
            yield connection
        finally:
            if connection is not None and not connection.broken:
                self._idle.append(connection)
            self._free.release()

    @contextlib.asynccontextmanager
    async def transaction(
        self, caller: Caller, *, read_only: bool, settings: Mapping[str, str]
    ) -> AsyncIterator[Connection]:
        """A transaction in the caller's role, with the settings PostgREST gives to policies and functions."""
        async with self.connection() as connection:
            begin: LiteralString = "BEGIN ISOLATION LEVEL READ COMMITTED READ "
            await connection.execute(begin + ("ONLY" if read_only else "WRITE"))
            try:
                await _become(connection, caller, settings)
                yield connection
                await connection.execute("COMMIT")
            except BaseException:
                if not connection.broken:
                    await connection.execute("ROLLBACK")
                raise


async def _connect(url: str) -> Connection:
    try:
        return await AsyncConnection.connect(url, autocommit=True)
    except OperationalError as error:
        message = "Database connection error. Retrying the connection."
        raise PostgrestError(status=503, code="PGRST000", message=message, details=str(error)) from None


async def _become(connection: Connection, caller: Caller, settings: Mapping[str, str]) -> None:
    every = {
        "search_path": '"public", "extensions"',
        "role": caller.role,
        "request.jwt.claims": json.dumps(caller.claims),
        **settings,
    }
    call: LiteralString = "set_config(%s, %s, true)"
    values = [part for pair in every.items() for part in pair]
    await connection.execute("SELECT " + ", ".join([call] * len(every)), values)
