"""The checker objects to wrong builds; if it didn't, the green runs beside it would prove nothing. README.md says which
rule each one breaks, and why some rules need a schedule by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation import sabotage as wrong
from tests.simulation.model_face import Core, Durable, Frames, Witnessed
from tests.simulation.teeth import READINGS, TEETH, Tooth
from tests.simulation.world import World

# The table in the executable specification's README: what its checker found. Nobody may take one out unnoticed.
LISTED = {
    "freshness", "keep_check", "epoch", "restart_window", "reopen", "apology", "apology_joins", "pause",
    "refused_final", "merge", "record_after",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("tooth", TEETH, ids=lambda tooth: tooth.reading)
def test_a_wrong_build_is_caught(tooth: Tooth) -> None:
    seed = tooth.first(range(tooth.seed, tooth.seed + tooth.within))
    assert seed is not None, f"{tooth.reading} went unnoticed: python -m tests.simulation.teeth finds a new seed"
    assert not tooth.world(seed, right=True).run(), "the right build must stand the same faults"


def test_every_listed_reading_has_its_wrong_build() -> None:
    assert {t.reading for t in READINGS} >= LISTED


# ---- second lines: alone they are never needed; without the first line they hold


@pytest.mark.slow
def test_a_parked_commit_that_outlived_a_join_is_judged_again() -> None:
    """`parked`. A message that joins takes the parked Commit away; this build leaves it, and the second judgement alone
    must refuse it. The tooth `parked` has neither, and is caught."""
    for seed in range(300_000, 300_060):
        assert not World(seed, {"strategy": "preempt", "core": wrong.JoinLeavesThePark}).run()


@pytest.mark.slow
def test_the_sender_is_never_what_decides_who_keeps_a_send() -> None:
    """`attempting_keep`. Who names the current epoch of a turn in ATTEMPTING is the one who sends."""
    asked = 0

    class Watched(Witnessed):
        def _may_keep(self, turn: Any, worker: str, epoch: int) -> bool:
            nonlocal asked
            may = super()._may_keep(turn, worker, epoch)
            assert may == wrong.AttemptingKeptByAnybody._may_keep(self, turn, worker, epoch)  # type: ignore[arg-type]
            asked += turn.in_flight is not None
            return may

    for seed in range(300_000, 300_060):
        assert not World(seed, {"strategy": "enqueue", "core": Watched}, cut=0.12, crash_b=0.02, slow_net=0.3).run()
    assert asked > 20


# ---- economy: no promise breaks without these rules, but somebody waits, or misses a bubble


class Table:
    """A core without a world: one conversation, and the test says what happens when."""

    def __init__(self, build: type[Witnessed], strategy: str = "enqueue") -> None:
        self.cfg = {"strategy": strategy, "core": build}
        self.durable = Durable()
        self.now = 0
        self.frames: Frames = []
        self.core = self._start()

    def _start(self) -> Core:
        return Core(self.durable, self.now, self.cfg, lambda *a: None)

    def restart(self) -> None:
        self.core = self._start()

    def do(self, name: str, *args: Any, **more: Any) -> Frames:
        """One transaction; its frames."""
        self.frames = getattr(self.core, name)(self.now, *args, **more)
        return self.frames

    def passes(self, milliseconds: int, *alive: int) -> Frames:
        """Time passes with the heartbeats of these streams; the frames that came of it."""
        out: Frames = []
        for _ in range(0, milliseconds, 100):
            self.now += 100
            for sid in alive:
                self.do("heartbeat", sid)
            out += self.do("tick")
        return out

    def of(self, kind: str, sid: int, frames: Frames | None = None) -> list[dict[str, Any]]:
        return [f for to, f in (self.frames if frames is None else frames) if to == sid and f["f"] == kind]


def test_release_of_a_part_that_never_began() -> None:
    """`release`. The permission and the release cross on their way: the part was never begun."""

    def second_try(build: type[Witnessed]) -> list[dict[str, Any]]:
        table = Table(build)
        table.do("hello", 1, "w1", 1, [])
        [assign] = table.of("Assign", 1, table.do("enqueue", 1, "a"))
        table.do("commit", 1, assign["turn"], assign["epoch"], 1, 1, ["oi"], True, ())
        table.do("release", 1, assign["turn"], assign["epoch"], True)
        table.do("hello", 2, "w2", 1, [])
        return table.of("Assign", 2, table.passes(14_000, 2))[0]["parts"]  # type: ignore[no-any-return]

    assert second_try(Witnessed) == [], "nothing was said, so the next worker says it"
    assert second_try(wrong.ReleaseCrossesTheSend) == [("oi", "unknown", 1)], "a bubble that nobody ever sends"


def test_a_restarted_buffer_waits_for_the_worker_that_has_the_turn() -> None:
    """`fresh_lease`. Whoever connects first would get the turn; the one that has the reply ready comes too late."""

    def comes_back(build: type[Witnessed]) -> list[str]:
        table = Table(build)
        table.do("hello", 1, "w1", 1, [])
        [assign] = table.of("Assign", 1, table.do("enqueue", 1, "a"))
        table.restart()
        table.do("hello", 2, "w2", 1, [])
        table.passes(1_000, 2)
        return [f["f"] for to, f in table.do("hello", 3, "w1", 1, [(assign["turn"], assign["epoch"])]) if to == 3]

    assert comes_back(Witnessed) == ["Assign"]
    assert comes_back(wrong.NoFreshLease) == ["Revoke"], "the lead waits for a second generation"


def test_what_a_worker_does_not_name_is_given_to_another_at_once() -> None:
    """`unnamed`. A worker that lost a turn without noticing holds it for the rest of its time."""

    def wait_ms(build: type[Witnessed]) -> int:
        table = Table(build)
        table.do("hello", 1, "w1", 1, [])
        table.do("enqueue", 1, "a")
        table.do("hello", 2, "w2", 1, [])
        frames = table.do("hello", 3, "w1", 1, [])
        while not [f for _, f in frames if f["f"] == "Assign"] and table.now < 60_000:
            frames = table.passes(100, 2, 3)
        return table.now

    assert wait_ms(Witnessed) == 0
    assert wait_ms(wrong.UnnamedStaysHeld) > 45_000


def test_an_epoch_that_was_given_is_never_given_again_after_a_restart() -> None:
    """`epoch`, by hand: the worker asked nothing before the buffer died, so nothing but the opening wrote it down."""

    def second_epoch(build: type[Witnessed]) -> int:
        table = Table(build)
        table.do("hello", 1, "w1", 1, [])
        [first] = table.of("Assign", 1, table.do("enqueue", 1, "a"))
        table.restart()
        table.do("hello", 2, "w2", 1, [])
        [second] = table.of("Assign", 2, table.passes(4_000, 2))
        return int(second["epoch"]) - int(first["epoch"])

    assert second_epoch(Witnessed) == 1
    assert second_epoch(wrong.EpochInMemory) == 0
