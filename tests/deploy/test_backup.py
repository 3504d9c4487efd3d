"""Backups: what makes a folder one, what is refused, and what is put in place."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.common.v1 import backup_pb2
from buffer_service.store import copies
from buffer_service.store import schema as buffer_schema
from buffer_service.store.sqlite import SqliteStore
from context_service.store import schema
from deploy import backup, manifest, rehearsal, restore, started, upgrade, wait
from deploy.alone import Busy, alone
from deploy.manifest import BackupError
from deploy.settings import SystemSettings
from deploy.standby import RETRY_AFTER_S, Standby
from deploy.supervision import Supervisor
from service_kit.settings import load
from tests.buffer_service.test_service import Worker, enqueue, message
from tests.buffer_service.test_service import buffer as buffer_service
from tests.deploy.running import ROOT, free_addresses, free_port


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemSettings:
    for name, value in {"SDR_DATA_DIR": str(tmp_path / "data"), **free_addresses()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return load(SystemSettings)


@pytest.fixture
def made(settings: SystemSettings) -> Path:
    """A backup of two stores that hold nothing, and the stores in their place."""
    data = settings.data_dir
    SqliteStore(data / "buffer.db").close()
    schema.open_database(data / "context.db", schema.migrations()).close()
    return copy_of(data, "one")


def copy_of(data: Path, name: str, **changes: Any) -> Path:
    folder = data / "backups" / name
    folder.mkdir(parents=True)
    stores = {}
    for store, version in (("buffer", buffer_schema.VERSION), ("context", len(schema.migrations()))):
        copied = shutil.copy(data / f"{store}.db", folder)
        stores[store] = manifest.StoreFile(
            file_name=f"{store}.db", bytes=1, sha256=digest(Path(copied)), schema_version=version
        )
    values: dict[str, Any] = {
        "name": name,
        "created": "2026-03-10T12:00:00+00:00",
        "version": "v1",
        "quiesced": False,
        "open_turns": 0,
        "pending_messages": 0,
        "unrecorded_turns": 0,
        **stores,
    }
    manifest.write(folder, manifest.Manifest(**{**values, **changes}))
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tool(settings: SystemSettings, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"deploy.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


# ---- naming


@pytest.mark.parametrize("given", ["one", "backups/one", "backups/one/"])
def test_a_backup_is_named_with_or_without_its_folder(given: str) -> None:
    assert manifest.folder_of(Path("data"), given) == Path("data/backups/one")


@pytest.mark.parametrize(
    "given", ["", "../one", "a/b", "/etc", "backups/../x", "data/backups/one", ".", "..", "x" * 65]
)
def test_anything_else_is_refused(given: str) -> None:
    with pytest.raises(BackupError, match="does not name a backup"):
        manifest.folder_of(Path("data"), given)


# ---- what is refused, in clear sentences and by exit code


@pytest.mark.slow
def test_bad_wishes_are_refused_before_anything_is_touched(settings: SystemSettings, made: Path) -> None:
    present = {path.name: path.read_bytes() for path in settings.data_dir.glob("*.db")}
    unfinished = settings.data_dir / "backups" / "unfinished"
    unfinished.mkdir()
    for code, sentence, arguments in (
        (2, "Which one?", ()),
        (1, "does not name a backup", ("--from", "../one")),
        (1, "There is no backup two in", ("--from", "backups/two")),
        (1, "has no manifest.json, so it was never finished", ("--from", "unfinished")),
    ):
        done = tool(settings, "restore", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert sentence in done.stderr and "Traceback" not in done.stderr
    assert "There is: one." in tool(settings, "restore", "--from", "two").stderr
    assert {path.name: path.read_bytes() for path in settings.data_dir.glob("*.db")} == present


@pytest.mark.parametrize("name", ["buffer.db", "context.db"])
def test_a_copy_that_was_changed_is_not_restored(made: Path, name: str) -> None:
    with (made / name).open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    with pytest.raises(BackupError, match=f"{name} is not what was backed up"):
        restore.checked(made)


def test_a_copy_that_is_gone_is_not_restored(made: Path) -> None:
    (made / "context.db").unlink()
    with pytest.raises(BackupError, match=r"context\.db cannot be read"):
        restore.checked(made)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "buffer": 3}'])
def test_what_is_no_manifest_is_refused(made: Path, text: str) -> None:
    (made / manifest.FILE).write_text(text)
    with pytest.raises(BackupError, match="manifest"):
        restore.checked(made)


def test_another_format_is_refused(made: Path) -> None:
    written = json.loads((made / manifest.FILE).read_text())
    (made / manifest.FILE).write_text(json.dumps(written | {"format": 2}))
    with pytest.raises(BackupError, match="a format of its own"):
        restore.checked(made)


def test_a_backup_of_a_newer_version_is_refused(settings: SystemSettings, made: Path) -> None:
    newer = manifest.StoreFile(file_name="buffer.db", bytes=1, sha256="", schema_version=99)
    folder = copy_of(settings.data_dir, "newer", buffer=newer, version="v7")
    with pytest.raises(
        BackupError, match=f"schema 99, and this version knows {buffer_schema.VERSION}: it was made by version v7"
    ):
        restore.checked(folder)


def test_a_store_that_somebody_has_open_is_left_alone(settings: SystemSettings, made: Path) -> None:
    """Started by hand, it is not known to the process manager."""
    store = SqliteStore(settings.data_dir / "buffer.db")
    try:
        with pytest.raises(BackupError, match=r"buffer\.db is in use"):
            restore.put_in_place(settings, made, restore.checked(made), restore.places())
    finally:
        store.close()
    assert not list(settings.data_dir.glob("replaced-*"))


@pytest.mark.slow
def test_nothing_runs_so_nothing_is_backed_up(settings: SystemSettings) -> None:
    done = tool(settings, "backup")
    assert done.returncode == 1
    assert "buffer_service does not answer at" in done.stderr and "make up first" in done.stderr
    assert not list(settings.data_dir.glob("backups/*"))
    for keep in ("0", "-1", "two", "²"):
        refused = tool(settings, "backup", "--keep", keep)
        assert (refused.returncode, "KEEP=" in refused.stderr) == (2, True)
    done = tool(settings, "upgrade")
    assert done.returncode == 2 and "nothing runs: make up" in done.stderr


# ---- putting in place


def test_what_was_there_is_kept_with_its_log(settings: SystemSettings, made: Path) -> None:
    data = settings.data_dir
    (data / "buffer.db").write_bytes(b"damaged")
    (data / "buffer.db-wal").write_bytes(b"its log")
    kept = restore.put_in_place(settings, made, restore.checked(made), restore.places())
    assert kept is not None and stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert (kept / "buffer.db").read_bytes() == b"damaged"
    assert (kept / "buffer.db-wal").read_bytes() == b"its log"
    assert (kept / "context.db").exists()
    # A log that belongs to another file would spoil this one.
    assert sorted(path.name for path in data.glob("*.db*")) == ["buffer.db", "context.db"]
    for name in ("buffer.db", "context.db"):
        assert (data / name).read_bytes() == (made / name).read_bytes()
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600


def test_a_failing_copy_leaves_what_was_there(
    settings: SystemSettings, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    checked = restore.checked(made)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(BackupError, match="No space left"):
        restore.put_in_place(settings, made, checked, restore.places())
    # What was copied until then is personal data, on a disk that is full.
    assert not list(settings.data_dir.glob("*.incoming"))
    SqliteStore(settings.data_dir / "buffer.db").close()


def test_nothing_is_stopped_when_the_disk_is_too_full(
    settings: SystemSettings, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was stopped first, and stayed so when the copies did not fit."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    monkeypatch.setattr(Supervisor, "is_running", lambda _: True)
    monkeypatch.setattr(Supervisor, "stays", lambda _: True)
    monkeypatch.setattr(Supervisor, "stop", lambda _: pytest.fail("stopped"))
    monkeypatch.setattr(sys, "argv", ["restore", "--from", made.name, "--stop", "yes"])
    assert restore.main() == 1
    assert "There is no room for the copy" in capsys.readouterr().err


def test_there_may_be_nothing_to_keep(settings: SystemSettings, made: Path) -> None:
    for path in settings.data_dir.glob("*.db*"):
        path.unlink()
    assert restore.put_in_place(settings, made, restore.checked(made), restore.places()) is None
    SqliteStore(settings.data_dir / "buffer.db").close()


# ---- making one


def test_the_context_is_copied_after_the_buffer_and_half_a_backup_is_none(
    settings: SystemSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the buffer's copy may call a turn recorded that the context's copy lacks."""
    asked: list[str] = []

    def ask(program: str, *_: object) -> buffer_service_pb2.BackupResponse:
        asked.append(program)
        folder = settings.data_dir / "backups" / "one"
        folder.mkdir(parents=True, exist_ok=True)
        if program == "context_service":
            raise BackupError("no room")
        (folder / "buffer.db").write_bytes(b"personal data")
        return buffer_service_pb2.BackupResponse()

    monkeypatch.setattr(backup, "_ask", ask)
    with pytest.raises(BackupError, match="no room"):
        backup.make(settings, "one")
    assert asked == ["buffer_service", "context_service"]
    assert not list((settings.data_dir / "backups").iterdir())


