"""Making one reply: the same turn always gives the same reply."""

from dataclasses import replace
from datetime import datetime

from agent_service.conversation import Effect, HandOver, Turn
from agent_service.persona import Outcome, Persona, Reads
from agent_service.playbook import facts
from agent_service.playbook.draft import Draft, Reply, field_value, hand_over, note
from agent_service.playbook.judging import PENDING, judge, looked_at
from agent_service.playbook.past import Past, comparable
from agent_service.playbook.reading import read_turn
from agent_service.playbook.scene import MOMENTS, Scene
from agent_service.playbook.script import next_step, open_step
from agent_service.playbook.standing import (
    comes_back,
    greets_again,
    handoff_reason,
    handoff_words,
    has_left,
    meeting_made,
    names_moment,
    outcome_of,
    stage_reached,
)
from agent_service.understanding.intents import Intent

MAX_BUBBLES = 3


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
    draft = Draft(
        persona=persona, turn=turn, past=past, reading=reading, patch=patch, lead=facts.merged(turn.lead, patch)
    )
    bubbles = _decide(draft)
    _judge(draft)
    return Reply(bubbles=_never_again(bubbles, draft), effects=_effects(draft))


def _decide(draft: Draft) -> list[str]:
    persona, reading, sentences = draft.persona, draft.reading, draft.persona.sentences
    outcome = outcome_of(draft)
    if reason := handoff_reason(draft):
        hand_over(draft, reason, stage=persona.handoff_stage)
        return [draft.word(handoff_words(persona, reason))]
    if outcome is Outcome.OTHER_OFFER and Intent.REFUSAL not in reading.intents and (other := _other_offer(draft)):
        return other
    if outcome in (Outcome.REFUSE, Outcome.OTHER_OFFER) or Intent.REFUSAL in reading.intents:
        note(draft, interested=False, stage=persona.refused_stage)
        return [*_answers(draft), draft.word(sentences.refused)]
    if outcome is Outcome.DISQUALIFY:
        note(draft, stage=persona.refused_stage)
        reading.offer = None
        return [*_answers(draft), draft.word(sentences.disqualified)]
    if meeting_made(draft):
        moment = ", ".join(filter(None, (field_value(draft, reads) for reads in (Reads.DAY, Reads.TIME))))
        hand_over(draft, f"meeting wanted: {moment}", stage=None)
        return [*_opening(draft), *_answers(draft), draft.word(sentences.meeting_handoff)]
    if greets_again(draft):
        return [draft.word(sentences.back_again_known if draft.lead.name else sentences.back_again)]
    return _converse(draft)


def _other_offer(draft: Draft) -> list[str]:
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
    note(draft, stage=step.stage or None)
    answers = _answers(draft)
    return [*answers, f"{draft.word(persona.sentences.other_offer)} {draft.word(offer.pitch)}", draft.word(step.ask)]


def _converse(draft: Draft) -> list[str]:
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


def _opening(draft: Draft) -> list[str]:
    """Who speaks, at the first contact; even to who says all there is to say in one message."""
    sentences = draft.persona.sentences
    if not draft.turn.first_contact:
        return []
    return [draft.word(sentences.opening_known if draft.lead.name else sentences.opening)]


def _acknowledge(draft: Draft) -> list[str]:
    """At most one opening and two short reactions, the most telling first."""
    sentences, reading, patch, turn = draft.persona.sentences, draft.reading, draft.patch, draft.turn
    said = _opening(draft)
    if not said and patch.name:
        said.append(draft.word(sentences.name_changed if turn.lead.name else sentences.nice_to_meet))
    if Intent.INTEREST in reading.intents or comes_back(draft):
        note(draft, interested=True)
    if comes_back(draft):
        said.append(draft.word(sentences.welcome_back))
    if reading.sensitive:
        said.append(draft.word(sentences.sensitive))
    if patch.bill_cents is not None and draft.persona.amount is not None:
        said.append(draft.word(draft.persona.amount.noted))
    elif reading.located:
        said.append(draft.word(sentences.noted_location))
    if (moment := _moment_reaction(draft)) is not None:
        said += moment
    said += _reaction(draft) if not said else []
    return said[:3]


def _reaction(draft: Draft) -> list[str]:
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


def _moment_reaction(draft: Draft) -> list[str] | None:
    """A day that comes early is noted aloud, one that doesn't fit is put aside; None when it is about neither."""
    sentences, reading, persona = draft.persona.sentences, draft.reading, draft.persona
    told = names_moment(draft)
    if told and not has_left(draft):
        step = None if draft.turn.degraded else next_step(persona, draft.lead, draft.past, reading)
        if step is not None and step.reads not in MOMENTS:
            return [draft.word(sentences.meeting_noted)]
    elif reading.moment_excluded and not told:
        draft.brief = True
        return [draft.word(sentences.other_moment)]
    return None


def _answers(draft: Draft) -> list[str]:
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


def _next_question(draft: Draft) -> str:
    if Intent.LATER in draft.reading.intents:
        return ""
    if draft.turn.degraded:
        return draft.word(draft.persona.sentences.follow_up) if draft.reading.said_something else ""
    over = draft.lead.stage == draft.persona.meeting_stage or has_left(draft)
    step = None if over else next_step(draft.persona, draft.lead, draft.past, draft.reading)
    if comes_back(draft) and not over:
        note(draft, stage=stage_reached(draft))
    if step is None:
        return ""
    note(draft, stage=step.stage or None)
    photo = step.amount.photo if step.amount is not None and draft.reading.picture else ()
    return draft.word(photo or step.ask)


def _judge(draft: Draft) -> None:
    """Status and score follow the facts; nobody's judgement is touched by a turn that changes none of them."""
    persona, before = draft.persona, draft.turn.lead
    if not facts.changed(before, draft.patch) & looked_at(persona):
        return
    status, score = judge(persona, facts.merged(before, draft.patch))
    same = status == PENDING and not before.qualification
    note(draft, qualification=None if same else status, score=score)


def _effects(draft: Draft) -> tuple[Effect, ...]:
    patch = facts.only_news(draft.turn.lead, draft.patch)
    effects: list[Effect] = [patch] if patch else []
    if draft.handoff:
        effects.append(HandOver(reason=draft.handoff))
    return tuple(effects)


def _never_again(bubbles: list[str], draft: Draft) -> tuple[str, ...]:
    """Whatever the way here: no bubble twice, none that stood in the last reply, and never nothing."""
    last = set(draft.past.last_reply)
    fresh: list[str] = []
    for bubble in bubbles:
        if comparable(bubble) not in last and bubble not in fresh:
            fresh.append(bubble)
    if not fresh:
        fresh.append(draft.word(draft.persona.sentences.idle))
    return tuple(fresh[: MAX_BUBBLES - 1] + fresh[-1:] if len(fresh) > MAX_BUBBLES else fresh)
