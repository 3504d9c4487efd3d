"""The measurement of growth: it runs, every turn ends, and the ratios are told. Never what they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.fill import fill
from buffer_service.store.sqlite import SqliteStore
from tests.bench.measuring import measure


def test_a_filled_store_holds_idle_conversations_with_one_recorded_turn_each(tmp_path: Path) -> None:
    fill(tmp_path / "buffer.db", 120)
    store = SqliteStore(tmp_path / "buffer.db")
    try:
        assert store.live_lanes() == []
        counts = [store.one(f"SELECT count(*) FROM {table}")[0] for table in ("conversation", "alias", "message")]
        assert counts == [120, 120, 120]
        assert store.one("SELECT count(*) FROM turn WHERE recorded = 1 AND ended_no > 0")[0] == 120
        assert store.one("SELECT count(*) FROM part WHERE state = 3")[0] == 120
    finally:
        store.close()


@pytest.mark.system
@pytest.mark.timeout(120)
def test_a_small_run_prints_the_ratios_and_the_bytes(tmp_path: Path) -> None:
    told = tmp_path / "growth.json"
    sizes = ["--stored", "60", "--active", "16", "--turns", "3"]
    printed = measure("growth", *sizes, "--json", str(told))
    numbers: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    assert numbers["stored"] == [10, 60] and numbers["turns"] == [12, 12]
    assert numbers["enqueue"]["ratio"] > 0 and numbers["whole"]["ratio"] > 0 and min(numbers["rss_bytes"]) > 0
    assert numbers["recent"][1] >= 16
    for title in ("p50 ms of Enqueue", "p50 ms of a whole turn", "MiB resident"):
        [line] = [line for line in printed.splitlines() if line.startswith(title)]
        assert "met" in line or "MISSED" in line or "judged with 100000 only" in line
