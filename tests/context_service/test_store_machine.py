"""Random turns, merges, changes, erasures and sweeps against a model that fits on a page."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, FlakyFailure
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from context_service.domain import LeadField, LeadPatch, Recorded, Summary, TurnRecord, UsageToday
from context_service.errors import Forgotten
from context_service.store import ContextStore, LeadFilter, PageAfter
from context_service.store.sqlite import SqliteStore
from service_kit.clock import ManualClock
from service_kit.errors import NotFound, WrongState
from tests.context_service.broken_stores import FOUND_IN_SECONDS
from tests.context_service.builders import generation, message, part, query, record, update
from tests.context_service.stores import HOMES, Cluster, Home, sqlite_home

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))
PEOPLE = ("551", "552", "lid:3")
PLACES = ("demo", "two")
DAY_MS = 86_400_000
everybody = st.sampled_from(PEOPLE)
place_names = st.sampled_from(PLACES)


def alias_of(who: str) -> str:
    return f"phone:{who}" if who.isdigit() else who


@dataclass
class Person:
    """A lead: each fact with the time of its last change, since the latest value wins when two are one."""

    lead_id: str
    number: int
    phone_number: str
    facts: dict[str, tuple[int, str]] = field(default_factory=dict)
    do_not_contact: bool = False
    names: set[str] = field(default_factory=set)

    def fact(self, name: str) -> str:
        return self.facts.get(name, (0, ""))[1]

    def set(self, name: str, value: str, now: int) -> None:
        if value != self.fact(name):
            self.facts[name] = (now, value)


@dataclass
class Talk:
    """A conversation."""

    person: Person
    place: str
    texts: list[str] = field(default_factory=list)
    version: int = 0
    tokens: int = 0
    summary: tuple[str, int] = ("", 0)
    open: bool = True


class StoreMachine(RuleBasedStateMachine):
    home: ClassVar[Home]
    cluster: ClassVar[Cluster]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.stack = AsyncExitStack()
        self.open = self.run(
            self.stack.enter_async_context(self.home(Path(self.folder.name), self.clock, self.cluster))
        )
        self.store: ContextStore = self.run(self.open())
        self._people: list[Person] = []
        self.talks: dict[str, Talk] = {}
        self.gone_into: dict[str, str] = {}
        self.forgotten: set[str] = set()
        self.marked: set[str] = set()
        self.answered: dict[str, tuple[TurnRecord, Recorded]] = {}
        self.tenant_tokens = 0
        self.count = 0

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.run(self.stack.aclose())
        self.runner.close()
        self.folder.cleanup()

    @property
    def people(self) -> list[Person]:
        """Everybody who is known, whoever was recorded first first; a swept one who must not be contacted too."""
        return sorted(self._people, key=lambda person: person.number)

    def known_as(self, alias: str) -> Person | None:
        return next((person for person in self.people if alias in person.names), None)

    # ---- turns

    @rule(
        who=everybody,
        place=place_names,
        again=st.booleans(),
        name=st.sampled_from(["", "Ana", "Eva"]),
        colour=st.sampled_from(["", "azul", "verde"]),
        stop=st.sampled_from([False, False, False, True]),
        tokens=st.integers(0, 3),
        merges=st.sampled_from([None, None, *PEOPLE]),
        which=st.sampled_from([(0,), (1,), (0, 1)]),
    )
    def record(
        self,
        who: str,
        place: str,
        again: bool,
        name: str,
        colour: str,
        stop: bool,
        tokens: int,
        merges: str | None,
        which: tuple[int, ...],
    ) -> None:
        """Somebody writes; in some of the turns it turns out that `merges`, in the same place, is the same person."""
        younger = [f"c-{merges}-{place}-{n}" for n in which] if merges and merges != who else []
        self.count += 1
        conversation_id, now = f"c-{who}-{place}-{int(again)}", self.now()
        effects = [update(**({"name": name} if name else {}), preferences={"cor": colour} if colour else {})]
        effects += [update(do_not_contact=True)] if stop else []
        wanted = self.turn(conversation_id, who, place, younger, effects, tokens)
        if conversation_id in self.forgotten:
            with pytest.raises(Forgotten):
                self.run(self.store.record_turn(wanted))
            return
        answer: Recorded = self.run(self.store.record_turn(wanted))
        where, talk = self.expect_turn(conversation_id, who, place, answer)
        for one in younger:
            self.expect_merge(one, where, talk, now)
        self.learn(talk.person, who)
        talk.texts += [f"q{self.count}", f"a{self.count}"]
        talk.version += 1
        talk.tokens += tokens
        self.tenant_tokens += tokens
        for fact, value in (("name", name), ("cor", colour)):
            if value:
                talk.person.set(fact, value, now)
        talk.person.do_not_contact |= stop
        assert (answer.version, answer.lead_id, answer.duplicate) == (talk.version, talk.person.lead_id, False)
        self.answered[wanted.turn_id] = (wanted, answer)
        self.is_what_lookups_find(answer, where, who)

    def turn(
        self, conversation_id: str, who: str, place: str, younger: list[str], effects: Any, tokens: int
    ) -> TurnRecord:
        return record(
            f"t{self.count}",
            conversation_id,
            contact=who,
            instance=place,
            messages=[message(f"m{self.count}", f"q{self.count}")],
            parts=[part(0, f"a{self.count}")],
            effects=[*effects, generation(prompt_tokens=tokens)],
            merged_conversation_ids=younger,
        )

    def expect_turn(self, conversation_id: str, who: str, place: str, answer: Recorded) -> tuple[str, Talk]:
        where = self.gone_into.get(conversation_id, conversation_id)
        talk = self.talks.get(where)
        if talk is None:
            person = self.known_as(alias_of(who)) or self.somebody_new(who, answer.lead_id)
            talk = self.talks[where] = Talk(person=person, place=place)
        for other in self.talks.values():
            if other is not talk and (other.person, other.place) == (talk.person, place):
                other.open = False
        talk.open = True
        return where, talk

    def somebody_new(self, who: str, lead_id: str) -> Person:
        person = Person(lead_id=lead_id, number=self.count, phone_number=who)
        person.do_not_contact = alias_of(who) in self.marked
        self._people.append(person)
        return person

    def expect_merge(self, younger: str, where: str, talk: Talk, now: int) -> None:
        if younger == where or self.gone_into.get(younger) == where:
            return
        other = self.talks.pop(younger, None)
        self.gone_into |= {one: where for one, into in self.gone_into.items() if into == younger}
        self.gone_into.setdefault(younger, where)
        if other is None:
            return
        talk.texts += other.texts
        talk.tokens += other.tokens
        if other.person is not talk.person:
            self.expect_one_person(other.person, talk.person, now)

    def expect_one_person(self, theirs: Person, ours: Person, now: int) -> None:
        for name, (at, value) in theirs.facts.items():
            if at > ours.facts.get(name, (0, ""))[0] and value != ours.fact(name):
                ours.facts[name] = (now, value)
            elif at > ours.facts.get(name, (0, ""))[0]:
                ours.facts[name] = (at, value)
        ours.do_not_contact |= theirs.do_not_contact
        ours.names |= theirs.names
        for talk in self.talks.values():
            if talk.person is theirs:
                beside = [one for one in self.talks.values() if (one.person, one.place) == (ours, talk.place)]
                talk.open &= not any(one.open for one in beside)
                talk.person = ours
        self._people.remove(theirs)

    def learn(self, person: Person, who: str) -> None:
        if self.known_as(alias_of(who)) is None:
            person.names.add(alias_of(who))
            person.do_not_contact |= alias_of(who) in self.marked
        taken = any(one.phone_number == who for one in self._people)
        if who.isdigit() and not taken and alias_of(who) in person.names:
            person.phone_number = who

    def is_what_lookups_find(self, answer: Recorded, where: str, who: str) -> None:
        """What a cache in front would keep has to be what the store says right afterwards."""
        if answer.after is None:
            return
        asked = query(where, contact=who, limit=200)
        assert self.run(self.store.find_lead(asked)).value == answer.after.lead
        assert self.run(self.store.find_conversation(asked)).value == answer.after.conversation
        assert self.run(self.store.usage_today(asked)) == answer.after.usage
        history = self.run(self.store.recent_messages(asked)).value
        assert history[-len(answer.after.messages) :] == answer.after.messages

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        wanted, first = self.answered[data.draw(st.sampled_from(sorted(self.answered)))]
        again = self.run(self.store.record_turn(wanted))
        assert (again.version, again.duplicate, again.after) == (first.version, True, None)

    # ---- changes

    @rule(who=everybody, name=st.sampled_from(["", "Zoe"]), colour=st.sampled_from([None, "", "roxo"]))
    def change(self, who: str, name: str, colour: str | None) -> None:
        person, now = self.known_as(alias_of(who)), self.now()
        if person is None:
            with pytest.raises(NotFound):
                self.run(self.store.get_lead_by_alias("default", alias_of(who)))
            return
        preferences = {} if colour is None else {"cor": colour}
        patch = LeadPatch(values={LeadField.NAME: name}, preferences=preferences)
        lead = self.run(self.store.update_lead(person.lead_id, "", patch))
        person.set("name", name, now)
        if colour is not None:
            person.set("cor", colour, now)
        assert (lead.name, lead.preferences.get("cor", "")) == (name, person.fact("cor"))

    @rule(who=everybody, wanted=st.booleans())
    def mark(self, who: str, wanted: bool) -> None:
        self.now()
        if person := self.known_as(alias_of(who)):
            patch = LeadPatch(values={LeadField.DO_NOT_CONTACT: wanted}, preferences={})
            self.run(self.store.update_lead(person.lead_id, "", patch))
            person.do_not_contact = wanted

    @precondition(lambda self: self.talks)
    @rule(data=st.data(), back=st.integers(-1, 2), tokens=st.integers(0, 2))
    def summarise(self, data: st.DataObject, back: int, tokens: int) -> None:
        self.now()
        where = data.draw(st.sampled_from(sorted(self.talks)))
        talk = self.talks[where]
        through = max(len(talk.texts) - back, 1)
        summary = Summary(text=f"s{through}", version=max(talk.version, 1), through=through, tokens=tokens)
        if not talk.summary[1] <= through <= len(talk.texts) or not talk.version:
            with pytest.raises(WrongState):
                self.run(self.store.put_summary(where, summary))
            return
        self.run(self.store.put_summary(where, summary))
        talk.summary = (summary.text, through)
        talk.tokens += tokens
        self.tenant_tokens += tokens

    # ---- endings

    @rule(who=everybody, do_not_contact=st.booleans())
    def forget(self, who: str, do_not_contact: bool) -> None:
        self.now()
        person = self.known_as(alias_of(who))
        erased = self.run(self.store.forget("default", alias_of(who), (), do_not_contact=do_not_contact))
        theirs = {where: talk for where, talk in self.talks.items() if talk.person is person}
        assert erased.leads == (1 if person else 0) and erased.conversations == len(theirs)
        assert erased.messages == sum(len(talk.texts) for talk in theirs.values())
        names = {alias_of(who), *(person.names if person else ())}
        if do_not_contact or (person and person.do_not_contact):
            self.marked |= names
        elif person:
            self.marked -= names
        if person is None:
            return
        self._people.remove(person)
        self.forgotten |= theirs.keys() | {one for one, into in self.gone_into.items() if into in theirs}
        self.drop(theirs)

    @rule()
    def sweep_everything(self) -> None:
        """Much later, in small steps. Who is never to be written to stays so, though nothing else of them is left."""
        self.now()
        while self.run(self.store.sweep(self.clock.now_ms() + DAY_MS, limit=3)).total:
            pass
        self.drop(dict(self.talks))
        for person in self._people:
            self.marked |= person.names if person.do_not_contact else set()
        self._people = []
        self.tenant_tokens = 0

    def drop(self, talks: dict[str, Talk]) -> None:
        turns = {text[1:] for talk in talks.values() for text in talk.texts}
        self.answered = {turn: kept for turn, kept in self.answered.items() if turn[1:] not in turns}
        self.talks = {where: talk for where, talk in self.talks.items() if where not in talks}
        self.gone_into = {one: into for one, into in self.gone_into.items() if into not in talks}

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.run(self.open())

    @rule()
    def next_day(self) -> None:
        self.clock.advance(DAY_MS)
        self.tenant_tokens = 0
        for talk in self.talks.values():
            talk.tokens = 0

    def now(self) -> int:
        """Every change has an instant of its own."""
        self.clock.advance(1)
        return self.clock.now_ms()

    # ---- what is there

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        leads = self.run(self.store.list_leads(LeadFilter(tenant="default"), PageAfter(size=99)))
        found = {one.lead_id: (one.phone_number, one.name, one.preferences, one.do_not_contact) for one in leads}
        assert found == {
            one.lead_id: (
                one.phone_number,
                one.fact("name"),
                {"cor": one.fact("cor")} if one.fact("cor") else {},
                one.do_not_contact,
            )
            for one in self._people
        }
        conversations = self.run(self.store.list_conversations("default", "", PageAfter(size=99)))
        assert {
            one.conversation_id: (one.lead_id, one.version, one.total_messages, one.summary, one.status == "ACTIVE")
            for one in conversations
        } == {
            where: (talk.person.lead_id, talk.version, len(talk.texts), talk.summary[0], talk.open)
            for where, talk in self.talks.items()
        }
        for where, talk in self.talks.items():
            asked = [where, *(one for one, into in self.gone_into.items() if into == where)][-1]
            seen = self.run(self.store.recent_messages(query(asked, limit=200)))
            assert (seen.version, [line.text for line in seen.value]) == (talk.version, talk.texts)
            known = self.run(self.store.find_conversation(query(asked)))
            lead = self.run(self.store.find_lead(query(asked)))
            assert known.value is not None and known.value.conversation_id == where
            assert lead.value is not None and lead.value.lead_id == talk.person.lead_id
            assert known.version == lead.version == talk.version
            used = self.run(self.store.usage_today(query(asked)))
            assert used == UsageToday(conversation_tokens=talk.tokens, tenant_tokens=self.tenant_tokens)


def machine(home: Home, cluster: Cluster) -> type[StoreMachine]:
    """The machine over one kind of store."""
    return type("Machine", (StoreMachine,), {"home": staticmethod(home), "cluster": staticmethod(cluster)})


PROFILE = settings(
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("name", "examples"), [("sqlite", 40), ("supabase", 8)])
def test_a_store_shows_what_the_model_shows(name: str, examples: int, request: pytest.FixtureRequest) -> None:
    """`HYPOTHESIS_EXAMPLES` makes the search longer."""
    wanted = settings(PROFILE, max_examples=EXAMPLES or examples)
    over = machine(HOMES[name], lambda: request.getfixturevalue("postgres_cluster"))
    run_state_machine_as_test(over, settings=wanted)


@pytest.mark.parametrize("broken", FOUND_IN_SECONDS, ids=lambda broken: broken.__name__)
def test_the_machine_rejects_a_broken_store(broken: type[SqliteStore]) -> None:
    search = settings(PROFILE, max_examples=100, phases=[Phase.generate], derandomize=True, database=None)
    with pytest.raises(BaseException) as rejected:
        run_state_machine_as_test(machine(sqlite_home(broken), no_cluster), settings=search)
    # A failure that doesn't come again in the same form was a failure; data that can't be drawn again was none.
    assert isinstance(rejected.value, FlakyFailure) or not isinstance(rejected.value, KeyboardInterrupt | Flaky)


def no_cluster() -> Any:
    raise AssertionError("a file needs none")
