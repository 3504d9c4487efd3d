"""Fifteen broken builds, and each is noticed by the tests that are there for it."""

from __future__ import annotations

import pytest

from tests.sabotage.builds import BUILDS
from tests.sabotage.run import sabotage_all

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


def test_every_broken_build_is_caught() -> None:
    assert len(BUILDS) == 15
    outcomes = sabotage_all()
    assert not [f"{one.build.name}: {one.by}" for one in outcomes if not one.caught]
