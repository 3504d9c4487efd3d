"""What every store of `stores.py` has to do."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest

from agentic_sdr.common.v1 import message_pb2, turn_pb2
from context_service.domain import Author, ConversationStatus, LeadField, LeadPatch, Summary, Swept, UsageToday
from context_service.errors import Forgotten
from context_service.store import ContextStore, ExportSection, LeadFilter, PageAfter
from context_service.store.sqlite import SqliteStore
from service_kit.clock import ManualClock
from service_kit.errors import InvalidArgument, NotFound, ServiceError, Unavailable, WrongState
from tests.context_service.broken_stores import BROKEN
from tests.context_service.builders import PHONE, generation, message, part, query, record, update
from tests.context_service.stores import STORES, Factory, once, sqlite_home
from tests.stand_ins.postgres import PostgresCluster

DAY_MS = 86_400_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=STORES.values(), ids=STORES.keys())
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[ContextStore]:
    factory: Factory = request.param
    async with factory(tmp_path, clock, lambda: request.getfixturevalue("postgres_cluster")) as opened:
        yield opened


async def texts(store: ContextStore, conversation_id: str = "c1", limit: int = 40) -> list[str]:
    return [line.text for line in (await store.recent_messages(query(conversation_id, limit=limit))).value]


async def sections(store: ContextStore, section: ExportSection) -> list[dict[str, object]]:
    people = await store.find_people("default", f"phone:{PHONE}")
    return [dict(row) for row in (await store.export_rows(section, people, 0)).rows]


class TestRecording:
    async def test_a_first_turn_creates_lead_conversation_and_history(self, store: ContextStore) -> None:
        recorded = await store.record_turn(record())
        assert (recorded.version, recorded.duplicate) == (1, False)
        lead = (await store.find_lead(query())).value
        seen = await store.find_conversation(query())
        assert lead is not None and seen.value is not None
        assert (lead.lead_id, lead.phone_number, lead.current_stage) == (recorded.lead_id, PHONE, "INITIAL_CONTACT")
        assert lead.last_interaction_ms == 1_700_000_000_000
        assert (seen.version, seen.value.total_messages, seen.value.lead_id) == (1, 2, recorded.lead_id)
        assert await texts(store) == ["oi", "Olá!"]

    async def test_a_repeat_changes_nothing_and_returns_the_first_answer(self, store: ContextStore) -> None:
        first = await store.record_turn(record())
        await store.record_turn(record("t2"))
        again = await store.record_turn(record(parts=[part(0, "something else")], effects=[update(name="Eva")]))
        assert (again.version, again.lead_id, again.duplicate) == (1, first.lead_id, True)
        assert await texts(store) == ["oi", "Olá!", "oi", "Olá!"]
        assert (await store.get_lead(first.lead_id)).name == ""

    async def test_a_turn_of_another_tenant_is_refused(self, store: ContextStore) -> None:
        await store.record_turn(record())
        for stolen in (record(tenant="other"), record("t2", tenant="other")):
            with pytest.raises(InvalidArgument):
                await store.record_turn(stolen)
        assert (await store.recent_messages(query(tenant="other"))).value == ()
        assert (await store.find_lead(query(tenant="other"))).value is None

    async def test_a_provider_message_is_stored_once(self, store: ContextStore) -> None:
        await store.record_turn(record(messages=[message("a", "um")]))
        await store.record_turn(
            record("t2", messages=[message("a", "um"), message("", "x"), message("", "x")], parts=[])
        )
        assert await texts(store) == ["um", "Olá!", "x", "x"]
        conversation = (await store.find_conversation(query())).value
        assert conversation is not None and conversation.total_messages == 4

    async def test_the_order_is_that_of_recording_whatever_the_clocks_say(self, store: ContextStore) -> None:
        late = message("b", "segundo")
        late.provider_time.FromSeconds(5)
        await store.record_turn(record(messages=[message("a", "primeiro"), late], parts=[part(0, "A"), part(1, "B")]))
        assert await texts(store) == ["primeiro", "segundo", "A", "B"]
        assert await texts(store, limit=2) == ["A", "B"]

    async def test_a_human_counts_as_assistant_and_pauses(self, store: ContextStore) -> None:
        human = message("h", "sou eu")
        human.author = message_pb2.AUTHOR_HUMAN
        await store.record_turn(record(kind=turn_pb2.TURN_KIND_RECORD, messages=[human], parts=[]))
        rows = await sections(store, ExportSection.MESSAGES)
        assert [(row["role"], row["sender"], row["turn_id"]) for row in rows] == [("assistant", "human", "t1")]
        assert (await store.recent_messages(query())).value[0].author is Author.HUMAN
        seen = (await store.find_conversation(query())).value
        assert seen is not None and seen.status is ConversationStatus.PAUSED

    async def test_an_apology_has_parts_only(self, store: ContextStore) -> None:
        unsure = part(0, "Desculpe", turn_pb2.PART_STATE_UNKNOWN)
        await store.record_turn(record(kind=turn_pb2.TURN_KIND_APOLOGY, messages=[], parts=[unsure]))
        rows = await sections(store, ExportSection.MESSAGES)
        assert [(row["role"], row["delivery_state"]) for row in rows] == [("assistant", "unknown")]

    async def test_effects_apply_in_order_and_leave_an_audit(self, store: ContextStore) -> None:
        effects = [
            update(bill_value_cents=40_000, stage="BILL", preferences={"cidade": "Recife", "teto": "sim"}),
            update(bill_value_cents=450_001, interested=True, preferences={"teto": ""}),
        ]
        recorded = await store.record_turn(record(effects=effects))
        lead = await store.get_lead(recorded.lead_id)
        assert (lead.bill_value_cents, lead.current_stage, lead.interested) == (450_001, "BILL", True)
        assert lead.preferences == {"cidade": "Recife"}
        conversation = (await store.find_conversation(query())).value
        assert conversation is not None and conversation.current_stage == "BILL"
        changes = await sections(store, ExportSection.CHANGES)
        bills = [
            (one["old_value"], one["new_value"], one["changed_by"]) for one in changes if one["field"] == "bill_value"
        ]
        assert bills == [(None, "400.00", "t1"), ("400.00", "4500.01", "t1")]

    async def test_an_unchanged_value_leaves_no_audit(self, store: ContextStore) -> None:
        await store.record_turn(record(effects=[update(name="Ana", preferences={"a": "1"})]))
        await store.record_turn(record("t2", effects=[update(name="Ana", preferences={"a": "1"})]))
        changes = await sections(store, ExportSection.CHANGES)
        assert [(one["field"], one["changed_by"]) for one in changes] == [("name", "t1"), ("preferences.a", "t1")]

    async def test_a_hand_over_pauses_and_the_next_answer_goes_on(self, store: ContextStore) -> None:
        handoff = turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="asked for a human"))
        recorded = await store.record_turn(record(effects=[handoff]))
        lead = await store.get_lead(recorded.lead_id)
        seen = (await store.find_conversation(query())).value
        assert (lead.current_stage, lead.needs_human) == ("HUMAN_HANDOFF", True)
        assert seen is not None and (seen.status, seen.current_stage) == ("PAUSED", "HUMAN_HANDOFF")
        await store.record_turn(record("t2"))
        seen = (await store.find_conversation(query())).value
        assert seen is not None and seen.status is ConversationStatus.ACTIVE

    async def test_two_first_messages_at_once_make_one_lead(self, store: ContextStore) -> None:
        answers = await asyncio.gather(*(store.record_turn(record(f"t{n}")) for n in range(20)))
        assert {answer.lead_id for answer in answers} == {answers[0].lead_id}
        assert sorted(answer.version for answer in answers) == list(range(1, 21))
        assert len(await store.list_conversations("default", "", PageAfter(size=9))) == 1
        assert len(await store.list_leads(LeadFilter(tenant="default"), PageAfter(size=9))) == 1


class TestIdentity:
    async def test_a_lid_first_and_the_phone_later_are_one_lead(self, store: ContextStore) -> None:
        first = await store.record_turn(record(contact="lid:77", aliases=["lid:77"]))
        second = await store.record_turn(record("t2", aliases=["lid:77", f"phone:{PHONE}"]))
        assert second.lead_id == first.lead_id
        assert (await store.get_lead(first.lead_id)).phone_number == PHONE
        third = await store.record_turn(record("t3", "c3", instance="two", contact="lid:77"))
        assert third.lead_id == first.lead_id
        assert (await store.get_lead(first.lead_id)).phone_number == PHONE

    async def test_aliases_of_two_leads_go_to_the_older(self, store: ContextStore) -> None:
        older = await store.record_turn(record("t1", "c1", contact="lid:1"))
        younger = await store.record_turn(record("t2", "c2"))
        assert older.lead_id != younger.lead_id
        both = await store.record_turn(record("t3", "c3", instance="two", contact="lid:1", aliases=[f"phone:{PHONE}"]))
        assert both.lead_id == older.lead_id
        assert (await store.get_lead_by_alias("default", f"phone:{PHONE}")).lead_id == younger.lead_id

    async def test_a_new_conversation_of_the_same_place_completes_the_other(self, store: ContextStore) -> None:
        first = await store.record_turn(record("t1", "c1"))
        second = await store.record_turn(record("t2", "c2"))
        elsewhere = await store.record_turn(record("t3", "c3", instance="two"))
        assert first.lead_id == second.lead_id == elsewhere.lead_id
        found = await store.list_conversations("default", first.lead_id, PageAfter(size=9))
        assert {one.conversation_id: one.status.value for one in found} == {
            "c1": "COMPLETED",
            "c2": "ACTIVE",
            "c3": "ACTIVE",
        }

    async def test_tenants_have_leads_of_their_own(self, store: ContextStore) -> None:
        one = await store.record_turn(record())
        two = await store.record_turn(record("t2", "c2", tenant="other"))
        assert one.lead_id != two.lead_id

    async def test_a_lead_known_elsewhere_is_found_for_a_new_conversation(self, store: ContextStore) -> None:
        recorded = await store.record_turn(record())
        seen = await store.find_lead(query("never-seen"))
        assert seen.version == 0
        assert seen.value is not None and seen.value.lead_id == recorded.lead_id


class TestLeadsAndPages:
    async def test_an_update_changes_what_is_named_and_is_audited(self, store: ContextStore) -> None:
        recorded = await store.record_turn(record(effects=[update(name="Ana", preferences={"a": "1", "b": "2"})]))
        patch = LeadPatch(
            values={LeadField.BILL_VALUE: 9_999_999_999, LeadField.CURRENT_STAGE: "OFFER"},
            preferences={"c": "3"},
            replace_preferences=True,
        )
        lead = await store.update_lead(recorded.lead_id, "", patch)
        assert (lead.name, lead.bill_value_cents, lead.preferences) == ("Ana", 9_999_999_999, {"c": "3"})
        changes = await sections(store, ExportSection.CHANGES)
        by_api = [one["field"] for one in changes if one["changed_by"] == "api"]
        assert by_api == ["bill_value", "current_stage", "preferences.a", "preferences.b", "preferences.c"]
        with pytest.raises(NotFound):
            await store.update_lead(recorded.lead_id, "other", patch)

    async def test_pages_are_stable_while_rows_come_in(self, store: ContextStore, clock: ManualClock) -> None:
        for number in range(6):
            clock.advance(number % 2)
            await store.record_turn(record(f"t{number}", f"c{number}", contact=f"55{number}"))
        everyone = LeadFilter(tenant="default")
        all_of_them = [one.lead_id for one in await store.list_leads(everyone, PageAfter(size=9))]
        first = await store.list_leads(everyone, PageAfter(size=2))
        clock.advance(1)
        await store.record_turn(record("new", "new", contact="99"))
        after = (first[-1].updated_ms, first[-1].lead_id)
        rest = await store.list_leads(everyone, PageAfter(size=9, after=after))
        assert [one.lead_id for one in (*first, *rest)] == all_of_them

    async def test_updates_at_the_same_time_lose_nothing(self, store: ContextStore) -> None:
        lead_id = (await store.record_turn(record())).lead_id
        patches = [LeadPatch(values={}, preferences={f"key{n}": str(n)}) for n in range(10)]
        patches += [LeadPatch(values={LeadField.NAME: "Ana"}, preferences={})]
        turns = [record(f"turn{n}", effects=[update(preferences={f"turn{n}": "x"})]) for n in range(5)]
        await asyncio.gather(
            *(store.update_lead(lead_id, "", patch) for patch in patches), *(store.record_turn(turn) for turn in turns)
        )
        lead = await store.get_lead(lead_id)
        assert lead.name == "Ana"
        assert lead.preferences.keys() == {f"key{n}" for n in range(10)} | {f"turn{n}" for n in range(5)}

    async def test_leads_are_filtered(self, store: ContextStore, clock: ManualClock) -> None:
        await store.record_turn(record("t1", "c1", effects=[update(stage="BILL")]))
        clock.advance(10)
        await store.record_turn(record("t2", "c2", contact="55", effects=[update(qualification_status="QUALIFIED")]))
        page = PageAfter(size=9)
        by_stage = await store.list_leads(LeadFilter(tenant="default", stage="BILL"), page)
        by_status = await store.list_leads(LeadFilter(tenant="default", qualification_status="QUALIFIED"), page)
        recent = await store.list_leads(LeadFilter(tenant="default", updated_since_ms=clock.now_ms()), page)
        assert [one.phone_number for one in by_stage] == [PHONE]
        assert [one.phone_number for one in by_status] == [one.phone_number for one in recent] == ["55"]

    async def test_summaries_never_go_back(self, store: ContextStore) -> None:
        with pytest.raises(NotFound):
            await store.put_summary("c1", Summary(text="…", version=1, through=1))
        for number in range(3):
            await store.record_turn(record(f"t{number}"))
        for _ in range(2):
            await store.put_summary("c1", Summary(text="dois", version=2, through=4))
        wrong = (
            Summary(text="shorter", version=3, through=3),
            Summary(text="of a version to come", version=4, through=4),
            Summary(text="of a message to come", version=3, through=7),
        )
        for refused in wrong:
            with pytest.raises(WrongState):
                await store.put_summary("c1", refused)
        seen = (await store.find_conversation(query())).value
        assert seen is not None and (seen.summary, seen.summary_version, seen.summary_through) == ("dois", 2, 4)


class TestForgetting:
    async def test_everything_goes_and_a_late_record_is_refused(self, store: ContextStore) -> None:
        recorded = await store.record_turn(record(aliases=["lid:7"]))
        await store.record_turn(record("t2", "c2", contact="5511", messages=[message("other")]))
        erased = await store.forget("default", "lid:7", ("c1", "c9"))
        assert (erased.leads, erased.conversations, erased.messages) == (1, 1, 2)
        with pytest.raises(NotFound):
            await store.get_lead(recorded.lead_id)
        for late in (record(), record("t9", "c9", contact="5512")):
            with pytest.raises(Forgotten):
                await store.record_turn(late)
        assert await texts(store) == []
        assert await texts(store, "c2") == ["oi", "Olá!"]
        assert (await store.forget("default", "lid:7", ("c1",))).leads == 0
        assert not (await store.record_turn(record("t10", "c10"))).duplicate

    async def test_another_tenant_is_left_alone(self, store: ContextStore) -> None:
        await store.record_turn(record())
        assert (await store.forget("other", f"phone:{PHONE}", ("c1",))).leads == 0
        assert await texts(store) == ["oi", "Olá!"]

    async def test_who_must_not_be_contacted_stays_so_and_only_they(self, store: ContextStore) -> None:
        await store.record_turn(record(aliases=["lid:7"], effects=[update(do_not_contact=True)]))
        await store.record_turn(record("t2", "c2", contact="5511", messages=[message("other")]))
        await store.forget("default", "lid:7", ())
        back = await store.record_turn(record("t3", "c3"))
        assert (await store.get_lead(back.lead_id)).do_not_contact
        by_lid = await store.record_turn(record("t4", "c4", contact="lid:7", tenant="default", instance="two"))
        assert (await store.get_lead(by_lid.lead_id)).do_not_contact
        assert not (await store.get_lead_by_alias("default", "phone:5511")).do_not_contact
        elsewhere = await store.record_turn(record("t5", "c5", tenant="other"))
        assert not (await store.get_lead(elsewhere.lead_id)).do_not_contact

    async def test_the_mark_may_be_set_when_forgetting_and_taken_back_later(self, store: ContextStore) -> None:
        await store.record_turn(record())
        await store.forget("default", f"phone:{PHONE}", (), do_not_contact=True)
        back = await store.record_turn(record("t2", "c2"))
        assert (await store.get_lead(back.lead_id)).do_not_contact
        patch = LeadPatch(values={LeadField.DO_NOT_CONTACT: False}, preferences={})
        assert not (await store.update_lead(back.lead_id, "", patch)).do_not_contact
        await store.forget("default", f"phone:{PHONE}", ())
        again = await store.record_turn(record("t3", "c3"))
        assert not (await store.get_lead(again.lead_id)).do_not_contact


class TestUsage:
    async def test_tokens_count_for_the_conversation_the_tenant_and_the_day(
        self, store: ContextStore, clock: ManualClock
    ) -> None:
        assert await store.usage_today(query()) == UsageToday()
        cost = generation(prompt_tokens=100, cached_tokens=80, completion_tokens=20, discarded_tokens=5, cost_micros=7)
        await store.record_turn(record(effects=[cost]))
        await store.record_turn(record(effects=[cost]))
        await store.record_turn(record("t2", "c2", contact="5511", effects=[cost], messages=[message("m")]))
        await store.record_turn(record("t3", "c3", tenant="other", effects=[cost]))
        await store.put_summary("c1", Summary(text="s", version=1, through=1, tokens=40, cost_micros=1))
        used = await store.usage_today(query())
        assert (used.conversation_tokens, used.conversation_cost_micros) == (165, 8)
        assert (used.tenant_tokens, used.tenant_cost_micros) == (290, 15)
        assert (await store.usage_today(query("never-seen"))).tenant_tokens == 290
        clock.advance(DAY_MS)
        assert await store.usage_today(query()) == UsageToday()

    async def test_a_turn_keeps_how_it_was_made_and_its_sentence_is_marked(self, store: ContextStore) -> None:
        await store.record_turn(record(effects=[generation(model="openai:x", fallback=True, completion_tokens=3)]))
        await store.record_turn(record("t2", kind=turn_pb2.TURN_KIND_APOLOGY, messages=[]))
        await store.record_turn(record("t3", effects=[generation(model="openai:x")]))
        lines = (await store.recent_messages(query())).value
        marked = [(line.author, line.fallback) for line in lines]
        lead, reply = (Author.LEAD, False), Author.ASSISTANT
        assert marked == [lead, (reply, True), (reply, True), lead, (reply, False)]
        turns = await sections(store, ExportSection.TURNS)
        assert [(one["model"], one["completion_tokens"]) for one in turns] == [
            ("openai:x", 3),
            ("", 0),
            ("openai:x", 0),
        ]


class TestMerging:
    async def test_the_younger_conversation_and_its_lead_become_the_older(
        self, store: ContextStore, clock: ManualClock
    ) -> None:
        older = await store.record_turn(
            record("t1", "c1", contact="lid:1", effects=[update(name="Ana", bill_value_cents=100)])
        )
        clock.advance(60_000)
        younger = await store.record_turn(
            record(
                "t2",
                "c2",
                messages=[message("b", "dois")],
                effects=[
                    update(bill_value_cents=200, preferences={"cidade": "Recife"}, do_not_contact=True),
                    generation(prompt_tokens=9),
                ],
            )
        )
        elsewhere = await store.record_turn(record("t3", "c3", instance="two", messages=[message("c")]))
        assert older.lead_id != younger.lead_id == elsewhere.lead_id
        merged = await store.record_turn(
            record(
                "t4",
                "c1",
                contact=PHONE,
                aliases=["lid:1", f"phone:{PHONE}"],
                messages=[message("d", "quatro")],
                merged_conversation_ids=["c2"],
            )
        )
        assert (merged.version, merged.lead_id) == (2, older.lead_id)
        assert await texts(store) == ["oi", "Olá!", "dois", "Olá!", "quatro", "Olá!"]
        lead = await store.get_lead(older.lead_id)
        assert (lead.name, lead.bill_value_cents, lead.phone_number) == ("Ana", 200, PHONE)
        assert (lead.preferences, lead.do_not_contact) == ({"cidade": "Recife"}, True)
        with pytest.raises(NotFound):
            await store.get_lead(younger.lead_id)
        found = await store.list_conversations("default", older.lead_id, PageAfter(size=9))
        assert {one.conversation_id for one in found} == {"c1", "c3"}
        assert (await store.get_lead_by_alias("default", f"phone:{PHONE}")).lead_id == older.lead_id
        assert (await store.usage_today(query())).conversation_tokens == 9
        changes = [one["field"] for one in await sections(store, ExportSection.CHANGES)]
        assert "merged_lead" in changes and changes.count("bill_value") == 3

    @pytest.mark.parametrize(
        ("erased_last", "left"), [(True, {"uso": "casa"}), (False, {"cor": "azul", "uso": "casa"})]
    )
    async def test_a_preference_that_was_erased_last_does_not_come_back(
        self, store: ContextStore, clock: ManualClock, erased_last: bool, left: dict[str, str]
    ) -> None:
        """It was no preference any more, so nobody compared it, and the other lead's older value won."""
        younger = await store.record_turn(record("t1", "c2", effects=[update(preferences={"cor": "verde"})]))
        told = [update(preferences={"cor": "azul", "uso": "casa"})]
        erased = LeadPatch(values={}, preferences={"cor": ""})
        for erases in (not erased_last, erased_last):
            clock.advance(1_000)
            if erases:
                await store.update_lead(younger.lead_id, "", erased)
            else:
                await store.record_turn(record("t2", "c1", contact="lid:1", messages=[message("b")], effects=told))
        clock.advance(1_000)
        both = record("t3", "c1", contact="lid:1", messages=[message("c")], merged_conversation_ids=["c2"])
        assert (await store.get_lead((await store.record_turn(both)).lead_id)).preferences == left

    async def test_a_completed_conversation_takes_over_one_whose_lead_has_another_open(
        self, store: ContextStore
    ) -> None:
        """It was opened after the merge, beside the one that came along: two open ones, refused at every repeat."""
        for n, (conversation, contact) in enumerate((("c1", "1"), ("c2", "1"), ("c3", "2"), ("c4", "2"))):
            await store.record_turn(record(f"t{n}", conversation, contact=contact, messages=[message(f"m{n}")]))
        merged = await store.record_turn(
            record("t9", "c1", contact="1", messages=[message("m9")], merged_conversation_ids=["c3"])
        )
        found = await store.list_conversations("default", merged.lead_id, PageAfter(size=9))
        assert {one.conversation_id: one.status.value for one in found} == {
            "c1": "ACTIVE",
            "c2": "COMPLETED",
            "c4": "COMPLETED",
        }

    async def test_a_late_turn_of_the_merged_one_goes_to_the_older(self, store: ContextStore) -> None:
        await store.record_turn(record("t1", "c1", contact="lid:1"))
        await store.record_turn(record("t2", "c1", contact="lid:1", merged_conversation_ids=["c2", "c1"]))
        late = await store.record_turn(record("t3", "c2", messages=[message("x", "tarde")]))
        assert late.version == 3
        assert (await texts(store))[-2:] == ["tarde", "Olá!"]
        assert await texts(store, "c2") == await texts(store)
        seen = (await store.find_conversation(query("c2"))).value
        assert seen is not None and seen.conversation_id == "c1"
        again = await store.record_turn(record("t3", "c2", messages=[message("x", "tarde")]))
        assert (again.version, again.duplicate) == (3, True)

    async def test_merges_of_merges_end_in_the_oldest_and_are_forgotten_with_it(self, store: ContextStore) -> None:
        for number in (1, 2, 3):
            contact = f"lid:{number}"
            await store.record_turn(record(f"t{number}", f"c{number}", contact=contact, messages=[message(contact)]))
        await store.record_turn(
            record("t4", "c2", contact="lid:2", messages=[message("4")], merged_conversation_ids=["c3"])
        )
        await store.record_turn(
            record("t5", "c1", contact="lid:1", messages=[message("5")], merged_conversation_ids=["c2", "c3"])
        )
        assert len(await texts(store)) == 10
        assert len(await store.list_leads(LeadFilter(tenant="default"), PageAfter(size=9))) == 1
        assert (await store.forget("default", "lid:3", ())).messages == 10
        for conversation_id in ("c1", "c2", "c3"):
            with pytest.raises(Forgotten):
                await store.record_turn(record("t6", conversation_id, contact="lid:9"))

    async def test_a_value_that_was_emptied_on_purpose_stays_so_and_one_that_nobody_chose_is_filled(
        self, store: ContextStore, clock: ManualClock
    ) -> None:
        """In one store an empty name was filled from the other lead whoever had emptied it; in the other one nothing
        was filled when the audit rows had gone with their time."""
        kept = message("1")
        kept.provider_time.FromMilliseconds(clock.now_ms() + 2 * DAY_MS)
        facts = [update(name="Eva", email="e", preferences={"a": "1", "b": "1"})]
        await store.record_turn(record("t1", "c1", contact="1", messages=[kept], effects=facts))
        clock.advance(DAY_MS)
        older = await store.record_turn(
            record(
                "t2", "c2", contact="2", messages=[message("2")], effects=[update(name="Ana", preferences={"a": "2"})]
            )
        )
        patch = LeadPatch(values={LeadField.NAME: ""}, preferences={"a": ""})
        await store.update_lead(older.lead_id, "", patch)
        await store.sweep(clock.now_ms() - 1, limit=99)
        await store.record_turn(
            record("t3", "c2", contact="2", messages=[message("3")], merged_conversation_ids=["c1"])
        )
        lead = await store.get_lead(older.lead_id)
        assert (lead.name, lead.email, lead.preferences) == ("", "e", {"b": "1"})


