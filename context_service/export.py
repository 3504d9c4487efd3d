"""A person's data as one JSON document, a piece at a time."""

from collections.abc import AsyncIterator

from context_service.domain import DEFAULT_TENANT
from context_service.store import ContextStore, ExportSection
from service_kit import json_document
from service_kit.errors import NotFound


async def document(
    store: ContextStore, *, tenant: str = DEFAULT_TENANT, alias: str, conversation_ids: tuple[str, ...] = ()
) -> AsyncIterator[bytes]:
    """Chunks of at most 64 KiB. What changes meanwhile may be in it or not. Errors: NotFound."""
    lead_ids = await store.find_people(tenant, alias, conversation_ids)
    if not lead_ids:
        raise NotFound("Nothing is stored about this contact.", resource="contact")
    sections = ((section, _rows(store, section, lead_ids)) for section in ExportSection)
    async for chunk in json_document.chunks({"tenant": tenant}, sections):
        yield chunk


async def _rows(store: ContextStore, section: ExportSection, lead_ids: tuple[str, ...]) -> AsyncIterator[object]:
    after: int | None = 0
    while after is not None:
        page = await store.export_rows(section, lead_ids, after)
        for row in page.rows:
            yield row
        after = page.next_after
