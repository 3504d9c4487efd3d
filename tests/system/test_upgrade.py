"""`make backup`, `make restore` and `make upgrade` on a system that works."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import apsw
import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from buffer_service.store.schema import VERSION
from deploy import doctor
from deploy.supervision import Supervisor
from tests.stand_ins.evolution_server import EvolutionServer
from tests.system.harness import SERVICES, System, new_contact, quiet, webhook

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

# A new version of the code: the interpreter of every process imports this first.
MIGRATES = """
from buffer_service.store import schema
schema.VERSION += 1
schema.MIGRATIONS[schema.VERSION] = "CREATE TABLE novelty (x)"
"""
BREAKS = """
import os, socket, sys, time
if {program!r} in sys.orig_argv and {where}:
    # When the stores are migrated: else there is nothing to go back from.
    host, port = os.environ["SDR_BUFFER_ADDRESS"].split(":")
    while socket.socket().connect_ex((host, int(port))):
        time.sleep(0.1)
    # `make up` gives up after three of them.
    print("{program} could not start: it is broken\\n" * 3, end="", flush=True)
    os._exit(3)
"""


class Done(NamedTuple):
    """What a tool did."""

    code: int
    out: str
    err: str


class Managed(System):
    """A system that the tools of deploy/ may stop and start. They run in a checkout of its own."""

    def __init__(self, directory: Path, provider: EvolutionServer, **extra: str) -> None:
        super().__init__(directory / "data", provider, **extra)
        self.checkout = directory / "code"
        self.checkout.mkdir()
        self.environ["PYTHONPATH"] = f"{self.checkout}:{self.environ['PYTHONPATH']}"
        self.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        self.git("init", "-q", "-b", "main")
        self.commit("the first", "")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.test")
        done = subprocess.run(["git", *who, *arguments], cwd=self.checkout, check=True, text=True, capture_output=True)
        return done.stdout.strip()

    def commit(self, title: str, source: str) -> str:
        """A version of the code; its commit."""
        (self.checkout / "sitecustomize.py").write_text(source)
        self.git("add", ".")
        self.git("commit", "-q", "-m", title)
        return self.git("rev-parse", "HEAD")

    async def tool(self, module: str, *arguments: str, **environ: str) -> Done:
        """One of the tools, as make runs it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"deploy.{module}", *arguments, cwd=self.checkout, env={**self.environ, **environ},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return Done(process.returncode or 0, out.decode(), err.decode())

    async def pids(self) -> list[int]:
        return [await self.pid(name) for name in SERVICES]

    def schema(self) -> int:
        """Of the buffer's store, while nothing runs."""
        db = apsw.Connection(str(self.directory / "buffer.db"))
        try:
            return int(db.execute("PRAGMA user_version").get)
        finally:
            db.close()


@asynccontextmanager
async def managed(directory: Path, **extra: str) -> AsyncIterator[Managed]:
    async with EvolutionServer() as provider:
        system = Managed(directory, provider, **extra)
        try:
            await system.start()
            yield system
        finally:
            await system.tool("down")
            await system.stop()


class Load:
    """Leads who write all the time, through a provider that repeats what is not accepted."""

    def __init__(self, system: System, leads: int) -> None:
        self.system = system
        self.sent: dict[str, list[str]] = {new_contact(): [] for _ in range(leads)}
        self.refused: list[tuple[int, str]] = []
        self._going = True
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._lead(contact)) for contact in self.sent]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)

    async def _lead(self, contact: str) -> None:
        while self._going:
            text = f"oi {len(self.sent[contact])}"
            await self._deliver(webhook(contact, text))
            self.sent[contact].append(text)
            await asyncio.sleep(0.4)

    async def _deliver(self, body: dict[str, object]) -> None:
        url = f"http://{self.system.address['ingress']}/webhooks/evolution"
        headers = {"Authorization": "Bearer token-for-tests-0123456789"}
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with self.system.http.post(url, json=body, headers=headers) as response:
                    if response.status == 200:
                        return
                    self.refused.append((response.status, response.headers.get("Retry-After", "")))
            await asyncio.sleep(0.1)


