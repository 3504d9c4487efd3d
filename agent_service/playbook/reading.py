"""Reading a turn: what the lead's messages say, ask and want."""

import re
from dataclasses import replace

from agent_service.conversation import Kind, Message
from agent_service.persona import Answered, Reads, Step
from agent_service.playbook import facts
from agent_service.playbook.answers import about_something_else, own_words, read_step
from agent_service.playbook.choosing import SHORT_ANSWER, choose, find_offer, may_choose, read_change, read_wish
from agent_service.playbook.hearing import Heard, agreement_before, hear
from agent_service.playbook.past import comparable
from agent_service.playbook.questions import entries_for, may_ask, named_entries, stated_entries, worth_an_answer
from agent_service.playbook.scene import MOMENTS, Reading, Scene, keep
from agent_service.playbook.script import meeting_noted
from agent_service.playbook.triggers import trigger_reason
from agent_service.understanding.clauses import Clause, clauses
from agent_service.understanding.intents import Answer, Intent, grumbles_about, intents, is_question, read_answer
from agent_service.understanding.moments import (
    about_meeting,
    excludes_day,
    excludes_moment,
    find_day,
    find_time,
    proposes_meeting,
)
from agent_service.understanding.money import adds_up, names_payment, read_money
from agent_service.understanding.names import find_name, first_name, is_common
from agent_service.understanding.places import find_place
from agent_service.understanding.sensitive import has_sensitive, without_sensitive
from agent_service.understanding.text import clip, fold, sentences

_BARE_NO = re.compile(r"\W*(?:nao|n),?(?: nao)?,? (?:quero(?: nao)?|(?:muito )?obrigad[oa])\W*")
MAX_TEXT = 200
_STATED = frozenset({Reads.OFFER, Reads.TEXT, Reads.PLACE})
_OWN_WORDS = frozenset({Reads.TEXT, Reads.PLACE})
_NUMERIC = frozenset({Reads.PERCENT, Reads.DAY, Reads.TIME, Reads.PLACE, Reads.TEXT, Reads.NAME})


def read_turn(messages: tuple[Message, ...], scene: Scene) -> Reading:
    """Read the messages in order; of contradicting facts the latest stays."""
    reading = Reading()
    for message in messages:
        text = clip(message.text)
        if message.location is not None:
            keep(reading, facts.LOCATION, f"{message.location[0]:.5f},{message.location[1]:.5f}")
            reading.located = True
        reading.picture = reading.picture or (message.kind is Kind.IMAGE and not text)
        if text:
            _read(text, reading, scene)
    return reading


def _read(text: str, reading: Reading, scene: Scene) -> None:
    wanted = intents(text)
    amount = scene.persona.amount
    if amount is not None and Intent.COMPLAINT in wanted and grumbles_about(text, amount.topic):
        wanted -= {Intent.COMPLAINT}
    if _is_answer_not_refusal(text, scene):
        wanted -= {Intent.REFUSAL}
    reading.intents |= wanted
    reading.sensitive = reading.sensitive or has_sensitive(text)
    reading.trigger = trigger_reason(text, scene.persona) or reading.trigger
    money = _read_money(text, reading, scene)
    name = _read_name(text, reading, scene, bare=not money)
    pieces = _clauses(text, scene)
    place = _read_place(pieces, reading, scene)
    told = [each.text for each in pieces if not each.asks]
    before = set(reading.answered)
    left = _hear(told, reading, scene)
    met = _read_meeting(text, reading, scene)
    offering = [each.text for each in pieces if may_choose(each)]
    offered = read_change(offering, reading, scene)
    wishes = [each for each in left if _begins(each, offering)]
    if money or name:
        left = [each for each in left if _is_short_answer(each, scene)]
    elif scene.open_step is not None and scene.open_step.reads in _STATED:
        left = [each for each in left if _begins(each, offering)]
    elif scene.open_step is not None and scene.open_step.reads is Reads.YES_NO:
        left = [each for each in left if not about_something_else(scene.open_step, each)] or left
    answered = _read_heard_open(told, before, reading, scene) or (
        not offered and _read_answer(_joined(left), reading, scene)
    )
    heard = set(reading.answered) != before
    offered = offered or (not answered and read_wish(wishes, reading, scene))
    _read_implied(reading, scene)
    consumed = bool(money or name or place or met or answered or offered or heard)
    _collect_questions(pieces, reading, scene, consumed=consumed)
    if reading.offer is not None:
        reading.intents.discard(Intent.REFUSAL)


def _begins(text: str, clauses_of_kind: list[str]) -> bool:
    return any(clause.startswith(text) for clause in clauses_of_kind)


def _is_short_answer(text: str, scene: Scene) -> bool:
    """Whether it answers yes or no; "sou Rafael" begins as "sou sim" does and gives a name."""
    short = len(text.split()) <= SHORT_ANSWER and read_answer(text) is not None
    return short and find_name(text, avoid=scene.words) is None