class TestFailing:
    async def test_a_store_that_cannot_answer_says_so(self, store: ContextStore) -> None:
        """The system before read an error as a new customer, and introduced itself again."""
        known = await store.record_turn(record())
        await store.close()
        for question in (
            lambda: store.find_lead(query()),
            lambda: store.find_conversation(query()),
            lambda: store.recent_messages(query()),
            lambda: store.usage_today(query()),
            lambda: store.record_turn(record("t2")),
            lambda: store.get_lead(known.lead_id),
            lambda: store.get_lead_by_alias("default", f"phone:{PHONE}"),
            lambda: store.find_people("default", f"phone:{PHONE}"),
            store.ping,
        ):
            with pytest.raises(Unavailable):
                await question()


class TestRetention:
    async def test_what_is_old_goes_and_what_is_alive_stays(self, store: ContextStore, clock: ManualClock) -> None:
        old_time = clock.now_ms() - DAY_MS
        old = message("old", "velho")
        old.provider_time.FromMilliseconds(old_time)
        await store.record_turn(
            record("t1", "c1", messages=[old], parts=[], effects=[update(name="Ana"), generation(prompt_tokens=1)])
        )
        gone = await store.record_turn(record("t2", "c2", contact="5511", messages=[old], parts=[]))
        clock.advance(3 * DAY_MS)
        now = message("new", "novo")
        now.provider_time.FromMilliseconds(clock.now_ms())
        kept = await store.record_turn(record("t3", "c1", messages=[now], parts=[]))
        before = clock.now_ms() - DAY_MS
        first = await store.sweep(before, limit=1)
        assert first.messages == 1
        total = first.total
        while (step := await store.sweep(before, limit=1)).total:
            total += step.total
        assert await texts(store) == ["novo"]
        seen = (await store.find_conversation(query())).value
        assert seen is not None and seen.total_messages == 2
        assert (await store.get_lead(kept.lead_id)).name == "Ana"
        assert await sections(store, ExportSection.CHANGES) == []
        with pytest.raises(NotFound):
            await store.get_lead(gone.lead_id)
        assert [one.conversation_id for one in await store.list_conversations("default", "", PageAfter(size=9))] == [
            "c1"
        ]
        assert (await store.sweep(before, limit=9)).total == 0

    async def test_every_business_is_swept(self, store: ContextStore, clock: ManualClock) -> None:
        tenants = ("a", "b", "default")
        for tenant in tenants:
            old = message("old", "velho")
            old.provider_time.FromMilliseconds(clock.now_ms())
            spent = [generation(prompt_tokens=1)]
            turn = record(f"t-{tenant}", f"c-{tenant}", tenant=tenant, messages=[old], parts=[], effects=spent)
            await store.record_turn(turn)
        clock.advance(3 * DAY_MS)
        total = Swept()
        while (step := await store.sweep(clock.now_ms() - DAY_MS, limit=1)).total:
            total = Swept(**{name: getattr(total, name) + count for name, count in asdict(step).items()})
        assert (total.messages, total.turns, total.conversations, total.leads) == (3, 3, 3, 3)
        # The conversation's, and the business's.
        assert total.usage_days == 6
        for tenant in tenants:
            assert await store.list_leads(LeadFilter(tenant=tenant), PageAfter(size=9)) == ()

    async def test_who_must_not_be_contacted_stays_so_when_they_are_swept(
        self, store: ContextStore, clock: ManualClock
    ) -> None:
        """The sweeper took the lead and the mark with it: who came back after a year of silence, having said "never
        write to me", was somebody who may be written to."""
        for contact, effects in (("551", [update(do_not_contact=True)]), ("552", [update(name="Ana")])):
            old = message(contact)
            old.provider_time.FromMilliseconds(clock.now_ms())
            await store.record_turn(
                record(contact, f"c{contact}", contact=contact, messages=[old], parts=[], effects=effects)
            )
        clock.advance(3 * DAY_MS)
        leads, before = 0, clock.now_ms() - DAY_MS
        while (step := await store.sweep(before, limit=1)).total:
            leads += step.leads
        assert leads == 2
        assert await store.list_leads(LeadFilter(tenant="default"), PageAfter(size=9)) == ()
        for contact, marked in (("551", True), ("552", False)):
            back = await store.record_turn(record(f"back-{contact}", f"new-{contact}", contact=contact, messages=[]))
            assert (await store.get_lead(back.lead_id)).do_not_contact is marked

    async def test_leads_whose_audit_was_swept_merge_without_losing_what_only_one_knows(
        self, store: ContextStore, clock: ManualClock
    ) -> None:
        """The file decided by the audit alone: once that was too old, everything that the younger lead knew was
        lost in a merge, also where the older one knew nothing."""
        await store.record_turn(record("t1", "c1", contact="lid:1", effects=[update(email="a@example.com")]))
        facts = update(
            name="Ana", email="b@example.com", stage="OFFER", interested=False, preferences={"cidade": "Recife"}
        )
        await store.record_turn(record("t2", "c2", messages=[message("b")], effects=[facts]))
        clock.advance(2 * DAY_MS)
        await store.record_turn(record("t3", "c1", contact="lid:1", messages=[message("c")]))
        await store.record_turn(record("t4", "c2", messages=[message("d")]))
        await store.sweep(clock.now_ms() - DAY_MS, limit=99)
        assert await sections(store, ExportSection.CHANGES) == []
        merged = await store.record_turn(
            record("t5", "c1", contact="lid:1", messages=[message("e")], merged_conversation_ids=["c2"])
        )
        lead = await store.get_lead(merged.lead_id)
        assert (lead.name, lead.email, lead.interested) == ("Ana", "a@example.com", False)
        assert (lead.current_stage, lead.preferences) == ("OFFER", {"cidade": "Recife"})


