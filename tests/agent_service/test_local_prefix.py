"""The fixed prefix in every slot, over a server under the test's thumb; on real weights: test_local_engine.py."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from agent_service.chat import ChatMessage, ChatRequest, ModelTrouble, Trouble
from agent_service.models.local_prefix import LocalPrefix
from agent_service.models.local_server import LocalServer, Slot

SLOTS = 3
PREFIX = ChatRequest(messages=(ChatMessage(role="system", content="Você é a Helen."),))


class StubServer:
    """Remembers which slot has what, and fails where it is told to."""

    def __init__(self) -> None:
        self.has = [0] * SLOTS
        self.reads = 0
        self.fails: str = ""

    async def render(self, messages: list[dict[str, Any]], tools: Any) -> str:
        return "".join(message["content"] for message in messages)

    async def read(self, slot: int, prompt: str, *, timeout_s: float) -> int:
        self._may_fail("read")
        self.reads += 1
        self.has[slot] = len(prompt)
        return len(prompt)

    async def keep(self, slot: int, name: str) -> int:
        return self.has[slot] + 1

    async def put(self, slot: int, name: str) -> None:
        self._may_fail("put")
        self.has[slot] = self.has[0]

    async def slots(self) -> list[Slot]:
        return [Slot(number=number, busy=False, tokens=tokens) for number, tokens in enumerate(self.has)]

    def _may_fail(self, what: str) -> None:
        if self.fails == what:
            raise ModelTrouble(Trouble.UNREACHABLE, what)


@pytest.fixture
async def made() -> AsyncIterator[tuple[StubServer, LocalPrefix]]:
    server = StubServer()
    prefix = LocalPrefix(cast("LocalServer", server), slots=SLOTS)
    yield server, prefix
    await prefix.close()


@pytest.mark.parametrize("fails", ["read", "put"])
async def test_a_prefix_that_could_not_be_read_is_read_the_next_time(
    made: tuple[StubServer, LocalPrefix], fails: str
) -> None:
    """It counted as known after the first failure: the next warm-up found nothing to do, called itself done, and every
    first token of the process read the whole prefix."""
    server, prefix = made
    server.fails = fails
    with pytest.raises(ModelTrouble):
        await prefix.fill(PREFIX)
    server.fails, server.reads = "", 0
    assert await prefix.fill(PREFIX)
    assert server.reads == 1 and server.has == [prefix.tokens] * SLOTS
    assert not await prefix.fill(PREFIX) and server.reads == 1


async def test_a_new_prefix_that_could_not_be_read_keeps_nobody_out_of_the_slots(
    made: tuple[StubServer, LocalPrefix],
) -> None:
    server, prefix = made
    await prefix.fill(PREFIX)
    other = ChatRequest(messages=(ChatMessage(role="system", content="Você é a Clara."),))
    server.fails = "read"
    with pytest.raises(ModelTrouble):
        await prefix.fill(other)
    assert prefix.begins(other), "its conversations take any slot, and read it themselves"
    server.fails = ""
    assert await prefix.fill(other)