def test_services_that_keep_their_data_elsewhere_are_noticed(
    settings: SystemSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = backup_pb2.StoreCopy(file_name="buffer.db")
    monkeypatch.setattr(backup, "_ask", lambda *_: buffer_service_pb2.BackupResponse(copy=copied))
    with pytest.raises(BackupError, match="keep their data elsewhere"):
        backup.make(settings, "one")


def test_a_name_is_used_once(settings: SystemSettings, made: Path) -> None:
    with pytest.raises(BackupError, match="is there already"):
        backup.make(settings, "one")
    assert (made / manifest.FILE).exists()
    with pytest.raises(BackupError, match="no plain name"):
        backup.make(settings, "backups/two")


# ---- keeping some


def test_the_latest_backups_are_kept(settings: SystemSettings, made: Path) -> None:
    backups = made.parent
    os.utime(made / manifest.FILE, (0, 0))  # The clock was wrong; the one that was just made stays all the same.
    for age, name in ((400, "old"), (300, "older-name-newer-file"), (200, "two")):
        folder = copy_of(settings.data_dir, name)
        os.utime(folder / manifest.FILE, (time.time() - age, time.time() - age))
    for age, name in ((10, "being-made"), (7 * 3600, "broken-off")):
        (backups / name).mkdir()
        os.utime(backups / name, (time.time() - age, time.time() - age))
    (backups / "notes.txt").write_text("mine")
    gone = backup.prune(backups, keep=2, newest=made)
    assert {path.name for path in gone} == {"old", "older-name-newer-file", "broken-off"}
    assert {path.name for path in backups.iterdir()} == {"one", "two", "being-made", "notes.txt"}


# ---- what became of the data when an upgrade fails


async def opened(data: Path) -> None:
    async with buffer_service(data) as stub:
        await enqueue(stub, message("m1"))


def upgrading(settings: SystemSettings) -> upgrade.Upgrade:
    return upgrade.Upgrade(settings=settings, install=["true"], ref="")


def test_an_upgrade_whose_rehearsal_could_not_listen_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket lies a folder deeper: where `make up` just works, the process manager of a rehearsal did not start."""
    monkeypatch.setattr(Supervisor, "is_running", lambda _: True)
    monkeypatch.setattr("deploy.probe.health", lambda *_: "ready")
    monkeypatch.setattr("deploy.started.differences", lambda *_, **__: [])
    for length, refused in ((60, False), (70, True)):
        one = upgrading(load(SystemSettings, environ={"SDR_DATA_DIR": f"/tmp/{'x' * length}"}, env_file=None))
        with pytest.raises(upgrade.UpgradeError, match="too long") if refused else contextlib.nullcontext():
            one.check()


def lift(path: Path) -> None:
    db = apsw.Connection(str(path))
    db.execute(f"CREATE TABLE novelty (x); PRAGMA user_version = {buffer_schema.VERSION + 1}").fetchall()
    db.close()


@pytest.mark.parametrize(("model", "patience_s"), [("playbook", 60), ("gguf:/models/a.gguf", 900)])
def test_a_rehearsal_gives_a_model_the_time_that_make_up_gives_it(
    settings: SystemSettings, made: Path, monkeypatch: pytest.MonkeyPatch, model: str, patience_s: float
) -> None:
    """It gave up after a minute: with large weights on a small machine there was no way to upgrade."""
    waited: list[float] = []

    def not_ready(*anything: object, timeout_s: float, **more: object) -> list[wait.Failure]:
        waited.append(timeout_s)
        return [wait.Failure(program="agent_service", reason="still loading", log=made, last_lines=[])]

    monkeypatch.setenv("SDR_AGENT_MODEL", model)
    monkeypatch.setattr(Supervisor, "start", lambda self, environ: None)
    monkeypatch.setattr(wait, "until_ready", not_ready)
    (settings.data_dir / "privacy.key").write_text("key")
    second = Supervisor(settings.data_dir / rehearsal.FOLDER)
    assert rehearsal._rehearse(settings, made.name, second) == 1
    assert waited == [patience_s]
    assert (second.data_dir / "privacy.key").read_text() == "key"


def test_settings_of_the_line_that_are_not_given_again_are_missed(
    settings: SystemSettings, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make up SDR_AGENT_MODEL=…`, then `make upgrade`: another model answered from then on, and nobody said so."""
    monkeypatch.setenv("SDR_AGENT_MODEL", "openai:gpt")
    started.remember(settings.data_dir)
    monkeypatch.delenv("SDR_AGENT_MODEL")
    monkeypatch.setattr(Supervisor, "is_running", lambda _: True)
    monkeypatch.setattr(Supervisor, "stop", lambda _: pytest.fail("stopped"))
    monkeypatch.setattr("deploy.probe.health", lambda *_: "ready")
    monkeypatch.setattr("deploy.upgrade.has_room_for_socket", lambda _: True)  # The path of tests may be too long.
    with pytest.raises(upgrade.UpgradeError, match="other settings than these: SDR_AGENT_MODEL"):
        upgrading(settings).check()
    with pytest.raises(BackupError, match="other settings than these: SDR_AGENT_MODEL"):
        restore._stop(Supervisor(settings.data_dir), allowed=True)
    monkeypatch.setenv("SDR_AGENT_MODEL", "openai:gpt")
    # The process manager's configuration comes with the code, and may be another.
    (made / started.CONFIG_FILE.name).write_text("[supervisord]")
    monkeypatch.setattr(started, "CONFIG_FILE", made / started.CONFIG_FILE.name)
    upgrading(settings).check()


def test_one_tool_at_a_time(tmp_path: Path) -> None:
    busy = pytest.raises(Busy, match=rf"make upgrade \(process {os.getpid()}\) is at work")
    with alone(tmp_path, "upgrade"), busy, alone(tmp_path, "restore"):
        pass
    with alone(tmp_path, "restore"):
        pass


async def test_data_that_the_old_version_can_read_stay(settings: SystemSettings, made: Path) -> None:
    await opened(settings.data_dir)
    assert upgrading(settings)._put_back(made) == "The data stayed as they were."
    assert not list(settings.data_dir.glob("replaced-*"))


async def test_migrated_data_are_put_back_if_nothing_happened_to_them(settings: SystemSettings, made: Path) -> None:
    """And what was open in them is still the agent's to answer, not a human's."""
    data = settings.data_dir
    with contextlib.closing(apsw.Connection(str(data / "buffer.db"))) as db:
        copies.seal(db, "two")
    folder = copy_of(data, "two")
    lift(data / "buffer.db")
    story = upgrading(settings)._put_back(folder)
    assert story is not None and "put back" in story
    with contextlib.closing(apsw.Connection(str(data / "buffer.db"))) as db:
        assert copies.mark_of(db) is None
    await opened(data)


async def test_messages_that_came_in_meanwhile_are_never_thrown_away(settings: SystemSettings, made: Path) -> None:
    await opened(settings.data_dir)
    lift(settings.data_dir / "buffer.db")
    assert upgrading(settings)._put_back(made) is None
    assert not list(settings.data_dir.glob("replaced-*"))


async def test_nor_are_answers_that_were_sent(settings: SystemSettings) -> None:
    data = settings.data_dir
    schema.open_database(data / "context.db", schema.migrations()).close()
    await opened(data)
    folder = copy_of(data, "one")
    async with buffer_service(data, SDR_BUFFER_COMMIT_HOLD_MS="0") as stub:
        worker = Worker(stub)
        await worker.hello()
        await worker.commit(await worker.assigned(), "Olá!")
    lift(data / "buffer.db")
    assert upgrading(settings)._put_back(folder) is None


# ---- the stand-in


def post(port: int, body: bytes = b"{}") -> tuple[int, str | None, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("POST", "/webhooks/evolution", body=body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Retry-After"), answer.getheader("Connection")


@pytest.fixture
def standby() -> Iterator[tuple[Standby, int]]:
    port = free_port()
    standby = Standby(f"127.0.0.1:{port}")
    yield standby, port
    standby.close()


def test_the_stand_in_tells_everybody_to_come_again(standby: tuple[Standby, int]) -> None:
    stand_in, port = standby
    assert stand_in.open()
    for body in (b"", b"{}", b"x" * 3_000_000):
        assert post(port, body) == (503, str(RETRY_AFTER_S), "close")
    assert stand_in.answered == 3
    stand_in.close()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_it_waits_for_the_address_and_goes_without_it(standby: tuple[Standby, int]) -> None:
    stand_in, port = standby
    with socket.create_server(("127.0.0.1", port)) as held:
        release = threading.Timer(0.5, held.close)
        release.start()
        assert stand_in.open()
        release.join()


def test_a_taken_address_is_not_fatal(standby: tuple[Standby, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.standby._BIND_S", 0.2)
    stand_in, port = standby
    with socket.create_server(("127.0.0.1", port)):
        assert not stand_in.open()
        stand_in.close()


def test_one_that_was_never_opened_closes() -> None:
    Standby("127.0.0.1:1").close()