def _is_answer_not_refusal(text: str, scene: Scene) -> bool:
    step = scene.open_step
    closed = step is not None and step.reads is Reads.YES_NO and "não" not in step.outcomes
    return closed and _BARE_NO.fullmatch(fold(text)) is not None


def _read_money(text: str, reading: Reading, scene: Scene) -> bool:
    amount = scene.persona.amount
    if amount is None:
        return False
    topic = amount.topic
    expected = reading.last_money is not None or (scene.open_step is not None and scene.open_step.reads is Reads.MONEY)
    if not expected and (Intent.CORRECTION in intents(text) or adds_up(text)):
        expected = any(step.reads is Reads.MONEY for step in scene.past.recently_asked(scene.persona, 2))
    if not expected and scene.lead.bill_cents is None and not _other_number(scene.open_step):
        expected = any(step.reads is Reads.MONEY for step in scene.past.recently_asked(scene.persona, 4))
    if not expected:
        text = " ".join(_stated(each, topic) for each in sentences(text))
    money = read_money(text, topic=topic, expected=expected, ignore=amount.ignore)
    if money is None or not money.certain:
        return False
    before = reading.patch.bill_cents if reading.patch.bill_cents is not None else scene.lead.bill_cents
    last = reading.last_money
    another = last is not None and money.place and last.place and money.place != last.place and not money.corrects
    adds = before is not None and (money.adds or another)
    cents = money.cents + before if adds and before is not None else money.cents
    reading.patch = replace(reading.patch, bill_cents=cents)
    reading.last_money = money
    return True


def _other_number(step: Step | None) -> bool:
    """Whether a bare number would rather answer the question that is open."""
    return step is not None and step.reads in _NUMERIC


def _stated(sentence: str, topic: re.Pattern[str]) -> str:
    """What a sentence states: of a question only what stands before it, unless it names the topic itself."""
    if not sentence.endswith("?") or names_payment(sentence, topic):
        return sentence
    return sentence.rpartition(",")[0]


def _read_name(text: str, reading: Reading, scene: Scene, *, bare: bool) -> bool:
    first = clauses(text)[:1]
    if not bare and first and not re.search(r"\d", first[0].text) and find_name(text, avoid=scene.words) is None:
        # "Paulo. Minha conta é 480"
        text, bare = first[0].text, True
    step = scene.open_step
    asked = bare and step is not None and step.reads is Reads.NAME
    if bare and not asked and not scene.lead.name and _late_name(text, scene):
        asked = True
    if bare and not asked and scene.lead.name and Intent.CORRECTION in intents(text):
        asked = any(comparable(first_name(scene.lead.name)) in bubble for bubble in scene.past.last_reply)
    name = find_name(text, asked=asked, avoid=scene.words)
    if name is None:
        return False
    reading.patch = replace(reading.patch, name=name)
    return True


def _late_name(text: str, scene: Scene) -> bool:
    """The answer to the question for the name may come after the next question; then only a well-known name is one."""
    if not any(step.reads is Reads.NAME for step in scene.past.recently_asked(scene.persona, len(scene.past.asked))):
        return False
    name = find_name(text, asked=True, avoid=scene.words)
    return name is not None and is_common(name)


def _read_place(pieces: list[Clause], reading: Reading, scene: Scene) -> bool:
    step = scene.open_step
    text = _joined([each.text for each in pieces if not _tells_of_another_place(each.text, scene)])
    place = find_place(text, asked=step is not None and step.reads is Reads.PLACE)
    if place is None or any(each.sentence.endswith("?") for each in pieces):
        return False
    if place.city:
        keep(reading, facts.CITY, place.city)
    if place.state:
        keep(reading, facts.STATE, place.state)
    return True


def _tells_of_another_place(text: str, scene: Scene) -> bool:
    """ "tenho mais uma casa em Gravatá" says where something else is."""
    if any(each.step.reads is Reads.TEXT for each in hear(text, scene.persona, today=scene.today)):
        return True
    step = scene.open_step
    return step is not None and step.reads is Reads.TEXT and re.search(r"\b(?:tenho|temos)\b", fold(text)) is not None


def _read_answer(text: str, reading: Reading, scene: Scene) -> bool:
    step = scene.open_step
    if step is None or not text or step.reads in (Reads.NAME, Reads.MONEY, Reads.DAY, Reads.TIME):
        return False
    if step.reads is Reads.OFFER:
        offer = find_offer(text, facts.merged(scene.lead, reading.patch), scene.persona)
        return offer is not None and choose(offer, step, reading)
    value = read_step(step, text, today=scene.today)
    if not value:
        return False
    if not (step.field == facts.INTERESTED and value == Answer.UNSURE.value):
        reading.patch = facts.with_field(reading.patch, step.field, value)
    reading.answered[step.id] = value
    return True


def _hear(told: list[str], reading: Reading, scene: Scene) -> list[str]:
    """Keep every answer that is recognised by its content; what is left may answer the open question."""
    left: list[str] = []
    for text in told:
        heard = hear(text, scene.persona, today=scene.today)
        for each in heard:
            whole = own_words(text) if len(heard) == 1 and each.step.reads in _OWN_WORDS else ""
            reading.patch = facts.with_field(reading.patch, each.step.field, whole or each.value)
            reading.answered[each.step.id] = each.value
        rest = _before(text, heard, scene) if heard else text
        if rest:
            left.append(rest)
    return left