async def all_answered_once(system: System, load: Load) -> None:
    """Every message is in history once, in order, and what people got is what history says that they got."""
    for contact, texts in load.sent.items():
        async with asyncio.timeout(30):
            while (lane := await system.lane(contact)) is None or not quiet(lane):
                await asyncio.sleep(0.05)
        request = context_pb.ListMessagesRequest(conversation_id=lane.conversation_id, page_size=500)
        history = (await system.context.ListMessages(request, timeout=5)).messages
        assert [m.text for m in history if m.author == message_pb2.AUTHOR_LEAD] == texts
        assert [m.text for m in history if m.author == message_pb2.AUTHOR_ASSISTANT] == system.heard(contact)
        assert history[-1].author == message_pb2.AUTHOR_ASSISTANT
        assert not any(t.truncated for t in lane.ended_turns)


async def test_nothing_is_lost_or_said_twice_across_an_upgrade_under_load(short_tmp: Path) -> None:
    """The new version migrates the store; ingress is away meanwhile, and the provider repeats."""
    async with managed(short_tmp) as system:
        system.git("branch", "old")
        new = system.commit("migrates", MIGRATES)
        system.git("checkout", "-q", "old")
        # The copy's marks are of this system's key: without it no upgrade was possible from the first one on.
        marked = await system.tool("forget", "--contact", "+55 81 99999-0001", "--do-not-contact", "yes")
        assert marked.code == 0, marked.err
        async with Load(system, leads=4) as load:
            await asyncio.sleep(1)
            done = await system.tool("upgrade", "--ref", new)
            await asyncio.sleep(1)
        assert done.code == 0, done.out + done.err
        assert (503, "5") in load.refused
        await all_answered_once(system, load)
        [folder] = (system.directory / "backups").iterdir()
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["quiesced"] and manifest["buffer"]["schema_version"] == VERSION
        assert not (system.directory / "rehearsal").exists()
        await system.tool("down")
        assert system.schema() == VERSION + 1


async def test_a_change_that_has_begun_goes_on_without_a_reader_and_without_a_terminal(short_tmp: Path) -> None:
    """Ingress stayed stopped when the first line after that could not be written, or the connection broke."""
    async with managed(short_tmp) as system:
        reader, writer = os.pipe()
        os.close(reader)
        upgrading = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy.upgrade", cwd=system.checkout, env=system.environ,
            stdout=writer, stderr=writer, start_new_session=True,
        )  # fmt: skip
        os.close(writer)
        async with asyncio.timeout(90):
            while not list(system.directory.glob("backups/upgrade-*/manifest.json")):
                await asyncio.sleep(0.02)
            os.killpg(upgrading.pid, signal.SIGHUP)
            while Supervisor(system.directory).stays():
                await asyncio.sleep(0.02)
            os.killpg(upgrading.pid, signal.SIGTERM)
            assert await upgrading.wait() == 0
        await system.wait_ready()
        contact = new_contact()
        await system.deliver(webhook(contact, "oi"))
        await system.settled(contact, 1)
        assert system.heard(contact)


async def test_a_version_that_does_not_work_changes_nothing(short_tmp: Path) -> None:
    async with managed(short_tmp) as system:
        broken = system.commit("broken", MIGRATES + BREAKS.format(program="agent_service", where=True))
        system.git("checkout", "-q", "HEAD~1")
        was, pids = system.git("rev-parse", "HEAD"), await system.pids()
        async with Load(system, leads=2) as load:
            done = await system.tool("upgrade", "--ref", broken)
        assert done.code == 1
        assert "agent_service did not come up: it is broken" in done.err
        assert "Nothing was changed" in done.err
        assert (system.git("rev-parse", "HEAD"), await system.pids()) == (was, pids)
        assert not load.refused
        assert not (system.directory / "rehearsal").exists() and not list((system.directory / "backups").iterdir())
        await all_answered_once(system, load)


async def test_what_dies_meanwhile_waits_and_ctrl_c_leaves_nothing_behind(short_tmp: Path) -> None:
    """The process manager started it again with the code on the disk, which is the one that was not tried yet, and
    that migrated the real data. Ctrl-C left the rehearsal running."""
    async with managed(short_tmp) as system:
        hangs = (
            "import os, sys, time\nif 'agent_service' in sys.orig_argv and 'rehearsal' in os.environ['SDR_DATA_DIR']:"
        )
        new = system.commit("migrates, and hangs on the copy", f"{MIGRATES}\n{hangs}\n    time.sleep(600)")
        system.git("checkout", "-q", "HEAD~1")
        was = system.git("rev-parse", "HEAD")
        upgrading = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy.upgrade", "--ref", new, cwd=system.checkout, env=system.environ,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        rehearsal = system.directory / "rehearsal"
        async with asyncio.timeout(60):
            while not (rehearsal / "logs" / "ingress.log").exists():
                await asyncio.sleep(0.05)
        other = await system.tool("restore", "--from", next(system.directory.glob("backups/*")).name, "--stop", "yes")
        assert other.code == 1 and f"make upgrade (process {upgrading.pid}) is at work" in other.err
        await system.kill("buffer_service")
        await asyncio.sleep(4)
        with pytest.raises(grpc.RpcError):
            await system.buffer.GetStats(pb.GetStatsRequest(), timeout=1)
        upgrading.terminate()  # As Ctrl-C, which a test in the background does not get.
        out, _ = await upgrading.communicate()
        assert upgrading.returncode == 130, out.decode()
        assert "Nothing was changed" in out.decode() and "Traceback" not in out.decode()
        assert system.git("rev-parse", "HEAD") == was
        assert not rehearsal.exists() and not list((system.directory / "backups").iterdir())
        assert not doctor.left_over(rehearsal)
        await system.wait_ready()
        await system.tool("down")
        assert system.schema() == VERSION


