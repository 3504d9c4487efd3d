"""The database functions in company: nothing lost, nothing twice, in order, and nobody waits for ever."""

from __future__ import annotations

import random
import threading

import psycopg
import pytest

from context_service.domain import TurnRecord
from tests.context_service.builders import generation, message, record, update
from tests.context_service.supabase_sql import (
    Connection,
    Work,
    at_once,
    forget,
    one,
    put_summary,
    record_turn,
    rows,
    service,
    sweep,
    update_lead,
)
from tests.stand_ins.postgres import Database

# What a function may refuse: a tombstone, what is no more, an old summary, a person who changed meanwhile.
REFUSALS = {"SDR01", "SDR04", "SDR05", "SDR06", "SDR07", "SDR10"}


def recording(turn: TurnRecord) -> Work:
    return lambda connection: record_turn(connection, turn)


def assert_the_books_are_right(database: Database) -> None:
    """Counts agree, one open conversation per place, nobody behind a tombstone, nothing that points nowhere."""
    conversations = rows(
        database,
        "SELECT total_messages, ARRAY(SELECT sequence FROM messages WHERE conversation_id = one.id ORDER BY sequence) "
        "FROM conversations AS one",
    )
    for total, sequences in conversations:
        assert sequences == list(range(1, total + 1))
    for nothing in (
        "SELECT session_id FROM conversations JOIN forgotten_conversations ON session_id = conversation_id",
        "SELECT turn_id FROM turns WHERE lead_id NOT IN (SELECT id FROM leads)",
        "SELECT lead_id FROM conversations WHERE status IN ('ACTIVE', 'PAUSED') GROUP BY lead_id, channel, instance "
        "HAVING count(*) > 1",
        "SELECT id FROM leads WHERE NOT EXISTS (SELECT FROM lead_aliases WHERE lead_id = leads.id)",
        "SELECT usage_days.conversation_id FROM usage_days JOIN forgotten_conversations USING (conversation_id)",
    ):
        assert rows(database, nothing) == [], nothing


def test_turns_of_one_person_make_one_lead_and_follow_each_other(project: Database) -> None:
    turns = [
        record(
            f"t{n}",
            f"c{n % 3}",
            instance=f"place-{n % 3}",
            messages=[message(f"m{n}")],
            effects=[update(bill_value_cents=n + 1), generation(prompt_tokens=1, cost_micros=2)],
        )
        for n in range(120)
    ]
    answers = at_once(project, [recording(turn) for turn in turns], connections=8)
    assert len({answer["lead_id"] for answer in answers}) == 1
    for place in range(3):
        assert sorted(answer["version"] for answer in answers[place::3]) == list(range(1, 41))
    found = rows(project, "SELECT session_id, version, total_messages FROM conversations ORDER BY 1")
    assert found == [(f"c{place}", 40, 80) for place in range(3)]
    used = dict(rows(project, "SELECT conversation_id, tokens + cost_micros FROM usage_days"))
    assert used == {"": 360, "c0": 120, "c1": 120, "c2": 120}
    bills = rows(project, "SELECT old_value, new_value FROM lead_changes WHERE field = 'bill_value' ORDER BY row_id")
    assert [old for old, _ in bills] == [None, *(new for _, new in bills[:-1])], "no change was lost"
    assert_the_books_are_right(project)


def test_one_turn_from_ten_connections_is_recorded_once(project: Database) -> None:
    for n in range(5):
        turn = record(f"t{n}", effects=[generation(prompt_tokens=1)], messages=[message(f"m{n}")])
        answers = at_once(project, [recording(turn)] * 10, connections=10)
        assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 9
        assert {answer["version"] for answer in answers} == {n + 1}
    assert rows(project, "SELECT tokens FROM usage_days") == [(5,), (5,)]
    assert_the_books_are_right(project)


