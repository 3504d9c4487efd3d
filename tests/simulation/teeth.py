"""Every wrong reading with the world that finds it out. `python -m tests.simulation.teeth` looks for the first seed of
each anew, for when a change of the core has moved them."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulation import sabotage as wrong
from tests.simulation.world import World

EPOCH = 300_000


@dataclass(frozen=True, kw_only=True)
class Tooth:
    """A wrong build, the faults that bring it out, and where to look: from `seed` on, `within` seeds. The violations
    of `finds` are those that the reading is about; another kind would be luck, and an exception proves nothing."""

    reading: str
    finds: str
    seed: int
    cfg: Mapping[str, Any]
    strategy: str = "preempt"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    within: int = 120

    def world(self, seed: int, *, right: bool = False) -> World:
        """This seed with the wrong build, or with the right one under the same faults."""
        cfg: dict[str, Any] = {"policy": self.cfg.get("policy", {})} if right else dict(self.cfg)
        return World(seed, {**cfg, "strategy": self.strategy}, **self.knobs)

    def caught(self, seed: int) -> list[str]:
        """Violations of the kinds that are meant."""
        try:
            violations = self.world(seed).run()
        except Exception:
            # A wrong build may contradict itself.
            return []
        kinds = self.finds.split()
        return [v for v in violations if v.split(":")[0].split()[0] in kinds]

    def first(self, seeds: Iterable[int]) -> int | None:
        """The first of these seeds that finds it out."""
        return next((s for s in seeds if self.caught(s)), None)


def core(build: type, **more: Any) -> dict[str, Any]:
    """The configuration with this build of the core."""
    return {"core": build, **more}


AWAY: Mapping[str, Any] = {"cut": 0.12, "stop_w": 0.08, "crash_b": 0.02, "provider_bad": 0.1, "forget": 0}
POISON: Mapping[str, Any] = {"poison": 0.3, "msgs": (10, 20)}

BUSY_AWAY: Mapping[str, Any] = {
    "cut": 0.3, "stop_w": 0.05, "crash_b": 0.03, "slow_net": 0.2, "msgs": (1, 4), "capacity": 1, "ctx_down": 1.0,
    "forget": 0, "poison": 0, "merge": 0, "pause": 0, "crash_w": 0, "stop_b": 0, "provider_bad": 0, "gen_fail": 0,
    "gen_hang": 0,
}  # fmt: skip

READINGS = [
    Tooth(reading="freshness", finds="WINDOW ORDER", seed=300_003, cfg={"freshness": "receipt"}),
    Tooth(reading="keep_check", finds="EFFECTS TRUNCATED", seed=300_015, cfg=core(wrong.KeepsByName), knobs=AWAY),
    Tooth(
        reading="epoch", finds="EFFECTS TRUNCATED EPOCH", seed=300_007, cfg=core(wrong.EpochInMemory), knobs=BUSY_AWAY,
        within=200,
    ),
    Tooth(
        reading="restart_window", finds="OVERLAP ORDER", seed=300_063, cfg=core(wrong.WindowEndsWithTheProcess),
        knobs={"crash_b": 0.03, "provider_bad": 0.5},
    ),
    Tooth(reading="reopen", finds="STALE EFFECTS STUCK", seed=300_017, cfg=core(wrong.KeepsReopenedReply)),
    Tooth(
        reading="apology", finds="LOST", seed=300_003, strategy="enqueue",
        cfg=core(wrong.ApologisesOnce, policy={"max_attempts": 1}), knobs={"poison": 0.3, "crash_w": 0.03},
    ),
    Tooth(
        reading="apology_joins", finds="SWALLOWED", seed=300_003, knobs=POISON,
        cfg=core(wrong.ApologyTakesMessages, policy={"max_attempts": 1}),
    ),
    Tooth(
        reading="pause", finds="TRUNCATED PAUSED RECORD", seed=300_009,
        cfg=core(wrong.PausesAtTheNextRefusal, pause="at_refusal"),
    ),
    Tooth(reading="refused_final", finds="GAP", seed=300_028, cfg=core(wrong.GoesOnAfterAGap)),
    Tooth(
        reading="merge", finds="STUCK PAUSED", seed=300_014, cfg=core(wrong.MergesHalf),
        knobs={"merge": 1.0, "pause": 1.0},
    ),
    Tooth(
        reading="record_after", finds="RECORD EFFECTS", seed=300_014, strategy="enqueue",
        cfg={"record_after": "at_once"},
        knobs={**BUSY_AWAY, "cut": 0.15, "crash_b": 0, "crash_w": 0.02, "slow_net": 0.03, "gen_fail": 0.1,
               "gen_hang": 0.03, "capacity": 3, "ctx_down": 0},
    ),
    Tooth(
        reading="correlate", finds="TWICE RECORD ORDER", seed=300_104, strategy="enqueue", cfg={"correlate": "any"},
        knobs={"cut": 0.12, "crash_w": 0.02, "stop_w": 0, "slow_net": 0.5, "provider_bad": 0.4, "gen_fail": 0,
               "msgs": (10, 20), "capacity": 1, "forget": 0},
        within=200,
    ),
    Tooth(reading="commit_parts", finds="TRUNCATED MIXED", seed=300_000, cfg={"commit_parts": "new"}),
    Tooth(
        reading="payload", finds="EFFECTS RECORD", seed=300_115, strategy="enqueue",
        cfg={"payload": "worker", "policy": {"max_attempts": 2}}, knobs={"stop_w": 0.05, "gen_fail": 0.2}, within=200,
    ),
    Tooth(
        reading="parked", finds="STALE EFFECTS", seed=300_005,
        cfg=core(wrong.JoinLeavesTheParkAndNobodyJudges),
    ),
    Tooth(
        reading="keep_check and attempting_keep", finds="ORDER TWICE OVERLAP", seed=300_046,
        cfg=core(wrong.KeepsAnybodysSend), knobs=AWAY,
    ),
]  # fmt: skip

SABOTAGE = [
    Tooth(reading="no fence", finds="EFFECTS TRUNCATED ORDER", seed=300_014, cfg=core(wrong.NoFence), knobs=AWAY),
    Tooth(reading="never superseded", finds="STALE", seed=300_044, cfg=core(wrong.NeverSuperseded)),
    Tooth(reading="sends unknown again", finds="TWICE", seed=300_000, cfg=core(wrong.SendsAgain)),
    Tooth(reading="forgets what came meanwhile", finds="LOST", seed=300_000, cfg=core(wrong.ForgetsPending)),
    Tooth(reading="talks over humans", finds="STUCK PAUSED", seed=300_008, cfg=core(wrong.TalksOverHumans)),
    Tooth(reading="no deduplication", finds="LOST TWICE", seed=300_002, cfg=core(wrong.NoDeduplication)),
    Tooth(
        reading="short window", finds="OVERLAP", seed=300_028, cfg=core(wrong.ShortWindow),
        knobs={"provider_bad": 0.6, "stop_w": 0.04, "cut": 0.04},
    ),
]  # fmt: skip

TEETH = READINGS + SABOTAGE


def main() -> None:
    """Prints the first seed of each from EPOCH on, its rate, and what it took."""
    names = sys.argv[1:]
    for tooth in (t for t in TEETH if not names or t.reading in names):
        began = time.perf_counter()
        first = tooth.first(itertools.islice(itertools.count(EPOCH), 3_000))
        took = time.perf_counter() - began
        right = first is not None and tooth.world(first, right=True).run()
        print(f"{tooth.reading:28} seed {first} (pinned {tooth.seed}) {took:.1f} s; right build: {right or 'green'}")


if __name__ == "__main__":
    main()
