"""Which store is meant."""

import subprocess
import sys
from pathlib import Path

import pytest

from context_service.settings import ContextSettings
from context_service.store.supabase_client import check_address
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


@pytest.mark.parametrize(
    ("url", "key", "sentence"),
    [
        ("http://[::1", "sb_secret_x", "the project's address alone"),
        ("https://", "sb_secret_x", "the project's address alone"),
        ("https://x.supabase.co:99999", "sb_secret_x", "the project's address alone"),
        ("https://x.supabase.co ", "sb_secret_x", "the project's address alone"),
        ("https://x.supabase.co/rest/v1/", "sb_secret_x", "the project's address alone"),
        ("https://x.supabase.co", "sb_secret_x\n", "a line break"),
        ("https://x.supabase.co", "sb_secret_ção", "a letter that no key has"),
    ],
)
def test_what_was_copied_wrongly_is_refused_at_the_start(url: str, key: str, sentence: str) -> None:
    """Some ended in a traceback; with the others the service waited for ever for a database that does not answer."""
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        check_address(url, key)
    assert key not in str(refused.value)


@pytest.mark.parametrize("url", ["https://x.supabase.co", "https://x.supabase.co/", "http://127.0.0.1:54321"])
def test_an_address_of_a_project_is_taken(url: str) -> None:
    check_address(url, "sb_secret_x")


def test_a_retention_that_is_shorter_than_a_record_may_come_late_is_refused() -> None:
    settings(SDR_RETENTION_DAYS="0").check()
    settings(SDR_RETENTION_DAYS="10").check()
    with pytest.raises(ConfigurationError, match="SDR_RETENTION_DAYS has to be 0 or at least 10"):
        settings(SDR_RETENTION_DAYS="9").check()


def test_a_local_file_needs_no_client_of_a_remote_store() -> None:
    """It was a third of what the process imported."""
    code = "import sys, context_service.app; print(*sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "supabase" not in done.stdout.split()
