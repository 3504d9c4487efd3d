"""The cache's rules, one by one; what they add up to is in test_cache_simulation."""

from dataclasses import replace

from context_service.cache import ContextCache, Snapshot, Ticket
from context_service.domain import (
    After,
    Author,
    Contact,
    ContextQuery,
    Conversation,
    ConversationStatus,
    HistoryMessage,
    Lead,
    Scope,
    UsageToday,
)
from tests.context_service.builders import query

DAY = "2026-03-01"


def lead(lead_id: str = "l1", name: str = "Ana") -> Lead:
    return Lead(
        lead_id=lead_id,
        tenant="default",
        phone_number="55",
        name=name,
        email="",
        bill_value_cents=None,
        current_stage="BILL",
        qualification_score=0,
        qualification_status="PENDING",
        interested=None,
        chosen_flow="",
        preferences={},
        needs_human=False,
        do_not_contact=False,
        referral=None,
        last_interaction_ms=None,
        created_ms=1,
        updated_ms=1,
    )


def conversation(conversation_id: str = "c1", version: int = 1, total: int = 2) -> Conversation:
    return Conversation(
        conversation_id=conversation_id,
        lead_id="l1",
        scope=Scope(tenant="default", channel="console", instance="demo"),
        phone_number="55",
        status=ConversationStatus.ACTIVE,
        current_stage="BILL",
        total_messages=total,
        version=version,
        summary="",
        summary_version=0,
        summary_through=0,
        started_ms=1,
        updated_ms=1,
    )


def line(sequence: int, text: str = "oi") -> HistoryMessage:
    return HistoryMessage(
        history_id=f"h{sequence}",
        sequence=sequence,
        author=Author.LEAD,
        text=text,
        message_type="text",
        created_ms=1,
        turn_id="t",
        provider_message_id="",
        media=(),
        fallback=False,
    )


def snapshot(version: int = 1, lines: int = 2, lead_id: str = "l1", conversation_id: str = "c1") -> Snapshot:
    return Snapshot(
        lead=lead(lead_id),
        conversation=conversation(conversation_id, version, lines),
        history=tuple(line(n) for n in range(1, lines + 1)),
        usage=UsageToday(),
        version=version,
    )


NOBODY = Snapshot(lead=None, conversation=None, history=(), usage=UsageToday(), version=0)


def after(version: int, lines: tuple[HistoryMessage, ...]) -> After:
    return After(
        lead=lead(), conversation=conversation("c1", version, 2 + len(lines)), messages=lines, usage=UsageToday()
    )


def cache(*, entries: int = 10, most_bytes: int = 1 << 20) -> ContextCache:
    return ContextCache(max_entries=entries, max_bytes=most_bytes, ttl_s=30)


def begin(one: ContextCache, *, at: float = 0.0, day: str = DAY) -> Ticket:
    return one.begin(now_s=at, day=day)


def keep(into: ContextCache, found: Snapshot, asked: ContextQuery | None = None, *, at: float = 0.0) -> None:
    into.keep(begin(into, at=at), asked or query(), found)


def get(
    from_: ContextCache, asked: ContextQuery | None = None, *, version: int = 0, at: float = 0.0, day: str = DAY
) -> Snapshot | None:
    return from_.get(asked or query(), min_version=version, now_s=at, day=day)


def test_what_was_kept_is_found_until_it_is_too_old_or_the_day_is_over() -> None:
    one = cache()
    keep(one, snapshot(), at=5)
    assert get(one, at=34.9) == snapshot()
    assert get(one, at=35) is None
    keep(one, snapshot())
    assert get(one, day="2026-03-02") is None
    assert len(one) == one.bytes == 0


def test_an_older_version_than_asked_for_is_not_served_and_stays_for_others() -> None:
    one = cache()
    keep(one, snapshot(version=3))
    assert get(one, version=4) is None
    assert get(one, version=3) is not None


def test_another_question_is_not_answered() -> None:
    one = cache()
    keep(one, snapshot())
    assert get(one, query(limit=39)) is None
    assert get(one, query(tenant="other")) is None
    assert get(one, query(contact="lid:9")) is not None, "the conversation is known: names play no part"


def test_that_nobody_is_known_is_kept_too_for_the_same_names() -> None:
    one = cache()
    keep(one, NOBODY)
    assert get(one) == NOBODY
    same = query()
    named = ContextQuery(
        conversation_id=same.conversation_id,
        scope=same.scope,
        contact=Contact(contact=same.contact.contact, aliases=("lid:9",)),
        history_limit=same.history_limit,
    )
    assert get(one, named) is None
    assert get(one, version=1) is None


def test_somebody_who_is_known_by_now_is_a_stranger_nowhere() -> None:
    """Elsewhere they were asked for their name again, for as long as the cache keeps what it knows."""
    one = cache()
    late = begin(one)
    keep(one, NOBODY, query("c2"))
    keep(one, NOBODY, query("c3", contact="lid:3"))
    one.drop_strangers((*query().contact.all_aliases, "lid:9"))
    assert get(one, query("c2")) is None
    assert get(one, query("c3", contact="lid:3")) is not None
    one.keep(late, query("c2"), NOBODY)
    assert get(one, query("c2")) is None, "it was looked up before"


