"""Parallel lookups and single flight, over a store whose answers the test lets go by hand."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from context_service.cache import ContextCache
from context_service.domain import ContextQuery, Conversation, HistoryMessage, Lead, UsageToday
from context_service.lookups import Contexts
from context_service.store import ContextStore, Seen
from service_kit.clock import ManualClock
from service_kit.errors import Unavailable
from tests.context_service.builders import message, query, record, update
from tests.context_service.stores import STORES, no_cache, sqlite_store
from tests.stand_ins.postgres import PostgresCluster


class GatedStore:
    """Counts lookups and holds each of them until `gate` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.version = 0
        self.failure: Exception | None = None
        self.begun = {"lead": 0, "conversation": 0, "history": 0}
        self.cancelled = 0
        self.clock = ManualClock()

    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        return Seen(version=await self._wait("lead"), value=None)

    async def find_conversation(self, query: ContextQuery) -> Seen[Conversation | None]:
        return Seen(version=await self._wait("conversation"), value=None)

    async def recent_messages(self, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
        return Seen(version=await self._wait("history"), value=())

    async def usage_today(self, query: ContextQuery) -> UsageToday:
        return UsageToday()

    async def _wait(self, name: str) -> int:
        self.begun[name] += 1
        version = self.version
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure:
            raise self.failure
        return version


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def loader_of(store: GatedStore) -> Contexts:
    return Contexts(store=cast(ContextStore, store), clock=store.clock, cache=no_cache())


async def test_readers_of_one_conversation_share_three_lookups_at_once() -> None:
    store = GatedStore()
    loader = loader_of(store)
    readers = [asyncio.create_task(loader.load(query(), 0)) for _ in range(50)]
    other = asyncio.create_task(loader.load(query("c2"), 0))
    await settle()
    assert store.begun == {"lead": 2, "conversation": 2, "history": 2}
    store.clock.advance(7)
    store.gate.set()
    results = await asyncio.gather(*readers)
    assert all(result == results[0] for result in results)
    await other
    assert results[0].lead_s == results[0].conversation_s == results[0].history_s == pytest.approx(0.007, abs=1e-5)
    await loader.load(query(), 0)
    assert store.begun["lead"] == 3, "nothing is kept after the lookup"


async def test_a_cancelled_reader_cancels_nobody_and_the_last_one_the_lookup() -> None:
    store = GatedStore()
    loader = loader_of(store)
    first, second = (asyncio.create_task(loader.load(query(), 0)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled() and not second.done() and not store.cancelled
    second.cancel()
    await settle()
    assert store.cancelled == 3
    store.gate.set()
    assert (await loader.load(query(), 0)).version == 0


async def test_an_error_reaches_all_and_is_not_kept() -> None:
    store = GatedStore()
    store.failure = Unavailable("gone", component="store")
    loader = loader_of(store)
    readers = [asyncio.create_task(loader.load(query(), 0)) for _ in range(3)]
    await settle()
    store.gate.set()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert results == [store.failure] * 3
    store.failure = None
    assert (await loader.load(query(), 0)).version == 0


async def test_a_lookup_begun_before_a_record_is_not_shared_with_who_knows_of_it() -> None:
    store = GatedStore()
    loader = loader_of(store)
    before = asyncio.create_task(loader.load(query(), 0))
    await settle()
    store.version = 1
    after = asyncio.create_task(loader.load(query(), 1))
    joins = asyncio.create_task(loader.load(query(), 0))
    await settle()
    store.gate.set()
    assert [(await task).version for task in (before, after, joins)] == [0, 1, 1]
    assert store.begun["lead"] == 2


async def test_an_older_version_is_never_served() -> None:
    store = GatedStore()
    store.gate.set()
    with pytest.raises(Unavailable) as refused:
        await loader_of(store).load(query(), 1)
    assert refused.value.metadata == {"component": "store"}


async def test_lookups_of_different_versions_are_repeated() -> None:
    store = GatedStore()
    loader = loader_of(store)
    store.gate.set()
    versions = iter([1, 2, 2, 2, 2, 2])

    async def wait(name: str) -> int:
        store.begun[name] += 1
        return next(versions)

    store._wait = wait  # type: ignore[method-assign]
    assert (await loader.load(query(), 0)).version == 2
    assert store.begun["lead"] == 2


async def test_closing_cancels_what_is_under_way() -> None:
    store = GatedStore()
    loader = loader_of(store)
    reader = asyncio.create_task(loader.load(query(), 0))
    await settle()
    await loader.close()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert store.cancelled == 3


async def test_a_load_during_many_records_is_of_one_version(tmp_path: Path) -> None:
    clock = ManualClock()
    store = sqlite_store(tmp_path / "context.db", clock)
    await store.open()
    loader = Contexts(store=store, clock=clock, cache=no_cache())
    for number in range(30):
        writing = asyncio.create_task(store.record_turn(record(f"t{number}")))
        loaded = await loader.load(query(limit=200), number)
        await writing
        assert len(loaded.history) == 2 * loaded.version
    await store.close()


@pytest.fixture
async def cached(tmp_path: Path, postgres_cluster: PostgresCluster) -> AsyncIterator[tuple[Contexts, ContextStore]]:
    clock = ManualClock()
    async with STORES["supabase"](tmp_path, clock, lambda: postgres_cluster) as store:
        cache = ContextCache(max_entries=99, max_bytes=1 << 20, ttl_s=30)
        yield Contexts(store=store, clock=clock, cache=cache), store


async def test_nothing_of_an_erased_person_comes_from_the_cache(cached: tuple[Contexts, ContextStore]) -> None:
    """Of a person who was found by one conversation, another one was shown from the cache for half a minute more."""
    contexts, _ = cached
    await contexts.record_turn(record("t1", "c1"))
    await contexts.record_turn(record("t2", "c2", instance="two", messages=[message("b")]))
    assert (await contexts.load(query("c2"), 1)).version == 1
    assert (await contexts.load(query("c2"), 1)).cache_hit
    await contexts.forget("default", "lid:of-nobody", ("c1",), do_not_contact=False)
    left = await contexts.load(query("c2", contact="lid:9"), 0)
    assert (left.version, left.lead, left.history) == (0, None, ())


async def test_a_merge_is_shown_at_once_and_costs_no_later_turn_its_hit(cached: tuple[Contexts, ContextStore]) -> None:
    """The buffer names merged conversations with every later turn: each of them was a miss, for ever."""
    contexts, store = cached
    await contexts.record_turn(record("t1", "c1", contact="lid:1"))
    await contexts.record_turn(record("t2", "c2", messages=[message("b", "dois")]))
    for conversation_id in ("c1", "c2"):
        await contexts.load(query(conversation_id), 1)
    hits = []
    for number in range(3, 6):
        turn = record(
            f"t{number}", "c1", contact="lid:1", messages=[message(f"m{number}")], merged_conversation_ids=["c2"]
        )
        await contexts.record_turn(turn)
        loaded = await contexts.load(query(), number - 1)
        assert loaded.history == (await store.recent_messages(query())).value
        assert loaded.lead == (await store.find_lead(query())).value
        hits.append(loaded.cache_hit)
    assert hits == [False, True, True]


async def test_merges_are_not_remembered_without_end(
    cached: tuple[Contexts, ContextStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts, _ = cached
    monkeypatch.setattr("context_service.lookups.MERGES_KEPT", 1)
    await contexts.record_turn(record("t0", "other", contact="lid:9"))
    hits = []
    for number, merged in enumerate(["c2", "c2", "c3", "c2"]):
        await contexts.load(query("other", contact="lid:9"), 1)
        turn = record(f"t{number + 1}", "c1", messages=[message(f"m{number}")], merged_conversation_ids=[merged])
        await contexts.record_turn(turn)
        hits.append((await contexts.load(query("other", contact="lid:9"), 1)).cache_hit)
    assert hits == [False, True, False, False]


async def test_another_conversation_of_a_merged_lead_is_shown_with_the_one_that_is_left(
    cached: tuple[Contexts, ContextStore],
) -> None:
    """Only what showed the merged conversation itself was dropped, and only if the cache still had it."""
    contexts, store = cached
    await contexts.record_turn(record("t1", "c1"))
    await contexts.record_turn(record("t2", "c2", contact="lid:2", messages=[message("b")]))
    await contexts.record_turn(record("t3", "c3", contact="lid:2", instance="two", messages=[message("c")]))
    elsewhere = query("c3", contact="lid:2")
    gone = (await contexts.load(elsewhere, 1)).lead
    merged = record("t4", "c1", aliases=["lid:2"], messages=[message("d")], merged_conversation_ids=["c2"])
    kept = (await contexts.record_turn(merged)).lead_id
    loaded = await contexts.load(elsewhere, 1)
    assert loaded.lead == (await store.find_lead(elsewhere)).value
    assert gone and loaded.lead and (gone.lead_id != kept, loaded.lead.lead_id) == (True, kept)


async def test_somebody_who_is_known_elsewhere_by_now_is_no_stranger(cached: tuple[Contexts, ContextStore]) -> None:
    contexts, _ = cached
    assert (await contexts.load(query("c2"), 0)).lead is None
    assert (await contexts.load(query("c1"), 0)).lead is None
    await contexts.record_turn(record("t1", "c1", effects=[update(name="Ana")]))
    assert (await contexts.load(query("c1"), 1)).cache_hit, "written through, onto what knew nobody"
    known = (await contexts.load(query("c2"), 0)).lead
    assert known and known.name == "Ana"


async def test_a_record_whose_first_answer_was_lost_shows_its_lead_everywhere(
    cached: tuple[Contexts, ContextStore],
) -> None:
    """The repeat was a duplicate, and a duplicate changes nothing: but nobody had been told what the first one did."""
    contexts, store = cached
    for number, instance in enumerate(("one", "two")):
        first = record(f"t{number}", f"c{number}", instance=instance, messages=[message(f"m{number}")])
        await contexts.record_turn(first)
    assert (await contexts.load(query("c1"), 1)).lead
    told = record("t9", "c0", instance="one", messages=[message("m9")], effects=[update(name="Ana")])
    await store.record_turn(told)  # By another replica, or with an answer that never came.
    assert (await contexts.record_turn(told)).duplicate
    known = (await contexts.load(query("c1"), 1)).lead
    assert known and known.name == "Ana"
