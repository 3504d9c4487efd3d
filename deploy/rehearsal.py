"""Tries this version on a copy of the data, in a second system that reaches nobody, and lets it answer one message."""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import time
import urllib.request
from pathlib import Path

import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from agentic_sdr.common.v1 import message_pb2, turn_pb2
from context_service.app import check_project
from context_service.privacy import KEY_FILE
from context_service.settings import ContextSettings
from deploy import manifest as manifests
from deploy import restore, wait
from deploy import settings as settings_of
from deploy.manifest import BackupError
from deploy.output import say
from deploy.probe import CHANNEL_OPTIONS
from deploy.settings import SystemSettings
from deploy.supervision import SupervisionError, Supervisor, programs
from ingress.providers.evolution.settings import EvolutionSettings
from service_kit.errors import ServiceError
from service_kit.settings import ConfigurationError, load

FOLDER = "rehearsal"
_ADDRESSES = ("BUFFER", "CONTEXT", "AGENT", "INGRESS", "ADMIN")
# Nobody listens there.
_NOWHERE = "http://127.0.0.1:9"
_CONTACT = "5511900000000"
_ANSWER_S = 45.0


def main() -> int:
    """0 when this version migrated the copies, came up and answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backup", help="the name of the backup to try it on")
    given = parser.parse_args()
    os.nice(5)
    settings = settings_of.strictly()
    folder = settings.data_dir.absolute() / FOLDER
    supervisor = Supervisor(folder)
    try:
        try:
            sweep(supervisor)
            return _rehearse(settings, given.backup, supervisor)
        finally:
            sweep(supervisor)
    except (BackupError, SupervisionError) as error:
        say(str(error), error=True)
        return 1


def _rehearse(settings: SystemSettings, name: str, supervisor: Supervisor) -> int:
    source = manifests.folder_of(settings.data_dir, name)
    folder = supervisor.data_dir
    folder.mkdir(mode=0o700)
    manifest = restore.checked(source)
    if manifest.context is None:
        _check_remote()
    where = restore.Places(buffer=folder / "buffer.db", context=folder / "context.db")
    environ = _environ(folder, where)
    alone = load(SystemSettings, environ=environ)
    restore.put_in_place(alone, source, manifest, where)
    with contextlib.suppress(FileNotFoundError):  # It is in the settings, or there is none yet.
        # Marks of another key would stop the start.
        shutil.copy2(settings.data_dir / KEY_FILE, folder / KEY_FILE)
    supervisor.start(environ)
    timeout_s = settings_of.starting_s()
    failures = wait.until_ready(alone, supervisor, programs=programs(), timeout_s=timeout_s, since={})
    if failures:
        say(wait.describe(failures), error=True)
        return 1
    began = time.monotonic()
    if not _answers(alone):
        say(f"It came up, but did not answer a message within {_ANSWER_S:.0f} s.", error=True)
        return 1
    say(f"It came up on a copy of the data, and answered after {time.monotonic() - began:.1f} s.")
    return 0


def sweep(supervisor: Supervisor) -> None:
    """Nothing is left of it: the copy holds personal data."""
    supervisor.stop()
    shutil.rmtree(supervisor.data_dir, ignore_errors=True)


def _check_remote() -> None:
    """A project that is used is nothing to try on, so an empty file stands in for it; but it has to fit this version.
    Raises BackupError."""
    settings = load(ContextSettings)
    try:
        asyncio.run(check_project(settings))
    except (ConfigurationError, ServiceError) as error:
        raise BackupError(
            f"{error}\nThe migrations come with the new version: check it out, make migrate, make upgrade without REF."
        ) from None


def _environ(folder: Path, where: restore.Places) -> dict[str, str]:
    """As the real one, but with ports and data of its own, and without a provider that it could write to."""
    environ = {
        **os.environ,
        "SDR_DATA_DIR": str(folder),
        "SDR_BUFFER_STORE": f"sqlite:{where.buffer}",
        "SDR_CONTEXT_STORE": f"sqlite:{where.context}",
    }
    with contextlib.ExitStack() as held:
        for name in _ADDRESSES:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            environ[f"SDR_{name}_ADDRESS"] = f"127.0.0.1:{probe.getsockname()[1]}"
    if load(EvolutionSettings).evolution_is_configured:
        environ["EVOLUTION_API_URL"] = _NOWHERE
    return environ


def _answers(settings: SystemSettings) -> bool:
    """Somebody writes through the console; whether they are answered and the turn is recorded."""
    body = json.dumps({"contact": _CONTACT, "text": "oi"}).encode()
    headers = {"Content-Type": "application/json"}
    token = settings.admin_token.get_secret_value()
    if token:
        headers["Authorization"] = f"Bearer {token}"
    url = f"http://{settings.admin_address}/console/messages"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(url, data=body, headers=headers), timeout=10).close()
    request = buffer_service_pb2.GetLaneRequest(
        scope=message_pb2.Scope(channel="console", instance="console"), alias=f"phone:{_CONTACT}"
    )
    deadline = time.monotonic() + _ANSWER_S
    with grpc.insecure_channel(settings.buffer_address, options=CHANNEL_OPTIONS) as channel:
        while time.monotonic() < deadline:
            with contextlib.suppress(grpc.RpcError):
                lane = BufferServiceStub(channel).GetLane(request, timeout=2).lane
                for turn in lane.ended_turns:
                    if turn.recorded and any(part.state == turn_pb2.PART_STATE_SENT for part in turn.parts):
                        return True
            time.sleep(0.1)
    return False


if __name__ == "__main__":
    sys.exit(main())
