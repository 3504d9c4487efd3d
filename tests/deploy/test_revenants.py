"""Whoever was forgotten after a backup was made does not come back with it; opting out outlives it too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2
from context_service.domain import LeadField, LeadPatch
from context_service.store import wishes
from deploy import person, revenants
from deploy.settings import SystemSettings
from service_kit.clock import ManualClock
from service_kit.settings import load
from tests.buffer_service.test_service import CONTACT, buffer, enqueue, message
from tests.context_service.builders import PHONE, record
from tests.context_service.keys import HASHER
from tests.context_service.stores import sqlite_store

OTHER = message_pb2.Contact(contact="5581999990002", aliases=["phone:5581999990002", "lid:2"])


async def two_leads(path: Path) -> None:
    store = sqlite_store(path, ManualClock())
    await store.open()
    try:
        await store.record_turn(record("t1", "c1", contact="5511"))
        await store.record_turn(record("t2", "c2"))
    finally:
        await store.close()


async def both_opt_out(path: Path) -> None:
    """One of them is erased with that wish."""
    store = sqlite_store(path, ManualClock())
    await store.open()
    try:
        lead = await store.get_lead_by_alias("default", "phone:5511")
        await store.update_lead(lead.lead_id, "", LeadPatch(values={LeadField.DO_NOT_CONTACT: True}, preferences={}))
        await store.forget("default", f"phone:{PHONE}", (), do_not_contact=True)
    finally:
        await store.close()


async def marked(path: Path, alias: str) -> bool:
    store = sqlite_store(path, ManualClock())
    await store.open()
    try:
        return (await store.get_lead_by_alias("default", alias)).do_not_contact
    finally:
        await store.close()


async def test_who_was_forgotten_since_is_found_in_the_copy_and_the_tombstones_go_along(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        await enqueue(stub, message("m1"), message("m2", contact=OTHER))
        await stub.ForgetContact(pb.ForgetContactRequest(contact=CONTACT.contact), timeout=5)
        await enqueue(stub, message("m3"))
        await stub.Backup(pb.BackupRequest(name="one"), timeout=30)
        await stub.ForgetContact(pb.ForgetContactRequest(contact=OTHER.contact), timeout=5)
    copy = tmp_path / "backups" / "one" / "buffer.db"
    found = revenants.find(buffer=tmp_path / "buffer.db", context=None, copy=copy)
    # The first one wrote again before the backup, as somebody new.
    assert (found.known, found.people) == (True, {("default", "phone:5581999990002")})
    revenants.carry(found, buffer=copy, context=None)
    again = revenants.find(buffer=copy, context=None, copy=copy)
    assert set(again.tombstones) == set(found.tombstones) and len(found.tombstones) == 2


async def test_who_must_not_be_written_to_stays_so(tmp_path: Path) -> None:
    await two_leads(tmp_path / "now.db")
    then = Path(shutil.copy(tmp_path / "now.db", tmp_path / "then.db"))
    await both_opt_out(tmp_path / "now.db")
    kept = wishes.read(tmp_path / "now.db")
    assert wishes.read(then) == wishes.Wishes()
    wishes.add(then, kept)
    assert wishes.read(then) == kept
    assert await marked(then, "phone:5511") and not await marked(then, f"phone:{PHONE}")


@pytest.mark.parametrize("damage", ["buffer", "context", "none there"])
async def test_stores_that_cannot_be_read_are_said_to_be_so(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with buffer(tmp_path) as stub:
        await enqueue(stub, message("m1"))
    await two_leads(tmp_path / "context.db")
    if damage == "none there":
        (tmp_path / "context.db").unlink()
    else:
        (tmp_path / f"{damage}.db").write_bytes(b"damaged" * 1000)
    found = revenants.find(buffer=tmp_path / "buffer.db", context=tmp_path / "context.db", copy=tmp_path / "buffer.db")
    assert not found.known
    assert revenants.forget(load(SystemSettings, environ={}, env_file=None), found, HASHER) == 0
    assert "forget them again" in capsys.readouterr().err


def test_the_wish_is_repeated_with_the_erasure_and_failures_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, bool]] = []

    def forget(_: SystemSettings, alias: str, *, tenant: str, do_not_contact: bool) -> None:
        asked.append((alias, do_not_contact))
        if alias == "lid:2":
            raise person.PersonError("nobody answers")

    monkeypatch.setattr(person, "forget", forget)
    [mark] = HASHER.hashes("default", ("lid:2",))
    found = revenants.Revenants(
        known=True,
        people=frozenset({("default", "lid:1"), ("default", "lid:2")}),
        wishes=wishes.Wishes(hashes=(("default", mark, ""),)),
    )
    assert revenants.forget(load(SystemSettings, environ={}, env_file=None), found, HASHER) == 1
    assert asked == [("lid:1", False), ("lid:2", True)]
    assert "make forget CONTACT='lid:2' TENANT='default' DO_NOT_CONTACT=yes" in capsys.readouterr().err
