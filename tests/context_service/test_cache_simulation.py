"""Two replicas, each with a cache, one database: whoever asks is never told what was true before the last acknowledged
turn. Every order in which requests, answers and losses can interleave is drawn from a seed; time is the test's.
"""

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import pytest

from context_service.cache import ContextCache, Snapshot, Ticket
from context_service.domain import (
    After,
    ContextQuery,
    Conversation,
    Erased,
    HistoryMessage,
    Lead,
    LeadField,
    LeadPatch,
    Recorded,
    Summary,
    TurnRecord,
    UsageToday,
)
from context_service.lookups import Contexts
from context_service.store import ContextStore, Seen
from service_kit.clock import ManualClock
from service_kit.errors import Unavailable
from tests.context_service.builders import message, part, query, record
from tests.context_service.test_cache import conversation, lead, line

T = TypeVar("T")
SEEDS = int(os.environ.get("CACHE_SEEDS", "100"))
STEPS = 150
TTL_MS = 30_000
CONVERSATIONS = ("c1", "c2", "c3")
# c1 and c2 are one person's, in two places.
LEADS = {"c1": "l1", "c2": "l1", "c3": "l3"}


class Network:
    """Everything that is under way waits here until the seed lets it go on."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.waiting: list[asyncio.Future[None]] = []

    async def travel(self) -> None:
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(arrival)
        await arrival

    def let_one_go(self) -> None:
        self.waiting = [one for one in self.waiting if not one.done()]
        if self.waiting:
            self.waiting.pop(self.chance.randrange(len(self.waiting))).set_result(None)


@dataclass
class Truth:
    """What the database holds of one conversation, at each version."""

    version: int = 0
    texts: list[str] = field(default_factory=list)
    turns: dict[str, int] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=lambda: {0: 0})


class Database:
    """The store of both replicas. An answer can get lost on its way, before or after the work was done."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.truths = {name: Truth() for name in CONVERSATIONS}
        self.names = {"l1": ["Ana"], "l3": ["Eva"]}

    async def find_lead(self, query: ContextQuery) -> Seen[Lead | None]:
        return await self._ask(lambda: Seen(version=self._version(query), value=self._lead(query.conversation_id)))

    async def find_conversation(self, query: ContextQuery) -> Seen[Conversation | None]:
        return await self._ask(
            lambda: Seen(version=self._version(query), value=self._conversation(query.conversation_id))
        )

    async def recent_messages(self, query: ContextQuery) -> Seen[tuple[HistoryMessage, ...]]:
        return await self._ask(
            lambda: Seen(version=self._version(query), value=self._lines(query.conversation_id)[-query.history_limit :])
        )

    async def usage_today(self, query: ContextQuery) -> UsageToday:
        return await self._ask(UsageToday)

    async def record_turn(self, record: TurnRecord) -> Recorded:
        return await self._ask(lambda: self._record(record), may_get_lost=True)

    async def put_summary(self, conversation_id: str, summary: Summary) -> None:
        await self._ask(lambda: None)

    async def update_lead(self, lead_id: str, tenant: str, patch: LeadPatch) -> Lead:
        def change() -> Lead:
            self.names[lead_id].append(str(next(iter(patch.values.values()))))
            return lead(lead_id, self.names[lead_id][-1])

        return await self._ask(change, may_get_lost=True)

    async def forget(self, *_: object, **__: object) -> Erased:
        return Erased(leads=0, conversations=0, messages=0)

    async def _ask(self, work: Callable[[], T], *, may_get_lost: bool = False) -> T:
        await self.network.travel()
        fate = self.network.chance.random() if may_get_lost else 1.0
        if fate < 0.1:
            raise Unavailable(component="store")
        result = work()
        await self.network.travel()
        if fate < 0.2:
            raise Unavailable(component="store")
        return result

    def _record(self, record: TurnRecord) -> Recorded:
        truth = self.truths[record.conversation_id]
        lead_id = LEADS[record.conversation_id]
        if record.turn_id in truth.turns:
            return Recorded(version=truth.turns[record.turn_id], lead_id=lead_id, duplicate=True)
        # A turn tells something about its lead, who is shown elsewhere too.
        self.names[lead_id].append(f"told in {record.turn_id}")
        before = len(truth.texts)
        truth.texts += [one.text for one in (*record.messages, *record.parts)]
        truth.version += 1
        truth.turns[record.turn_id] = truth.version
        truth.lengths[truth.version] = len(truth.texts)
        known = self._conversation(record.conversation_id)
        assert known is not None
        after = After(
            lead=lead(lead_id, self.names[lead_id][-1]),
            conversation=known,
            messages=self._lines(record.conversation_id)[before:],
            usage=UsageToday(),
        )
        return Recorded(version=truth.version, lead_id=lead_id, duplicate=False, after=after)

    def _version(self, query: ContextQuery) -> int:
        return self.truths[query.conversation_id].version

    def _lead(self, name: str) -> Lead | None:
        return lead(LEADS[name], self.names[LEADS[name]][-1]) if self.truths[name].version else None

    def _conversation(self, name: str) -> Conversation | None:
        truth = self.truths[name]
        known = replace(conversation(name, truth.version, len(truth.texts)), lead_id=LEADS[name])
        return known if truth.version else None

    def _lines(self, name: str) -> tuple[HistoryMessage, ...]:
        return tuple(line(number, text) for number, text in enumerate(self.truths[name].texts, 1))


