"""Judges a history: pass, fail, or invalid when too little happened for either. Pure."""

from __future__ import annotations

import bisect
import enum
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from buffer_service.turn_taking.entities import EndReason, PartState, TurnKind
from tests.chaos.history import PHASES, BookedPart, BookedTurn, History, Injected, Line
from tests.chaos.load import Person

GIVEN_UP_AFTER = 5
# Two processes note the same instant a little apart.
CLOCKS_S = 0.005
KILLS = ("kill",)
STALE = ("STALE_EPOCH", "WRONG_STATE")


class Verdict(enum.StrEnum):
    """`invalid`: the run proves nothing."""

    PASS = "pass"
    FAIL = "fail"
    INVALID = "invalid"


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Less than this is no proof."""

    acked: int = 1
    faults_in_flight: int = 0
    stale_refused: int = 0
    phases: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class Report:
    """Counts, and every violation in words, by promise."""

    acked: int = 0
    attempted: int = 0
    recovered: int = 0
    delivered: int = 0
    turns: int = 0
    answered: int = 0
    unknown: int = 0
    unknown_delivered: int = 0
    honest: int = 0
    dead_letters: int = 0
    canaries_seen: int = 0
    attempts_checked: int = 0
    stale_refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    faults_in_flight: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)
    takeover_s: list[float] = field(default_factory=list)
    takeover_sending_s: list[float] = field(default_factory=list)
    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    missing: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """A violation counts even when too little happened."""
        if any(self.violations.values()):
            return Verdict.FAIL
        return Verdict.INVALID if self.missing else Verdict.PASS

    def __str__(self) -> str:
        lines = [
            f"{self.verdict}: {self.acked} acknowledged, {self.turns} turns, {self.delivered} bubbles delivered, "
            f"{sum(self.faults.values())} faults ({self.faults_in_flight} in flight) {dict(self.faults)}, "
            f"phases {dict(self.phases)}, unknown {self.unknown} (of them delivered {self.unknown_delivered}), "
            f"honest {self.honest}, stale refused {self.stale_refused}, canaries {self.canaries_seen}"
        ]
        lines += [f"  {promise}: {text}" for promise, texts in self.violations.items() for text in texts[:20]]
        lines += [f"  too little: {text}" for text in self.missing]
        return "\n".join(lines)


def check(history: History, needed: Needed) -> Report:
    """Everything that promises.md asks of one run."""
    report = Report()
    _messages(history, report)
    _turns(history, report)
    _replies(history, report)
    _epochs(history, report)
    _leaks(history, report)
    _faults(history, report)
    _vacuity(report, needed)
    return report


# ---- I1, I8, I9: what came in


def _messages(history: History, report: Report) -> None:
    turn_of: dict[str, list[BookedTurn]] = defaultdict(list)
    for turn in history.turns:
        for message_id in turn.message_ids:
            turn_of[message_id].append(turn)
    known = set()
    for person in history.people:
        for message in person.messages:
            known.add(message.message_id)
            report.attempted += 1 if message.first_try else 0
            inside = turn_of.get(message.message_id, [])
            report.acked += 1 if message.acked else 0
            if message.acked and not inside and message.message_id not in history.waiting:
                report.violations["I1"].append(f"{message.message_id} was acknowledged and is lost")
            if inside and not message.acked:
                report.recovered += 1
            if len(inside) > 1:
                report.violations["I8"].append(f"{message.message_id} is in {len(inside)} turns")
        _order_in(person, turn_of, report)
    for message_id in turn_of.keys() - known:
        report.violations["I8"].append(f"{message_id} was never sent to us")
    if history.waiting:
        report.violations["I9"].append(f"{len(history.waiting)} messages still wait")
    if not history.drained:
        report.violations["I9"].append("the system did not come to rest")


def _order_in(person: Person, turn_of: dict[str, list[BookedTurn]], report: Report) -> None:
    placed = [(m, turn_of[m.message_id][0].number) for m in person.messages if turn_of.get(m.message_id)]
    for earlier, first in placed:
        for later, second in placed:
            if 0 < earlier.acked < later.first_try and first > second:
                report.violations["I3"].append(f"{later.message_id} was answered before {earlier.message_id}")


# ---- I9, I13: turns


def _turns(history: History, report: Report) -> None:
    remembered = Counter(history.remembered)
    for turn in history.turns:
        report.turns += 1
        if not turn.ended:
            report.violations["I9"].append(f"turn {turn.turn_id} never ended")
            continue
        if not turn.recorded or remembered[turn.turn_id] != 1:
            report.violations["I9"].append(f"turn {turn.turn_id} is in history {remembered[turn.turn_id]} times")
        _turn(turn, report)


def _turn(turn: BookedTurn, report: Report) -> None:
    states = [p.state for p in turn.parts]
    report.unknown += states.count(PartState.UNKNOWN)
    honest = any("problema técnico" in p.text for p in turn.parts)
    report.honest += 1 if honest else 0
    report.dead_letters += 1 if turn.kind == TurnKind.APOLOGY else 0
    if turn.kind == TurnKind.RECORD or turn.end_reason == EndReason.PAUSED:
        return
    if not turn.parts:
        report.violations["I9"].append(f"turn {turn.turn_id} ended without an answer")
    else:
        report.answered += 1
    if turn.truncated and turn.attempts < GIVEN_UP_AFTER:
        report.violations["truncated"].append(f"turn {turn.turn_id} after {turn.attempts} attempts")
    if PartState.DROPPED in states and PartState.REFUSED not in states:
        report.violations["truncated"].append(f"turn {turn.turn_id} dropped a part")


# ---- I3, I4: what went out


def _replies(history: History, report: Report) -> None:
    booked: dict[str, list[BookedPart]] = defaultdict(list)
    for turn in history.turns:
        booked[turn.contact] += [p for p in turn.parts if p.state in (PartState.SENT, PartState.UNKNOWN)]
    for contact in booked.keys() | history.delivered.keys():
        got, books = history.delivered.get(contact, []), booked.get(contact, [])
        report.delivered += len(got)
        certain = sum(p.state == PartState.SENT for p in books)
        report.unknown_delivered += max(0, len(got) - certain)
        if not explains(got, books):
            promise, text = _why_not(contact, got, books)
            report.violations[promise].append(text)


def explains(got: Sequence[str], books: Sequence[BookedPart]) -> bool:
    """Whether what arrived is the books' sequence, where a part of unknown fate may or may not have arrived."""
    reachable = {0}
    for part in books:
        taken = {i + 1 for i in reachable if i < len(got) and got[i] == part.text}
        reachable = taken | (reachable if part.state == PartState.UNKNOWN else set())
    return len(got) in reachable


