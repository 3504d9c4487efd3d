"""Deadlines whose time-outs say what was waited for."""

import asyncio
from typing import Any

from agent_service.chat import ModelTrouble, Trouble


class Deadline:
    """`asyncio.timeout_at` whose time-out is a ModelTrouble: the given one, or OUT_OF_TIME when all time is over."""

    def __init__(self, at: float, ends_at: float, trouble: Trouble) -> None:
        self._timeout = asyncio.timeout_at(at)
        self._trouble = trouble if at < ends_at else Trouble.OUT_OF_TIME

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        try:
            await self._timeout.__aexit__(*raised)
        except TimeoutError:
            raise ModelTrouble(self._trouble) from None