def test_a_lookup_that_began_before_a_write_ended_is_not_kept() -> None:
    for write in (
        lambda one: one.drop("c1"),
        lambda one: one.drop_lead("l1"),
        lambda one: one.clear(),
        lambda one: one.recorded(begin(one), "c1", None),
        lambda one: one.recorded(begin(one), "c1", after(2, ())),
    ):
        one = cache()
        ticket = begin(one)
        write(one)
        one.keep(ticket, query(), snapshot())
        assert get(one) is None
        keep(one, snapshot())
        assert get(one) is not None, "one that begins afterwards is"


def test_writes_of_others_do_not_disturb_a_lookup() -> None:
    one = cache()
    ticket = begin(one)
    one.drop("c2")
    one.drop_lead("l2")
    one.keep(ticket, query(), snapshot())
    assert get(one) is not None


def test_an_older_result_does_not_replace_a_newer_one() -> None:
    one = cache()
    slow = begin(one)
    keep(one, snapshot(version=2))
    one.keep(slow, query(), snapshot(version=1))
    found = get(one)
    assert found is not None and found.version == 2


def test_a_recorded_turn_is_written_through() -> None:
    one = cache()
    keep(one, snapshot(version=1, lines=2), query(limit=3))
    one.recorded(begin(one, at=20), "c1", after(2, (line(3, "três"), line(4, "quatro"))))
    found = get(one, query(limit=3), version=2, at=29.9)
    assert found is not None and found.version == 2
    assert [one.sequence for one in found.history] == [2, 3, 4], "as many as were asked for"


def test_turns_do_not_keep_what_was_looked_up_before_them_any_longer() -> None:
    """Each turn began the time anew, also for the lines before it: in a busy conversation a message that had been
    deleted or corrected in the database was shown to the model for ever."""
    one = cache()
    keep(one, snapshot(version=1, lines=2))
    one.recorded(begin(one, at=20), "c1", after(2, (line(3),)))
    assert get(one, at=30) is None
    keep(one, snapshot(version=1, lines=2), at=100)
    one.recorded(begin(one, at=130), "c1", after(2, (line(3),)))
    assert get(one, at=130) is None and len(one) == 0


def test_a_turn_is_not_written_through_when_more_lines_came_in_than_its_own() -> None:
    """Those of a conversation that was merged into this one, or that somebody else wrote."""
    one = cache()
    keep(one, snapshot(version=1, lines=1))
    one.recorded(begin(one), "c1", after(2, (line(3),)))
    assert get(one) is None


def test_what_a_turn_left_behind_is_not_kept_when_lead_or_summary_were_written_since() -> None:
    """The answer to RecordTurn was overtaken by an edit of the lead: the next turn was told the name from before."""
    for write in (lambda one: one.drop("c1"), lambda one: one.drop_lead("l1")):
        one = cache()
        keep(one, snapshot(version=1))
        ticket = begin(one)
        write(one)
        keep(one, snapshot(version=1))
        one.recorded(ticket, "c1", after(2, ()))
        assert get(one) is None


def test_a_turn_out_of_order_or_unknown_takes_the_entry_away() -> None:
    for later in (after(3, ()), after(1, ()), None):
        one = cache()
        keep(one, snapshot(version=1))
        one.recorded(begin(one), "c1", later)
        assert get(one) is None
    one = cache()
    keep(one, snapshot(version=1))
    one.recorded(begin(one, day="2026-03-02"), "c1", after(2, ()))
    assert len(one) == 0, "usage of another day"


def test_a_lead_that_changes_is_shown_nowhere_as_it_was() -> None:
    one = cache()
    keep(one, snapshot())
    keep(one, snapshot(conversation_id="c2"), query("c2"))
    keep(one, snapshot(conversation_id="c3", lead_id="l3"), query("c3"))
    one.recorded(begin(one), "c1", after(2, ()))
    assert get(one, version=2) is not None
    assert get(one, query("c2")) is None
    assert get(one, query("c3")) is not None
    one.drop_lead("l3")
    assert get(one, query("c3")) is None
    keep(one, snapshot())
    one.clear()
    assert get(one) is None and len(one) == one.bytes == 0 and not one._shown_by


def test_entries_and_bytes_are_bounded_and_the_least_used_go_first() -> None:
    one = cache(entries=2)
    for name in ("c1", "c2"):
        keep(one, snapshot(conversation_id=name), query(name))
    get(one, query("c1"))
    keep(one, snapshot(conversation_id="c3"), query("c3"))
    assert [get(one, query(name)) is not None for name in ("c1", "c2", "c3")] == [True, False, True]
    small = cache(most_bytes=20_000)
    for number in range(50):
        keep(small, snapshot(conversation_id=f"c{number}"), query(f"c{number}"))
        assert small.bytes <= 20_000
    assert 3 < len(small) < 50
    huge = replace(snapshot(), history=(line(1, "x" * 30_000),))
    keep(small, huge)
    assert get(small) is None and small.bytes <= 20_000


def test_nothing_is_remembered_of_writes_when_nobody_looks_up() -> None:
    one = cache()
    for number in range(1_000):
        one.drop(f"c{number}")
    ticket = begin(one)
    for number in range(10):
        one.drop(f"c{number}")
    one.give_up(ticket)
    assert not one._written and not one._tickets and not one._shown_by
