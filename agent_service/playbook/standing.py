"""Where a conversation stands after a turn: gone, back, to be handed over, or led somewhere by an answer."""

from agent_service.persona import Outcome, Persona, Step
from agent_service.playbook import facts
from agent_service.playbook.draft import Draft
from agent_service.playbook.judging import disqualified
from agent_service.playbook.scene import MOMENTS
from agent_service.playbook.script import next_step
from agent_service.understanding.intents import Intent

ASKED = "asked for a human"


def stage_reached(draft: Draft) -> str:
    """The stage of the last question that is answered."""
    script = [step for step in draft.persona.script if step.stage]
    stages = [step.stage for step in script if facts.value_of(draft.lead, step.field)]
    return stages[-1] if stages else next((step.stage for step in script), draft.persona.stages[0])


def has_left(draft: Draft) -> bool:
    """Whether the lead has said goodbye, or was ruled out, and nothing brings them back."""
    left = draft.turn.lead.stage == draft.persona.refused_stage
    return left and (not comes_back(draft) or disqualified(draft.persona, draft.lead))


def comes_back(draft: Draft) -> bool:
    """Whether somebody who had left goes on after all."""
    if draft.turn.lead.stage != draft.persona.refused_stage:
        return False
    reading = draft.reading
    if Intent.INTEREST in reading.intents or reading.offer is not None or names_moment(draft):
        return True
    # Asked how we can help, a lead who asks or tells something is back.
    sentences = draft.persona.sentences
    reopened = any(draft.past.said_last(each) for each in (*sentences.back_again, *sentences.back_again_known))
    return reopened and reading.said_something


def names_moment(draft: Draft) -> bool:
    """Whether the turn names a day or time to meet."""
    return any(step.reads in MOMENTS and step.id in draft.reading.answered for step in draft.persona.script)


def greets_again(draft: Draft) -> bool:
    """Whether somebody who had left does no more than greet."""
    reading = draft.reading
    left = draft.turn.lead.stage == draft.persona.refused_stage and not draft.turn.degraded
    return left and reading.intents == {Intent.GREETING} and not reading.said_something


def outcome_of(draft: Draft) -> Outcome | None:
    """What the answers of this turn lead to; one that was given early counts when its question becomes a question."""
    step = _deciding_step(draft)
    return step.outcomes[facts.value_of(draft.lead, step.field)] if step is not None else None


def _deciding_step(draft: Draft) -> Step | None:
    before = draft.turn.lead
    for step in draft.persona.script:
        news = step.id in draft.reading.answered or not facts.holds(step.when, before)
        if facts.value_of(draft.lead, step.field) in step.outcomes and news and facts.holds(step.when, draft.lead):
            return step
    return None


def handoff_reason(draft: Draft) -> str:
    """Why a human has to take over; empty when nobody has to."""
    reading = draft.reading
    if reading.trigger:
        return reading.trigger
    if Intent.COMPLAINT in reading.intents:
        return Intent.COMPLAINT.value
    if Intent.HUMAN in reading.intents:
        return ASKED
    step = _deciding_step(draft)
    return step.reason if step is not None and outcome_of(draft) is Outcome.HANDOFF else ""


def handoff_words(persona: Persona, reason: str) -> tuple[str, ...]:
    """What is said to somebody who is handed over for that reason."""
    own = next((trigger.say for trigger in persona.handoff_triggers if trigger.reason == reason and trigger.say), ())
    complaint = reason == Intent.COMPLAINT.value
    return own or (persona.sentences.handoff_complaint if complaint else persona.sentences.handoff)


def meeting_made(draft: Draft) -> bool:
    """Whether day and time go to a human now: they are known, or won't be, and nothing essential is open."""
    persona, past, reading = draft.persona, draft.past, draft.reading
    steps = [step for step in persona.script if step.reads in MOMENTS]
    if not any(facts.value_of(draft.lead, step.field) for step in steps):
        return False
    complete = all(facts.value_of(draft.lead, step.field) for step in steps)
    fresh = any(step.field in draft.patch.preferences for step in steps)
    told = any(past.said(each) for each in persona.sentences.meeting_handoff)
    if has_left(draft):
        return fresh and complete
    if not fresh and (told or draft.lead.stage == persona.meeting_stage):
        return False
    if not complete and (reading.asks or Intent.LATER in reading.intents):
        return False
    if draft.turn.degraded:
        return complete
    return next_step(persona, draft.lead, past, reading) is None
