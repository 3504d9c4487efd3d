"""Making one reply: the same turn always gives the same reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent_service.conversation import Effect, End, HandOver, Lead, LeadPatch, Turn
from agent_service.persona import Outcome, Persona, Reads
from agent_service.playbook import facts
from agent_service.playbook.past import Past, comparable, fill
from agent_service.playbook.reading import Reading, Scene, read_turn
from agent_service.playbook.script import next_step, open_step
from agent_service.understanding.intents import Intent
from agent_service.understanding.money import show_money

MAX_BUBBLES = 3


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Bubbles to say and facts to keep."""

    bubbles: tuple[str, ...]
    effects: tuple[Effect, ...] = ()
    end: End = End.STOP


@dataclass(kw_only=True)
class _Draft:
    """A reply in the making."""

    persona: Persona
    turn: Turn
    past: Past
    reading: Reading
    lead: Lead
    patch: LeadPatch
    handoff: str = ""
    brief: bool = False
    used: list[str] = field(default_factory=list)

    def word(self, variants: Sequence[str]) -> str:
        """A variant that wasn't said yet, with its placeholders filled."""
        variant = self.past.pick(variants, self.used)
        self.used.append(variant)
        return fill(variant, self._values())

    def _values(self) -> Mapping[str, str]:
        fields = {step.reads: step.field for step in self.persona.script}
        return {
            "agent": self.persona.agent,
            "company": self.persona.company,
            "city": self.persona.city,
            "state": self.persona.state,
            "name": self.lead.name,
            "bill": show_money(self.lead.bill_cents or 0),
            "greeting": greeting(self.persona, self.turn.now_ms),
            "day": self.lead.preferences.get(fields.get(Reads.DAY, ""), ""),
            "time": self.lead.preferences.get(fields.get(Reads.TIME, ""), ""),
        }


def greeting(persona: Persona, now_ms: int) -> str:
    """The greeting for the time of day where the business lives."""
    hour = datetime.fromtimestamp(now_ms / 1000, persona.zone).hour
    if 5 <= hour < 12:
        return persona.greetings.morning
    return persona.greetings.afternoon if 12 <= hour < 18 else persona.greetings.evening


def make_reply(persona: Persona, turn: Turn, *, words: frozenset[str]) -> Reply:
    """Read the turn, decide and word the reply. Never empty."""
    past = Past.of(persona, turn.history)
    today = datetime.fromtimestamp(turn.now_ms / 1000, persona.zone).date()
    scene = Scene(
        persona=persona,
        lead=turn.lead,
        past=past,
        open_step=open_step(persona, turn.lead, past),
        words=words,
        today=today,
    )
    reading = read_turn(turn.messages, scene)
    patch = facts.only_news(turn.lead, reading.patch)
    draft = _Draft(
        persona=persona, turn=turn, past=past, reading=reading, patch=patch, lead=facts.merged(turn.lead, patch)
    )
    bubbles = _decide(draft)
    return Reply(bubbles=_never_again(bubbles, draft), effects=_effects(draft))


def _decide(draft: _Draft) -> list[str]:
    persona, reading, sentences = draft.persona, draft.reading, draft.persona.sentences
    outcome = _outcome(draft)
    if reason := _handoff_reason(draft, outcome):
        _hand_over(draft, reason, stage=persona.handoff_stage)
        complaint = reason == Intent.COMPLAINT.value
        return [draft.word(sentences.handoff_complaint if complaint else sentences.handoff)]
    if outcome is Outcome.REFUSE or Intent.REFUSAL in reading.intents:
        _note(draft, interested=False, stage=persona.refused_stage)
        return [*_answers(draft), draft.word(sentences.refused)]
    if outcome is Outcome.DISQUALIFY:
        _note(draft, qualification="NOT_QUALIFIED", stage=persona.refused_stage)
        return [*_answers(draft), draft.word(sentences.disqualified)]
    if _meeting_made(draft):
        day, time = (_field_value(draft, reads) for reads in (Reads.DAY, Reads.TIME))
        _hand_over(draft, f"meeting wanted: {day}, {time}", stage=None)
        return [*_answers(draft), draft.word(sentences.meeting_handoff)]
    return _converse(draft)


def _converse(draft: _Draft) -> list[str]:
    first = _acknowledge(draft)
    answers = _answers(draft)
    question = _next_question(draft)
    if first and question and not answers and draft.brief:
        return [f"{first[0]} {question}"]
    bubbles = [" ".join(first)] if first else []
    bubbles += answers
    if question:
        bubbles.append(question)
    if not bubbles or (not question and not answers and not _enough(draft, first)):
        sentences = draft.persona.sentences
        bubbles.append(draft.word(sentences.neutral if draft.turn.degraded else sentences.idle))
    return bubbles


def _enough(draft: _Draft, first: list[str]) -> bool:
    return bool(first) and (Intent.LATER in draft.reading.intents or Intent.THANKS in draft.reading.intents)


def _acknowledge(draft: _Draft) -> list[str]:
    """At most one opening and two short reactions, the most telling first."""
    sentences, reading, patch, turn = draft.persona.sentences, draft.reading, draft.patch, draft.turn
    said: list[str] = []
    if turn.first_contact:
        said.append(draft.word(sentences.opening_known if draft.lead.name else sentences.opening))
    elif patch.name:
        said.append(draft.word(sentences.name_changed if turn.lead.name else sentences.nice_to_meet))
    if Intent.INTEREST in reading.intents or _comes_back(draft):
        _note(draft, interested=True)
    if _comes_back(draft):
        said.append(draft.word(sentences.welcome_back))
    if reading.sensitive:
        said.append(draft.word(sentences.sensitive))
    if patch.bill_cents is not None:
        said.append(draft.word(sentences.noted_bill))
    elif reading.located:
        said.append(draft.word(sentences.noted_location))
    said += _reaction(draft) if not said else []
    return said[:3]


