"""Every frame of RunTurns, spoilt in every way: a refusal with the documented reason and metadata, nothing stored, and
the stream lives on. A new frame kind or field fails here until somebody has decided about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import error_reason_pb2, message_pb2
from service_kit import errors
from tests.buffer_service.test_service import Worker, buffer, enqueue, message
from tests.contract.requests import effects
from tests.contract.spoiling import Spoilt, all_fields, set_fields, spoil
from tests.contract.test_bad_input import BIG, check_documented, stored
from tests.system.test_errors_contract import CONTRACT

UNKNOWN = "0" * 32
FRAMES = {field.name: field for field in pb.RunTurnsRequest.DESCRIPTOR.oneofs_by_name["frame"].fields}
NO_ANSWER, TAKEN = "no answer", "taken"

# Reason (and field) where it is not INVALID_ARGUMENT with the field's own path; the first pattern that fits decides.
OTHERWISE: tuple[tuple[str, str], ...] = (
    ("* ask *", TAKEN),  # the worker's own number: repeated as it came
    ("release epoch *", NO_ANSWER),
    ("* epoch *", "STALE_EPOCH"),
    ("commit revision negative", "SUPERSEDED"),
    ("commit revision huge", TAKEN),
    ("commit parts missing", TAKEN),  # it is the last one: an empty rest
    ("commit parts?0? nul", TAKEN),
    ("commit effects missing", TAKEN),
    ("commit effects?0?.lead_update missing", "effects[0]"),
    ("commit effects?0?.lead_update.* long", "effects[0]"),
    ("commit effects?0?.*", TAKEN),  # what they mean is context's business
    ("result part huge", TAKEN),  # about no part that is on its way
    ("result attempt huge", TAKEN),
    ("result provider_message_id empty", TAKEN),
    ("result detail empty", TAKEN),
    ("result detail nul", TAKEN),
    ("finish recorded_version huge", TAKEN),
    ("recorded version huge", NO_ANSWER),
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A refusal; all empty when there was none."""

    reason: str = ""
    field: str = ""


class Desk:
    """A worker with turns, each of another person."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub
        self.worker = Worker(stub, capacity=500)
        self.people = 0

    async def turn(self) -> pb.Assign:
        """A new one."""
        self.people += 1
        contact = message_pb2.Contact(contact=f"55{self.people:09d}", aliases=[f"phone:55{self.people:09d}"])
        await enqueue(self.stub, message(f"m{self.people}", contact=contact))
        return await self.worker.assigned()

    async def send(self, kind: str, body: Message) -> pb.Committed | None:
        """The answer to a frame; None when there is none. Answers come in order, so a later one tells."""
        await self.worker.call.write(pb.RunTurnsRequest(**{kind: body}))
        probe = pb.Finish(ask=PROBE, turn_id=UNKNOWN, epoch=1, unrecorded=True)
        # Malformed frames are answered at once, others by the engine: wait for both.
        await self.worker.call.write(pb.RunTurnsRequest(finish=probe))
        answers = []
        while True:
            answer = (await self.worker.read("committed")).committed
            if answer.turn_id == UNKNOWN and answer.ask == PROBE:
                return answers[0] if answers else None
            answers.append(answer)

    async def refusal(self, kind: str, body: Message) -> Seen | None:
        answer = await self.send(kind, body)
        if answer is None:
            return None
        if not answer.HasField("refusal"):
            return Seen()
        return seen(answer.refusal)

    async def lives(self) -> None:
        """Another turn goes through from its message to its end."""
        assert (await self.worker.answer(await self.turn(), "Olá!")).complete


PROBE = 987_654_321


def seen(refusal: pb.Refusal) -> Seen:
    """What a refusal says; that it is one of the contract's is checked here."""
    reason = error_reason_pb2.ErrorReason.Name(refusal.reason)
    code = grpc.StatusCode[CONTRACT[reason].code]
    check_documented(
        errors.ParsedError(code=code, reason=reason, metadata=dict(refusal.metadata), message=refusal.message)
    )
    assert all(refusal.metadata.values())
    return Seen(reason=reason, field=refusal.metadata.get("field", ""))


@asynccontextmanager
async def desk(path: Path) -> AsyncIterator[Desk]:
    # This worker sends no heartbeats.
    async with buffer(path, SDR_BUFFER_LEASE_MS="60000") as stub:
        found = Desk(stub)
        await found.worker.hello()
        yield found