def _why_not(contact: str, got: Sequence[str], books: Sequence[BookedPart]) -> tuple[str, str]:
    heard, all_booked = Counter(got), Counter(p.text for p in books)
    certain = Counter(p.text for p in books if p.state == PartState.SENT)
    if more := heard - all_booked:
        return "I4", f"{contact} got {sum(more.values())} bubbles more than the books say"
    if less := certain - heard:
        return "I1", f"{contact}: {sum(less.values())} bubbles are booked as sent and never arrived"
    return "I3", f"{contact} got the bubbles in another order"


# ---- I2: epochs


def _epochs(history: History, report: Report) -> None:
    given: dict[str, list[Line]] = defaultdict(list)
    allowed: set[tuple[str, int, int, int]] = set()
    latest: dict[str, int] = defaultdict(int)
    begun: set[tuple[str, int]] = set()
    for line in history.lines:
        if line.event == "turn_given":
            given[line.turn_id].append(line)
            if line.epoch <= latest[line.turn_id]:
                report.violations["I2"].append(f"turn {line.turn_id} was given twice with epoch {line.epoch}")
            latest[line.turn_id] = max(latest[line.turn_id], line.epoch)
        elif line.event == "attempt_allowed":
            allowed.add((line.turn_id, line.epoch, line.part, line.attempt))
            if line.epoch < latest[line.turn_id]:
                report.violations["I2"].append(f"turn {line.turn_id}: an attempt of stale epoch {line.epoch}")
        elif line.event in ("ask_refused", "turn_revoked") and line.reason in STALE:
            report.stale_refused += 1
    for line in history.lines:
        if line.event == "send_began":
            report.attempts_checked += 1
            _send(line, given[line.turn_id], allowed, begun, report)