class World:
    """Both replicas, and those who use them: the buffer's turns one after the other, and people who just look."""

    def __init__(self, seed: int, cache: Callable[[], ContextCache]) -> None:
        self.chance = random.Random(seed)
        self.network = Network(self.chance)
        self.database = Database(self.network)
        self.clock = ManualClock()
        self.replicas = [
            Contexts(store=cast(ContextStore, self.database), clock=self.clock, cache=cache()) for _ in range(2)
        ]
        self.acknowledged = dict.fromkeys(CONVERSATIONS, 0)
        self.edited: dict[str, tuple[int, int]] = {}
        self.renamed: dict[tuple[int, str], int] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.busy: set[str] = set()
        self.turns = self.hits = self.loads = 0

    async def run(self) -> None:
        for _ in range(STEPS):
            self._something_happens()
            await self._settle()
        while self.tasks:
            self.network.let_one_go()
            await self._settle()
        for replica in self.replicas:
            await replica.close()

    def _something_happens(self) -> None:
        match self.chance.randrange(20):
            case 0 | 1 | 2:
                name = self.chance.choice(CONVERSATIONS)
                if name not in self.busy:
                    self._begin(self._turn(name))
            case 3 | 4 | 5:
                self._begin(self._look(self.chance.choice(CONVERSATIONS)))
            case 6:
                self.clock.advance(self.chance.choice((1, 1_000, 20_000)))
            case 7:
                self.chance.choice((self._edit_elsewhere, lambda: self._begin(self._rename())))()
            case _:
                self.network.let_one_go()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)

    async def _settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)
        for task in [one for one in self.tasks if one.done()]:
            self.tasks.discard(task)
            task.result()

    def _number(self) -> int:
        return self.chance.randrange(len(self.replicas))

    async def _turn(self, name: str) -> None:
        self.busy.add(name)
        await self._load(name, self.acknowledged[name])
        self.turns += 1
        wanted = record(
            f"t{self.turns}",
            name,
            messages=[message(f"m{self.turns}", f"q{self.turns}")],
            parts=[part(0, f"a{self.turns}")],
        )
        while True:
            number = self._number()
            try:
                recorded = await self.replicas[number].record_turn(wanted)
                break
            except Unavailable:
                await self.network.travel()
        self.acknowledged[name] = recorded.version
        self._seen_by(number, LEADS[name], f"told in {wanted.turn_id}")
        self.busy.discard(name)

    async def _look(self, name: str) -> None:
        await self._load(name, 0)

    async def _rename(self) -> None:
        lead_id, number = self.chance.choice(("l1", "l3")), self._number()
        self.turns += 1
        patch = LeadPatch(values={LeadField.NAME: f"by us {self.turns}"}, preferences={})
        try:
            changed = await self.replicas[number].update_lead(lead_id, "", patch)
        except Unavailable:
            return
        self._seen_by(number, lead_id, changed.name)

    def _seen_by(self, number: int, lead_id: str, name: str) -> None:
        known = self.renamed.get((number, lead_id), -1)
        self.renamed[number, lead_id] = max(known, self.database.names[lead_id].index(name))

    def _edit_elsewhere(self) -> None:
        lead_id = self.chance.choice(("l1", "l3"))
        self.turns += 1
        names = self.database.names[lead_id]
        names.append(f"by others {self.turns}")
        self.edited[lead_id] = (self.clock.now_ms(), len(names) - 1)

    async def _load(self, name: str, min_version: int) -> None:
        asked_ms = self.clock.now_ms()
        edited, number = self.edited.get(LEADS[name]), self._number()
        renamed = self.renamed.get((number, LEADS[name]), -1)
        try:
            loaded = await self.replicas[number].load(query(name), min_version)
        except Unavailable:
            return
        self.loads += 1
        self.hits += loaded.cache_hit
        assert loaded.version >= min_version, "older than the last acknowledged turn"
        truth = self.database.truths[name]
        told = [one.text for one in loaded.history]
        assert told == truth.texts[: truth.lengths[loaded.version]][-40:], "history is not that of its version"
        # A lookup that is under way is as old as the database's time-out allows; the cache adds its time to live.
        seen = self.database.names[LEADS[name]].index(loaded.lead.name) if loaded.lead else 1_000_000
        if loaded.cache_hit and edited and asked_ms - edited[0] >= TTL_MS:
            assert seen >= edited[1], "an edit from elsewhere is seen after the time to live"
        assert seen >= renamed, "what this replica acknowledged of a lead is seen in all conversations at once"


