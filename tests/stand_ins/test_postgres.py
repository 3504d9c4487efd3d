"""The PostgreSQL that other tests stand on: alone with their data, unprivileged, and gone afterwards."""

import os
import pwd
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from tests.stand_ins import postgres
from tests.stand_ins.postgres import Database, PostgresCluster


def value_of(database: Database, query: str, *, role: str = "postgres") -> object:
    with database.connect(role) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def test_is_postgresql_18(database: Database) -> None:
    assert str(value_of(database, "SHOW server_version")).startswith("18.")


def test_two_databases_know_nothing_of_each_other(postgres_cluster: PostgresCluster) -> None:
    with postgres_cluster.database() as one, postgres_cluster.database() as other:
        one.execute("CREATE TABLE leads (id int)")
        assert value_of(one, "SELECT to_regclass('public.leads')::text") == "leads"
        assert value_of(other, "SELECT to_regclass('public.leads')::text") is None


def test_a_database_goes_even_while_somebody_is_connected(postgres_cluster: PostgresCluster) -> None:
    with postgres_cluster.database() as database:
        forgotten = database.connect()
    with forgotten, pytest.raises(psycopg.OperationalError):
        forgotten.execute("SELECT 1")
    with postgres_cluster.administrator() as administrator:
        names = administrator.execute("SELECT datname FROM pg_database").fetchall()
    assert (database.name,) not in names


def test_a_template_is_built_once_and_copied_often(postgres_cluster: PostgresCluster) -> None:
    built: list[str] = []

    def build(database: Database) -> None:
        built.append(database.name)
        database.execute("CREATE TABLE numbers AS SELECT generate_series(1, 10) AS n")

    for _ in range(3):
        with postgres_cluster.database(template=postgres_cluster.template("numbers", build)) as database:
            assert value_of(database, "SELECT sum(n) FROM numbers") == 55
            database.execute("DELETE FROM numbers")
    assert built == ["numbers"]


def test_the_owner_is_no_superuser(database: Database) -> None:
    assert value_of(database, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    with pytest.raises(errors.InsufficientPrivilege):
        database.execute("CREATE ROLE intruder SUPERUSER")


def test_new_tables_are_open_to_the_anonymous_role_until_row_level_security_closes_them(database: Database) -> None:
    """The reason why every migration enables it: this is what a Supabase project grants by default."""
    database.execute("CREATE TABLE leads (name text); INSERT INTO leads VALUES ('Ana')")
    assert count_as(database, "anon") == 1
    database.execute("ALTER TABLE leads ENABLE ROW LEVEL SECURITY")
    assert count_as(database, "anon") == 0
    assert count_as(database, "authenticated") == 0
    assert count_as(database, "service_role") == 1, "BYPASSRLS"


def count_as(database: Database, role: str) -> object:
    with database.connect("authenticator") as connection:
        connection.execute(f"SET ROLE {role}".encode())
        row = connection.execute("SELECT count(*) FROM leads").fetchone()
    return row[0] if row else None


def test_the_authenticator_has_no_right_of_its_own(database: Database) -> None:
    database.execute("CREATE TABLE leads (name text)")
    with pytest.raises(errors.InsufficientPrivilege):
        value_of(database, "SELECT count(*) FROM leads", role="authenticator")


def test_nothing_is_left_behind() -> None:
    with PostgresCluster.running(durable=True) as cluster:
        directory = cluster.directory
        with cluster.administrator() as administrator:
            assert administrator.execute("SHOW fsync").fetchone() == ("on",)
    assert not directory.exists()
    assert cluster.process.poll() == 0


def test_runs_from_a_copy_where_its_account_may_not_read_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout under /root: the package would open /root to the world."""
    monkeypatch.setattr(postgres, "_is_open_to_all", lambda program: False)
    monkeypatch.setattr(postgres, "_account", lambda: pwd.getpwuid(os.geteuid() or pwd.getpwnam("nobody").pw_uid))
    with PostgresCluster.running() as cluster, cluster.database() as database:
        assert value_of(database, "SELECT 1") == 1
        assert str(cluster.process.args).count(str(cluster.directory / "embedded_postgres"))


def test_a_private_directory_on_the_way_counts(tmp_path: Path) -> None:
    program = tmp_path / "private" / "postgres"
    program.parent.mkdir(mode=0o700)
    program.touch(mode=0o755)
    assert not postgres._is_open_to_all(program)


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres._SETTINGS, "shared_buffers", "no number")
    with pytest.raises(RuntimeError, match="shared_buffers"), PostgresCluster.running():
        pass