class Bustle:
    """Four people who write, while they are merged, erased, swept, summarised and edited. An erased conversation stays
    erased, so that new ones begin all the time."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._count = 0

    def works(self, count: int) -> list[Work]:
        kinds = [self._turn] * 12 + [self._merge] * 4 + [self._edit, self._summary, self._summary, self._sweep]
        kinds += [self._forget, self._forget_all]
        return [self._chance.choice(kinds)() for _ in range(count)]

    def _conversation(self, who: int) -> str:
        return f"c{who}-{self._count // 10}"

    def _turn(self, merged: tuple[str, ...] = (), who: int | None = None) -> Work:
        self._count += 1
        who = self._chance.randrange(4) if who is None else who
        names = self._chance.sample([f"lid:{who}", f"bsuid:{who}", f"lid:{(who + 1) % 4}"], k=2)
        return recording(
            record(
                f"t{self._count}",
                self._conversation(who),
                contact=f"55{who}",
                aliases=names,
                messages=[message(f"m{self._count}")],
                effects=[update(bill_value_cents=self._count), generation(prompt_tokens=1)],
                merged_conversation_ids=merged,
            )
        )

    def _merge(self) -> Work:
        who = self._chance.randrange(3)
        return self._turn(tuple(self._conversation(other) for other in range(who + 1, 4)), who)

    def _edit(self) -> Work:
        def edit(connection: Connection) -> None:
            for (lead_id,) in connection.execute("SELECT id FROM leads").fetchall():
                update_lead(connection, lead_id, current_stage="OFFER", name="x")

        return edit

    def _summary(self) -> Work:
        conversation = self._conversation(self._chance.randrange(4))
        return lambda connection: put_summary(connection, conversation)

    def _sweep(self) -> Work:
        return sweep

    def _forget(self) -> Work:
        alias = self._chance.choice([f"phone:55{self._chance.randrange(4)}", f"lid:{self._chance.randrange(4)}"])
        return lambda connection: forget(connection, alias)

    def _forget_all(self) -> Work:
        everything = [self._conversation(who) for who in range(4)]
        return lambda connection: forget(connection, "lid:1", *everything)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(6))
def test_everything_at_once_deadlocks_nobody(project: Database, seed: int) -> None:
    """A sweep locked messages before conversations, a merge its second lead after the first, an erasure the counters
    before the conversation: PostgreSQL found the circle after a second and refused one of them."""
    results = at_once(project, Bustle(seed).works(400), connections=8)
    refused = [error for error in results if isinstance(error, psycopg.Error)]
    assert [str(error) for error in refused if error.sqlstate not in REFUSALS] == []
    answers = [answer for answer in results if isinstance(answer, dict)]
    recorded = [one for one in answers if "version" in one]
    erased = [one for one in answers if one.keys() == {"leads", "conversations", "messages"} and one["leads"]]
    assert len(recorded) > 40 and len(erased) > 2, "then it was no test"
    for nothing in (
        "SELECT session_id FROM conversations JOIN forgotten_conversations ON session_id = conversation_id",
        "SELECT turn_id FROM turns WHERE lead_id NOT IN (SELECT id FROM leads)",
    ):
        assert rows(project, nothing) == [], nothing


def wait_until_blocked(project: Database, thread: threading.Thread) -> bool:
    """True when somebody waits for a lock, false when the thread has ended without."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with project.connect("supabase_admin") as connection:
        while thread.is_alive():
            if one(connection, waiting):
                return True
    return False


class TestLockOrder:
    """One has made its first step when the other one begins, and makes its second when that one waits."""

    @pytest.fixture(autouse=True)
    def known(self, project: Database) -> None:
        cost = [generation(prompt_tokens=1)]
        with service(project) as connection:
            record_turn(connection, record("t1", "c1", contact="551", effects=cost))
            record_turn(connection, record("t2", "c2", contact="552", messages=[message("2")], effects=cost))

    def cross(
        self, project: Database, first_step: str, other: Work, second_step: Work, *, waits: bool = True
    ) -> object:
        with service(project) as connection:
            connection.execute("BEGIN")
            connection.execute(first_step.encode())
            answers: list[object] = []
            thread = threading.Thread(target=lambda: answers.extend(at_once(project, [other], connections=1)))
            thread.start()
            assert wait_until_blocked(project, thread) == waits
            second_step(connection)
            connection.execute("COMMIT")
            thread.join()
        return answers[0]

    def test_an_erasure_waits_for_a_summary_before_it_touches_the_counters(self, project: Database) -> None:
        held = "SELECT FROM conversations WHERE session_id = 'c1' FOR UPDATE"
        gone = self.cross(project, held, lambda c: forget(c, "phone:551"), lambda c: put_summary(c, "c1"))
        assert gone == {"leads": 1, "conversations": 1, "messages": 2}
        assert rows(project, "SELECT tokens FROM usage_days ORDER BY conversation_id") == [(7,), (1,)]

    def test_a_merge_waits_for_a_summary_before_it_touches_the_counters(self, project: Database) -> None:
        held = "SELECT FROM conversations WHERE session_id = 'c2' FOR UPDATE"
        merge = record("t3", "c1", contact="551", messages=[message("3")], merged_conversation_ids=["c2"])
        answer = self.cross(project, held, recording(merge), lambda c: put_summary(c, "c2"))
        assert isinstance(answer, dict) and answer["version"] == 2
        assert rows(project, "SELECT tokens FROM usage_days") == [(7,), (7,)]

    @pytest.mark.parametrize("held", ["messages", "usage_days", "conversations", "leads"])
    def test_a_sweep_waits_for_nobody(self, project: Database, held: str) -> None:
        lock = f"SELECT FROM {held} LIMIT 1 FOR UPDATE"
        done = self.cross(project, lock, sweep, lambda c: None, waits=False)
        assert isinstance(done, dict)
        again = at_once(project, [sweep, sweep], connections=1)
        assert again[1] == dict.fromkeys(done, 0), "what was left is gone with the next ones"


