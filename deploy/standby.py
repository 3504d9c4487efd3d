"""Stands in for ingress while it is away: whoever posts a webhook is told to repeat it."""

import asyncio
import threading
import time

from aiohttp import web

RETRY_AFTER_S = 5
_BIND_S = 3.0


class Standby:
    """Answers everything on an address with 503 and Retry-After, in a thread of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._live, name="standby", daemon=True)
        self._opened = threading.Event()
        self._stop = asyncio.Event()
        self.listening = False
        self.answered = 0

    def open(self) -> bool:
        """Whether it listens; if not, webhooks are refused meanwhile, which providers repeat too."""
        self._thread.start()
        self._opened.wait()
        return self.listening

    def close(self) -> None:
        """Free the address; a second call does nothing."""
        if self.listening and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._opened.is_set():
            self._thread.join()

    def _live(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._opened.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=1.0)
        await runner.setup()
        try:
            self.listening = await self._listen(runner)
            self._opened.set()
            if self.listening:
                await self._stop.wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.ServerRunner) -> bool:
        host, _, port = self._address.rpartition(":")
        deadline = time.monotonic() + _BIND_S
        while time.monotonic() < deadline:
            try:
                await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
            except (OSError, ValueError):
                await asyncio.sleep(0.05)
                continue
            return True
        return False

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.answered += 1
        answer = web.Response(
            status=503, text="Being upgraded; please repeat.\n", headers={"Retry-After": str(RETRY_AFTER_S)}
        )
        # Or the connection would be reset when ingress comes back.
        answer.force_close()
        return answer
