"""The product's core in the specification's world: leads in bursts, humans, two workers, a lossy network, a provider
that lies, crashes and pauses of every process at every step. SIMULATION_SEEDS=20000 runs the long profile."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from buffer_service.turn_taking.hold import AdaptiveHold
from tests.simulation.model_face import SqliteDurable
from tests.simulation.world import World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "600"))
CHUNK = 200


@dataclass(frozen=True)
class Found:
    """A seed that once found something. What fails in a long run comes here, with its faults and its story."""

    strategy: str
    seed: int
    story: str
    policy: Mapping[str, int] = field(default_factory=dict)
    knobs: Mapping[str, Any] = field(default_factory=dict)


REGRESSION_SEEDS = [
    Found("preempt", 3345, "messages that ripened while the buffer was down were never opened"),
    Found("enqueue", 51_196, "the same, for a lane that collects"),
    Found("enqueue", 203_824, "a park that ended at the very instant of another transaction was never let go"),
    Found(
        "preempt", 300_073, "a worker kept a turn that had become an apology, and answered it from no messages",
        policy={"max_attempts": 1}, knobs={"cut": 0.05, "crash_w": 0.03},
    ),
    Found(
        "enqueue", 300_527, "every repeated answer to a Record called forth another one, until nothing else was done",
        knobs={"cut": 0.05, "crash_b": 0.03, "slow_net": 0.2},
    ),
    Found(
        "preempt", 501_071, "the same, while recording was merely slow",
        policy={"max_hold": 500}, knobs={"gen_fail": 0.3, "slow_net": 0.3},
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, 3 * CHUNK))
def test_no_schedule_breaks_a_promise_with_the_adaptive_hold(first: int) -> None:
    """What the hold is may never matter to a promise: it changes from message to message and from person to person."""
    for seed in range(first, first + CHUNK):
        world = World(seed, {"strategy": "preempt", "policy": {"hold": AdaptiveHold()}})
        violations = world.run()
        assert not violations, f"seed {seed} adaptive: {violations}"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["enqueue", "preempt"])
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_schedule_breaks_a_promise(strategy: str, first: int) -> None:
    in_flight = 0
    for seed in range(first, first + CHUNK):
        world = World(seed, {"strategy": strategy})
        violations = world.run()
        assert not violations, f"seed {seed} strategy={strategy}: {violations}"
        in_flight += world.stats["crash_b"] + world.stats["crash_w"]
    assert in_flight > CHUNK, "too few crashes: the run proves nothing"


@pytest.mark.parametrize("strategy", ["enqueue", "preempt"])
def test_a_few_schedules(strategy: str) -> None:
    for seed in range(10_000, 10_040):
        assert not World(seed, {"strategy": strategy}).run(), f"seed {seed}"


@pytest.mark.parametrize("strategy", ["enqueue", "preempt"])
def test_a_few_schedules_with_an_agent_that_often_says_nothing(strategy: str) -> None:
    """A message that came while such a turn was recorded joined it: never answered, never in history. And when the
    worker died before the end, another one answered a turn that history had already."""
    silences = 0
    for seed in range(700_000, 700_060):
        world = World(seed, {"strategy": strategy}, silent=0.3)
        assert not world.run(), f"seed {seed}"
        silences += world.stats["silences"]
    assert silences > 50, "too few: the run proves nothing"


@pytest.mark.parametrize("found", REGRESSION_SEEDS, ids=lambda found: f"{found.strategy}-{found.seed}")
def test_seeds_that_found_something_stay_green(found: Found) -> None:
    world = World(found.seed, {"strategy": found.strategy, "policy": found.policy}, **found.knobs)
    assert not world.run(), found.story


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["enqueue", "preempt"])
def test_no_schedule_breaks_a_promise_over_the_real_store(strategy: str) -> None:
    """Every command is a transaction of the SQLite store, and every crash of the buffer opens the file anew."""
    for seed in range(SEEDS // 50):
        world = World(seed, {"strategy": strategy, "durable": SqliteDurable})
        try:
            violations = world.run()
        finally:
            world.d.close()
        assert not violations, f"seed {seed} strategy={strategy}: {violations}"