async def valid(kind: str, d: Desk) -> Message:
    """A frame of this kind that is right at this moment, with every field set."""
    turn = await d.turn()
    ids: dict[str, Any] = {"turn_id": turn.turn_id, "epoch": turn.epoch}
    if kind == "commit":
        return pb.Commit(
            ask=7, **ids, revision=1, parts=["Olá!"], last=True, effects=effects(), truncated=True, needs_human=True
        )
    if kind == "release":
        return pb.Release(**ids, reason=pb.RELEASE_REASON_FAILED)
    committed = await d.worker.commit(turn, "Olá!")
    if kind == "result":
        go = committed.go
        return pb.Result(
            ask=7,
            **ids,
            part=go.index,
            attempt=go.attempt,
            outcome=pb.SEND_OUTCOME_SENT,
            provider_message_id=f"p{d.people}",
            detail="d",
        )
    await d.worker.result(turn, committed.go, provider_id=f"p{d.people}")
    if kind == "finish":
        return pb.Finish(ask=7, **ids, recorded_version=1)
    await d.worker.finish(turn, version=None)
    return pb.Recorded(conversation_id=turn.conversation_id, turn_id=turn.turn_id, version=1)


def expected(kind: str, way: Spoilt) -> Seen | None:
    name = f"{kind} {way.name}"
    for pattern, answer in OTHERWISE:
        if fnmatchcase(name, pattern):
            if answer == NO_ANSWER:
                return None
            if answer == TAKEN:
                return Seen()
            return Seen(reason=answer) if answer in CONTRACT else Seen(reason="INVALID_ARGUMENT", field=answer)
    return Seen(reason="INVALID_ARGUMENT", field=way.field)


@pytest.mark.parametrize("kind", ["commit", "result", "finish", "release", "recorded"])
@pytest.mark.parametrize("long", [70_000, BIG], ids=["", "5MB"])
async def test_every_field_spoilt_gets_its_documented_refusal(tmp_path: Path, kind: str, long: int) -> None:
    async with desk(tmp_path) as d:
        right = await valid(kind, d)
        every = [(way, expected(kind, way)) for way in spoil(right, long=long)]
        if long == BIG:
            every = [(way, wanted) for way, wanted in every if way.kind == "long"]
        before = await stored(d.stub, "BufferService")
        wrong = []
        for way, wanted in every:
            if wanted and wanted.reason:
                found = await d.refusal(kind, way.request)
                wrong += [f"{way.name}: {found}, not {wanted}"] if found != wanted else []
        assert not wrong, "\n".join(wrong)
        assert await stored(d.stub, "BufferService") == before, "something refused was stored"
        # The frame itself is still as good as it was.
        assert await d.refusal(kind, right) == (None if kind in ("release", "recorded") else Seen())
        for way, wanted in every:
            if wanted is None or not wanted.reason:
                again = await valid(kind, d)
                request = _same_place(way.request, again, way.field)
                found = await d.refusal(kind, request)
                wrong += [f"{way.name}: {found}, not {wanted}"] if found != wanted else []
        assert not wrong, "\n".join(wrong)
        await d.lives()


def _same_place(spoilt: Message, right: Message, field: str) -> Message:
    """The spoilt frame, about the turn of the right one."""
    moved = type(spoilt)()
    moved.CopyFrom(spoilt)
    for name in ("conversation_id", "turn_id", "epoch"):
        if name != field and name in spoilt.DESCRIPTOR.fields_by_name:
            setattr(moved, name, getattr(right, name))
    return moved


