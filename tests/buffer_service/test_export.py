"""Handing over what the buffer knows of a person: what ForgetContact would erase, and only that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2, turn_pb2
from buffer_service.store import person_rows
from buffer_service.store.connection import Connection
from service_kit import errors
from service_kit.json_document import MAX_CHUNK_BYTES
from tests.buffer_service.test_forgetting import forget
from tests.buffer_service.test_service import SCOPE, Worker, buffer, echo, enqueue, message

if TYPE_CHECKING:
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub

PHONE, OTHERS = "5581999990001", "5581999990002"
CONTACT = message_pb2.Contact(
    contact=PHONE, aliases=[f"phone:{PHONE}", "lid:777"], address=f"{PHONE}@s.whatsapp.net", display_name="Zé"
)
OTHER = message_pb2.Contact(contact=OTHERS, aliases=[f"phone:{OTHERS}"], address=f"{OTHERS}@s.whatsapp.net")
# Facts about the file, and random ids of erased conversations.
NOBODYS = {"meta", "forgotten", "sqlite_sequence"}


async def export(stub: BufferServiceAsyncStub, contact: str = PHONE) -> tuple[dict[str, Any], list[str]]:
    answers = [one async for one in stub.ExportContact(pb.ExportContactRequest(contact=contact), timeout=30)]
    assert all(len(one.chunk) <= MAX_CHUNK_BYTES for one in answers)
    assert not any(one.conversation_ids for one in answers[1:])
    return json.loads(b"".join(one.chunk for one in answers)), list(answers[0].conversation_ids)


async def lived(stub: BufferServiceAsyncStub) -> set[str]:
    """Something in every table, in every state; the conversations."""
    worker = Worker(stub)
    await worker.hello()
    await enqueue(stub, message("o1", "de outra pessoa", contact=OTHER))
    await worker.answer(await worker.assigned(), "resposta a outra pessoa")
    bodies = (f'{{"jid": "{PHONE[:4]}{PHONE[5:]}", "x": "ilegível"}}', f'{{"jid": "{OTHERS}"}}')
    await enqueue(stub, *(pb.Event(scope=SCOPE, unparsed=pb.Unparsed(reason="?", body=b.encode())) for b in bodies))

    await enqueue(stub, message("m1", "respondida", contact=CONTACT))
    await worker.answer(await worker.assigned(), "resposta")
    await enqueue(stub, message("m2", "desistida", contact=CONTACT))
    turn = await worker.assigned()
    release = pb.Release(turn_id=turn.turn_id, epoch=turn.epoch, reason=pb.RELEASE_REASON_FAILED)
    await worker.call.write(pb.RunTurnsRequest(release=release))
    apology = await worker.assigned()
    assert apology.kind == turn_pb2.TURN_KIND_APOLOGY
    await worker.answer(apology, "desculpe")
    await enqueue(stub, message("m3", "em curso", contact=CONTACT))
    assert (await worker.commit(await worker.assigned(), "a caminho", "ainda não")).HasField("go")
    await enqueue(stub, message("m4", "esperando", contact=CONTACT), echo("e1", "de outro fluxo"))
    elsewhere = message_pb2.Scope(channel="evolution", instance="another")
    [there] = await enqueue(stub, message("m5", "em outro número", contact=CONTACT, scope=elsewhere))
    return {turn.conversation_id, there.conversation_id}


async def test_it_holds_every_row_of_theirs_and_no_other(tmp_path: Path) -> None:
    async with buffer(tmp_path, SDR_BUFFER_MAX_ATTEMPTS="1") as stub:
        conversations = await lived(stub)
        document, ids = await export(stub)
        assert (document, ids) == await export(stub, "lid:777")
    assert set(ids) == conversations
    assert document.pop("tenant") == "default"
    assert set(document) == set(person_rows.TABLES)
    said = json.dumps(document, ensure_ascii=False)
    assert "outra pessoa" not in said and OTHERS not in said
    for text in ("respondida", "desistida", "em curso", "esperando", "em outro número", "de outro fluxo", "a caminho"):
        assert text in said, text
    assert [one["body"]["text"] for one in document["message"]][:2] == ["respondida", "desistida"]
    assert [one["body"] for one in document["quarantine"]] == [f'{{"jid": "{PHONE[:4]}{PHONE[5:]}", "x": "ilegível"}}']

    db = Connection(tmp_path / "buffer.db").db
    counts = {name: db.execute(f"SELECT count(*) FROM {name}").get for name in set(tables(db)) - NOBODYS}
    db.close()
    others = {"conversation": 1, "alias": 1, "message": 1, "turn": 1, "part": 1, "quarantine": 1}
    theirs = {name: count - others.get(name, 0) for name, count in counts.items()}
    assert {name: len(found) for name, found in document.items()} == theirs
    assert all(theirs.values()), theirs


async def test_after_an_erasure_nothing_is_left_to_hand_over(tmp_path: Path) -> None:
    async with buffer(tmp_path, SDR_BUFFER_MAX_ATTEMPTS="1") as stub:
        await lived(stub)
        await forget(stub)
        for contact in (PHONE, "lid:777"):
            with pytest.raises(grpc.aio.AioRpcError) as nobody:
                await export(stub, contact)
            assert errors.parse(nobody.value).reason == "NOT_FOUND"
        assert len((await export(stub, OTHERS))[0]["message"]) == 1


async def test_who_only_stands_in_a_body_that_nobody_could_read_is_handed_it(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        body = f'{{"jid": "{PHONE}"}}'
        await enqueue(stub, pb.Event(scope=SCOPE, unparsed=pb.Unparsed(reason="?", body=body.encode())))
        document, ids = await export(stub)
        assert (ids, document["conversation"]) == ([], [])
        assert [one["body"] for one in document["quarantine"]] == [body]


async def test_many_rows_come_once_each_and_in_order(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        many = [message(f"m{n}", f"{n} " + "x" * 3000, human=True, contact=CONTACT) for n in range(130)]
        await enqueue(stub, *many)
        document, _ = await export(stub)
    assert [one["body"]["text"].split()[0] for one in document["message"]] == [str(n) for n in range(130)]
    assert len({one["turn_id"] for one in document["turn"]}) == len(document["turn"]) == 130


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("table", sorted(set(person_rows.TABLES) - {"quarantine", "dead_letter"}))
def test_no_table_is_read_whole(tmp_path: Path, table: str, first: bool) -> None:
    """Every turn of everybody waits for it. Dead letters and quarantine are few."""
    db = Connection(tmp_path / "buffer.db").db
    values = {"ids": "[]", "names": "[]", "tenant": "default", **{f"after{n}": 0 for n in range(4)}}
    plan: list[Any] = db.execute(f"EXPLAIN QUERY PLAN {person_rows.select(table, first=first)}", values).fetchall()
    db.close()
    steps = [step[3] for step in plan]
    assert not [step for step in steps if step.startswith("SCAN") and "json_each" not in step], steps


def tables(db: apsw.Connection) -> list[str]:
    found: list[Any] = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return [name for (name,) in found]
