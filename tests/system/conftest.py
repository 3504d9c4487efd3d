"""Fixtures of these tests."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from deploy.supervision import Supervisor
from tests.deploy.conftest import short_tmp
from tests.system.harness import System, running

__all__ = ["short_tmp"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    async with running(tmp_path_factory.mktemp("system"), **request.module.SETTINGS) as system:
        yield system


@pytest_asyncio.fixture(loop_scope="module")
async def system(shared_system: System) -> System:
    """One for all tests of a module that ask for it, with the module's SETTINGS; each has people of its own. Such a
    test is marked `on_the_modules_loop`."""
    # One that failed may have left something stopped.
    await asyncio.to_thread(Supervisor(shared_system.directory).revive)
    await shared_system.wait_ready()
    return shared_system
