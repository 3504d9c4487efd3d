"""Reads one webhook's body within its limits."""

import asyncio

from aiohttp import web

from ingress.connections import BytesBudget


class Refused(Exception):
    """The request ends here, with this status."""

    def __init__(self, status: int, reason: str, *, allow: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.allow, self.retry_after_s = status, reason, allow, retry_after_s


class BodyReading:
    """Reads one body within its own limits and the budget of all."""

    def __init__(self, request: web.BaseRequest, *, limit: int, budget: BytesBudget) -> None:
        self._request = request
        self._limit = limit
        self._budget = budget
        self._taken = 0

    async def read(self, timeout_s: float) -> bytes:
        """The whole body; raises `Refused`."""
        self._take(self._request.content_length or 0)
        await _continue_if_asked(self._request)
        body = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                async for chunk in self._request.content.iter_any():
                    body += chunk
                    if len(body) > self._limit:
                        raise Refused(413, "body_too_large")
                    self._take(max(0, len(body) - self._taken))
        except TimeoutError:
            raise Refused(408, "body_late") from None
        except (web.RequestPayloadError, OSError):
            raise Refused(400, "body_broken") from None
        return bytes(body)

    def release(self) -> None:
        """Give the bytes back to the budget."""
        self._budget.give_back(self._taken)
        self._taken = 0

    def _take(self, size: int) -> None:
        if not self._budget.take(size):
            raise Refused(503, "too_much_in_flight")
        self._taken += size


def check_head(request: web.BaseRequest, limit: int) -> None:
    """Refuse by the header alone what would be refused anyway; raises `Refused`."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refused(415, "content_encoding")
    if (request.content_length or 0) > limit:
        raise Refused(413, "body_too_large")
    if request.headers.get("Expect", "100-continue").strip().lower() != "100-continue":
        raise Refused(417, "expectation")


async def _continue_if_asked(request: web.BaseRequest) -> None:
    if "Expect" in request.headers and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Else aiohttp believes that the answer has begun.
        request.writer.output_size = 0
