"""Frames that wait together travel together: a message on a stream costs far more than what is in it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeVar

MAX_FRAMES = 64
MAX_BYTES = 1 << 20


class Frame(Protocol):
    """A stream's message with room for those that follow it."""

    @property
    def also(self) -> Any:
        """The frames that follow this one, in order."""

    def ByteSize(self) -> int:
        """Its length on the wire."""


F = TypeVar("F", bound=Frame)


def add_waiting(queue: asyncio.Queue[F | None] | asyncio.Queue[F], frame: F) -> bool:
    """Takes along what waits behind this frame; False when that is None, the end of the stream."""
    size = 0 if queue.empty() else frame.ByteSize()
    while len(frame.also) < MAX_FRAMES and size < MAX_BYTES and not queue.empty():
        following = queue.get_nowait()
        if following is None:
            return False
        size += following.ByteSize()
        frame.also.append(following)
    return True
