"""The measurement of a warm model: what it makes of its numbers, and that it runs. Never what they are."""

import json
from pathlib import Path

import pytest

from agent_service.chat import ChatUsage
from bench.warm_model import First, Measured, numbers, report
from tests.bench.measuring import measure


def first(ms: float, *, cached: int) -> First:
    return First(ms=ms, usage=ChatUsage(prompt=1000, cached=cached, completion=4))


def measured(*, primed_ms: float, cancel_ms: float = 60.0) -> Measured:
    return Measured(
        prefix_tokens=1200,
        cold_ms=[5000.0, 4000.0, 9000.0],
        warm=[first(3000, cached=0), first(2000, cached=0), first(4000, cached=0)],
        primed=[first(primed_ms, cached=990)],
        concurrent=[first(300, cached=990), first(500, cached=990)],
        load_ms=[1400.0],
        prime_ms=[3500.0],
        cancel_ms=[20.0, cancel_ms],
        cancel_tokens=[1, 2],
    )


def test_ratios_are_of_medians_and_the_worst_cancellation_counts() -> None:
    found = numbers(measured(primed_ms=150, cancel_ms=90))
    assert (found["primed_of_warm"], found["primed_of_cold"]) == (0.05, 0.03)
    assert (found["cancel_ms"], found["cancel_tokens"], found["concurrent_worst_ms"]) == (90, 2, 500)
    assert found["cached"] == {"warm": "0%", "primed": "99%", "concurrent": "99%"}


def test_a_missed_target_is_told() -> None:
    assert report(numbers(measured(primed_ms=150))).count("met") == 2
    # 9 % of warm, though only 5 % of cold.
    assert "at most 8% and 5%: MISSED" in report(numbers(measured(primed_ms=270)))
    # 5 % of warm is enough, but more than 5 % of this cold start.
    quick_start = Measured(**{**vars(measured(primed_ms=150)), "cold_ms": [2900.0]})
    assert "at most 8% and 5%: MISSED" in report(numbers(quick_start))
    assert "at most 200: MISSED" in report(numbers(measured(primed_ms=150, cancel_ms=230)))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_round_measures_all_four_ways(tmp_path: Path) -> None:
    # One thread and a short prefix: the machine is shared with other tests.
    told = tmp_path / "found.json"
    printed = measure("warm_model", "--quick", "--threads", "1", "--prefix", "150", "--json", str(told), timeout_s=280)
    found = json.loads(told.read_text())
    assert min(found[name] for name in ("cold_ms", "warm_ms", "primed_ms", "concurrent_ms")) > 0
    assert found["cached"]["warm"] == "0%" and int(found["cached"]["concurrent"].rstrip("%")) > 80
    assert "primed, 4 at once" in printed