def _send(
    line: Line, given: Sequence[Line], allowed: set[tuple[str, int, int, int]], begun: set[tuple[str, int]], to: Report
) -> None:
    if (line.turn_id, line.epoch, line.part, line.attempt) not in allowed:
        to.violations["I2"].append(f"turn {line.turn_id}: a send that nobody allowed, epoch {line.epoch}")
    if (line.turn_id, line.attempt) in begun:
        to.violations["I4"].append(f"turn {line.turn_id}: attempt {line.attempt} began twice")
    begun.add((line.turn_id, line.attempt))
    if any(g.epoch > line.epoch and g.at + CLOCKS_S < line.at for g in given):
        to.violations["I2"].append(f"turn {line.turn_id}: a send of stale epoch {line.epoch}")


# ---- I5: whose words


def _leaks(history: History, report: Report) -> None:
    owner = {person.canary: person.contact for person in history.people}
    for contact, texts in history.delivered.items():
        for word in {w.strip(".,!?:;*_") for text in texts for w in text.split()}:
            if word in owner:
                report.canaries_seen += 1
                if owner[word] != contact:
                    report.violations["I5"].append(f"{contact} was told the name of {owner[word]}")


# ---- faults


def _faults(history: History, report: Report) -> None:
    ends = {t.turn_id: t.ended / 1000 for t in history.turns}
    steps: dict[str, list[Line]] = defaultdict(list)
    for line in history.lines:
        if line.event in PHASES:
            steps[line.turn_id].append(line)
    starts = {turn_id: lines[0].at for turn_id, lines in steps.items()}
    for fault in history.faults:
        report.faults[f"{fault.kind} {fault.victim}"] += 1
        running = [t for t, at in starts.items() if at <= fault.at < (ends.get(t) or 1e12)]
        report.faults_in_flight += 1 if running else 0
        report.phases["idle"] += 0 if running else 1
        for turn_id in running:
            before = [line for line in steps[turn_id] if line.at <= fault.at]
            report.phases[PHASES[before[-1].event]] += 1
            _takeover(fault, before, steps[turn_id], report)
        following = bisect.bisect_right(history.delivered_at, fault.at)
        if running and fault.kind in KILLS and following < len(history.delivered_at):
            report.recovery_s.append(history.delivered_at[following] - fault.at)


def _takeover(fault: Injected, before: Sequence[Line], steps: Sequence[Line], report: Report) -> None:
    holder = next((line.process for line in reversed(before) if line.event == "turn_taken"), "")
    if holder != fault.victim:
        return
    again = next((line for line in steps if line.at > fault.at and line.event == "turn_given"), None)
    finished = any(line.at > fault.at and line.process == holder for line in steps)
    if again is None or (finished and fault.kind != "kill"):
        return
    # Also when the send has ended: whether the buffer was told, the books of the victim don't say.
    sending = before[-1].event in ("attempt_allowed", "send_began", "send_ended")
    (report.takeover_sending_s if sending else report.takeover_s).append(again.at - fault.at)


def _vacuity(report: Report, needed: Needed) -> None:
    if report.acked < needed.acked:
        report.missing.append(f"{report.acked} messages acknowledged, {needed.acked} needed")
    if report.faults_in_flight < needed.faults_in_flight:
        report.missing.append(f"{report.faults_in_flight} faults in flight, {needed.faults_in_flight} needed")
    if report.stale_refused < needed.stale_refused:
        report.missing.append("no stale effect was tried")
    for phase in sorted(needed.phases - set(report.phases)):
        report.missing.append(f"no fault hit the phase {phase!r}")
