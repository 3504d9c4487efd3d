"""Which offer a lead chooses: named when asked for it, wanted at any time, changed later."""

import re
from dataclasses import replace

from agent_service.conversation import Lead
from agent_service.persona import Offer, Persona, Reads, Step
from agent_service.playbook import facts
from agent_service.playbook.hearing import hear
from agent_service.playbook.scene import Reading, Scene
from agent_service.understanding.clauses import Clause
from agent_service.understanding.intents import is_question, read_answer
from agent_service.understanding.text import fold

SHORT_ANSWER = 3
_WANTS = re.compile(
    r"\b(?:quero|queria|prefiro|gostei|escolho|interess\w+|melhor|vou de|fico com|na verdade|pensando em)\b"
)
_SO_THEN = re.compile(r"^\W*(?:(?:ah+|hum+|ok|bom|entao)[\s,]+)+")


def may_choose(clause: Clause) -> bool:
    """Of a question only a wish chooses: "quero essa, pode ser quinta?", but not "essa ou a outra, qual é melhor?"."""
    return not clause.asks and (not clause.sentence.endswith("?") or _WANTS.search(fold(clause.text)) is not None)


def read_change(told: list[str], reading: Reading, scene: Scene) -> bool:
    """Another offer that is wanted, or named and nothing else, replaces the chosen one; "quero" then is no "sim"."""
    step, lead = scene.open_step, facts.merged(scene.lead, reading.patch)
    if step is None or step.reads is Reads.OFFER:
        return False
    about = " ".join(fold(ask) for ask in step.ask)
    for text in told:
        folded = fold(text)
        bare = _SO_THEN.sub("", folded)
        named = step.reads is Reads.YES_NO and len(bare.split()) <= SHORT_ANSWER and read_answer(text) is None
        offer = find_offer(re.sub(r"\d", "", text), lead, scene.persona)
        if offer is None or offer.flow == lead.flow or hear(text, scene.persona, today=scene.today):
            continue
        if _WANTS.search(folded) or (named and not any(pattern.search(about) for pattern in offer.patterns)):
            return choose(offer, None, reading)
    return False


def read_wish(told: list[str], reading: Reading, scene: Scene) -> bool:
    """An offer that is named without having been asked for counts when it is wanted, not only mentioned."""
    if scene.open_step is not None and scene.open_step.reads is Reads.OFFER:
        return False
    recent = scene.past.recently_asked(scene.persona, 4)
    still_open = not scene.lead.flow and any(step.reads is Reads.OFFER for step in recent)
    for sentence in told:
        if is_question(sentence) or not (still_open or _WANTS.search(fold(sentence))):
            continue
        offer = find_offer(re.sub(r"\d", "", sentence), facts.merged(scene.lead, reading.patch), scene.persona)
        if offer is not None:
            return choose(offer, None, reading)
    return False


def choose(offer: Offer, step: Step | None, reading: Reading) -> bool:
    """Keep the offer as the chosen one."""
    reading.offer = offer
    reading.patch = replace(reading.patch, flow=offer.flow)
    if offer.handoff:
        reading.trigger = offer.handoff
    if step is not None:
        reading.answered[step.id] = offer.flow
    return True


def find_offer(text: str, lead: Lead, persona: Persona) -> Offer | None:
    """The offer that the text names last and doesn't decline."""
    chosen = None
    for sentence in re.split(r"[.!;\n]|\bmas\b|,", fold(text)):
        if sentence.strip().endswith("?"):
            continue
        wanted = re.sub(r"\b(?:nao quero|nao prefiro|sem ser|menos|nem)\s+(?:\w+\s+){0,2}\w+", " ", sentence)
        for offer in persona.offers:
            if facts.holds(offer.when, lead) and any(pattern.search(wanted) for pattern in offer.patterns):
                chosen = offer
                break
    return chosen