async def test_frames_that_cannot_be_right(tmp_path: Path) -> None:
    """Unknown turns, old epochs, wrong states, too many parts, what is no frame at all: one after the other on one
    stream, which goes on after each."""
    async with desk(tmp_path) as d:
        open_ = await d.turn()
        ended = await d.turn()
        await d.worker.answer(ended, "Olá!")
        here: dict[str, Any] = {"ask": 5, "turn_id": open_.turn_id, "epoch": open_.epoch}
        gone: dict[str, Any] = {"ask": 5, "turn_id": ended.turn_id, "epoch": ended.epoch}
        nobody: dict[str, Any] = {"ask": 5, "turn_id": "x", "epoch": 1}
        old: dict[str, Any] = {"ask": 5, "turn_id": open_.turn_id, "epoch": open_.epoch + 1}
        said: dict[str, Any] = {"parts": ["Olá!"], "last": True, "revision": 1}
        sent: dict[str, Any] = {"attempt": 1, "outcome": pb.SEND_OUTCOME_SENT}
        rows: list[tuple[str, Message, str, str]] = []
        for ids, reason in ((gone, "WRONG_STATE"), (nobody, "WRONG_STATE"), (old, "STALE_EPOCH")):
            rows += [
                ("commit", pb.Commit(**ids, **said), reason, ""),
                ("result", pb.Result(**ids, **sent), reason, ""),
                ("finish", pb.Finish(**ids, unrecorded=True), reason, ""),
            ]
        rows += [
            ("finish", pb.Finish(**here, unrecorded=True), "WRONG_STATE", ""),  # not complete yet
            ("commit", pb.Commit(**{**here, **said, "revision": 0}), "SUPERSEDED", ""),
            ("commit", pb.Commit(**{**here, **said, "parts": ["a"] * 51}), "INVALID_ARGUMENT", "parts"),
            ("commit", pb.Commit(**{**here, **said, "parts": [" \n"]}), "INVALID_ARGUMENT", "parts[0]"),
            ("commit", pb.Commit(**here, revision=1), "INVALID_ARGUMENT", "parts"),
            ("commit", pb.Commit(**here, **said, effects=effects() * 26), "INVALID_ARGUMENT", "effects"),
            ("result", pb.Result(**here), "INVALID_ARGUMENT", "attempt"),
            ("result", pb.Result(**here, **sent, part=-1), "INVALID_ARGUMENT", "part"),
            ("finish", pb.Finish(**here), "INVALID_ARGUMENT", "record"),
            ("release", pb.Release(turn_id=open_.turn_id, epoch=open_.epoch), "INVALID_ARGUMENT", "reason"),
            ("recorded", pb.Recorded(turn_id="x"), "INVALID_ARGUMENT", "conversation_id"),
            ("hello", pb.Hello(worker_id="w2", capacity=1), "PROTOCOL", ""),
        ]
        before = await stored(d.stub, "BufferService")
        for kind, body, reason, field in rows:
            answer = await d.send(kind, body)
            assert answer and seen(answer.refusal) == Seen(reason=reason, field=field), (kind, body)
            assert (answer.ask, answer.epoch) == (getattr(body, "ask", 0), getattr(body, "epoch", 0))
            if reason != "INVALID_ARGUMENT" and kind != "hello":
                assert answer.turn_id == body.turn_id  # type: ignore[attr-defined]
        # No answer is due to these.
        for kind, body in (
            ("release", pb.Release(turn_id="x", epoch=1, reason=pb.RELEASE_REASON_FAILED)),
            ("release", pb.Release(turn_id=open_.turn_id, epoch=9, reason=pb.RELEASE_REASON_DRAINING)),
            ("recorded", pb.Recorded(conversation_id="x", turn_id="x", version=1)),
            ("recorded", pb.Recorded(conversation_id=open_.conversation_id, turn_id=open_.turn_id, version=1)),
            ("heartbeat", pb.Heartbeat()),
        ):
            assert await d.send(kind, body) is None
        assert await stored(d.stub, "BufferService") == before
        assert (await d.worker.answer(open_, "Olá!")).complete, "the turn that they were about is still its worker's"
        await d.lives()


