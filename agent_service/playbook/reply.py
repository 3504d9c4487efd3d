"""Making one reply: the same turn always gives the same reply."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent_service.conversation import Effect, End, HandOver, Lead, LeadPatch, Message, Turn
from agent_service.persona import Outcome, Persona, Reads
from agent_service.playbook import facts
from agent_service.playbook.judging import PENDING, disqualified, judge, looked_at
from agent_service.playbook.past import Past, comparable, fill
from agent_service.playbook.reading import MOMENTS, Reading, Scene, read_turn
from agent_service.playbook.script import next_step, open_step
from agent_service.understanding.intents import Intent
from agent_service.understanding.moments import show_moment
from agent_service.understanding.money import show_money
from agent_service.understanding.names import first_name
from agent_service.understanding.text import clip, fold

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
            "name": first_name(self.lead.name),
            "bill": show_money(self.lead.bill_cents or 0),
            "greeting": greeting(self.persona, self.turn.now_ms, self.turn.messages),
            "moment": show_moment(
                self.lead.preferences.get(fields.get(Reads.DAY, ""), ""),
                self.lead.preferences.get(fields.get(Reads.TIME, ""), ""),
            ),
        }


def greeting(persona: Persona, now_ms: int, messages: Sequence[Message] = ()) -> str:
    """The lead's own greeting, else the one for the time of day where the business lives."""
    greetings = persona.greetings
    for message in messages:
        said = fold(clip(message.text))
        for each in (greetings.morning, greetings.afternoon, greetings.evening):
            if re.search(rf"\b{re.escape(fold(each))}\b", said):
                return each
    hour = datetime.fromtimestamp(now_ms / 1000, persona.zone).hour
    if 5 <= hour < 12:
        return greetings.morning
    return greetings.afternoon if 12 <= hour < 18 else greetings.evening


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
    _judge(draft)
    return Reply(bubbles=_never_again(bubbles, draft), effects=_effects(draft))


def _decide(draft: _Draft) -> list[str]:
    persona, reading, sentences = draft.persona, draft.reading, draft.persona.sentences
    outcome = _outcome(draft)
    if reason := _handoff_reason(draft, outcome):
        _hand_over(draft, reason, stage=persona.handoff_stage)
        complaint = reason == Intent.COMPLAINT.value
        return [draft.word(sentences.handoff_complaint if complaint else sentences.handoff)]
    if outcome is Outcome.OTHER_OFFER and Intent.REFUSAL not in reading.intents and (other := _other_offer(draft)):
        return other
    if outcome in (Outcome.REFUSE, Outcome.OTHER_OFFER) or Intent.REFUSAL in reading.intents:
        _note(draft, interested=False, stage=persona.refused_stage)
        return [*_answers(draft), draft.word(sentences.refused)]
    if outcome is Outcome.DISQUALIFY:
        _note(draft, stage=persona.refused_stage)
        reading.offer = None
        return [*_answers(draft), draft.word(sentences.disqualified)]
    if _meeting_made(draft):
        moment = ", ".join(filter(None, (_field_value(draft, reads) for reads in (Reads.DAY, Reads.TIME))))
        _hand_over(draft, f"meeting wanted: {moment}", stage=None)
        return [*_answers(draft), draft.word(sentences.meeting_handoff)]
    if _greets_again(draft):
        return [draft.word(sentences.back_again_known if draft.lead.name else sentences.back_again)]
    return _converse(draft)


def _other_offer(draft: _Draft) -> list[str]:
    """Whom the first offer doesn't appeal to sees the other one, once, and is asked about it."""
    persona, lead = draft.persona, draft.lead
    instead = next((offer.instead for offer in persona.offers if offer.flow == lead.flow and offer.instead), "")
    offer = next((each for each in persona.offers if each.flow == instead and facts.holds(each.when, lead)), None)
    step = next(step for step in persona.script if Outcome.OTHER_OFFER in step.outcomes.values())
    if offer is None or lead.preferences.get(facts.DECLINED) or all(draft.past.said(ask) for ask in step.ask):
        return []
    preferences = {**draft.patch.preferences, facts.DECLINED: lead.flow}
    draft.patch = replace(draft.patch, interested=None, flow=offer.flow, preferences=preferences)
    draft.lead = facts.merged(draft.turn.lead, draft.patch)
    _note(draft, stage=step.stage or None)
    answers = _answers(draft)
    return [*answers, f"{draft.word(persona.sentences.other_offer)} {draft.word(offer.pitch)}", draft.word(step.ask)]


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
    if not bubbles:
        sentences = draft.persona.sentences
        bubbles.append(draft.word(sentences.neutral if draft.turn.degraded else sentences.idle))
    return bubbles


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
    if (moment := _moment_reaction(draft)) is not None:
        said += moment
    said += _reaction(draft) if not said else []
    return said[:3]


