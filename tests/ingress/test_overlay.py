"""Unrecorded turns over what the store knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from context_service.app import ContextApp
from context_service.settings import ContextSettings
from ingress.overlay import HUMAN_STAGE, MAX_LINES, PLAIN, with_unrecorded
from service_kit.durations import ms_to_timestamp
from service_kit.settings import load
from service_kit.testing import in_process

NOW_MS = 1_700_000_000_000


def update(**values: Any) -> turn_pb2.Effect:
    return turn_pb2.Effect(lead_update=turn_pb2.LeadUpdate(**values))


def made(**values: Any) -> turn_pb2.Effect:
    return turn_pb2.Effect(generation=turn_pb2.Generation(**values))


def turn(turn_id: str, text: str = "oi", *effects: turn_pb2.Effect, **values: Any) -> turn_pb2.TurnRecord:
    message = message_pb2.Message(message_id=f"m-{turn_id}", author=message_pb2.AUTHOR_LEAD, text=text)
    return turn_pb2.TurnRecord(
        turn_id=turn_id,
        messages=[message],
        effects=effects,
        end_time=ms_to_timestamp(NOW_MS),
        **{"parts": [turn_pb2.Part(text=f"sobre {text}")], **values},
    )


def known(*turn_ids: str, **values: Any) -> lead_pb2.ConversationContext:
    history = [lead_pb2.HistoryMessage(turn_id=one, text=one) for one in turn_ids]
    return lead_pb2.ConversationContext(history=history, total_messages=len(history), **values)


def over(context: lead_pb2.ConversationContext, *turns: turn_pb2.TurnRecord) -> lead_pb2.ConversationContext:
    return with_unrecorded(context, turns)


def test_messages_and_replies_follow_in_order_and_the_argument_stays() -> None:
    before = known("t1")
    after = over(before, turn("t2", "dois"), turn("t3", "três"))
    assert [line.text for line in after.history] == ["t1", "dois", "sobre dois", "três", "sobre três"]
    assert after.total_messages == 5
    assert before == known("t1")


def test_a_correction_wins_over_what_was_said_before() -> None:
    after = over(
        known("t1", lead=lead_pb2.Lead(bill_value_cents=10_000, name="Ana")),
        turn("t2", "uns 400", update(bill_value_cents=40_000)),
        turn("t3", "aliás, 550", update(bill_value_cents=45_000), update(bill_value_cents=55_000)),
    )
    assert after.lead.bill_value_cents == 55_000 and after.lead.name == "Ana"


def test_what_the_store_has_after_all_is_not_applied_again() -> None:
    """A RecordTurn that timed out may have worked. An old value must not win over a newer one that is stored."""
    stored = known("t1", "t3", lead=lead_pb2.Lead(bill_value_cents=55_000))
    after = over(
        stored,
        turn("t2", "400", update(bill_value_cents=40_000)),
        turn("t3", "550", update(bill_value_cents=55_000)),
    )
    # The lines of t2 did not fit into the history that the store gave; turns are recorded in order.
    assert after == stored


def test_only_what_is_newer_than_the_last_known_turn_is_laid_over() -> None:
    after = over(known("t2"), turn("t1", "um"), turn("t2", "dois"), turn("t3", "três", update(name="Ana")))
    assert [line.text for line in after.history] == ["t2", "três", "sobre três"]
    assert after.lead.name == "Ana"


VALUES: dict[str, Any] = {
    "name": "Ana",
    "email": "ana@example.com",
    "bill_value_cents": 0,
    "qualification_score": 70,
    "qualification_status": "QUALIFIED",
    "interested": False,
    "chosen_flow": "Compra com Desconto",
    "do_not_contact": True,
}


@pytest.mark.parametrize("field", PLAIN)
def test_every_fact_of_a_lead_is_carried(field: str) -> None:
    after = over(known(), turn("t1", "oi", update(**{field: VALUES[field]})))
    assert getattr(after.lead, field) == VALUES[field]
    if lead_pb2.Lead.DESCRIPTOR.fields_by_name[field].has_presence:
        assert after.lead.HasField(field), "a zero that was said is not unknown"  # type: ignore[arg-type]


def test_no_fact_of_an_update_is_left_out() -> None:
    assert {f.name for f in turn_pb2.LeadUpdate.DESCRIPTOR.fields} == {*PLAIN, "stage", "preferences"}


def test_stage_and_preferences() -> None:
    before = known(lead=lead_pb2.Lead(current_stage="NAME", preferences={"roof": "telha", "pets": "2"}))
    after = over(before, turn("t1", "oi", update(stage="BILL", preferences={"roof": "laje", "pets": ""})))
    assert after.lead.current_stage == "BILL" and dict(after.lead.preferences) == {"roof": "laje"}


@pytest.mark.parametrize(
    "given",
    [
        turn("t1", "oi", handoff=True),
        turn("t1", "oi", turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="asked"))),
        turn("t1", "oi", update(stage="BILL"), handoff=True),
    ],
)
def test_a_hand_over_shows_as_the_store_would_show_it(given: turn_pb2.TurnRecord) -> None:
    lead = over(known(), given).lead
    assert lead.current_stage == HUMAN_STAGE and lead.needs_human


def test_needs_human_alone_leaves_the_stage() -> None:
    before = known(lead=lead_pb2.Lead(current_stage="BILL"))
    lead = over(before, turn("t1", needs_human=True), turn("t2")).lead
    assert lead.needs_human and lead.current_stage == "BILL"


def test_a_turn_without_facts_makes_no_lead_of_somebody_unknown() -> None:
    assert not over(known(degraded=True), turn("t1")).HasField("lead")


@pytest.mark.parametrize(
    ("given", "fallback"),
    [
        (turn("t1", "oi", made(fallback=True)), True),
        (turn("t1", "oi", made(model="m")), False),
        (turn("t1", kind=turn_pb2.TURN_KIND_APOLOGY), True),
    ],
)
def test_a_sentence_of_need_is_no_knowledge(given: turn_pb2.TurnRecord, fallback: bool) -> None:
    lead_said, agent_said = over(known(), given).history
    assert agent_said.fallback is fallback and not lead_said.fallback


def test_what_unrecorded_turns_cost_counts() -> None:
    cost = made(prompt_tokens=100, cached_tokens=80, completion_tokens=20, discarded_tokens=5, cost_micros=7)
    before = known(usage=lead_pb2.UsageToday(conversation_tokens=1_000, tenant_tokens=5_000, tenant_cost_micros=50))
    usage = over(before, turn("t1", "oi", cost), turn("t2", "oi", cost)).usage
    assert (usage.conversation_tokens, usage.tenant_tokens) == (1_250, 5_250)
    assert (usage.conversation_cost_micros, usage.tenant_cost_micros) == (14, 64)
    assert not over(known(), turn("t1")).HasField("usage")


def test_what_fits_is_laid_behind_all_that_the_store_gave() -> None:
    turns = [turn(f"t{n}", f"{n}") for n in range(MAX_LINES // 2)]
    after = over(known(*(f"old{n}" for n in range(40))), *turns)
    assert len(after.history) == 40 + MAX_LINES and not after.history_cut


@pytest.mark.parametrize("turns", [MAX_LINES // 2 + 1, 1_000])
def test_a_long_outage_keeps_the_latest_lines_and_all_facts(turns: int) -> None:
    """200 lines of unrecorded turns made every prompt of a long outage five times as long as any other."""
    missing = [turn(f"t{n}", f"{n}", update(preferences={f"p{n}": "x"})) for n in range(turns)]
    after = over(known("old"), *missing)
    assert len(after.history) == MAX_LINES and after.history[-1].text == f"sobre {turns - 1}"
    assert after.history_cut and after.history[0].turn_id == f"t{turns - MAX_LINES // 2}", "no holes"
    assert after.total_messages == 1 + 2 * turns and len(after.lead.preferences) == turns


@pytest.mark.parametrize(("texts", "kept"), [((20_000, 20_000), 1), ((90_000,), 1), ((90_000, 10), 1), ((10, 10), 2)])
def test_long_texts_are_few_but_the_latest_is_always_there(texts: tuple[int, ...], kept: int) -> None:
    missing = [turn(f"t{n}", "á" * (size // 2), parts=[]) for n, size in enumerate(texts)]
    after = over(known(), *missing)
    assert [line.turn_id for line in after.history] == [one.turn_id for one in missing[-kept:]]
    assert after.history_cut is (kept < len(texts))


def record(turn_id: str, *effects: turn_pb2.Effect, **values: Any) -> turn_pb2.TurnRecord:
    """As the buffer would hand it out."""
    number = int(turn_id[1:])
    message = message_pb2.Message(
        message_id=f"m-{turn_id}",
        author=message_pb2.AUTHOR_LEAD,
        type=message_pb2.MESSAGE_TYPE_TEXT,
        text=f"pergunta {turn_id}",
        provider_time=ms_to_timestamp(NOW_MS + number * 1_000),
        accept_time=ms_to_timestamp(NOW_MS + number * 1_000 + 300),
    )
    part = turn_pb2.Part(text=f"resposta {turn_id}", state=turn_pb2.PART_STATE_SENT)
    return turn_pb2.TurnRecord(
        turn_id=turn_id,
        conversation_id="c1",
        scope=message_pb2.Scope(channel="console", instance="demo"),
        contact=message_pb2.Contact(contact="5581999990001"),
        kind=values.pop("kind", turn_pb2.TURN_KIND_ANSWER),
        messages=[message],
        parts=[part],
        effects=effects,
        open_time=ms_to_timestamp(NOW_MS + number * 1_000 + 300),
        end_time=ms_to_timestamp(NOW_MS + number * 1_000 + 900),
        **values,
    )


FACTS = record(
    "t2",
    update(**VALUES),
    update(bill_value_cents=55_000, stage="BILL", preferences={"roof": "laje", "pets": ""}),
    made(prompt_tokens=90, cached_tokens=50, completion_tokens=20, discarded_tokens=3, cost_micros=9),
)


@pytest.mark.parametrize(
    "missing",
    [
        [record("t2")],
        [FACTS],
        [FACTS, record("t3", update(bill_value_cents=60_000)), record("t4")],
        [record("t2", handoff=True), record("t3")],
        [record("t2", turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="asked")), update(stage="BILL"))],
        [record("t2", needs_human=True, kind=turn_pb2.TURN_KIND_APOLOGY)],
        [record("t2", made(fallback=True, prompt_tokens=4))],
    ],
)
async def test_the_overlay_says_what_the_service_will_say_once_they_are_recorded(
    tmp_path: Path, missing: list[turn_pb2.TurnRecord]
) -> None:
    settings = load(ContextSettings, environ={"SDR_DATA_DIR": str(tmp_path)}, env_file=None)
    async with in_process(ContextApp(settings)) as channel:
        stub = ContextServiceStub(channel)
        first = record("t1", update(name="Bia", preferences={"pets": "2"}), made(prompt_tokens=10))
        asked = context_pb.LoadContextRequest(conversation_id="c1", scope=first.scope, contact=first.contact)
        await stub.RecordTurn(context_pb.RecordTurnRequest(record=first), timeout=5)
        laid_over = with_unrecorded((await stub.LoadContext(asked, timeout=5)).context, missing)
        for one in missing:
            await stub.RecordTurn(context_pb.RecordTurnRequest(record=one), timeout=5)
        recorded = (await stub.LoadContext(asked, timeout=5)).context
    assert [*map(comparable, laid_over.history)] == [*map(comparable, recorded.history)]
    for name in ("create_time", "update_time", "last_interaction_time"):
        laid_over.lead.ClearField(name)  # type: ignore[arg-type]
        recorded.lead.ClearField(name)  # type: ignore[arg-type]
    assert laid_over.lead == recorded.lead
    assert laid_over.usage == recorded.usage
    assert laid_over.total_messages == recorded.total_messages


def comparable(line: lead_pb2.HistoryMessage) -> lead_pb2.HistoryMessage:
    """Without the store's own ids, which only it can give."""
    out = lead_pb2.HistoryMessage()
    out.CopyFrom(line)
    out.ClearField("history_id")
    out.ClearField("sequence")
    return out
