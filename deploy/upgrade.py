"""From the version that runs to the one on disk, or to another commit: nothing is lost, and a failure goes back.

The new version is tried on a copy first, while the old one goes on. Only then ingress drains, the stores are copied
once more, everything stops, and the new version starts on the real data, which it migrates.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import apsw

from buffer_service.store import copies
from deploy import backup, probe, rehearsal, restore, started, version
from deploy import manifest as manifests
from deploy import settings as settings_of
from deploy.alone import Busy, alone
from deploy.doctor import has_room_for_socket
from deploy.manifest import BackupError
from deploy.output import say
from deploy.settings import SystemSettings
from deploy.standby import Standby
from deploy.supervision import SupervisionError, Supervisor

_INGRESS = "ingress"
_COPIED = ("buffer_service", "context_service")


class UpgradeError(Exception):
    """It goes no further; the text says why."""


def main() -> int:
    """0 when the new version runs, 1 when the old one does (or nothing could be mended), 2 when asked for wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ref", default="", help="a tag, branch or commit to check out first")
    parser.add_argument("--install", default="true", metavar="COMMAND", help="installs what the code on disk needs")
    given = parser.parse_args()
    settings = settings_of.strictly()
    upgrade = Upgrade(settings=settings, install=shlex.split(given.install), ref=given.ref)
    signal.signal(signal.SIGTERM, _end)
    # It goes on when the connection breaks from which it was started.
    signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        upgrade.check()
        with alone(settings.data_dir, "upgrade"):
            return _upgrade(upgrade)
    except (UpgradeError, Busy) as error:
        say(str(error), error=True)
        return 2


