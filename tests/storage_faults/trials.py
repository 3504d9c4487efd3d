"""Whole trials, for the tests and for the numbers."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from buffer_service.store import connection
from tests.storage_faults.disk import FaultyDisk, mounted
from tests.storage_faults.shop import Acknowledged, Shop, found

STEPS = 14


@dataclass
class Trials:
    """What many trials gave."""

    trials: int = 0
    acknowledged: int = 0
    problems: list[str] = field(default_factory=list)
    broken_trials: int = 0

    def add(self, told: Acknowledged, problems: list[str]) -> None:
        """One trial."""
        self.trials += 1
        self.acknowledged += told.count
        self.problems += problems
        self.broken_trials += bool(problems)


@contextmanager
def synchronous(level: str) -> Iterator[None]:
    """The store as it would be with another durability; "" is as it is."""
    if not level:
        yield
        return
    numbers = {"OFF": 0, "NORMAL": 1, "FULL": 2}
    before = connection.PRAGMAS
    connection.PRAGMAS = tuple(("synchronous", level, numbers[level]) if p[0] == "synchronous" else p for p in before)
    try:
        yield
    finally:
        connection.PRAGMAS = before


def power_losses(trials: int, *, seed: int = 0, level: str = "") -> Trials:
    """The power fails after a random number of commands."""
    result = Trials()
    with tempfile.TemporaryDirectory(prefix="power-") as base, synchronous(level):
        for number in range(trials):
            dice = random.Random(f"{seed}-{number}")
            folder = Path(base) / str(number)
            with mounted(folder) as disk:
                shop = Shop(folder / "buffer.db")
                shop.work(dice, dice.randint(2, STEPS))
                disk.power_loss(dice, image := folder.with_name(f"{number}-after"))
                shop.store.db.close()
            try:
                problems = found(image / "buffer.db", shop.acknowledged)
            except Exception as error:
                problems = [f"does not open: {type(error).__name__}: {error}"]
            result.add(shop.acknowledged, problems)
            shutil.rmtree(folder)
            shutil.rmtree(image)
    return result


def script(shop: Shop) -> None:
    """One ingest of three messages, one send of two bubbles, one more ingest while it runs."""
    shop.ingest("a", "b", "c")
    [assign] = shop.assigned
    shop.ingest("d", person=1)
    shop.send(assign, "um", "dois")


def operations(base: Path) -> tuple[int, int]:
    """How many writes and syncs the script has, from an open store on."""
    with mounted(base / "count") as disk:
        shop = Shop(base / "count" / "buffer.db")
        disk.writes = disk.syncs = 0
        script(shop)
        counted = disk.writes, disk.syncs
        shop.store.close()
    return counted


def deaths(base: Path) -> Iterator[tuple[str, Acknowledged, list[str]]]:
    """kill -9 at every single write and sync of the script, and the power failing at the same instant."""
    writes, syncs = operations(base)
    for kind, count in (("write", writes), ("sync", syncs)):
        for number in range(1, count + 1):
            for power in (False, True):
                folder = base / f"{kind}-{number}-{power}"
                with mounted(folder) as disk:
                    shop = Shop(folder / "buffer.db")
                    disk.writes = disk.syncs = 0
                    disk.freeze_at = (kind, number)
                    _run_until_dead(shop, disk)
                    image = disk.image
                    if power:
                        disk.power_loss(random.Random(number), image := base / f"{folder.name}-after")
                assert image
                told = shop.acknowledged
                yield f"{kind} {number}{' and power' if power else ''}", told, found(image / "buffer.db", told)


def _run_until_dead(shop: Shop, disk: FaultyDisk) -> None:
    try:
        script(shop)
    except BaseException:
        # SQLite may wrap what its VFS raised.
        if not disk.image:
            raise
    # The dead process closes nothing: its handles go without a word.
    with contextlib.suppress(Exception):
        shop.store.db.close()