def real() -> ContextCache:
    return ContextCache(max_entries=3, max_bytes=1 << 20, ttl_s=TTL_MS / 1000)


def run(seed: int, cache: Callable[[], ContextCache] = real) -> World:
    async def main() -> World:
        world = World(seed, cache)
        await world.run()
        return world

    return asyncio.run(main())


def test_two_replicas_never_serve_what_is_older_than_the_last_acknowledged_turn() -> None:
    worlds = [run(seed) for seed in range(SEEDS)]
    hits, loads = sum(one.hits for one in worlds), sum(one.loads for one in worlds)
    assert loads > 10 * SEEDS and hits > loads // 12, "a cache that is never hit proves nothing"


class NoTickets(ContextCache):
    """Keeps a lookup whatever was written meanwhile."""

    def keep(self, ticket: Ticket, query: ContextQuery, snapshot: Snapshot) -> None:
        self.give_up(ticket)
        self._put(query, snapshot, until_s=ticket.began_s + self._ttl_s, day=ticket.day)


class NoVersions(ContextCache):
    """Serves whatever it has."""

    def get(self, query: ContextQuery, *, min_version: int, now_s: float, day: str) -> Snapshot | None:
        return super().get(query, min_version=0, now_s=now_s, day=day)


class WritesThroughGaps(ContextCache):
    """Puts a turn behind an entry that lacks the turn before it."""

    def recorded(self, ticket: Ticket, conversation_id: str, after: After | None) -> None:
        known = self._entries.get(conversation_id)
        if known and after:
            lines = after.conversation.total_messages - len(after.messages)
            before = replace(
                known.snapshot,
                version=after.conversation.version - 1,
                conversation=replace(after.conversation, total_messages=lines),
            )
            self._entries[conversation_id] = replace(known, snapshot=before)
        super().recorded(ticket, conversation_id, after)


class NeverExpires(ContextCache):
    """Knows no time to live."""

    def get(self, query: ContextQuery, *, min_version: int, now_s: float, day: str) -> Snapshot | None:
        return super().get(query, min_version=min_version, now_s=0.0, day=day)


@pytest.mark.parametrize("broken", [NoTickets, NoVersions, WritesThroughGaps, NeverExpires])
def test_a_cache_without_one_of_its_rules_is_found_out(broken: type[ContextCache]) -> None:
    def made() -> ContextCache:
        return broken(max_entries=3, max_bytes=1 << 20, ttl_s=TTL_MS / 1000)

    for seed in range(1_000):
        try:
            run(seed, made)
        except AssertionError:
            return
    raise AssertionError("nobody noticed")
