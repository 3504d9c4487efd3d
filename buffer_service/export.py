"""What the buffer knows of a person, as one JSON document."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from buffer_service import forgetting
from buffer_service.engine import Engine
from buffer_service.store import person_rows
from buffer_service.store.person_rows import After, Person
from service_kit import json_document
from service_kit.errors import NotFound


async def document(engine: Engine, tenant: str, contact: str) -> AsyncIterator[pb.ExportContactResponse]:
    """Pieces of it, a short step of the engine for each page. Errors: NotFound."""
    person = await engine.call(lambda now: forgetting.find(engine.store, engine.turns, tenant, contact))
    if not person.conversation_ids and not (await _page(engine, "quarantine", person, None))[0]:
        raise NotFound("Nothing is stored about this contact.", resource="contact")
    ids = list(person.conversation_ids)
    sections = ((table, _rows(engine, table, person)) for table in person_rows.TABLES)
    async for chunk in json_document.chunks({"tenant": tenant}, sections):
        yield pb.ExportContactResponse(chunk=chunk, conversation_ids=ids)
        ids = []


async def _rows(engine: Engine, table: str, person: Person) -> AsyncIterator[object]:
    after: After = None
    going_on = True
    while going_on:
        found, after = await _page(engine, table, person, after)
        for row in found:
            yield row
        going_on = after is not None


async def _page(engine: Engine, table: str, person: Person, after: After) -> tuple[list[dict[str, object]], After]:
    return await engine.call(lambda now: person_rows.page(engine.store.db, table, person, after))
