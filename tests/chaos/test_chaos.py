"""Real processes under real faults; the long profile is `python -m tests.chaos.prove`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import scenarios
from tests.chaos.checker import Verdict
from tests.chaos.fleet import LEASE_S

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
WINDOW_S = 12.0
# The machine runs everything at once: what is late by less is not the protocol's.
SLACK_S = 1.0


async def test_kills_of_every_process_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    report = await scenarios.random_faults(seed=1, kills=10, folder=tmp_path)
    print(report)
    assert report.verdict is Verdict.PASS, str(report)


async def test_the_other_ingress_takes_over_and_what_the_first_one_still_wants_is_refused(tmp_path: Path) -> None:
    report = await scenarios.one_of_two(seed=2, folder=tmp_path)
    print(report)
    assert report.verdict is Verdict.PASS, str(report)
    assert all(s <= 2 * LEASE_S + SLACK_S for s in report.takeover_s), report.takeover_s
    assert all(s <= WINDOW_S + 2 * LEASE_S + SLACK_S for s in report.takeover_sending_s), report.takeover_sending_s
