"""The seam between the agent and whatever writes the replies."""

from collections.abc import AsyncGenerator
from typing import Protocol

from agent_service.conversation import ModelEvent, Turn


class Model(Protocol):
    """Writes replies; one per process, opened and warmed before the agent is ready."""

    @property
    def name(self) -> str:
        """As shown to people: "playbook"."""
        ...

    @property
    def costs_money(self) -> bool:
        """Whether each reply is paid for."""
        ...

    async def open(self) -> None:
        """Connect or load."""
        ...

    async def warm(self) -> None:
        """Make the first real reply as fast as the hundredth: prime the prompt's fixed part, generate once."""
        ...

    def stream(self, turn: Turn) -> AsyncGenerator[ModelEvent, None]:
        """Write one reply. Closing the generator, or cancelling who waits for it, stops the model at once."""
        ...

    async def close(self) -> None:
        """Let go of what `open` took."""
        ...
