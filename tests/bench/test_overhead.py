"""The measurement itself: it runs, everybody gets one answer, and the ratios are told. Never what they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.load import Slice
from bench.results import Measured, answered, percentile, ratios
from bench.stand_in import Reply
from tests.bench.measuring import measure


def measured(latency_ms: float, per_second: int) -> Measured:
    return Measured(
        latency=[Slice(messages=3, seconds=1.0, latencies_ms=[latency_ms] * 3)],
        throughput=[Slice(messages=per_second, seconds=1.0, latencies_ms=[latency_ms] * per_second)],
    )


def test_ratios_are_the_systems_over_the_floors() -> None:
    found = ratios(measured(4.0, 50), measured(2.0, 100))
    assert (found["p50"], found["p99"], found["throughput"]) == (2.0, 2.0, 0.5)


def test_percentiles_interpolate() -> None:
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([7.0], 99) == 7.0


def test_a_missing_a_repeated_and_a_cut_reply_are_all_noticed() -> None:
    whole = Reply(first_byte=0.0, texts=["a", "b"])
    assert answered(["1", "2"], {"1": whole, "2": whole}).exactly_once
    assert not answered(["1", "2"], {"1": whole}).exactly_once
    assert not answered(["1"], {"1": Reply(first_byte=0.0, texts=["a", "a"])}).exactly_once
    assert not answered(["1", "2"], {"1": whole, "2": Reply(first_byte=0.0, texts=["a"])}).exactly_once


@pytest.mark.system
@pytest.mark.timeout(120)
def test_the_quick_profile_answers_everything_once_and_prints_the_ratios(tmp_path: Path) -> None:
    told = tmp_path / "overhead.json"
    printed = measure("overhead", "--quick", "--json", str(told), "--keep", str(tmp_path / "kept"))
    numbers: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    assert numbers["answered"]["exactly_once"]
    assert numbers["answered"]["posted"] > 20
    assert numbers["ratios"].keys() >= {"p50", "p99", "throughput"}
    for title in ("p50 ms", "p99 ms", "messages per second"):
        [line] = [line for line in printed.splitlines() if line.startswith(title)]
        assert len([word for word in line.split() if word.replace(".", "").isdigit()]) >= 3, line