class TestNames:
    async def test_a_name_of_who_must_not_be_contacted_marks_the_lead_that_it_is_learned_of(
        self, store: ContextStore
    ) -> None:
        """They wrote again from a chat that hides the number. The number came later, and no mark with it."""
        await store.record_turn(record("t1", "c1"))
        await store.forget("default", f"phone:{PHONE}", (), do_not_contact=True)
        hidden = await store.record_turn(record("t2", "c2", contact="lid:7"))
        assert (await store.get_lead(hidden.lead_id)).do_not_contact is False
        shown = await store.record_turn(
            record("t3", "c2", contact=PHONE, aliases=["lid:7", f"phone:{PHONE}"], messages=[message("c")])
        )
        assert shown.lead_id == hidden.lead_id
        assert (await store.get_lead(hidden.lead_id)).do_not_contact is True

    async def test_a_mark_that_was_taken_back_does_not_return_with_the_next_turn(self, store: ContextStore) -> None:
        await store.record_turn(record("t1", "c1"))
        await store.forget("default", f"phone:{PHONE}", (), do_not_contact=True)
        lead_id = (await store.record_turn(record("t2", "c2"))).lead_id
        patch = LeadPatch(values={LeadField.DO_NOT_CONTACT: False}, preferences={})
        assert (await store.update_lead(lead_id, "", patch)).do_not_contact is False
        await store.record_turn(record("t3", "c2", messages=[message("c")]))
        assert (await store.get_lead(lead_id)).do_not_contact is False

    async def test_a_merge_reaches_into_no_other_tenant(self, store: ContextStore) -> None:
        """A name of another business's conversation in the list took it away from them: it counted as merged."""
        theirs = await store.record_turn(record("t1", "c1", tenant="other"))
        await store.record_turn(record("t2", "c2", merged_conversation_ids=["c1"], messages=[message("b")]))
        seen = await store.find_conversation(query("c1", tenant="other"))
        assert seen.value is not None and seen.value.lead_id == theirs.lead_id
        later = await store.record_turn(record("t3", "c1", tenant="other", messages=[message("c")]))
        assert (later.version, later.lead_id) == (2, theirs.lead_id)


CONTRACT = [
    getattr(group(), name)
    for group in (
        TestRecording,
        TestIdentity,
        TestLeadsAndPages,
        TestForgetting,
        TestUsage,
        TestMerging,
        TestFailing,
        TestRetention,
        TestNames,
    )
    for name in vars(group)
    if name.startswith("test_")
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_the_contract_rejects_a_broken_store(broken: type[SqliteStore], tmp_path: Path) -> None:
    """An error that is none of the contract's own would reject it for the wrong reason, so only these count."""
    for number, check in enumerate(CONTRACT):
        clock, folder = ManualClock(), tmp_path / f"{number}"
        folder.mkdir()
        arguments = {"clock": clock} if "clock" in inspect.signature(check).parameters else {}
        async with once(sqlite_home(broken))(folder, clock, no_cluster) as opened:
            try:
                await check(opened, **arguments)
            except (AssertionError, ServiceError, pytest.fail.Exception):
                return
    raise AssertionError("the contract has nothing against it")


def no_cluster() -> PostgresCluster:
    raise AssertionError("a file needs none")