def _before(text: str, heard: list[Heard], scene: Scene) -> str:
    """What stands before the first answer that was heard and may answer the open question."""
    if scene.open_step is not None and scene.open_step.reads is Reads.OFFER:
        # The choice of "essa pro meu filho": what follows it answers something else.
        return text[: heard[0].start].strip()
    return agreement_before(text, heard)


def _read_heard_open(told: list[str], before: set[str], reading: Reading, scene: Scene) -> bool:
    """Whether the open question was answered by content; if by nothing else, all the lead's words are kept."""
    step, news = scene.open_step, set(reading.answered) - before
    if step is None or step.id not in news:
        return False
    if news == {step.id} and step.reads in _OWN_WORDS and (words := own_words(_joined(told))):
        reading.patch = facts.with_field(reading.patch, step.field, words)
    return True


def _joined(pieces: list[str]) -> str:
    """The pieces as one text again, with the commas that held them together."""
    ended = [piece if piece[-1] in ".!?;" else f"{piece}," for piece in pieces]
    return " ".join(ended).removesuffix(",")


def _read_implied(reading: Reading, scene: Scene) -> None:
    """Who answers a later question instead of this one has answered this one too."""
    ids = [each.id for each in scene.persona.script]
    for step in scene.persona.script:
        lead = facts.merged(scene.lead, reading.patch)
        known = facts.value_of(lead, step.field) or not facts.holds(step.when, lead)
        later = any(ids.index(answered) > ids.index(step.id) for answered in reading.answered)
        if step.implied and later and not known:
            reading.patch = facts.with_field(reading.patch, step.field, step.implied)


def _read_meeting(text: str, reading: Reading, scene: Scene) -> bool:
    """Day and time come together or apart, asked for or not, and may be changed until the meeting is made."""
    step, persona = scene.open_step, scene.persona
    asked = step is not None and step.reads in MOMENTS
    begun = scene.lead.stage in (persona.scheduling_stage, persona.meeting_stage) or meeting_noted(persona, scene.lead)
    arranging = asked or begun
    reading.moment_excluded = reading.moment_excluded or (arranging and excludes_moment(text))
    proposed = proposes_meeting(text, today=scene.today)
    if not proposed and (not arranging or any(each.endswith("?") for each in sentences(text))):
        return False
    text, found = about_meeting(text), False
    for each in persona.script:
        value: str | None = None
        if each.reads is Reads.DAY:
            value = find_day(text, today=scene.today)
        elif each.reads is Reads.TIME:
            value = find_time(text, asked=step is not None and step.reads is Reads.TIME)
        if value:
            keep(reading, each.field, value)
            reading.answered[each.id] = value
            found = True
        elif each.reads is Reads.DAY and excludes_day(text, facts.value_of(scene.lead, each.field)):
            keep(reading, each.field, "")
    return found


def _clauses(text: str, scene: Scene) -> list[Clause]:
    """The clauses of a message; "tem garantia" asks although nothing marks it, unless it answers something."""
    found: list[Clause] = []
    for each in clauses(text):
        heard = hear(each.text, scene.persona, today=scene.today)
        # "quem decide sou eu" begins as a question does.
        states = not each.sentence.endswith("?") and any(found.step.reads is Reads.YES_NO for found in heard)
        asks = (each.asks and not states) or (
            may_ask(each.text)
            and bool(entries_for(each.text, scene.persona, scene.open_step))
            and not heard
            and not proposes_meeting(each.text, today=scene.today)
        )
        found.append(replace(each, asks=asks))
    return found


def _collect_questions(pieces: list[Clause], reading: Reading, scene: Scene, *, consumed: bool) -> None:
    for piece in pieces:
        entries = _entries(piece, pieces, scene, consumed=consumed)
        reading.questions += [entry for entry in entries if entry not in reading.questions]
        asks = piece.asks and is_question(piece.text) and not proposes_meeting(piece.text, today=scene.today)
        if asks and not entries and (not consumed or len(pieces) > 1) and worth_an_answer(piece.text):
            reading.unknown_questions.append(without_sensitive(piece.text)[:MAX_TEXT])


def _entries(piece: Clause, pieces: list[Clause], scene: Scene, *, consumed: bool) -> list[Answered]:
    persona, step = scene.persona, scene.open_step
    if not piece.asks:
        stated = stated_entries(piece.text, persona)
        return stated or ([] if consumed else named_entries(piece.text, persona, step))
    if entries := entries_for(piece.text, persona, step):
        return entries
    # "moro em apartamento, serve?": the question alone doesn't say what it is about, its sentence does.
    same = [each for each in pieces if each.sentence == piece.sentence]
    if any(entries_for(each.text, persona, step) for each in same if each.asks):
        return []
    return entries_for(piece.sentence, persona, step)
