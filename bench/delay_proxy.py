"""A TCP proxy that makes every round trip longer, without making anything wait for anything else."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class DelayProxy:
    """Forwards to `host:port`; each byte arrives `delay_s` later, half of a round trip, in both directions."""

    def __init__(self, target: str, *, delay_s: float) -> None:
        self._host, _, port = target.rpartition(":")
        self._target_port = int(port)
        self._delay_s = delay_s
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        far_reader, far_writer = await asyncio.open_connection(self._host, self._target_port)
        try:
            # Cancelled at the end only, by ourselves; asyncio's streams would complain of it.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        arrivals: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivering = asyncio.create_task(self._deliver(arrivals, writer), name="delay-proxy")
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                arrivals.put_nowait((loop.time() + self._delay_s, data))
        arrivals.put_nowait((loop.time() + self._delay_s, b""))
        await delivering

    async def _deliver(self, arrivals: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, RuntimeError):
            while True:
                at, data = await arrivals.get()
                await asyncio.sleep(max(0.0, at - loop.time()))
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
