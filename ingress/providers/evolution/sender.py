"""Sends through the Evolution API: one pooled session for text, another one for the typing indicator."""

import asyncio
from urllib.parse import quote

import aiohttp
from yarl import URL

from agentic_sdr.buffer.v1.buffer_service_pb2 import SEND_OUTCOME_REFUSED_RETRY, SEND_OUTCOME_UNKNOWN
from ingress.providers import Destination, SendResult
from ingress.providers.aliases import other_ninth_digit_form
from ingress.providers.evolution.errors import NOT_ON_WHATSAPP, read_answer
from service_kit import logs

SEND_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 2.0
TYPING_MS = 5000
_TYPING_TIMEOUT_S = 8.0
_MAX_ANSWER_BYTES = 256 * 1024
_CONNECTIONS = 256
# Node closes idle connections after 5 s. A request on a connection that is just being closed ends as UNKNOWN, so ours
# are given up first.
_KEEPALIVE_S = 4.0
_log = logs.get(__name__)


class EvolutionSender:
    """Speaks to one Evolution API. Never repeats a request that may have had an effect."""

    def __init__(self, *, api_url: str, api_key: str, timeout_s: float = SEND_TIMEOUT_S) -> None:
        self._base = api_url.rstrip("/")
        self._headers = {"apikey": api_key}
        self._timeout_s = timeout_s
        self._texts: aiohttp.ClientSession | None = None
        self._typing: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Create both sessions; connections are made when needed."""
        self._texts = self._session()
        self._typing = self._session()

    async def close(self) -> None:
        """Close both sessions."""
        for session in (self._texts, self._typing):
            if session is not None:
                await session.close()
        self._texts = self._typing = None

    async def send_text(self, to: Destination, text: str) -> SendResult:
        """Send one bubble. A Brazilian number that is "not on WhatsApp" is tried once in its other form."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        result = await self._post_text(to, to.address, text, deadline)
        other = other_ninth_digit_form(to.address) if result.detail == NOT_ON_WHATSAPP else None
        if other is not None:
            result = await self._post_text(to, other, text, deadline)
        return result

    async def show_typing(self, to: Destination) -> None:
        """Show "composing". Evolution answers only after the whole time, so nobody should wait for this."""
        body = {"number": to.address, "presence": "composing", "delay": TYPING_MS}
        url = f"{self._base}/chat/sendPresence/{quote(to.scope.instance, safe='')}"
        try:
            if self._typing is None:
                return
            timeout = aiohttp.ClientTimeout(total=_TYPING_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            async with self._typing.post(_raw(url), json=body, timeout=timeout, allow_redirects=False):
                pass
        except Exception as error:
            _log.debug("typing_not_shown", cause=type(error).__name__)

    async def _post_text(self, to: Destination, number: str, text: str, deadline: float) -> SendResult:
        if self._texts is None:
            return SendResult(outcome=SEND_OUTCOME_REFUSED_RETRY, detail="not_open")
        url = f"{self._base}/message/sendText/{quote(to.scope.instance, safe='')}"
        remaining = max(0.001, deadline - asyncio.get_running_loop().time())
        timeout = aiohttp.ClientTimeout(total=remaining, connect=min(CONNECT_TIMEOUT_S, remaining))
        body = {"number": number, "text": text}
        try:
            async with self._texts.post(_raw(url), json=body, timeout=timeout, allow_redirects=False) as answer:
                return read_answer(answer.status, await _read(answer))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return SendResult(outcome=SEND_OUTCOME_REFUSED_RETRY, detail="unreachable")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = "timed_out" if isinstance(error, TimeoutError) else "connection_lost"
            return SendResult(outcome=SEND_OUTCOME_UNKNOWN, detail=detail)

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEPALIVE_S)
        return aiohttp.ClientSession(
            connector=connector, headers=self._headers, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
        )


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            return b""
    return bytes(body)


def _raw(url: str) -> URL:
    # Already percent-encoded: an instance's name may hold a slash, which must not become one of the path.
    return URL(url, encoded=True)
