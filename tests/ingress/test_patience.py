"""The table of the breaker: instants in, trust out."""

from __future__ import annotations

import pytest

from ingress.patience import DOUBT_S, GRACE_S, PAUSE_MAX_S, Patience, Trust, pause_s

FULL_S = 2.0


def patience(**values: float) -> Patience:
    return Patience(full_s=FULL_S, **values)  # type: ignore[arg-type]


def out(now: float = 100.0) -> Patience:
    one = patience()
    one.trouble(now - GRACE_S, since=now - GRACE_S)
    assert one.judge(now)
    return one


@pytest.mark.parametrize(
    ("pace_s", "overdue_s"),
    [(0.0, DOUBT_S), (0.005, DOUBT_S), (0.4, 0.6), (1.9, FULL_S), (60.0, FULL_S)],
)
def test_a_call_is_overdue_when_it_takes_much_longer_than_the_latest_answer(pace_s: float, overdue_s: float) -> None:
    assert patience(pace_s=pace_s).overdue_s == pytest.approx(overdue_s)


def test_a_timeout_shorter_than_the_doubt_is_kept() -> None:
    assert Patience(full_s=0.1).overdue_s == 0.1


@pytest.mark.parametrize(
    ("now", "since", "pace_s", "proven_at"),
    [
        (10.0, 10.0, 0.0, 11.0),  # an error: the grace, which bridges a restart
        (10.5, 10.0, 0.0, 11.0),  # overdue since 10.0: whoever waits is let go a second after it began
        (13.0, 10.0, 0.0, 13.5),  # noticed late (the loop was busy): the question still gets its time
        (12.0, 10.0, 1.9, 14.0),  # slow before: an answer takes that long
    ],
)
def test_a_doubt_is_proven_when_nobody_got_an_answer(now: float, since: float, pace_s: float, proven_at: float) -> None:
    one = patience(pace_s=pace_s)
    assert one.trouble(now, since=since)
    assert one.trust is Trust.DOUBTED and one.proven_at == pytest.approx(proven_at)
    assert not one.judge(proven_at - 0.001)
    assert one.judge(proven_at)
    assert one.trust is Trust.OUT and one.out_since == proven_at


def test_only_the_first_trouble_begins_a_doubt() -> None:
    one = patience()
    assert one.trouble(1.0, since=1.0)
    assert not one.trouble(1.9, since=1.9)
    assert one.proven_at == 2.0, "later troubles don't move it on"
    assert one.judge(2.0) and not one.judge(2.0), "nobody is let go twice"
    assert not one.trouble(3.0, since=3.0) and one.trust is Trust.OUT


def test_any_answer_ends_a_doubt() -> None:
    one = patience()
    one.trouble(1.0, since=1.0)
    assert not one.answered(took_s=0.01), "it was not out"
    assert one.trust is Trust.TRUSTED
    assert not one.judge(2.0)
    assert one.trouble(5.0, since=5.0) and one.proven_at == 6.0


def test_an_answer_brings_it_back() -> None:
    one = out()
    assert one.answered(took_s=0.02)
    assert one.trust is Trust.TRUSTED and one.pace_s == 0.02


def test_an_answer_whose_length_says_nothing_leaves_the_pace() -> None:
    one = patience(pace_s=0.3)
    one.answered()
    assert one.pace_s == 0.3


def test_trusted_is_never_judged() -> None:
    assert not patience().judge(1e9)


def test_questions_to_a_service_that_is_out_become_rarer_but_never_rare() -> None:
    pauses = [pause_s(failures) for failures in (1, 2, 3, 4, 100_000)]
    assert pauses == sorted(pauses) and pauses[0] < 0.5 and pauses[-1] == PAUSE_MAX_S <= 1.0
