"""`make forget` and `make export` on a system that works: not one byte of a person is left, and no log ever had one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from context_service.store import ExportSection
from tests.context_service.supabase_project import migrated
from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import PostgrestServer
from tests.system.harness import INSTANCE, System, new_contact, running, webhook
from tests.system.test_upgrade import managed

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

NAME = "Zenobiano"
OTHERS = "Ninguemdosul"


@dataclass(kw_only=True)
class Person:
    """Somebody of whom every byte can be found again."""

    # With its ninth digit; WhatsApp names many without it.
    phone: str = field(default_factory=lambda: f"5581987{secrets.randbelow(10**6):06}")
    lid: str = field(default_factory=lambda: f"1{secrets.randbelow(10**14):014}")
    mark: str = field(default_factory=lambda: f"x{secrets.token_hex(6)}")

    @property
    def email(self) -> str:
        return f"{self.mark}@example.test"

    @property
    def canaries(self) -> dict[str, bytes]:
        """By what it is, the bytes that must not be anywhere, in lower case."""
        found = {
            "phone": self.phone,
            "phone without ninth digit": self.phone[:4] + self.phone[5:],
            "lid": self.lid,
            "texts, mail, file name, display name": self.mark,
            "name": NAME,
        }
        return {what: one.lower().encode() for what, one in found.items()}

    def wrote(self, text: str, **message: Any) -> dict[str, Any]:
        """A webhook of theirs; with `message`, of another kind than text."""
        body = webhook(self.phone, text)
        body["data"]["key"] |= {"remoteJidAlt": f"{self.lid}@lid"}
        body["data"]["pushName"] = f"Zé {self.mark}"
        if message:
            body["data"] |= {"message": message, "messageType": next(iter(message))}
        return body

    def garbage(self) -> dict[str, Any]:
        """An authentic webhook that nobody can read, with the number that the phone had before."""
        key = {"remoteJid": f"{self.phone[:4]}{self.phone[5:]}@s.whatsapp.net", "fromMe": False, "id": 12}
        data = {"key": key, "message": self.mark, "messageTimestamp": "ontem"}
        return {"event": "messages.upsert", "instance": INSTANCE, "data": [data]}


class Done(NamedTuple):
    """What a tool did."""

    code: int
    out: str
    err: str


async def tool(system: System, module: str, *arguments: str) -> Done:
    """One of the tools, as make runs it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"deploy.{module}", *arguments, cwd=system.directory, env=system.environ,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return Done(process.returncode or 0, out.decode(), err.decode())


