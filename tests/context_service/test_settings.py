"""Which store is meant."""

from pathlib import Path

import pytest

from context_service.settings import ContextSettings
from service_kit.settings import ConfigurationError, load


def settings(**environ: str) -> ContextSettings:
    return load(ContextSettings, environ=environ, env_file=None)


def test_the_file_is_in_the_data_folder_unless_named() -> None:
    assert settings(SDR_DATA_DIR="/tmp/x").sqlite_path() == Path("/tmp/x/context.db")
    assert settings(SDR_CONTEXT_STORE="sqlite:/tmp/y.db").sqlite_path() == Path("/tmp/y.db")


@pytest.mark.parametrize("store", ["supabase:x", "redis://h", "sqlite:", "y.db"])
def test_other_stores_are_refused_with_a_sentence(store: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SDR_CONTEXT_STORE has to be sqlite:PATH or supabase"):
        settings(SDR_CONTEXT_STORE=store).check()


def test_a_retention_that_is_shorter_than_a_record_may_come_late_is_refused() -> None:
    settings(SDR_RETENTION_DAYS="0").check()
    settings(SDR_RETENTION_DAYS="10").check()
    with pytest.raises(ConfigurationError, match="SDR_RETENTION_DAYS has to be 0 or at least 10"):
        settings(SDR_RETENTION_DAYS="9").check()