def _reaction(draft: _Draft) -> list[str]:
    sentences, reading = draft.persona.sentences, draft.reading
    for step in draft.persona.script:
        value = reading.answered.get(step.id)
        if value in step.replies:
            return [draft.word(step.replies[value])]
    if Intent.LATER in reading.intents:
        return [draft.word(sentences.later)]
    if Intent.THANKS in reading.intents:
        return [draft.word(sentences.thanks)]
    if reading.answered and reading.offer is None:
        draft.brief = True
        return [draft.word(sentences.noted)]
    if draft.patch.preferences.get(facts.CITY) or draft.patch.preferences.get(facts.STATE):
        return [draft.word(sentences.noted_place)]
    if Intent.GREETING in reading.intents and not reading.said_something and not draft.turn.degraded:
        return [draft.word(sentences.hello_again)]
    return []


def _answers(draft: _Draft) -> list[str]:
    """Every question of the turn is answered; with many of them the answers share a bubble."""
    reading = draft.reading
    answers = [draft.word(entry.answers) for entry in reading.questions]
    if reading.unknown_questions:
        answers.append(draft.word(draft.persona.sentences.unknown_question))
        noted = " / ".join(reading.unknown_questions)[:200]
        preferences = {**draft.patch.preferences, facts.OPEN_QUESTION: noted}
        draft.patch = replace(draft.patch, preferences=preferences)
    if reading.offer is not None and draft.patch.flow is not None:
        answers.append(draft.word(reading.offer.pitch))
    return ["\n".join(answers)] if answers else []


def _next_question(draft: _Draft) -> str:
    if Intent.LATER in draft.reading.intents:
        return ""
    if draft.turn.degraded:
        return draft.word(draft.persona.sentences.follow_up) if draft.reading.said_something else ""
    over = draft.lead.stage == draft.persona.meeting_stage or _has_left(draft)
    step = None if over else next_step(draft.persona, draft.lead, draft.past, draft.reading)
    if step is None:
        return ""
    _note(draft, stage=step.stage or None)
    if step.stage == draft.persona.scheduling_stage and draft.lead.flow:
        _note(draft, qualification="QUALIFIED", score=draft.persona.qualified_score)
    if step.reads is Reads.MONEY and draft.reading.picture:
        return draft.word(draft.persona.sentences.bill_photo)
    return draft.word(step.ask)


def _has_left(draft: _Draft) -> bool:
    return draft.turn.lead.stage == draft.persona.refused_stage and not _comes_back(draft)


def _comes_back(draft: _Draft) -> bool:
    left = draft.turn.lead.stage == draft.persona.refused_stage
    return left and (Intent.INTEREST in draft.reading.intents or draft.reading.offer is not None)


def _outcome(draft: _Draft) -> Outcome | None:
    for step in draft.persona.script:
        outcome = step.outcomes.get(draft.reading.answered.get(step.id, ""))
        if outcome is not None:
            return outcome
    return None


def _handoff_reason(draft: _Draft, outcome: Outcome | None) -> str:
    reading = draft.reading
    if reading.trigger:
        return reading.trigger
    if Intent.COMPLAINT in reading.intents:
        return Intent.COMPLAINT.value
    if Intent.HUMAN in reading.intents or outcome is Outcome.HANDOFF:
        return "asked for a human"
    return ""


def _meeting_made(draft: _Draft) -> bool:
    fields = [step.field for step in draft.persona.script if step.reads in (Reads.DAY, Reads.TIME)]
    changed = any(field_name in draft.patch.preferences for field_name in fields)
    return changed and bool(fields) and all(facts.value_of(draft.lead, field_name) for field_name in fields)


def _field_value(draft: _Draft, reads: Reads) -> str:
    return next((facts.value_of(draft.lead, step.field) for step in draft.persona.script if step.reads is reads), "")


def _hand_over(draft: _Draft, reason: str, *, stage: str | None) -> None:
    draft.handoff = reason
    _note(draft, stage=stage or draft.persona.scheduling_stage)


def _note(
    draft: _Draft,
    *,
    stage: str | None = None,
    interested: bool | None = None,
    qualification: str | None = None,
    score: int | None = None,
) -> None:
    draft.patch = replace(
        draft.patch,
        stage=draft.patch.stage if stage is None else stage,
        interested=draft.patch.interested if interested is None else interested,
        qualification=draft.patch.qualification if qualification is None else qualification,
        score=draft.patch.score if score is None else score,
    )


def _effects(draft: _Draft) -> tuple[Effect, ...]:
    patch = facts.only_news(draft.turn.lead, draft.patch)
    effects: list[Effect] = [patch] if patch else []
    if draft.handoff:
        effects.append(HandOver(reason=draft.handoff))
    return tuple(effects)


def _never_again(bubbles: list[str], draft: _Draft) -> tuple[str, ...]:
    """Whatever the way here: no bubble twice, none that stood in the last reply, and never nothing."""
    last = set(draft.past.last_reply)
    fresh: list[str] = []
    for bubble in bubbles:
        if comparable(bubble) not in last and bubble not in fresh:
            fresh.append(bubble)
    if not fresh:
        fresh.append(draft.word(draft.persona.sentences.idle))
    return tuple(fresh[: MAX_BUBBLES - 1] + fresh[-1:] if len(fresh) > MAX_BUBBLES else fresh)
