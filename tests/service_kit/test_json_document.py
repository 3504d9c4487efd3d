"""A document in pieces is the document."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service_kit.json_document import MAX_CHUNK_BYTES, chunks


async def rows(*given: object) -> AsyncIterator[object]:
    for row in given:
        yield row


@pytest.mark.parametrize(
    ("head", "sections"),
    [
        ({}, {}),
        ({"a": 1}, {}),
        ({}, {"x": [], "y": [1, {"é": '"\n😀'}]}),
        ({"a": 1, "b": None}, {"x": ["é" * 200_000, "z"], "y": []}),
    ],
)
async def test_it_is_one_document_in_small_pieces(head: dict[str, Any], sections: dict[str, list[object]]) -> None:
    pieces = [one async for one in chunks(head, [(name, rows(*found)) for name, found in sections.items()])]
    assert all(len(one) <= MAX_CHUNK_BYTES for one in pieces)
    assert json.loads(b"".join(pieces)) == {**head, **sections}
    assert b"".join(pieces).startswith(b"{") and b"".join(pieces).endswith(b"}\n")
