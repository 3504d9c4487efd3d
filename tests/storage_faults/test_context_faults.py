"""kill -9 of the context service, and the power, in the middle of RecordTurn: all of the turn or nothing of it, and the
retry completes it once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage_faults.history import (
    NAME,
    at_every_statement,
    at_every_write_and_sync,
    content,
    problem_of,
    without_a_fault,
    without_transaction,
)


async def test_death_at_every_statement_leaves_all_or_nothing(tmp_path: Path) -> None:
    before, after = await without_a_fault(tmp_path / "clean")
    deaths = await at_every_statement(tmp_path)
    assert len(deaths) > 10 and "COMMIT" in deaths[-2].at, [death.at for death in deaths]
    there = [content(death.image / NAME) == after for death in deaths]
    assert there == [False] * (len(deaths) - 1) + [True]
    assert not [problem for death in deaths if (problem := await problem_of(death, before, after))]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_death_at_every_write_and_every_sync_leaves_all_or_nothing(tmp_path: Path) -> None:
    before, after = await without_a_fault(tmp_path / "clean")
    deaths = [death async for death in at_every_write_and_sync(tmp_path)]
    assert len(deaths) > 20 and not all(death.answered for death in deaths), "too little happened"
    assert not [problem for death in deaths if (problem := await problem_of(death, before, after))]


async def test_without_a_transaction_the_same_deaths_tear_the_turn(tmp_path: Path) -> None:
    """The test has teeth."""
    before, after = await without_a_fault(tmp_path / "clean")
    with without_transaction():
        deaths = await at_every_statement(tmp_path)
    torn = [death for death in deaths if content(death.image / NAME) not in (before, after)]
    assert torn and "torn" in await problem_of(torn[0], before, after)
