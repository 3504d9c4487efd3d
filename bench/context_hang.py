"""While one load hangs, how long do others take? `python -m bench.context_hang [--quick] [--hanging N] [--json FILE]`.

The real context service over its SQLite file, behind gRPC, in this process. Rounds with hanging loads and rounds
without take turns, so that both see the same machine; only the two beside each other mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agentic_sdr.common.v1 import message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as pb
from agentic_sdr.context.v1 import context_service_pb2_grpc
from bench.results import percentile
from context_service.cache import ContextCache
from context_service.domain import ContextQuery, Conversation, HistoryMessage, Lead, UsageToday
from context_service.lookups import Contexts
from context_service.privacy import ContactHasher
from context_service.service import ContextServicer
from context_service.store import ContextStore, Seen
from context_service.store.sqlite import SqliteStore
from service_kit import logs
from service_kit.backups import Backups
from service_kit.clock import SystemClock
from service_kit.testing import in_process_servicer

if TYPE_CHECKING:
    from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceAsyncStub

STUCK = "stuck-"
LOOKUPS = 4
CALLERS = 8
TIMEOUT_S = 60.0


class OneHangs:
    """A store in which lookups of conversations with this prefix hang until `gate` is set."""

    def __init__(self, store: ContextStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self.gate = asyncio.Event()
        self.hanging = 0
        self.begun = asyncio.Semaphore(0)
        """Released for each lookup that begins to hang; there are LOOKUPS in a load."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        await self._wait(query)
        return await self._store.find_lead(query)

    async def find_conversation(self, query: ContextQuery) -> Seen[Conversation | None]:
        await self._wait(query)
        return await self._store.find_conversation(query)

    async def recent_messages(self, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
        await self._wait(query)
        return await self._store.recent_messages(query)

    async def usage_today(self, query: ContextQuery) -> UsageToday:
        await self._wait(query)
        return await self._store.usage_today(query)

    async def _wait(self, query: ContextQuery) -> None:
        if not query.conversation_id.startswith(self._prefix):
            return
        self.hanging += 1
        self.begun.release()
        try:
            await self.gate.wait()
        finally:
            self.hanging -= 1


def _request(name: str) -> pb.LoadContextRequest:
    return pb.LoadContextRequest(
        conversation_id=name,
        scope=message_pb2.Scope(channel="console", instance="bench"),
        contact=message_pb2.Contact(contact="5581999990001"),
    )


@asynccontextmanager
async def _served(folder: Path) -> AsyncIterator[tuple[ContextServiceAsyncStub, OneHangs]]:
    clock = SystemClock()
    sqlite = SqliteStore(path=folder / "context.db", clock=clock, hasher=ContactHasher(b"no secret: nothing is kept"))
    await sqlite.open()
    store = OneHangs(sqlite, STUCK)
    contexts = Contexts(
        store=cast(ContextStore, store), clock=clock, cache=ContextCache(max_entries=0, max_bytes=0, ttl_s=0)
    )
    servicer = ContextServicer(
        store=cast(ContextStore, store),
        contexts=contexts,
        backups=Backups(data_dir=folder, file_name="context.db"),
    )
    async with in_process_servicer(
        lambda server: context_service_pb2_grpc.add_ContextServiceServicer_to_server(servicer, server)
    ) as channel:
        yield context_service_pb2_grpc.ContextServiceStub(channel), store
    await contexts.close()
    await sqlite.close()


async def _loads(stub: ContextServiceAsyncStub, count: int) -> list[float]:
    """Milliseconds of that many loads by CALLERS at once, each of another conversation."""
    took: list[float] = []

    async def call(caller: int) -> None:
        for number in range(count // CALLERS):
            began = time.perf_counter()
            await stub.LoadContext(_request(f"c{caller}-{number}"), timeout=TIMEOUT_S)
            took.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(call(caller) for caller in range(CALLERS)))
    return took


async def measure(*, rounds: int, loads: int, hanging: int) -> dict[str, Any]:
    """Both kinds of rounds, in turns."""
    free: list[float] = []
    beside: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hang-") as folder:
        async with _served(Path(folder)) as (stub, store):
            await _loads(stub, loads)
            for _ in range(rounds):
                free += await _loads(stub, loads)
                stuck = [stub.LoadContext(_request(f"{STUCK}{n}"), timeout=TIMEOUT_S) for n in range(hanging)]
                for _ in range(hanging * LOOKUPS):
                    await store.begun.acquire()
                beside += await _loads(stub, loads)
                assert store.hanging == hanging * LOOKUPS, "a load that should hang came back"
                store.gate.set()
                await asyncio.gather(*stuck)
                store.gate.clear()
    return {
        "hanging": hanging,
        "loads": len(free),
        "without_ms": {f"p{p}": round(percentile(free, p), 2) for p in (50, 99)},
        "beside_ms": {f"p{p}": round(percentile(beside, p), 2) for p in (50, 99)},
        "p99_ratio": round(percentile(beside, 99) / percentile(free, 99), 2),
    }


def main() -> int:
    """Prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="coarse, a few seconds")
    parser.add_argument("--hanging", type=int, default=1, help="how many loads hang")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logs.configure(service="context_hang", level="WARNING")
    rounds, loads = (4, 400) if arguments.quick else (20, 1_000)
    found = asyncio.run(measure(rounds=rounds, loads=loads, hanging=arguments.hanging))
    print(f"{found['loads']} loads each, {CALLERS} at once")
    print(f"{'':<28}{'p50 ms':>8}{'p99 ms':>8}")
    for title, key in (("nothing hangs", "without_ms"), (f"{found['hanging']} hanging", "beside_ms")):
        print(f"{title:<28}{found[key]['p50']:>8.2f}{found[key]['p99']:>8.2f}")
    print(f"p99 with over without: {found['p99_ratio']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
