"""Fixtures of these tests."""

from tests.deploy.conftest import short_tmp

__all__ = ["short_tmp"]
