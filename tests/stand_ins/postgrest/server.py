"""The HTTP side: `async with PostgrestServer(database_url=…) as supabase: …` is a Supabase project's data API."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self
from weakref import WeakKeyDictionary

import psycopg
from aiohttp import web

from tests.stand_ins.postgrest.answer import ARRAY, ONE_OBJECT, Answer, Answerer, Request
from tests.stand_ins.postgrest.catalog import SCHEMA, Catalog, load_catalog
from tests.stand_ins.postgrest.errors import PostgrestError, from_postgres, not_covered
from tests.stand_ins.postgrest.faults import PAGE, Fault, Kind, Seen
from tests.stand_ins.postgrest.keys import Caller, GatewayRefusal, Keys
from tests.stand_ins.postgrest.pool import Pool
from tests.stand_ins.postgrest.query import parse_preferences, parse_query
from tests.stand_ins.postgrest.sql import EMPTY, Snippet
from tests.stand_ins.resetting import reset

_MEDIA_NOT_COVERED: Final = ("text/csv", "application/vnd.pgrst.plan", "nulls=stripped", "application/geo+json")


@dataclass(kw_only=True)
class PostgrestServer:
    """Answers under `/rest/v1` on the loopback, from the database at `database_url` (as the role `authenticator`)."""

    database_url: str
    port: int = 0
    keys: Keys = field(default_factory=Keys)
    max_rows: int | None = 1000
    """`db-max-rows`: no read yields more, and nothing says so."""
    pool_size: int = 10
    pool_patience_s: float = 10.0
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    """Every finished request, in order of its end."""
    most_at_once: int = 0
    _in_flight: int = 0

    def __post_init__(self) -> None:
        self._opened = contextlib.AsyncExitStack()
        self._stopping = asyncio.Event()
        self._connections: WeakKeyDictionary[asyncio.BaseTransport, int] = WeakKeyDictionary()
        self._connection_count = 0
        self._pool = Pool(url=self.database_url, size=self.pool_size, patience_s=self.pool_patience_s)
        self._catalog: Catalog | None = None

    @property
    def url(self) -> str:
        """What belongs into SUPABASE_URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many TCP connections have carried a request."""
        return self._connection_count

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as opened:
            opened.push_async_callback(self._pool.close)
            await self.reload_schema()
            await self._listen(opened)
            await self._open(opened)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def _open(self, opened: contextlib.AsyncExitStack) -> None:
        app = web.Application(client_max_size=2**27)
        app.router.add_route("*", "/rest/v1/rpc/{function}", self._serve)
        app.router.add_route("*", "/rest/v1/{table}", self._serve)
        app.router.add_route("*", "/{elsewhere:.*}", self._elsewhere)
        # Not cancelled with the client: PostgREST finishes, and commits, what nobody waits for any more.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=False)
        opened.push_async_callback(runner.cleanup)
        opened.callback(self._stopping.set)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.port = runner.addresses[0][1]

    async def _listen(self, opened: contextlib.AsyncExitStack) -> None:
        connection = await psycopg.AsyncConnection.connect(self.database_url, autocommit=True)
        opened.push_async_callback(connection.close)
        await connection.execute("LISTEN pgrst")
        listener = asyncio.create_task(self._reload_on_notice(connection), name="postgrest-schema-listener")
        opened.push_async_callback(_ended, listener)

    async def _reload_on_notice(self, connection: psycopg.AsyncConnection) -> None:
        with contextlib.suppress(psycopg.OperationalError):  # the database is gone before its API
            async for notice in connection.notifies():
                if notice.payload in ("", "reload schema"):
                    await self.reload_schema()

    async def reload_schema(self) -> None:
        """Read the catalog again, as `NOTIFY pgrst, 'reload schema'` does, but done when this returns."""
        async with self._pool.connection() as connection:
            self._catalog = await load_catalog(connection)

    def role_settings(self, role: str) -> Mapping[str, str]:
        """What ALTER ROLE … SET says of it."""
        return self._catalog.role_settings.get(role, {}) if self._catalog else {}

    async def plan_of(self, seen: Seen) -> str:
        """PostgreSQL's plan for what that request asked, in the request's role. It is not run."""
        caller = Caller(role=seen.role, claims={"role": seen.role})
        async with self._pool.transaction(caller, read_only=False, settings={}) as connection:
            explained = await connection.execute(b"EXPLAIN " + seen.statement.text.encode(), seen.statement.values)
            return "\n".join(line for (line,) in await explained.fetchall())

    def fail(self, kind: Kind | str, **how: object) -> None:
        """Let the next matching request suffer."""
        self.faults.append(Fault(kind=Kind(kind), **how))  # type: ignore[arg-type]

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        path = f"rpc/{http.match_info['function']}" if "function" in http.match_info else http.match_info["table"]
        seen = Seen(
            method=http.method,
            path=path,
            query=http.query_string,
            role="",
            status=0,
            connection=self._number_of(http),
            started_s=time.monotonic(),
            ended_s=0.0,
        )
        self._in_flight += 1
        self.most_at_once = max(self.most_at_once, self._in_flight)
        try:
            statements: list[Snippet] = []
            response, role = await self._respond(http, path, statements)
            status = response.status if http.transport is not None and not http.transport.is_closing() else 0
            seen = replace(seen, status=status, role=role, statement=statements[-1] if statements else EMPTY)
            return response
        finally:
            self._in_flight -= 1
            self.seen.append(replace(seen, ended_s=time.monotonic()))

    async def _respond(self, http: web.Request, path: str, statements: list[Snippet]) -> tuple[web.StreamResponse, str]:
        body = await http.read()
        fault = next((fault for fault in self.faults if fault.matches(http.method, path)), None)
        if fault is not None:
            fault.times -= 1
            await asyncio.sleep(fault.delay_s)
            if fault.kind is not Kind.DELAY and not fault.kind.startswith("commit_then"):
                return await self._misbehave(http, fault), ""
        response, role = await self._answer(http, body, statements)
        if fault is not None and fault.kind is not Kind.DELAY:
            return await self._misbehave(http, fault), role
        return response, role

    async def _answer(self, http: web.Request, body: bytes, statements: list[Snippet]) -> tuple[web.Response, str]:
        caller: Caller | None = None
        try:
            caller = self.keys.caller(http.headers)
            request = _understand(http, body)
            if self._catalog is None:
                raise RuntimeError("not started")
            answerer = Answerer(pool=self._pool, catalog=self._catalog, max_rows=self.max_rows, statements=statements)
            answer = await answerer.answer(request, caller)
        except GatewayRefusal as refusal:
            return web.json_response(refusal.body, status=401), ""
        except PostgrestError as error:
            return _error_response(error), caller.role if caller else ""
        except psycopg.Error as error:
            anonymous = caller is None or caller.role == "anon"
            return _error_response(from_postgres(error, anonymous=anonymous)), caller.role if caller else ""
        return _response(answer), caller.role

    async def _misbehave(self, http: web.Request, fault: Fault) -> web.StreamResponse:
        kind = fault.kind.removeprefix("commit_then_")
        if kind == "hang":
            await self._stopping.wait()
        if kind in ("hang", "reset"):
            return reset(http)
        if kind == "page":
            return web.Response(status=fault.status, text=PAGE, content_type="text/html")
        return _error_response(PostgrestError(status=fault.status, code="STANDIN", message="As asked for."))

    async def _elsewhere(self, http: web.Request) -> web.Response:
        return _error_response(not_covered(f"the path /{http.match_info['elsewhere']}"))

    def _number_of(self, http: web.Request) -> int:
        transport = http.transport
        if transport is None:
            return 0
        if transport not in self._connections:
            self._connection_count += 1
            self._connections[transport] = self._connection_count
        return self._connections[transport]


async def _ended(task: asyncio.Task[None]) -> None:
    """Stop it; an error that it ended with before is raised here."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _understand(http: web.Request, body: bytes) -> Request:
    if http.method not in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
        if http.method in ("PUT", "OPTIONS"):
            raise not_covered(f"the method {http.method}")
        message = f"Unsupported HTTP method: {http.method}"
        raise PostgrestError(status=405, code="PGRST117", message=message)
    profile = "Accept-Profile" if http.method in ("GET", "HEAD") else "Content-Profile"
    if (schema := http.headers.get(profile, SCHEMA)) != SCHEMA:
        raise PostgrestError(
            status=406,
            code="PGRST106",
            message=f"Invalid schema: {schema}",
            hint=f"Only the following schemas are exposed: {SCHEMA}",
        )
    if http.headers.get("Range-Unit", "items") != "items":
        raise not_covered("a Range-Unit other than items")
    return Request(
        method=http.method,
        table=http.match_info.get("table", ""),
        function=http.match_info.get("function", ""),
        query=parse_query(http.query.items()),
        preferences=parse_preferences(http.headers.getall("Prefer", [])),
        media=_media(http.headers.get("Accept", "*/*")),
        body=body,
        content_type=http.content_type if "Content-Type" in http.headers else ARRAY,
        range=http.headers.get("Range"),
    )


def _media(accept: str) -> str:
    for media in (part.strip() for part in accept.split(",")):
        if any(word in media for word in _MEDIA_NOT_COVERED):
            raise not_covered(f"answers of type {media}")
        kind = media.partition(";")[0].strip()
        if kind in (ONE_OBJECT, "application/vnd.pgrst.object"):
            return ONE_OBJECT
        if kind in (ARRAY, "*/*", "application/*", "application/vnd.pgrst.array+json", "application/vnd.pgrst.array"):
            return ARRAY
    message = f"None of these media types are available: {accept}"
    raise PostgrestError(status=406, code="PGRST107", message=message)


def _response(answer: Answer) -> web.Response:
    headers = dict(answer.headers)
    if answer.media:
        headers["Content-Type"] = f"{answer.media}; charset=utf-8"
    return web.Response(status=answer.status, body=answer.body.encode() or None, headers=headers)


def _error_response(error: PostgrestError) -> web.Response:
    headers = {"Proxy-Status": f"PostgREST; error={error.code}"}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    reason = error.message if error.code.startswith("PT") else None
    return web.json_response(error.body, status=error.status, reason=reason, headers=headers)
