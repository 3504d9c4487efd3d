"""The product's core in the specification's world: leads in bursts, humans, two workers, a lossy network, a provider
that lies, crashes and pauses of every process at every step. SIMULATION_SEEDS=20000 runs the long profile."""

from __future__ import annotations

import os

import pytest

from buffer_service.turn_taking.hold import AdaptiveHold
from tests.simulation.model_face import SqliteDurable
from tests.simulation.world import World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "600"))
CHUNK = 200

# Seeds that once found something, with what it was.
FOUND = [
    (3345, "preempt", "messages that ripened while the buffer was down were never opened"),
    (51196, "enqueue", "the same, for a lane that collects"),
    (203824, "enqueue", "a park that ended at the very instant of another transaction was never let go"),
]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, 3 * CHUNK))
def test_no_schedule_breaks_a_promise_with_the_adaptive_hold(first: int) -> None:
    """What the hold is may never matter to a promise: it changes from message to message and from person to person."""
    for seed in range(first, first + CHUNK):
        world = World(seed, {"strategy": "preempt", "hold": AdaptiveHold()})
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


@pytest.mark.parametrize(("seed", "strategy", "story"), FOUND)
def test_seeds_that_found_something_stay_green(seed: int, strategy: str, story: str) -> None:
    assert not World(seed, {"strategy": strategy}).run(), story


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
