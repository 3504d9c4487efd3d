"""Every kind of violation, by hand: a checker that finds nothing proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from buffer_service.turn_taking.entities import EndReason, PartState, TurnKind
from tests.chaos.checker import Needed, Verdict, check, explains
from tests.chaos.history import BookedPart, BookedTurn, History, Injected, Line, read_lines
from tests.chaos.load import Message, Person

ANA, BIA = "5581980000001", "5581980000002"


def part(text: str, state: PartState = PartState.SENT) -> BookedPart:
    return BookedPart(text=text, state=state)


def turn(name: str, number: int, *ids: str, contact: str = ANA, parts: tuple[BookedPart, ...] = ()) -> BookedTurn:
    return BookedTurn(
        turn_id=name,
        contact=contact,
        number=number,
        kind=TurnKind.ANSWER,
        ended=9_000,
        end_reason=EndReason.FINISHED,
        truncated=False,
        attempts=0,
        recorded=True,
        message_ids=ids,
        parts=parts or (part(f"r-{name}"),),
    )


def line(at: float, event: str, name: str = "t1", epoch: int = 1, **more: object) -> Line:
    return Line(at=at, event=event, turn_id=name, epoch=epoch, **more)  # type: ignore[arg-type]


def good() -> History:
    """Two turns of one person, one of another; a kill in the middle of the first."""
    ana = Person(contact=ANA, canary="Zana")
    ana.messages = [
        Message(message_id="m1", first_try=1, acked=1.1),
        Message(message_id="m2", first_try=2, acked=2.1),
    ]
    bia = Person(contact=BIA, canary="Zbia", messages=[Message(message_id="m3", first_try=1, acked=1.2)])
    return History(
        people=[ana, bia],
        turns=[
            turn("t1", 1, "m1", parts=(part("oi Zana"), part("tudo?"))),
            turn("t2", 2, "m2"),
            turn("t3", 3, "m3", contact=BIA),
        ],
        delivered={ANA: ["oi Zana", "tudo?", "r-t2"], BIA: ["r-t3"]},
        delivered_at=[3.5, 4.0, 5.0, 6.0],
        remembered=["t1", "t2", "t3"],
        lines=[
            line(1.0, "turn_given"),
            line(1.1, "turn_taken", process="ingress-0"),
            line(1.2, "attempt_allowed", part=0, attempt=1),
            line(1.3, "send_began", part=0, attempt=1, process="ingress-0"),
            line(3.0, "turn_given", epoch=2),
            line(3.1, "turn_taken", epoch=2, process="ingress-1"),
            line(3.2, "ask_refused", reason="STALE_EPOCH"),
        ],
        faults=[Injected(at=1.4, kind="kill", victim="ingress-0")],
    )


NEEDED = Needed(acked=3, faults_in_flight=1, stale_refused=1, phases=frozenset({"sending"}))


def test_a_clean_run_passes_and_its_numbers_are_right() -> None:
    report = check(good(), NEEDED)
    assert report.verdict is Verdict.PASS, str(report)
    assert (report.acked, report.turns, report.delivered, report.canaries_seen) == (3, 3, 4, 1)
    assert report.phases["sending"] == 1 and report.takeover_sending_s == [1.6] and report.recovery_s == [2.1]


def without_turn(h: History) -> None:
    h.turns.pop(1)
    h.delivered[ANA].pop()


def twice_in(h: History) -> None:
    h.turns.append(turn("t4", 4, "m1", parts=(part("x", PartState.UNKNOWN),)))
    h.remembered.append("t4")


def swapped_turns(h: History) -> None:
    h.turns[0], h.turns[1] = (
        replace(h.turns[0], message_ids=("m2",)),
        replace(h.turns[1], message_ids=("m1",)),
    )


def change(index: int, **how: object) -> Callable[[History], None]:
    def apply(h: History) -> None:
        h.turns[index] = replace(h.turns[index], **how)  # type: ignore[arg-type]

    return apply


def add(at: float, event: str, **how: object) -> Callable[[History], None]:
    return lambda h: h.lines.append(line(at, event, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("promise", "break_it"),
    [
        ("I1", without_turn),
        ("I1", lambda h: h.delivered[ANA].remove("tudo?")),
        ("I2", add(3.5, "attempt_allowed", epoch=1, part=1, attempt=2)),
        ("I2", add(3.5, "turn_given", epoch=2)),
        ("I2", add(3.5, "send_began", epoch=1, part=0, attempt=1)),
        ("I2", add(1.5, "send_began", epoch=1, part=1, attempt=9)),
        ("I3", swapped_turns),
        ("I3", lambda h: h.delivered[ANA].reverse()),
        ("I4", lambda h: h.delivered[ANA].append("tudo?")),
        ("I4", lambda h: h.delivered[BIA].append("from nowhere")),
        ("I4", add(1.35, "send_began", epoch=1, part=0, attempt=1)),
        ("I5", lambda h: h.delivered.update({BIA: ["r-t3", "oi Zana!"]})),
        ("I8", twice_in),
        ("I8", change(0, message_ids=("m1", "nobody's"))),
        ("I9", lambda h: h.waiting.add("m2")),
        ("I9", lambda h: setattr(h, "drained", False)),
        ("I9", change(0, ended=0)),
        ("I9", change(0, recorded=False)),
        ("I9", lambda h: h.remembered.append("t1")),
        ("I9", lambda h: h.remembered.remove("t2")),
        ("truncated", change(0, truncated=True, attempts=2)),
        ("truncated", change(0, parts=(part("oi Zana"), part("tudo?"), part("x", PartState.DROPPED)))),
    ],
)
def test_each_violation_is_found(promise: str, break_it: Callable[[History], None]) -> None:
    history = good()
    break_it(history)
    history.lines.sort(key=lambda one: one.at)
    report = check(history, NEEDED)
    assert report.verdict is Verdict.FAIL
    assert report.violations[promise], str(report)


@pytest.mark.parametrize(
    "needed",
    [
        Needed(acked=4),
        Needed(faults_in_flight=2),
        Needed(stale_refused=2),
        Needed(phases=frozenset({"recording"})),
    ],
)
def test_too_little_is_invalid_not_a_pass(needed: Needed) -> None:
    assert check(good(), needed).verdict is Verdict.INVALID


def test_after_five_attempts_a_truncated_reply_is_no_violation() -> None:
    history = good()
    change(0, truncated=True, attempts=5)(history)
    assert check(history, NEEDED).verdict is Verdict.PASS


def test_a_part_of_unknown_fate_may_have_arrived_or_not() -> None:
    books = [part("a"), part("b", PartState.UNKNOWN), part("b")]
    assert explains(["a", "b"], books) and explains(["a", "b", "b"], books)
    assert not explains(["a"], books) and not explains(["a", "b", "b", "b"], books)


def test_a_line_that_a_kill_cut_off_is_left_out() -> None:
    whole = '{"timestamp": "2026-01-01T00:00:00.001Z", "event": "turn_given", "turn_id": "t", "epoch": 3}'
    [found] = read_lines("p", [whole, whole[:60], "Traceback"])
    assert (found.epoch, found.process) == (3, "p")
