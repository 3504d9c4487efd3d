"""From the version that runs to the one on disk, or to another commit: nothing is lost, and a failure goes back.

The new version is tried on a copy first, while the old one goes on. Only then ingress drains, the stores are copied
once more, everything stops, and the new version starts on the real data, which it migrates.
"""

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from buffer_service.store import copies
from deploy import backup, probe, restore, version
from deploy import manifest as manifests
from deploy import settings as settings_of
from deploy.manifest import BackupError
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
    try:
        upgrade.check()
    except UpgradeError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        upgrade.rehearse()
        upgrade.change_over()
    except (UpgradeError, BackupError, SupervisionError) as error:
        print(error, file=sys.stderr)
        return 1
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

    # ---- before anything changes

    def check(self) -> None:
        """Refuse what cannot end well. Raises UpgradeError."""
        if not self._supervisor.is_running():
            raise UpgradeError("An upgrade starts from a system that runs, and nothing runs: make up")
        down = [name for name in _COPIED if probe.health(self.settings, name) != "ready"]
        if down:
            raise UpgradeError(f"{' and '.join(down)} cannot be copied: not ready. make status, make logs.")
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
            _say("Copying the data ...")
            folder, _ = backup.make(self.settings, name)
            self._take_code()
            _say("Trying the new version on the copy; the old one goes on ...")
            if _run([sys.executable, "-m", "deploy.rehearsal", name]) != 0:
                raise UpgradeError("The new version does not work here.")
            backup.delete(folder)
        except BaseException as error:
            backup.delete(manifests.folder_of(self.settings.data_dir, name))
            self._give_code_back()
            if not isinstance(error, UpgradeError | BackupError):
                raise
            raise UpgradeError(
                f"{error}\nNothing was changed: {self.before} runs on as before.{self._advice()}"
            ) from None

    # ---- the change

    def change_over(self) -> None:
        """Drain, copy, stop, start. Raises UpgradeError after it went back as far as it can."""
        _say("Ingress finishes what is under way; webhooks get 503 and are repeated ...")
        began = time.monotonic()
        standby = Standby(self.settings.ingress_address)
        try:
            folder = self._quiet_copy(standby)
            self._supervisor.stop()
            _say("Starting the new version ...")
            if self._start(standby) != 0:
                self._go_back(folder)
        finally:
            standby.close()
        _say(
            f"\nUpgraded from {self.before} to {version.current()}; webhooks waited {time.monotonic() - began:.1f} s "
            f"({standby.answered} were told to come again).\nThe data as they were: {folder}\n"
            "They are personal data: delete them when you are content."
        )

    def _start(self, standby: Standby) -> int:
        """`make up`; the stand-in leaves when ingress begins to start, which needs the address a second later."""
        with subprocess.Popen([sys.executable, "-m", "deploy.up"]) as up:
            while up.poll() is None and not self._supervisor.is_running():
                time.sleep(0.02)
            standby.close()
            return up.wait()

    def _quiet_copy(self, standby: Standby) -> Path:
        try:
            self._supervisor.stop_program(_INGRESS)
            if not standby.open():
                _say(f"Nothing can listen on {self.settings.ingress_address}: webhooks are refused, and repeated too.")
            folder, steps = backup.make(self.settings, backup.name_of_now("upgrade-"), quiesced=True)
        except BaseException:
            standby.close()
            self._supervisor.start_program(_INGRESS)
            self._give_code_back()
            raise
        _say("\n".join([f"Backup     {folder}", *(f"  {step}" for step in steps)]))
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
        if self.ref and version.git("checkout", "--quiet", self.ref) is None:
            raise UpgradeError(f"git cannot check out {self.ref}.")
        _say("Installing what it needs ...")
        if _run(self.install) != 0:
            raise UpgradeError("What the new version needs cannot be installed.")

    def _give_code_back(self) -> None:
        if not (self.ref and self.branch):
            return
        if version.git("checkout", "--quiet", self.branch) is None or _run(self.install) != 0:
            _say(f"The old code did not come back by itself: git checkout {self.branch} && make up")

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
    return subprocess.run(command, check=False).returncode


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
