"""Deadlines whose time-outs say what was waited for."""

import asyncio
from typing import Any

from agent_service.chat import ModelTrouble, Trouble

_TELLING_S = 0.25
_TELLING_SHARE = 0.05


def telling_s(until: float) -> float:
    """Of the time until then (the loop's), how long before it the work ends so that what it cost can be told."""
    return max(0.0, min(_TELLING_S, (until - asyncio.get_running_loop().time()) * _TELLING_SHARE))


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