class TestForgettingMeanwhile:
    """Each pair in both orders: what began first holds its locks until the other one waits for them."""

    @pytest.fixture(autouse=True)
    def known(self, project: Database) -> None:
        with service(project) as connection:
            record_turn(connection, record("t1", "c1", contact="551", aliases=["lid:1"]))
            record_turn(connection, record("t2", "c2", contact="552", messages=[message("2")]))

    def overlap(self, project: Database, first: Work, second: Work) -> tuple[object, object]:
        """`second` begins when `first` is done but not committed, and goes on after the commit."""
        with service(project) as holding:
            holding.execute("BEGIN")
            done = first(holding)
            answers: list[object] = []
            thread = threading.Thread(target=lambda: answers.extend(at_once(project, [second], connections=1)))
            thread.start()
            wait_until_blocked(project, thread)
            holding.execute("COMMIT")
            thread.join()
        return done, answers[0]

    def test_a_turn_that_was_first_is_erased_with_the_rest(self, project: Database) -> None:
        late = record("t3", "c3", contact="551", instance="two", messages=[message("3")])
        _, gone = self.overlap(project, recording(late), lambda c: forget(c, "lid:1"))
        assert gone == {"leads": 1, "conversations": 2, "messages": 4}
        assert rows(project, "SELECT turn_id FROM turns") == [("t2",)]
        assert_the_books_are_right(project)

    @pytest.mark.parametrize("conversation", ["c1", "c3"])
    def test_a_turn_that_comes_meanwhile_leaves_nothing(self, project: Database, conversation: str) -> None:
        """By another name than the erasure was asked with, so that only the lead's lock keeps them apart."""
        turn = record("t3", conversation, contact="551", instance="two", messages=[message("3")])
        _, refused = self.overlap(project, lambda c: forget(c, "lid:1"), recording(turn))
        assert isinstance(refused, psycopg.Error) and refused.sqlstate in ("SDR01", "SDR10")
        assert rows(project, "SELECT turn_id FROM turns") == [("t2",)]
        assert_the_books_are_right(project)
        with service(project) as connection:
            if conversation == "c1":
                with pytest.raises(psycopg.Error) as again:
                    record_turn(connection, turn)
                assert again.value.sqlstate == "SDR01"
            else:
                assert record_turn(connection, turn)["version"] == 1, "somebody new, who writes after the erasure"

    def test_who_was_merged_meanwhile_is_erased_where_they_went(self, project: Database) -> None:
        """The erasure had found the lead, waited for it, and found it gone: it said one lead, and erased nobody."""
        merge = record("t3", "c2", contact="552", messages=[message("3")], merged_conversation_ids=["c1"])
        _, gone = self.overlap(project, recording(merge), lambda c: forget(c, "lid:1"))
        assert gone == {"leads": 1, "conversations": 1, "messages": 6}
        assert rows(project, "SELECT count(*) FROM leads") == [(0,)]
        assert set(rows(project, "SELECT conversation_id FROM forgotten_conversations")) == {("c1",), ("c2",)}

    def test_a_merge_of_somebody_who_was_erased_is_refused_or_empty(self, project: Database) -> None:
        merge = record("t3", "c2", contact="552", messages=[message("3")], merged_conversation_ids=["c1"])
        self.overlap(project, lambda c: forget(c, "lid:1"), recording(merge))
        assert rows(project, "SELECT phone_number FROM leads") == [("552",)]
        assert rows(project, "SELECT count(*) FROM messages WHERE provider_message_id = 'm-t1'") == [(0,)]
        assert_the_books_are_right(project)

    def test_a_change_and_a_summary_of_somebody_who_was_erased_are_refused(self, project: Database) -> None:
        lead = rows(project, "SELECT id::text FROM leads WHERE phone_number = '551'")[0][0]
        works: list[tuple[Work, str]] = [
            (lambda c: update_lead(c, lead, name="x"), "SDR04"),
            (lambda c: put_summary(c, "c1"), "SDR05"),
        ]
        for work, state in works:
            _, refused = self.overlap(project, lambda c: forget(c, "lid:1"), work)
            assert isinstance(refused, psycopg.Error) and refused.sqlstate == state
            with service(project) as connection, pytest.raises(psycopg.Error):
                record_turn(connection, record("t9", "c1", contact="551"))
            assert_the_books_are_right(project)
            project.execute("DELETE FROM forgotten_conversations")
            with service(project) as connection:
                lead = record_turn(connection, record("t1", "c1", contact="551", aliases=["lid:1"]))["lead_id"]