async def until(condition: Callable[[], Any], seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def live(system: System, person: Person) -> None:
    """Everything that can be known of somebody: history, a file, a dead letter, a body in quarantine, and a turn that
    was said and not recorded."""
    await system.deliver(person.wrote(f"oi, me chamo {NAME}"))
    await system.settled(person.phone, 1)
    document = {"fileName": f"conta-{person.mark}.pdf", "mimetype": "application/pdf", "caption": person.email}
    await system.deliver(person.wrote("", documentMessage=document))
    await system.settled(person.phone, 2)
    await system.deliver(person.garbage())
    await until(lambda: _stat(system, "quarantined"))

    # The only attempt that a turn has here ends with its worker.
    await system.deliver(person.wrote(f"fatal {person.mark}"))
    await until(lambda: _running(system, person))
    dead = await system.kill("ingress")
    await system.wait_back("ingress", dead)
    await until(lambda: _stat(system, "dead_letters"))
    await until(lambda: _idle(system, person))

    await system.manage("stopProcess", "context_service")
    await system.deliver(person.wrote(f"sem registro {person.mark}"))
    await until(lambda: _stat(system, "unrecorded_turns"))
    await system.manage("startProcess", "context_service", False)
    await system.wait_ready()


async def _stat(system: System, name: str) -> bool:
    return bool(getattr(await system.buffer.GetStats(pb.GetStatsRequest(), timeout=5), name))


async def _running(system: System, person: Person) -> bool:
    lane = await system.lane(person.phone)
    return lane is not None and lane.state == pb.LANE_STATE_RUNNING


async def _idle(system: System, person: Person) -> bool:
    lane = await system.lane(person.phone)
    return lane is not None and not lane.HasField("turn")


def hits(person: Person, files: Iterator[Path]) -> dict[str, list[str]]:
    """By file, what of the person is in it."""
    found: dict[str, list[str]] = {}
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # A journal that has just gone.
            bytes_of = path.read_bytes().lower()
            what = [name for name, one in person.canaries.items() if one in bytes_of]
            if what:
                found[str(path)] = what
    return found


def below(folder: Path) -> Iterator[Path]:
    """Every file; sockets hold nothing."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(path.stat().st_mode):
                yield path


SETTINGS = {
    "SDR_LOG_LEVEL": "DEBUG",
    "SDR_BUFFER_MAX_ATTEMPTS": "1",
    "SDR_AGENT_PLAYBOOK_DELAY_MS": "1000",
}


@asynccontextmanager
async def with_their_file(tmp_path: Path, _: PostgresCluster) -> AsyncIterator[tuple[System, None]]:
    async with running(tmp_path, **SETTINGS) as system:
        yield system, None


@asynccontextmanager
async def with_a_project(tmp_path: Path, cluster: PostgresCluster) -> AsyncIterator[tuple[System, Database]]:
    with migrated(cluster) as database:
        async with PostgrestServer(database_url=database.url("authenticator"), pool_size=20) as server:
            project = {"SUPABASE_URL": server.url, "SUPABASE_SECRET_KEY": server.keys.secret}
            async with running(tmp_path, SDR_CONTEXT_STORE="supabase", **project, **SETTINGS) as system:
                yield system, database


@pytest.mark.parametrize("store", [with_their_file, with_a_project], ids=["sqlite", "supabase"])
async def test_not_one_byte_of_a_forgotten_person_is_left(
    tmp_path: Path, postgres_cluster: PostgresCluster, store: Callable[..., Any]
) -> None:
    person, other = Person(), new_contact()
    async with store(tmp_path, postgres_cluster) as (system, database):
        await system.deliver(webhook(other, f"oi, me chamo {OTHERS}"))
        await system.settled(other, 1)
        await live(system, person)
        planted = hits(person, below(tmp_path))
        assert {what for found in planted.values() for what in found} == set(person.canaries)
        assert {path.rpartition(".db")[2] for path in planted} <= {"", "-wal"}, "the logs hold nothing, ever"
        if database is not None:
            assert rows_with(database, person) > 5

        exported = await tool(system, "export", "--contact", f"+{person.phone}")
        check_export(exported, person)

        await system.deliver(person.wrote(f"a caminho {person.mark}"))
        done = await tool(
            system, "forget", "--contact", f"+55 81 {person.phone[5:9]}-{person.phone[9:]}", "--do-not-contact=yes"
        )
        assert done.code == 0, done.err
        assert "Erased" in done.out and "Remains" in done.out and "Marked" in done.out
        again = await tool(system, "forget", "--contact", f"lid:{person.lid}")
        assert (again.code, "Nothing     was stored" in again.out) == (0, True), again.out
        nobody = await tool(system, "export", "--contact", person.phone)
        assert (nobody.code, nobody.out) == (1, "")
        assert nobody.err == "Nothing is stored about this contact.\n"

        # What was on its way then has arrived, or never will.
        await asyncio.sleep(2)
        stats = await system.buffer.GetStats(pb.GetStatsRequest(), timeout=5)
        assert (stats.conversations, stats.unrecorded_turns, stats.dead_letters, stats.quarantined) == (1, 0, 0, 0)
        assert (await system.lead(other)).name == OTHERS
        assert hits(person, below(tmp_path)) == {}
        if database is not None:
            check_database(database, postgres_cluster, person)
    assert hits(person, below(tmp_path)) == {}
    assert {path.name for path in below(tmp_path)} >= {"buffer.db", "ingress.log", "agent_service.log"}


def check_export(done: Done, person: Person) -> None:
    """Every section, as JSON, and what the person said is in it, whichever service has it."""
    assert done.code == 0, done.err
    document = json.loads(done.out)
    buffer = document.pop("buffer")
    assert set(document) == {"tenant", *ExportSection}
    empty = {section for section in ExportSection if not document[section]}
    assert empty <= {ExportSection.MERGED, ExportSection.USAGE}, empty
    assert {one["alias"] for one in document["lead_aliases"]} == {f"phone:{person.phone}", f"lid:{person.lid}"}
    assert [one["name"] for one in document["leads"]] == [NAME]
    files = json.dumps([one["media_data"] for one in document["messages"]])
    assert f"conta-{person.mark}.pdf" in files and OTHERS not in done.out
    assert f"fatal {person.mark}" in json.dumps(buffer["message"]) and len(buffer["dead_letter"]) == 1
    assert f"sem registro {person.mark}" in json.dumps(buffer["message"])
    [unread] = buffer["quarantine"]
    assert person.mark in unread["body"]


def tables(database: Database) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with database.connect() as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return {
            name: [row for (row,) in connection.execute(f'SELECT one::text FROM public."{name}" AS one'.encode())]
            for (name,) in names
        }


def rows_with(database: Database, person: Person) -> int:
    canaries = person.canaries.values()
    return sum(
        any(one in row.lower().encode() for one in canaries) for found in tables(database).values() for row in found
    )


def check_database(database: Database, cluster: PostgresCluster, person: Person) -> None:
    """No row holds anything. Of the files PostgreSQL itself decides: dead rows stay until VACUUM, samples that the
    planner took stay until ANALYZE, and the log of changes (pg_wal) until it is used again."""
    assert rows_with(database, person) == 0
    assert len(tables(database)["do_not_contact"]) == 2
    with database.connect("supabase_admin") as connection:
        [(folder,)] = connection.execute("SELECT pg_relation_filepath('public.leads')").fetchall()
        connection.execute("CHECKPOINT")
        files = next(path for path in cluster.directory.rglob("base") if path.is_dir()).parent / Path(folder).parent
        assert hits(person, below(files)), "dead rows are documented to be there until VACUUM"
        connection.execute("ANALYZE")
        connection.execute("VACUUM FULL")
        connection.execute("CHECKPOINT")
    assert hits(person, below(files)) == {}


async def test_a_backup_does_not_bring_a_forgotten_person_back(short_tmp: Path) -> None:
    person, other = Person(), new_contact()
    async with managed(short_tmp) as system:
        await system.deliver(webhook(other, "oi"))
        await system.deliver(person.wrote(f"oi, me chamo {NAME}"))
        await system.settled(other, 1)
        await system.settled(person.phone, 1)
        made = await system.tool("backup", "--name", "before")
        assert made.code == 0, made.err
        forgotten = await system.tool("forget", "--contact", person.phone, "--do-not-contact=yes")
        assert forgotten.code == 0, forgotten.err
        restored = await system.tool("restore", "--from", "before", "--stop", "yes")
        assert restored.code == 0, restored.err
        assert "erased again: 1." in restored.out
        await system.wait_ready()
        assert await system.lane(person.phone) is None and await system.lane(other) is not None
        kept = [path for path in below(short_tmp / "data") if not {"backups", "logs"} & set(path.parts)]
        live_stores = [path for path in kept if not any(part.startswith("replaced-") for part in path.parts)]
        assert hits(person, iter(live_stores)) == {}
        await system.deliver(person.wrote("oi de novo"))
        await system.settled(person.phone, 1)
        assert (await system.lead(person.phone)).do_not_contact