async def test_an_empty_frame_and_frames_within_frames_within_frames(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        turn = await d.turn()
        commit = pb.Commit(ask=3, turn_id=turn.turn_id, epoch=turn.epoch, revision=1, parts=["Olá!"], last=True)
        nested = pb.RunTurnsRequest(commit=commit, also=[pb.RunTurnsRequest(heartbeat=pb.Heartbeat())])
        for frame, field, ask in (
            (pb.RunTurnsRequest(), "frame", 0),
            (pb.RunTurnsRequest(heartbeat=pb.Heartbeat(), also=[pb.RunTurnsRequest()]), "frame", 0),
            (pb.RunTurnsRequest(heartbeat=pb.Heartbeat(), also=[nested]), "also", 3),
        ):
            await d.worker.call.write(frame)
            answer = (await d.worker.read("committed")).committed
            assert (seen(answer.refusal), answer.ask) == (Seen(reason="INVALID_ARGUMENT", field=field), ask)
        assert (await d.worker.answer(turn, "Olá!")).complete
        await d.lives()


async def test_the_same_ask_twice_is_answered_twice_and_sends_once(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        turn = await d.turn()
        commit = pb.Commit(ask=3, turn_id=turn.turn_id, epoch=turn.epoch, revision=1, parts=["Olá!"], last=True)
        first, second = await d.send("commit", commit), await d.send("commit", commit)
        assert first and first.HasField("go") and second and not second.HasField("go")
        assert (first.ask, second.ask) == (3, 3) and not second.HasField("refusal")


@pytest.mark.parametrize(
    ("frame", "reason", "metadata"),
    [
        (pb.RunTurnsRequest(heartbeat=pb.Heartbeat()), "PROTOCOL", {"expected": "hello"}),
        (pb.RunTurnsRequest(commit=pb.Commit(parts=["a"])), "PROTOCOL", {"expected": "hello"}),
        (pb.RunTurnsRequest(), "PROTOCOL", {"expected": "hello"}),
        (pb.RunTurnsRequest(hello=pb.Hello(capacity=1)), "PROTOCOL", {"expected": "hello"}),
        (pb.Hello(worker_id="w" * 257), "INVALID_ARGUMENT", {"field": "hello.worker_id"}),
        (pb.Hello(worker_id="w" * BIG), "INVALID_ARGUMENT", {"field": "hello.worker_id"}),
        (pb.Hello(worker_id="w\0"), "INVALID_ARGUMENT", {"field": "hello.worker_id"}),
        (pb.Hello(worker_id="w", capacity=-1), "INVALID_ARGUMENT", {"field": "hello.capacity"}),
        (pb.Hello(worker_id="w", holding=[{}]), "INVALID_ARGUMENT", {"field": "hello.holding[0].turn_id"}),
        (pb.Hello(worker_id="w", holding=[{"turn_id": "t"}] * 10_001), "INVALID_ARGUMENT", {"field": "hello.holding"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_stream_that_does_not_begin_with_a_good_hello_ends(
    tmp_path: Path, frame: Any, reason: str, metadata: Mapping[str, str]
) -> None:
    async with desk(tmp_path) as d:
        await d.lives()
        before = await stored(d.stub, "BufferService")
        call = d.stub.RunTurns()
        await call.write(pb.RunTurnsRequest(hello=frame) if isinstance(frame, pb.Hello) else frame)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(5):
                await call.read()
        error = errors.parse(caught.value)
        check_documented(error)
        assert (error.reason, error.metadata) == (reason, metadata)
        assert await stored(d.stub, "BufferService") == before
        await d.lives()


async def test_a_held_turn_that_nobody_knows_is_revoked_and_the_stream_goes_on(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        d = Desk(stub)
        await d.worker.hello(pb.Holding(turn_id="x", epoch=1), pb.Holding(turn_id="y", epoch=-1))
        revoked = [(await d.worker.read("revoke")).revoke for _ in range(2)]
        assert [(r.turn_id, r.epoch, r.reason) for r in revoked] == [
            ("x", 1, error_reason_pb2.STALE_EPOCH),
            ("y", -1, error_reason_pb2.STALE_EPOCH),
        ]
        await d.lives()


async def test_frames_that_come_along_with_hello_are_taken(tmp_path: Path) -> None:
    async with buffer(tmp_path) as stub:
        worker = Worker(stub)
        commit = pb.Commit(ask=4, turn_id="x", epoch=1, parts=["a"], last=True)
        hello = pb.Hello(worker_id="w", capacity=1)
        await worker.call.write(pb.RunTurnsRequest(hello=hello, also=[pb.RunTurnsRequest(commit=commit)]))
        answer = (await worker.read("committed")).committed
        assert (answer.ask, seen(answer.refusal).reason) == (4, "WRONG_STATE")


async def test_every_frame_and_field_is_covered(tmp_path: Path) -> None:
    assert set(FRAMES) == {"hello", "heartbeat", "commit", "result", "finish", "release", "recorded"}
    async with desk(tmp_path) as d:
        for kind in ("commit", "result", "finish", "release", "recorded"):
            right = await valid(kind, d)
            left = all_fields(FRAMES[kind].message_type) - set_fields(right)
            # The index of the first part is 0, and of a oneof only one can be set.
            assert {name.rpartition(".")[2] for name in left} <= {"part", "unrecorded"}, kind


def test_every_exception_is_needed() -> None:
    kinds = {name: list(spoil(_filled(field.message_type))) for name, field in FRAMES.items()}
    names = [f"{kind} {way.name}" for kind, found in kinds.items() for way in found]
    assert not [pattern for pattern, _ in OTHERWISE if not any(fnmatchcase(name, pattern) for name in names)]


def _filled(descriptor: Any) -> Message:
    frame = getattr(pb, descriptor.name)()
    for field in descriptor.fields:
        if field.name == "effects":
            frame.effects.extend(effects())
        elif field.name != "unrecorded" and not field.message_type:
            value = "x" if field.cpp_type == field.CPPTYPE_STRING else 1
            setattr(frame, field.name, value) if not field.is_repeated else getattr(frame, field.name).append(value)
    return frame