def _upgrade(upgrade: "Upgrade") -> int:
    try:
        upgrade.rehearse()
        upgrade.change_over()
    except (UpgradeError, BackupError, SupervisionError) as error:
        say(str(error), error=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


@dataclass
class Upgrade:
    """One upgrade."""

    settings: SystemSettings
    install: list[str]
    ref: str
    before: str = field(init=False, default="")
    branch: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._supervisor = Supervisor(self.settings.data_dir)
        # While it is there, nothing that dies is started again: supervisord.conf.
        self._hold = self.settings.data_dir / "upgrading"

    # ---- before anything changes

    def check(self) -> None:
        """Refuse what cannot end well. Raises UpgradeError."""
        if not self._supervisor.is_running():
            raise UpgradeError("An upgrade starts from a system that runs, and nothing runs: make up")
        down = [name for name in _COPIED if probe.health(self.settings, name) != "ready"]
        if down:
            raise UpgradeError(f"{' and '.join(down)} cannot be copied: not ready. make status, make logs.")
        if changed := started.differences(self.settings.data_dir, with_code=False):
            raise UpgradeError(
                f"What runs was started with other settings than these: {', '.join(changed)}. Give them as they were, "
                "on this line or in .env; or change over to these first: make up"
            )
        if not has_room_for_socket(folder := self.settings.data_dir / rehearsal.FOLDER):
            raise UpgradeError(
                f"The path of {folder.absolute()} is too long for a system of its own, which an upgrade tries first: "
                "make down, move the data to a shorter path, and make up SDR_DATA_DIR=/short/path"
            )
        self.before = version.remembered(self.settings.data_dir) or version.current()
        if not self.ref:
            return
        if version.git("rev-parse", "--verify", "--quiet", f"{self.ref}^{{commit}}") is None:
            raise UpgradeError(f"REF={self.ref}: git knows no such commit here. git fetch --tags?")
        if version.git("status", "--porcelain", "--untracked-files=no") != "":
            raise UpgradeError("There are changes in the checkout that no commit has: commit or stash them first.")
        self.branch = version.git("symbolic-ref", "--short", "-q", "HEAD") or version.git("rev-parse", "HEAD") or ""

    def rehearse(self) -> None:
        """The new version on a copy of the data, while the old one runs. Raises UpgradeError, and all is as before."""
        name = backup.name_of_now("rehearsal-")
        try:
            say("Copying the data ...")
            folder, _ = backup.make(self.settings, name)
            self._take_code()
            say("Trying the new version on the copy; the old one goes on ...")
            if _run([sys.executable, "-m", "deploy.rehearsal", name]) != 0:
                raise UpgradeError("The new version does not work here.")
            backup.delete(folder)
        except BaseException as error:
            with _uninterrupted():
                backup.delete(manifests.folder_of(self.settings.data_dir, name))
                self._give_code_back()
                # The rehearsal tidies up after itself, unless it was killed.
                rehearsal.sweep(Supervisor(self.settings.data_dir / rehearsal.FOLDER))
            story = f"Nothing was changed: {self.before} runs on as before.{self._advice()}"
            if not isinstance(error, UpgradeError | BackupError):
                say(f"Given up. {story}", error=True)
                raise
            raise UpgradeError(f"{error}\n{story}") from None

    # ---- the change

    def change_over(self) -> None:
        """Drain, copy, stop, start. Raises UpgradeError after it went back as far as it can."""
        say("Ingress finishes what is under way; webhooks get 503 and are repeated ...")
        began = time.monotonic()
        standby = Standby(self.settings.ingress_address)
        try:
            folder = self._quiet_copy(standby)
            with _uninterrupted():
                try:
                    self._supervisor.stop()
                except SupervisionError as error:
                    back = f"git checkout {self.branch} && make up" if self.ref else "make up"
                    raise UpgradeError(f"{error}\nThe data are as they were: make down, and then {back}") from None
                say("Starting the new version ...")
                self._hold.unlink(missing_ok=True)
                if self._start(standby) != 0:
                    self._go_back(folder)
        finally:
            standby.close()
        say(
            f"\nUpgraded from {self.before} to {version.current()}; webhooks waited {time.monotonic() - began:.1f} s "
            f"({standby.answered} were told to come again).\nThe data as they were: {folder}\n"
            "They are personal data: delete them when you are content."
        )

    def _start(self, standby: Standby) -> int:
        """`make up`; the stand-in leaves when ingress begins to start, which needs the address a second later."""
        with subprocess.Popen([sys.executable, "-m", "deploy.up"], start_new_session=True) as up:
            while up.poll() is None and not self._supervisor.is_running():
                time.sleep(0.02)
            standby.close()
            return up.wait()

    def _quiet_copy(self, standby: Standby) -> Path:
        try:
            self._supervisor.stop_program(_INGRESS)
            if not standby.open():
                say(f"Nothing can listen on {self.settings.ingress_address}: webhooks are refused, and repeated too.")
            folder, steps = backup.make(self.settings, backup.name_of_now("upgrade-"), quiesced=True)
        except BaseException:
            standby.close()
            self._give_code_back()
            self._supervisor.start_program(_INGRESS)
            raise
        say("\n".join([f"Backup     {folder}", *(f"  {step}" for step in steps)]))
        return folder

    def _go_back(self, folder: Path) -> None:
        """The new version does not come up on the real data, although it did on a copy of them."""
        if self._supervisor.is_running():
            self._supervisor.stop()
        story = self._put_back(folder)
        if story is None:
            restore.start()
            raise UpgradeError(
                "The new version has taken messages in or answered since it started, in a form that the old one cannot "
                "read. Going back would lose them, so the data stay and the new version is tried again and again: "
                f"make status, make logs. To go back all the same: make restore FROM=backups/{folder.name} STOP=yes"
            )
        if not self.ref:
            raise UpgradeError(f"The new version did not come up, and nothing runs now. {story}{self._advice()}")
        self._give_code_back()
        back = restore.start() == 0
        runs = f"{self.before} runs again." if back else f"{self.before} did not come up either: make status."
        raise UpgradeError(f"The new version did not come up. {story} {runs}")

    def _put_back(self, folder: Path) -> str | None:
        """What became of the data; None when they have to stay although the old version cannot read them."""
        manifest, where = manifests.read(folder), restore.places()
        # What is in Supabase is brought to a new version by `make migrate` alone.
        if [_schema(path) for path in where.paths] == [store.schema_version for store in manifest.stores]:
            return "The data stayed as they were."
        try:
            moved_on = copies.moved_on(folder / manifest.buffer.file_name, where.buffer)
        except apsw.Error:
            moved_on = True
        if moved_on:
            return None
        manifests.verify(folder, manifest)
        kept = restore.put_in_place(self.settings, folder, manifest, where)
        # Nothing was said since the copy was made: what it holds open is still to be answered.
        copies.unmark_file(where.buffer)
        return f"The data were put back as they were before it (what it made of them: {kept})."

    # ---- code

    def _take_code(self) -> None:
        if self.ref:
            self._hold.write_text(f"{os.getpid()}\n")
            if version.git("checkout", "--quiet", self.ref) is None:
                raise UpgradeError(f"git cannot check out {self.ref}.")
        say("Installing what it needs ...")
        if _run(self.install) != 0:
            raise UpgradeError("What the new version needs cannot be installed.")

    def _give_code_back(self) -> None:
        if not (self.ref and self.branch):
            return
        if version.git("checkout", "--quiet", self.branch) is None or _run(self.install) != 0:
            say(f"The old code did not come back by itself: git checkout {self.branch} && make up")
        self._hold.unlink(missing_ok=True)

    def _advice(self) -> str:
        if self.ref:
            return ""
        return (
            f"\nThe code on disk is still the new one. To have the old one back: git checkout {self.before} && make up"
        )


def _schema(path: Path) -> int:
    db = apsw.Connection(str(path))
    try:
        found: list[tuple[Any, ...]] = db.execute("PRAGMA user_version").fetchall()
        return int(found[0][0])
    finally:
        db.close()


def _run(command: list[str]) -> int:
    with subprocess.Popen(command) as child:
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Half of a change is none: it goes on when somebody presses Ctrl-C."""
    # No SIG_IGN, which what is started here would inherit.
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
