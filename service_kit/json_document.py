"""One JSON document of many rows, made and sent a piece at a time."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping

MAX_CHUNK_BYTES = 64 * 1024


async def chunks(
    head: Mapping[str, object], sections: Iterable[tuple[str, AsyncIterator[object]]]
) -> AsyncIterator[bytes]:
    """An object with the pairs of `head` and a list of rows for each section, as UTF-8 in pieces of at most 64 KiB."""
    waiting = bytearray()
    async for piece in _pieces(head, sections):
        waiting += piece
        while len(waiting) >= MAX_CHUNK_BYTES:
            yield bytes(waiting[:MAX_CHUNK_BYTES])
            del waiting[:MAX_CHUNK_BYTES]
    yield bytes(waiting)


async def _pieces(
    head: Mapping[str, object], sections: Iterable[tuple[str, AsyncIterator[object]]]
) -> AsyncIterator[bytes]:
    yield _json(head)[:-1]
    separator = b"," if head else b""
    for name, rows in sections:
        yield separator + _json(name) + b":["
        between = b""
        async for row in rows:
            yield between + _json(row)
            between = b","
        yield b"]"
        separator = b","
    yield b"}\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
