"""Exports and erasure over every store: all sections, many rows, and writes that come at the same time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from context_service import export
from context_service.errors import Forgotten
from context_service.store import ContextStore, ExportSection
from service_kit.errors import NotFound
from service_kit.json_document import MAX_CHUNK_BYTES
from tests.context_service.builders import PHONE, generation, message, record, update
from tests.context_service.test_store_contract import clock, store

__all__ = ["clock", "store"]
MANY = 450


async def document(store: ContextStore, alias: str = f"phone:{PHONE}", ids: tuple[str, ...] = ()) -> dict[str, Any]:
    chunks = [chunk async for chunk in export.document(store, alias=alias, conversation_ids=ids)]
    assert all(len(chunk) <= MAX_CHUNK_BYTES for chunk in chunks)
    found: dict[str, Any] = json.loads(b"".join(chunks))
    return found


async def somebody(store: ContextStore) -> None:
    """Something in every section."""
    told = [update(name="Ana", preferences={"teto": "cerâmico"}), generation(prompt_tokens=7)]
    await store.record_turn(record("t0", "c0", contact="lid:0", messages=[message("m0", "antes")]))
    await store.record_turn(
        record("t1", "c1", aliases=["lid:7"], effects=told, messages=[message("m1", 'com "aspas" e 😀')])
    )
    await store.record_turn(record("t2", "c1", messages=[message("m2")], merged_conversation_ids=["c0"]))
    await store.record_turn(record("t3", "c3", contact="5511", messages=[message("m3", "de outra pessoa")]))


class TestExport:
    async def test_it_has_every_section_with_what_is_theirs_and_only_that(self, store: ContextStore) -> None:
        await somebody(store)
        found = await document(store)
        assert list(found) == ["tenant", *ExportSection]
        assert all(found[section] for section in ExportSection)
        assert [one["name"] for one in found["leads"]] == ["Ana"]
        assert {one["alias"] for one in found["lead_aliases"]} == {f"phone:{PHONE}", "lid:7", "lid:0"}
        assert 'com "aspas" e 😀' in [one["content"] for one in found["messages"]]
        assert "de outra pessoa" not in json.dumps(found, ensure_ascii=False)
        assert found == await document(store, "lid:7")

    async def test_of_nobody_there_is_none(self, store: ContextStore) -> None:
        await somebody(store)
        with pytest.raises(NotFound, match="Nothing is stored about this contact"):
            await document(store, "lid:8")

    async def test_it_is_of_just_those_whom_forgetting_erases(self, store: ContextStore) -> None:
        """It went by the name alone: of somebody whose other lead only the buffer knew, that one was erased unseen."""
        await somebody(store)
        await store.record_turn(record("t4", "c4", contact="lid:4", messages=[message("m4", "com outro nome")]))
        await store.record_turn(record("t5", "c5", tenant="other", messages=[message("m5", "noutra empresa")]))
        ids = ("c0", "c4", "c5", "nobody")  # c0 is merged into c1.
        found = await document(store, "lid:nobody", ids)
        told = {one["content"] for one in found["messages"] if one["role"] == "user"}
        assert told == {"antes", 'com "aspas" e 😀', "oi", "com outro nome"}
        erased = await store.forget("default", "lid:nobody", ids)
        assert [len(found[one]) for one in ("leads", "conversations", "messages")] == [
            erased.leads,
            erased.conversations,
            erased.messages,
        ]
        with pytest.raises(NotFound):
            await document(store, "lid:nobody", ids)

    async def test_many_rows_come_once_each_and_in_order(self, store: ContextStore) -> None:
        for number in range(MANY // 50):
            lines = [message(f"m{number}-{one}", f"{number}-{one} " + "x" * 600) for one in range(50)]
            await store.record_turn(record(f"t{number}", messages=lines, parts=[]))
        told = [one["content"].split()[0] for one in (await document(store))["messages"]]
        assert told == [f"{number}-{one}" for number in range(MANY // 50) for one in range(50)]


class TestForgetting:
    async def test_nothing_can_be_exported_afterwards(self, store: ContextStore) -> None:
        await somebody(store)
        assert (await store.forget("default", "lid:7", ())).leads == 1
        for alias in (f"phone:{PHONE}", "lid:7", "lid:0"):
            with pytest.raises(NotFound):
                await document(store, alias)
        assert (await document(store, "phone:5511"))["messages"][0]["content"] == "de outra pessoa"

    async def test_two_leads_that_only_the_buffer_knows_to_be_one_person_go_together(self, store: ContextStore) -> None:
        await store.record_turn(record("t1", "c1"))
        await store.record_turn(record("t2", "c2", contact="lid:2", messages=[message("m2")]))
        await store.record_turn(record("t3", "c3", contact="lid:3", messages=[message("m3")]))
        erased = await store.forget("default", f"phone:{PHONE}", ("c1", "c2"))
        assert (erased.leads, erased.conversations, erased.messages) == (2, 2, 4)
        assert (await document(store, "lid:3"))["leads"]

    async def test_records_that_come_at_the_same_time_are_erased_or_refused(self, store: ContextStore) -> None:
        """Whichever comes first, nothing of them is there in the end."""
        await store.record_turn(record("t0", "c1"))
        late = [record(f"t{n}", "c1", messages=[message(f"m{n}")]) for n in range(1, 9)]
        answers = await asyncio.gather(
            *(store.record_turn(one) for one in late[:4]),
            store.forget("default", f"phone:{PHONE}", ("c1",)),
            *(store.record_turn(one) for one in late[4:]),
            return_exceptions=True,
        )
        failures = [one for one in answers if isinstance(one, BaseException)]
        assert all(isinstance(one, Forgotten) for one in failures), failures
        with pytest.raises(NotFound):
            await document(store)
        with pytest.raises(Forgotten):
            await store.record_turn(record("t9", "c1"))
