"""Random turns, changes and erasures against a model that fits on a page."""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from context_service.domain import LeadField, LeadPatch
from context_service.errors import Forgotten
from context_service.store import LeadFilter, PageAfter
from service_kit.clock import ManualClock
from tests.context_service.builders import message, part, query, record, update
from tests.context_service.stores import sqlite_store

PEOPLE = ("551", "552", "lid:3")
PLACES = ("demo", "two")
everybody = st.sampled_from(PEOPLE)


@dataclass
class Known:
    """What the model knows of a person."""

    lead_id: str
    name: str = ""
    conversations: dict[str, list[str]] = field(default_factory=dict)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.people: dict[str, Known] = {}
        self.versions: dict[str, int] = {}
        self.answers: dict[str, tuple[int, str]] = {}
        self.forgotten: set[str] = set()
        self.count = 0
        self._open()

    def _open(self) -> None:
        self.store = sqlite_store(Path(self.folder.name) / "context.db", ManualClock())
        self.runner.run(self.store.open())

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(who=everybody, place=st.sampled_from(PLACES), name=st.sampled_from(["", "Ana", "Eva"]))
    def record(self, who: str, place: str, name: str) -> None:
        self.count += 1
        turn_id, conversation_id = f"t{self.count}", f"c-{who}-{place}"
        texts = [f"q{self.count}", f"a{self.count}"]
        wanted = record(
            turn_id,
            conversation_id,
            contact=who,
            instance=place,
            messages=[message(f"m{self.count}", texts[0])],
            parts=[part(0, texts[1])],
            effects=[update(name=name)] if name else [],
        )
        if conversation_id in self.forgotten:
            try:
                self.runner.run(self.store.record_turn(wanted))
            except Forgotten:
                return
            raise AssertionError("a forgotten conversation was recorded")
        answer = self.runner.run(self.store.record_turn(wanted))
        again = self.runner.run(self.store.record_turn(wanted))
        known = self.people.setdefault(who, Known(lead_id=answer.lead_id))
        known.name = name or known.name
        known.conversations.setdefault(conversation_id, []).extend(texts)
        self.versions[conversation_id] = self.versions.get(conversation_id, 0) + 1
        assert (answer.version, answer.lead_id) == (self.versions[conversation_id], known.lead_id)
        assert (again.version, again.lead_id, again.duplicate) == (answer.version, answer.lead_id, True)

    @rule(who=everybody, name=st.sampled_from(["", "Zoe"]))
    def rename(self, who: str, name: str) -> None:
        if known := self.people.get(who):
            known.name = name
            patch = LeadPatch(values={LeadField.NAME: name}, preferences={})
            self.runner.run(self.store.update_lead(known.lead_id, "", patch))

    @rule(who=everybody)
    def forget(self, who: str) -> None:
        known = self.people.pop(who, None)
        alias = f"phone:{who}" if who.isdigit() else who
        erased = self.runner.run(self.store.forget("default", alias, ()))
        conversations = known.conversations if known else {}
        assert erased.messages == sum(map(len, conversations.values()))
        self.forgotten |= conversations.keys()

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        self._open()

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        leads = self.runner.run(self.store.list_leads(LeadFilter(tenant="default"), PageAfter(size=99)))
        assert {lead.phone_number: (lead.lead_id, lead.name) for lead in leads} == {
            who: (known.lead_id, known.name) for who, known in self.people.items()
        }
        for known in self.people.values():
            for conversation_id, texts in known.conversations.items():
                seen = self.runner.run(self.store.recent_messages(query(conversation_id, limit=200)))
                assert [line.text for line in seen.value] == texts
                assert seen.version == self.versions[conversation_id]


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
