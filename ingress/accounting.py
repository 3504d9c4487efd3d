"""How a reply was made and what it cost, as the effect that goes into history with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.common.v1 import turn_pb2

# A cancelled generation cannot report its usage any more.
CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True)
class Discarded:
    """Generations of one turn that were thrown away: how many, and the tokens of their texts. Those that told what they
    cost are counted apart, by what they told."""

    generations: int = 0
    tokens: int = 0
    told_tokens: int = 0
    told_cost_micros: int = 0

    def add(self, characters: int, usage: agent_pb.Usage | None = None) -> int:
        """One more, with that much text or with what it told; its tokens."""
        if usage is not None:
            told = usage.prompt_tokens + usage.completion_tokens
            self.told_tokens += told
            self.told_cost_micros += usage.cost_micros
            return told
        tokens = -(-characters // CHARACTERS_PER_TOKEN)
        self.generations += 1
        self.tokens += tokens
        return tokens


def with_generation(
    effects: Iterable[turn_pb2.Effect],
    discarded: Discarded,
    *,
    done: agent_pb.Done | None = None,
    usage: agent_pb.Usage | None = None,
) -> list[turn_pb2.Effect]:
    """The effects with one account of the generation at their end. Without `done` no model answered: what is said is
    the honest sentence, no knowledge.

    A model that reports no usage costs nothing, and neither do its discarded generations, unless they told what they
    cost. Those of one that does are taken to have had the same prompt.
    """
    made = turn_pb2.Generation(
        model=done.model if done else "",
        fallback=done.fallback if done else True,
        discarded_tokens=discarded.told_tokens,
        cost_micros=discarded.told_cost_micros,
    )
    if usage is not None:
        made.prompt_tokens = usage.prompt_tokens
        made.cached_tokens = usage.cached_tokens
        made.completion_tokens = usage.completion_tokens
        made.cost_micros += usage.cost_micros
        made.discarded_tokens += discarded.tokens + discarded.generations * usage.prompt_tokens
    kept = [one for one in effects if one.WhichOneof("effect") != "generation"]
    return [*kept, turn_pb2.Effect(generation=made)]
