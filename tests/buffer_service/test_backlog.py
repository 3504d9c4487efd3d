"""What a turn costs the buffer while many turns of its conversation are unrecorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from buffer_service.turn_taking.entities import Lane
from tests.storage_faults.shop import Shop


@pytest.mark.parametrize("backlog", [1, 20])
def test_a_backlog_is_handed_out_with_one_question_to_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backlog: int
) -> None:
    """Each unrecorded turn asked which conversations were merged, and each question saves every entity in hand: in a
    context outage of a minute a turn of a busy conversation cost 30 ms of the buffer's only thread, and rising."""
    shop = Shop(tmp_path / "buffer.db")
    finish, merged_into = shop.turns.finish, shop.store.merged_into
    asked: list[str] = []

    def finish_unrecorded(now: int, sid: int, *, ask: int, turn_id: str, epoch: int, version: int | None) -> None:
        finish(now, sid, ask=ask, turn_id=turn_id, epoch=epoch, version=None)

    def count(lane: Lane) -> list[str]:
        asked.append(lane.conversation_id)
        return merged_into(lane)

    monkeypatch.setattr(shop.turns, "finish", finish_unrecorded)
    for number in range(backlog):
        shop.ingest(f"m{number}")
        shop.send(shop.assigned.pop(0), "resposta")
    monkeypatch.setattr(shop.store, "merged_into", count)
    shop.ingest("next")
    [assign] = shop.assigned
    assert [record.turn.messages[0].message_id for record in assign.unrecorded] == [f"m{n}" for n in range(backlog)]
    assert len(asked) == 1
    shop.store.close()
