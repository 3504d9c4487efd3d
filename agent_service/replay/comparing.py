"""What was said and found out then, beside what it would be now."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent_service.replay.facts import facts_of
from agent_service.replay.playing import Answer
from agent_service.replay.recording import RecordedTurn


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that differs; empty where there was nothing."""

    then: str
    now: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One turn, both ways."""

    turn_id: str
    at: str
    asked: tuple[str, ...]
    then: tuple[str, ...]
    now: tuple[str, ...]
    facts: Mapping[str, Change]
    trouble: str = ""
    stood_in: str = ""

    @property
    def reworded(self) -> bool:
        """Whether another text would be said."""
        return self.then != self.now

    @property
    def matters(self) -> bool:
        """Whether more than the wording differs: facts, the stage, a hand-over, or that there was no answer at all."""
        return bool(self.facts or self.trouble or self.stood_in)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "turn_id": self.turn_id,
            "at": self.at,
            "asked": list(self.asked),
            "then": list(self.then),
            "now": list(self.now),
            "reworded": self.reworded,
            "matters": self.matters,
            "facts": {name: {"then": change.then, "now": change.now} for name, change in self.facts.items()},
            "trouble": self.trouble,
            "stood_in": self.stood_in,
        }

    def as_text(self) -> str:
        """For people."""
        lines = [f"{'≠' if self.matters else '~' if self.reworded else '='} {self.at}  {self.turn_id}"]
        lines += [f"    lead   {text}" for text in self.asked]
        lines += [f"    then   {text}" for text in self.then] or ["    then   (nothing)"]
        if self.reworded:
            lines += [f"    now    {text}" for text in self.now] or ["    now    (nothing)"]
        for name, change in self.facts.items():
            lines.append(f"    {name}: {change.then or '-'} → {change.now or '-'}")
        lines += [f"    another model answered: {self.stood_in}"] if self.stood_in else []
        lines += [f"    no answer: {self.trouble}"] if self.trouble else []
        return "\n".join(lines)


def compare(recorded: RecordedTurn, answer: Answer) -> Comparison:
    """Both sides of one turn; "stage" and "handoff" stand among the facts."""
    then = {**facts_of(recorded.lead_after), **_standing(recorded.lead_after.stage, recorded.handed_over)}
    now = {**facts_of(answer.lead_after), **_standing(answer.lead_after.stage, answer.handed_over)}
    names = [name for name in {**then, **now} if then.get(name, "") != now.get(name, "")]
    return Comparison(
        turn_id=recorded.turn_id,
        at=datetime.fromtimestamp(recorded.turn.now_ms / 1000, UTC).isoformat(timespec="seconds"),
        asked=tuple(message.text or f"[{message.kind.value}]" for message in recorded.turn.messages),
        then=recorded.said,
        now=answer.said,
        facts={name: Change(then=then.get(name, ""), now=now.get(name, "")) for name in names},
        trouble=answer.trouble,
        stood_in=answer.stood_in,
    )


def _standing(stage: str, handed_over: bool) -> dict[str, str]:
    return {"stage": stage, "handoff": "sim" if handed_over else "não"}
