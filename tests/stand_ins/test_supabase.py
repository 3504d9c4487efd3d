"""The project as a program: what `make up` runs against when nobody has a Supabase account."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.stand_ins.postgres import Database
from tests.stand_ins.supabase import migrate

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def running() -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    command = [sys.executable, "-m", "tests.stand_ins.supabase"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            settings: dict[str, str] = {}
            assert process.stdout
            for line in process.stdout:
                if line == "ready\n":
                    break
                name, _, value = line.strip().partition("=")
                settings[name] = value
            yield process, settings
        finally:
            process.kill()


def test_prints_what_is_needed_and_leaves_nothing_behind() -> None:
    with running() as (process, settings):
        assert list(settings) == ["SUPABASE_URL", "SUPABASE_SECRET_KEY", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_DB_URL"]
        with psycopg.connect(settings["SUPABASE_DB_URL"], autocommit=True) as owner:
            directory = Path(str(owner.info.host))
            owner.execute("CREATE TABLE leads (name text); ALTER TABLE leads ENABLE ROW LEVEL SECURITY")
            owner.execute("INSERT INTO leads VALUES ('Ana')")
        assert directory.is_dir()
        for key, seen in (("SUPABASE_SECRET_KEY", [{"name": "Ana"}]), ("SUPABASE_PUBLISHABLE_KEY", [])):
            # The table is made behind the API's back: the notice about it may arrive later than this request.
            with httpx.Client(headers={"apikey": settings[key]}, timeout=30) as client:
                while (answer := client.get(f"{settings['SUPABASE_URL']}/rest/v1/leads")).status_code == 404:
                    pass
            assert answer.json() == seen
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not directory.exists()


def test_migrations_get_the_database_and_may_fail(database: Database, tmp_path: Path) -> None:
    script = "import os, sys; open(sys.argv[1], 'w').write(os.environ['SUPABASE_DB_URL'])"
    migrate(database, (sys.executable, "-c", script, str(tmp_path / "url")))
    assert (tmp_path / "url").read_text() == database.url()
    assert "SUPABASE_DB_URL" not in os.environ
    with pytest.raises(SystemExit, match="exit code 3"):
        migrate(database, (sys.executable, "-c", "raise SystemExit(3)"))
