"""What this worker knows about a turn that it works on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from ingress.accounting import Discarded
from ingress.generation import ContextLoader
from ingress.providers import Destination
from ingress.timeline import Timeline

SAID = (turn_pb2.PART_STATE_SENT, turn_pb2.PART_STATE_UNKNOWN)


@dataclass(slots=True)
class Sending:
    """An attempt that this process has begun and not closed."""

    part: int
    attempt: int


@dataclass(kw_only=True)
class HeldTurn:
    """One assignment and everything that follows from it. `deadline` is monotonic seconds."""

    assign: pb.Assign
    deadline: float
    timeline: Timeline
    epoch: int = 0
    revision: int = 0
    messages: list[message_pb2.Message] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    last: bool = False
    effects: list[turn_pb2.Effect] = field(default_factory=list)
    said_effects: list[turn_pb2.Effect] = field(default_factory=list)
    truncated: bool = False
    needs_human: bool = False
    committed: bool = False
    generated: int = 0
    """Characters of the present generation."""
    asked: bool = False
    """The present generation has its context: the model works."""
    usage: agent_pb.Usage | None = None
    """What the present generation told that it cost."""
    discarded: Discarded = field(default_factory=Discarded)
    finishing: bool = False
    finished: bool = False
    dead: bool = False
    recorded: bool = False
    recorded_version: int = 0
    ask: int = 0
    asks: dict[int, float] = field(default_factory=dict)
    sending: Sending | None = None
    generation: asyncio.Task[None] | None = None
    recording: asyncio.Task[None] | None = None
    typing: asyncio.TimerHandle | None = None
    context: ContextLoader | None = None
    known: lead_pb2.ConversationContext | None = None
    """The context that the present generation was given."""
    done: agent_pb.Done | None = None
    """How the reply ended, once it has."""

    def __post_init__(self) -> None:
        self.adopt(self.assign)

    def adopt(self, assign: pb.Assign) -> None:
        """The buffer's numbers of this assignment."""
        self.epoch = assign.epoch

    @property
    def turn_id(self) -> str:
        """The turn."""
        return self.assign.turn_id

    @property
    def to(self) -> Destination:
        """Where the reply goes."""
        return Destination(scope=self.assign.scope, address=self.assign.contact.address or self.assign.contact.contact)

    def next_ask(self, now: float) -> int:
        """Numbers a request and remembers when it was made."""
        self.ask += 1
        self.asks[self.ask] = now
        return self.ask

    def cancel_generation(self) -> None:
        """Stops the model; it stops within one round trip."""
        if self.generation:
            self.generation.cancel()
            self.generation = None

    def release_all(self) -> None:
        """Nothing of this turn is needed any more. A send that has begun goes on: its outcome is evidence."""
        self.dead = True
        self.cancel_generation()
        if self.recording:
            self.recording.cancel()
        if self.context:
            self.context.cancel()
        if self.typing:
            self.typing.cancel()