async def test_a_version_that_fails_on_the_real_data_goes_back_and_forgets_nothing(short_tmp: Path) -> None:
    """Turns were open when the stores were copied; the old version answers them in the end."""
    async with managed(short_tmp, SDR_AGENT_PLAYBOOK_DELAY_MS="5000") as system:
        real = "'rehearsal' not in os.environ.get('SDR_DATA_DIR', '')"
        broken = system.commit("broken", MIGRATES + BREAKS.format(program="ingress", where=real))
        system.git("checkout", "-q", "HEAD~1")
        upgrading = asyncio.create_task(system.tool("upgrade", "--ref", broken))
        while not (system.directory / "rehearsal" / "logs" / "ingress.log").exists():
            await asyncio.sleep(0.05)
        contacts: list[str] = []
        while not list(system.directory.glob("backups/upgrade-*")):
            contact = new_contact()
            if await system.post(webhook(contact, "oi")) == 200:
                contacts.append(contact)
            await asyncio.sleep(0.3)
        done = await upgrading
        assert done.code == 1
        assert "The data were put back as they were before it" in done.err
        assert "runs again" in done.err, done.err
        await system.wait_ready()
        [folder] = system.directory.glob("backups/upgrade-*")
        assert json.loads((folder / "manifest.json").read_text())["open_turns"] > 0
        for contact in contacts:
            lane = await system.settled(contact, 1)
            assert [p.text for t in lane.ended_turns for p in t.parts] == system.heard(contact)
            assert system.heard(contact) and not lane.HasField("pause")
        [kept] = system.directory.glob("replaced-*")
        assert {path.name for path in kept.iterdir()} >= {"buffer.db", "context.db"}
        await system.tool("down")
        assert system.schema() == VERSION


async def test_a_backup_under_load_is_whole_and_answers_nobody_twice(short_tmp: Path) -> None:
    async with managed(short_tmp) as system:
        async with Load(system, leads=4) as load:
            await asyncio.sleep(1.5)
            done = await system.tool("backup", "--name", "busy")
            assert done.code == 0, done.err
            await asyncio.sleep(0.5)
        assert not load.refused
        await all_answered_once(system, load)
        before = {contact: system.heard(contact) for contact in load.sent}
        running = await system.tool("restore", "--from", "backups/busy")
        assert running.code == 1 and "make down first" in running.err
        restored = await system.tool("restore", "--from", "backups/busy", "--stop", "yes")
        assert restored.code == 0, restored.out + restored.err
        await system.wait_ready()
        await asyncio.sleep(4)  # longer than a lease: what was to be answered again would be by now
        assert {contact: system.heard(contact) for contact in load.sent} == before
        stats = await system.buffer.GetStats(pb.GetStatsRequest(), timeout=5)
        assert (stats.waiting_turns, stats.running_turns, stats.pending_messages) == (0, 0, 0)
        assert stats.conversations == 4 and not stats.unrecorded_turns
        manifest = json.loads((system.directory / "backups" / "busy" / "manifest.json").read_text())
        assert not manifest["quiesced"]
        assert stats.needs_human == stats.paused_conversations
        assert stats.needs_human >= bool(manifest["open_turns"] or manifest["pending_messages"])
        # Whatever the buffer calls recorded, the context has.
        for contact in load.sent:
            lane = await system.lane(contact)
            assert lane is not None
            lead = await system.lead(contact)
            assert lead.phone_number == contact
        somebody = new_contact()
        await system.deliver(webhook(somebody, "oi"))
        await system.settled(somebody, 1)
        assert system.heard(somebody)
