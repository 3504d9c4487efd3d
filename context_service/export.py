"""A person's data as one JSON document, a piece at a time."""

import json
from collections.abc import AsyncIterator

from context_service.domain import DEFAULT_TENANT
from context_service.store import ContextStore, ExportSection
from service_kit.errors import NotFound

MAX_CHUNK_BYTES = 64 * 1024


async def document(store: ContextStore, *, tenant: str = DEFAULT_TENANT, alias: str) -> AsyncIterator[bytes]:
    """Chunks of at most 64 KiB. What changes meanwhile may be in it or not. Errors: NotFound."""
    lead_ids = await store.find_people(tenant, alias)
    if not lead_ids:
        raise NotFound("Nothing is stored about this contact.", resource="contact")
    waiting = bytearray()
    async for piece in _pieces(store, tenant, lead_ids):
        waiting += piece
        while len(waiting) >= MAX_CHUNK_BYTES:
            yield bytes(waiting[:MAX_CHUNK_BYTES])
            del waiting[:MAX_CHUNK_BYTES]
    yield bytes(waiting)


async def _pieces(store: ContextStore, tenant: str, lead_ids: tuple[str, ...]) -> AsyncIterator[bytes]:
    yield b'{"tenant":' + _json(tenant)
    for section in ExportSection:
        yield f',"{section}":['.encode()
        after: int | None = 0
        separator = b""
        while after is not None:
            page = await store.export_rows(section, lead_ids, after)
            for row in page.rows:
                yield separator + _json(row)
                separator = b","
            after = page.next_after
        yield b"]"
    yield b"}\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
