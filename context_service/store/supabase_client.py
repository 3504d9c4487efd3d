"""One `supabase` client for the life of the process, tamed: pooled, bounded, and without the events of a login.

- A login would replace the client's key for everybody; nothing here logs in, refreshes or persists a session.
- The built-in retry sleeps up to 30 s, the built-in time-out is 120 s, HTTP/2 connections die when a gateway says
  GOAWAY: no retry, our own time-out, HTTP/1.1 with a bounded pool.
- A redirect would carry the key elsewhere: none is followed.
- The pool loses a place for ever when a request is cancelled at the wrong moment, or gives up waiting for a place
  (httpcore 1.0.9, encode/httpcore#1093): no request is cancelled, and none waits in the pool.
"""

import asyncio
import base64
import json
from typing import Any

import httpx
from postgrest.exceptions import APIError
from supabase import AsyncClient, AsyncClientOptions

from service_kit import logs
from service_kit.errors import Unavailable
from service_kit.settings import ConfigurationError

_SECRET_ROLES = ("service_role",)
_NO_FUNCTION = "PGRST202"
_KEEPALIVE_S = 55.0
_log = logs.get(__name__)


class DatabaseRefusal(Exception):
    """One of our functions refused; `code` is its SQLSTATE, SDR01 and up."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class NoSuchFunction(Unavailable):
    """The database has no such function: it was not migrated, or its API has not noticed yet."""


class _KeyRefused(Exception):
    """The gateway, or the API behind it, said 401."""


async def _look_at(response: httpx.Response) -> None:
    # The client's errors don't tell the status, and it takes a proxy's page for the answer if the status is 200.
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise _KeyRefused
    answered = response.is_success and response.status_code != httpx.codes.NO_CONTENT
    if answered and "json" not in response.headers.get("Content-Type", ""):
        raise httpx.DecodingError("The answer is no JSON.", request=response.request)


def check_address(url: str, key: str) -> None:
    """Refuse what is no project's address, and a key that is not the secret one. Raises ConfigurationError."""
    if not url or not key:
        missing = " and ".join(
            name for name, value in (("SUPABASE_URL", url), ("SUPABASE_SECRET_KEY", key)) if not value
        )
        raise ConfigurationError(f"SDR_CONTEXT_STORE=supabase needs {missing}.")
    parsed = _address(url)
    local = parsed.host in ("127.0.0.1", "localhost", "::1")
    if parsed.scheme != "https" and not (parsed.scheme == "http" and local):
        raise ConfigurationError("SUPABASE_URL has to begin with https://: the key would travel in the clear.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("SUPABASE_SECRET_KEY holds a space, a line break or a letter that no key has.")
    if key.startswith("sb_publishable_") or (role := _role(key)) in ("anon", "authenticated"):
        raise ConfigurationError(
            "SUPABASE_SECRET_KEY is the publishable (anonymous) key, which may not read or write anything here; "
            "take the secret key (sb_secret_…) or the service_role token."
        )
    if not key.startswith("sb_secret_") and role not in _SECRET_ROLES:
        raise ConfigurationError("SUPABASE_SECRET_KEY is neither a secret key (sb_secret_…) nor a service_role token.")


def _address(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        parsed = httpx.URL()
    wrong = parsed.is_absolute_url and (not 0 < (parsed.port or 1) < 1 << 16 or parsed.path.rstrip("/").endswith("/v1"))
    if any(map(str.isspace, url)) or (parsed.scheme and not parsed.host) or wrong or parsed == httpx.URL():
        raise ConfigurationError("SUPABASE_URL has to be the project's address alone: https://….supabase.co.")
    return parsed


def _role(key: str) -> str:
    """What a legacy key says it is for; empty when it is none."""
    parts = key.split(".")
    if len(parts) != 3:
        return ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return ""
    return str(claims.get("role", "")) if isinstance(claims, dict) else ""


class SupabaseClient:
    """Calls functions and reads tables; every failure that is no refusal of ours is Unavailable."""

    def __init__(self, *, url: str, key: str, timeout_s: float, connections: int) -> None:
        check_address(url, key)
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s),
            # As many as there are places; see above.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEEPALIVE_S),
            http2=False,
            follow_redirects=False,
            trust_env=False,
            event_hooks={"response": [_look_at]},
        )
        options = AsyncClientOptions(
            auto_refresh_token=False, persist_session=False, postgrest_client_retry=False, httpx_client=self._http
        )
        self._client = AsyncClient(url, key, options)
        self._places = asyncio.Semaphore(connections)
        self._sending: set[asyncio.Task[Any]] = set()

    async def call(self, function: str, **arguments: Any) -> Any:
        """Call a function of ours; what it returned, as JSON. Errors: DatabaseRefusal, Unavailable."""
        return await self._execute(self._client.rpc(function, arguments), function)

    def table(self, name: str) -> Any:
        """A request on a table, to be given to `read`."""
        return self._client.table(name)

    async def read(self, request: Any, what: str) -> list[dict[str, Any]]:
        """The rows. Errors: Unavailable."""
        rows: list[dict[str, Any]] = await self._execute(request, what)
        return rows

    async def close(self) -> None:
        """Close the connections; requests that are under way fail."""
        await self._http.aclose()
        for task in tuple(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _execute(self, request: Any, what: str) -> Any:
        try:
            # httpx's time-outs are for each step of a request; this one is for all of it.
            async with asyncio.timeout(self._timeout_s):
                await self._places.acquire()
                answer = await asyncio.shield(self._begin(request))
        except APIError as error:
            code = error.code or ""
            if code.startswith("SDR"):
                raise DatabaseRefusal(code) from None
            # The database's own words may quote a row.
            _log.error("database_refused", what=what, code=code)
            if code == _NO_FUNCTION:
                raise NoSuchFunction(component="store") from None
            raise Unavailable("The database refused; try again.", component="store") from None
        except _KeyRefused:
            _log.error("database_key_refused", what=what)
            raise Unavailable("The database refuses the secret key; try again.", component="store") from None
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            _log.warning("database_unreachable", what=what, error=type(error).__name__)
            raise Unavailable("The database does not answer; try again.", component="store") from None
        return answer.data

    def _begin(self, request: Any) -> asyncio.Task[Any]:
        """The request on its way, with a place that it gives back. Whoever leaves it does not end it: the time-outs of
        its steps do, about when the caller's would have."""
        task = asyncio.create_task(self._send(request), name="supabase-request")
        self._sending.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _send(self, request: Any) -> Any:
        if self._http.is_closed:
            raise Unavailable("The store is closed.", component="store")
        try:
            # Only for an answer that trickles.
            async with asyncio.timeout(3 * self._timeout_s):
                return await request.execute()
        except asyncio.CancelledError:
            # By `close`: for the caller that is no cancellation.
            raise httpx.ReadError("The client was closed.") from None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._sending.discard(task)
        self._places.release()
        if not task.cancelled():
            # The caller may have gone; asyncio would complain that nobody looked at the error.
            task.exception()