def _reaction(draft: _Draft) -> list[str]:
    sentences, reading = draft.persona.sentences, draft.reading
    if Intent.LATER in reading.intents:
        return [draft.word(sentences.later)]
    for step in draft.persona.script:
        value = reading.answered.get(step.id)
        if value in step.replies:
            draft.brief = True
            return [draft.word(step.replies[value])]
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


def _moment_reaction(draft: _Draft) -> list[str] | None:
    """A day that comes early is noted aloud, one that doesn't fit is put aside; None when it is about neither."""
    sentences, reading, persona = draft.persona.sentences, draft.reading, draft.persona
    told = _names_moment(draft)
    if told and not _has_left(draft):
        step = None if draft.turn.degraded else next_step(persona, draft.lead, draft.past, reading)
        if step is not None and step.reads not in MOMENTS:
            return [draft.word(sentences.meeting_noted)]
    elif reading.moment_excluded and not told:
        draft.brief = True
        return [draft.word(sentences.other_moment)]
    return None


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
    if _comes_back(draft) and not over:
        _note(draft, stage=_stage_reached(draft))
    if step is None:
        return ""
    _note(draft, stage=step.stage or None)
    if step.reads is Reads.MONEY and draft.reading.picture:
        return draft.word(draft.persona.sentences.bill_photo)
    return draft.word(step.ask)


def _stage_reached(draft: _Draft) -> str:
    """The stage of the last question that is answered."""
    script = draft.persona.script
    stages = [step.stage for step in script if step.stage and facts.value_of(draft.lead, step.field)]
    return stages[-1] if stages else next(step.stage for step in script if step.stage)


def _has_left(draft: _Draft) -> bool:
    left = draft.turn.lead.stage == draft.persona.refused_stage
    return left and (not _comes_back(draft) or disqualified(draft.persona, draft.lead))


def _comes_back(draft: _Draft) -> bool:
    if draft.turn.lead.stage != draft.persona.refused_stage:
        return False
    reading = draft.reading
    if Intent.INTEREST in reading.intents or reading.offer is not None or _names_moment(draft):
        return True
    # Asked how we can help, a lead who asks or tells something is back.
    sentences = draft.persona.sentences
    reopened = any(draft.past.said_last(each) for each in (*sentences.back_again, *sentences.back_again_known))
    return reopened and reading.said_something


def _names_moment(draft: _Draft) -> bool:
    return any(step.reads in MOMENTS and step.id in draft.reading.answered for step in draft.persona.script)


def _greets_again(draft: _Draft) -> bool:
    """Whether somebody who had left does no more than greet."""
    reading = draft.reading
    left = draft.turn.lead.stage == draft.persona.refused_stage and not draft.turn.degraded
    return left and reading.intents == {Intent.GREETING} and not reading.said_something


def _outcome(draft: _Draft) -> Outcome | None:
    """What the answers of this turn lead to; one that was given early counts when its question becomes a question."""
    before = draft.turn.lead
    for step in draft.persona.script:
        outcome = step.outcomes.get(facts.value_of(draft.lead, step.field))
        news = step.id in draft.reading.answered or not facts.holds(step.when, before)
        if outcome is not None and news and facts.holds(step.when, draft.lead):
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
    """Whether day and time go to a human now: they are known, or won't be, and nothing essential is open."""
    persona, past, reading = draft.persona, draft.past, draft.reading
    steps = [step for step in persona.script if step.reads in MOMENTS]
    if not any(facts.value_of(draft.lead, step.field) for step in steps):
        return False
    complete = all(facts.value_of(draft.lead, step.field) for step in steps)
    fresh = any(step.field in draft.patch.preferences for step in steps)
    told = any(past.said(each) for each in persona.sentences.meeting_handoff)
    if _has_left(draft):
        return fresh and complete
    if not fresh and (told or draft.lead.stage == persona.meeting_stage):
        return False
    if not complete and (reading.asks or Intent.LATER in reading.intents):
        return False
    if draft.turn.degraded:
        return complete
    return next_step(persona, draft.lead, past, reading) is None


def _field_value(draft: _Draft, reads: Reads) -> str:
    return next((facts.value_of(draft.lead, step.field) for step in draft.persona.script if step.reads is reads), "")


def _judge(draft: _Draft) -> None:
    """Status and score follow the facts; nobody's judgement is touched by a turn that changes none of them."""
    persona, before = draft.persona, draft.turn.lead
    if not facts.changed(before, draft.patch) & looked_at(persona):
        return
    status, score = judge(persona, facts.merged(before, draft.patch))
    same = status == PENDING and not before.qualification
    _note(draft, qualification=None if same else status, score=score)


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
