"""Daily budgets, judged before a call is made from what the store counted; the agent itself counts for nobody."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

from agent_service.conversation import EffectCalled, End, Ended, HandOver, ModelEvent, TextDelta, Turn
from agent_service.persona import Persona

REASON = "budget"
_HANDOFF = "the daily budget of the language model is used up"


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Tokens a day; 0 is none."""

    conversation_tokens: int = 0
    tenant_tokens: int = 0

    def exceeded(self, turn: Turn) -> bool:
        """Whether nothing may be spent on this turn. At most the turn that crosses a budget goes beyond it."""
        usage = turn.usage
        return (
            0 < self.conversation_tokens <= usage.conversation_tokens or 0 < self.tenant_tokens <= usage.tenant_tokens
        )


def limit_reply(persona: Persona, turn: Turn) -> Iterator[ModelEvent]:
    """The persona's sentence, once a day and with a call for a human if it wants one; then silence."""
    if turn.said or _was_said_today(persona, turn):
        yield Ended(why=End.SILENT, fallback_reason=REASON)
        return
    handoff = HandOver(reason=_HANDOFF)
    if persona.limit_handoff and handoff not in turn.said_effects:
        yield EffectCalled(effect=handoff)
    yield TextDelta(text=persona.limit_sentence)
    yield Ended(why=End.STOP, fallback=True, fallback_reason=REASON)


def _was_said_today(persona: Persona, turn: Turn) -> bool:
    today = _days(persona, turn.now_ms)
    return any(
        line.fallback
        and line.text.strip()
        and line.text in persona.limit_sentence
        and _days(persona, line.sent_ms) == today
        for line in turn.history
    )


def _days(persona: Persona, epoch_ms: int) -> tuple[date, date]:
    """The day that the budget counts, which is UTC's, and the business's own. Either one that is new is worth the
    sentence: a budget that comes back in the evening and is used up again, and the next morning."""
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.date(), moment.astimezone(persona.zone).date()
