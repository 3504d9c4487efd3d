"""The fixed prefix of all prompts in every slot of llama.cpp's server, and back in it after it was lost.

Reading a prefix takes seconds on a CPU, giving a slot the remembered state of another takes milliseconds.
"""

import asyncio
from contextlib import suppress
from os.path import commonprefix

from agent_service.chat import ChatRequest, ModelTrouble, Trouble
from agent_service.models.local_server import LocalServer
from agent_service.models.openai_request import body
from service_kit import logs

_STATE = "prefix"
_READ_S = 600.0
_TRIES = 3
# Of the prefix's tokens; a few of the last ones are always read again.
_HIT = 0.9
_log = logs.get(__name__)


class LocalPrefix:
    """Read once, then given to every slot that does not have it. `tokens` is its length, 0 before `fill`."""

    def __init__(self, server: LocalServer, *, slots: int) -> None:
        self._server = server
        self._slots = slots
        self._prefix: ChatRequest | None = None
        # Whether that is what the slots were given; reading may fail.
        self._filled = False
        self._spoilt: set[int] = set()
        self._lost = asyncio.Event()
        self._refilling: asyncio.Task[None] | None = None
        self.tokens = 0
        self.refills = 0

    async def fill(self, prefix: ChatRequest) -> bool:
        """Put it into every slot; True when it had to be read. Errors: ModelTrouble.

        One that is known goes only to slots that lost it: in the others, conversations are warm too.
        """
        if self._filled and self.begins(prefix):
            await self._refill()
            return False
        self._prefix, self._filled = prefix, False
        await self._keep_state_of(await self._text_of(prefix))
        for slot in range(1, self._slots):
            await self._server.put(slot, _STATE)
        self._filled = True
        self._spoilt.clear()
        if self._refilling is None:
            self._refilling = asyncio.create_task(self._refill_when_lost(), name="local-prefix-refill")
        return True

    def begins(self, request: ChatRequest) -> bool:
        """Whether the request begins with it; before there is one, every request does."""
        prefix = self._prefix
        if prefix is None:
            return True
        return request.tools == prefix.tools and request.messages[: len(prefix.messages)] == prefix.messages

    def saw(self, cached: int) -> None:
        """A request that begins with it found so many tokens in its slot."""
        if cached < self.tokens * _HIT:
            # This slot has it again by now; others may have lost it too.
            _log.warning("prefix_lost", tokens=self.tokens, cached=cached)
            self._lost.set()

    def spoil(self, slot: int) -> None:
        """The slot was used for something else."""
        self._spoilt.add(slot)
        self._lost.set()

    async def close(self) -> None:
        """Look after it no longer."""
        if self._refilling is not None:
            self._refilling.cancel()
            with suppress(asyncio.CancelledError):
                await self._refilling

    async def _text_of(self, prefix: ChatRequest) -> str:
        """What the prompts of all conversations begin with: what two that differ from the first word on still share."""
        asked = body(prefix, model="")
        ends = [{"role": "user", "content": first} for first in ("A", "b")]
        texts = [await self._server.render([*asked["messages"], end], asked.get("tools")) for end in ends]
        return commonprefix(texts)  # noqa: RUF071 - character by character is what is meant

    async def _keep_state_of(self, text: str) -> None:
        """Read the text in the first slot and remember its state; again, when a lead's turn came in between."""
        for _ in range(_TRIES):
            self.tokens = await self._server.read(0, text, timeout_s=_READ_S)
            # One token more: the one that was written.
            if await self._server.keep(0, _STATE) <= self.tokens + 1:
                return
        raise ModelTrouble(Trouble.SERVER_ERROR, "the first slot is never idle")

    async def _refill_when_lost(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                await self._refill()
            except ModelTrouble as error:
                # The slot's next conversation reads the prefix itself.
                _log.warning("prefix_not_refilled", error=str(error))

    async def _refill(self) -> None:
        short = {slot.number for slot in await self._server.slots() if not slot.busy and slot.tokens < self.tokens}
        for slot in sorted(short | self._spoilt):
            self._spoilt.discard(slot)
            await self._server.put(slot, _STATE)
            self.refills += 1
