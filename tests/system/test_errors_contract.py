"""Every error reason of the contract, provoked over gRPC. What the contract says of a reason (its code, its metadata)
is read from its very comments, so that they cannot drift away from the code."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent_service.app import AgentApp
from agent_service.models.playbook import Playbook
from agent_service.settings import AgentSettings
from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import error_reason_pb2, lead_pb2, message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from context_service.app import ContextApp
from context_service.lookups import Contexts
from context_service.settings import ContextSettings
from service_kit import backups, errors
from service_kit.durations import ms_to_duration
from service_kit.settings import load as load_settings
from service_kit.testing import in_process
from tests.agent_service.language import until_warm
from tests.buffer_service.test_service import SCOPE, Worker, buffer, enqueue, message
from tests.context_service.builders import load, turn
from tests.stand_ins.openai_server import MODEL, OpenAIServer, says

pytestmark = pytest.mark.slow

PROTO = Path(__file__).parents[2] / "protos" / "agentic_sdr" / "common" / "v1" / "error_reason.proto"
# Values that differ from call to call; all others are in the contract's example exactly as the code writes them.
OPAQUE = {"turn_id", "conversation_id", "epoch", "revision", "error_id"}
# Reasons that nothing can raise today, and why.
UNREACHABLE = {"ERROR_REASON_UNSPECIFIED": "Never sent; it has no example."}
# Typed errors without a place in the contract, and why.
NOT_IN_THE_CONTRACT = {"UNKNOWN": "The base class.", "DEADLINE_MISSING": "No service raises it."}


# ---- what the contract says


@dataclass(frozen=True, kw_only=True)
class Documented:
    """One reason as its comment describes it."""

    code: str
    examples: tuple[dict[str, str], ...]


def read_contract(text: str) -> dict[str, Documented]:
    """The code that ends a reason's description, and the metadata of its examples."""
    found = {}
    for comment, reason in re.findall(r"((?:^  //.*\n)+)^  ([A-Z_]+) = \d+;", text, re.MULTILINE):
        lines = [line.strip().removeprefix("//").strip() for line in comment.splitlines()]
        examples = [json.loads(line.removeprefix("Example: ")) for line in lines if line.startswith("Example: ")]
        assert all(example["reason"] == reason for example in examples), reason
        words = " ".join(line for line in lines if not line.startswith("Example: ")).split()
        code = words[-1].rstrip(".") if examples else ""
        found[reason] = Documented(code=code, examples=tuple(example["metadata"] for example in examples))
    return found


CONTRACT = read_contract(PROTO.read_text(encoding="utf-8"))


# ---- what the code does


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A refusal as a client sees it; a frame has no code."""

    reason: str
    metadata: dict[str, str]
    code: str | None = None
    message: str = ""
    retry_after_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class World:
    """What a case may use."""

    path: Path
    patch: pytest.MonkeyPatch

    def buffer(self, **more: str) -> AbstractAsyncContextManager[Any]:
        return buffer(self.path, **more)

    def context(self) -> AbstractAsyncContextManager[tuple[Any, ContextApp]]:
        return context_service(self.path)

    def agent(self, **more: str) -> AbstractAsyncContextManager[Any]:
        return agent_service(self.path, **more)


@asynccontextmanager
async def context_service(path: Path) -> AsyncIterator[tuple[Any, ContextApp]]:
    app = ContextApp(load_settings(ContextSettings, environ={"SDR_DATA_DIR": str(path)}, env_file=None))
    async with in_process(app) as channel:
        yield ContextServiceStub(channel), app


@asynccontextmanager
async def agent_service(path: Path, **more: str) -> AsyncIterator[Any]:
    settings = load_settings(AgentSettings, environ={"SDR_DATA_DIR": str(path), **more}, env_file=None)
    async with in_process(AgentApp(settings)) as channel:
        yield AgentServiceStub(channel)


Provoke = Callable[[World], Awaitable[Seen]]
CASES: list[Any] = []
SHOWN: set[tuple[str, int]] = set()


def case(reason: str, *, example: int = 0, literally: bool = True) -> Callable[[Provoke], Provoke]:
    """A case that yields this example of the reason; not `literally`: other values under the same keys."""

    def add(provoke: Provoke) -> Provoke:
        CASES.append(pytest.param(reason, example, literally, provoke, id=provoke.__name__))
        if literally:
            SHOWN.add((reason, example))
        return provoke

    return add


async def refused(call: Awaitable[Any]) -> Seen:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = errors.parse(caught.value)
    return Seen(
        code=error.code.name,
        reason=error.reason,
        metadata=error.metadata,
        message=error.message,
        retry_after_ms=error.retry_after_ms,
    )


def in_frame(committed: pb.Committed) -> Seen:
    assert committed.HasField("refusal"), committed
    reason = error_reason_pb2.ErrorReason.Name(committed.refusal.reason)
    return Seen(reason=reason, metadata=dict(committed.refusal.metadata), message=committed.refusal.message)


async def assigned_to(stub: Any) -> tuple[Worker, pb.Assign]:
    worker = Worker(stub)
    await worker.hello()
    return worker, await worker.assigned()


def begin(**more: Any) -> agent_pb.RespondRequest:
    said = message_pb2.Message(message_id="m", author=message_pb2.AUTHOR_LEAD, type=1, text="oi")
    return agent_pb.RespondRequest(begin=agent_pb.Begin(**{"turn_id": "t", "messages": [said], **more}))


KNOWN = agent_pb.RespondRequest(context=lead_pb2.ConversationContext())


async def respond(stub: Any, frames: Sequence[agent_pb.RespondRequest]) -> None:
    """Sends these frames, keeps the stream open and reads to the end."""
    call = stub.Respond(timeout=10)
    try:
        for frame in frames:
            await call.write(frame)
        while await call.read() is not grpc.aio.EOF:
            pass
    finally:
        call.cancel()


# ---- the cases


@case("INVALID_ARGUMENT")
async def a_message_without_an_id(world: World) -> Seen:
    async with world.buffer() as stub:
        return await refused(enqueue(stub, message("")))


@case("INVALID_ARGUMENT", literally=False)
async def a_context_of_no_conversation(world: World) -> Seen:
    async with world.context() as (stub, _):
        return await refused(stub.LoadContext(load(""), timeout=5))


@case("INVALID_ARGUMENT", literally=False)
async def a_reply_to_nothing(world: World) -> Seen:
    async with world.agent() as stub:
        return await refused(respond(stub, [begin(messages=[])]))


@case("INVALID_ARGUMENT", literally=False)
async def a_commit_of_nothing(world: World) -> Seen:
    async with world.buffer() as stub:
        await enqueue(stub, message("m1"))
        worker, turn_ = await assigned_to(stub)
        return in_frame(await worker.commit(turn_, last=False))


@case("INTERNAL")
async def something_unexpected(world: World) -> Seen:
    async def broken(*_: object) -> None:
        raise RuntimeError("dsn=postgres://secret")

    async with world.context() as (stub, _):
        world.patch.setattr(Contexts, "load", broken)
        seen = await refused(stub.LoadContext(load(), timeout=5))
        assert "secret" not in seen.message
        return seen


@case("UNAVAILABLE")
async def a_store_that_is_gone(world: World) -> Seen:
    async with world.context() as (stub, app):
        await app._store.close()
        return await refused(stub.LoadContext(load(), timeout=5))


@case("UNAVAILABLE", literally=False)
async def an_agent_that_still_warms_up(world: World) -> Seen:
    async def for_ever(_: Playbook) -> None:
        await asyncio.Event().wait()

    world.patch.setattr(Playbook, "warm", for_ever)
    async with world.agent() as stub:
        seen = await refused(respond(stub, [begin(), KNOWN]))
        assert seen.metadata == {"component": "model"}
        return seen


@case("UNAVAILABLE", literally=False)
async def an_agent_that_has_enough_to_do(world: World) -> Seen:
    async with world.agent(SDR_AGENT_MAX_REPLIES="1", SDR_AGENT_PLAYBOOK_DELAY_MS="5000") as stub:
        first = asyncio.create_task(respond(stub, [begin(), KNOWN]))
        while not (await stub.GetAgent(agent_pb.GetAgentRequest(), timeout=5)).active_replies:
            await asyncio.sleep(0.01)
        seen = await refused(respond(stub, [begin(), KNOWN]))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert seen.retry_after_ms and seen.metadata == {"component": "replies"}
        return seen


@case("UNAVAILABLE", literally=False)
async def a_disk_without_room_for_a_copy(world: World) -> Seen:
    world.patch.setattr(backups, "SPARE_BYTES", 1 << 60)
    async with world.context() as (stub, _):
        seen = await refused(stub.Backup(context_pb.BackupRequest(name="nightly"), timeout=5))
        assert seen.metadata == {"component": "backup"}
        return seen


@case("NOT_FOUND")
async def a_lane_of_nobody(world: World) -> Seen:
    async with world.buffer() as stub:
        return await refused(stub.GetLane(pb.GetLaneRequest(scope=SCOPE, alias="phone:1"), timeout=5))


@case("NOT_FOUND", literally=False)
async def a_conversation_of_nobody(world: World) -> Seen:
    async with world.buffer() as stub:
        return await refused(stub.PauseConversation(pb.PauseConversationRequest(conversation_id="x"), timeout=5))


@case("NOT_FOUND", literally=False)
async def a_dead_letter_that_never_was(world: World) -> Seen:
    async with world.buffer() as stub:
        return await refused(stub.ReplayDeadLetter(pb.ReplayDeadLetterRequest(dead_letter_id=7), timeout=5))


@case("NOT_FOUND", literally=False)
async def a_lead_that_never_wrote(world: World) -> Seen:
    async with world.context() as (stub, _):
        return await refused(stub.GetLead(context_pb.GetLeadRequest(contact="1"), timeout=5))


@case("NOT_FOUND", literally=False)
async def an_export_of_nobody(world: World) -> Seen:
    async with world.context() as (stub, _):
        return await refused(stub.ExportContact(context_pb.ExportContactRequest(contact="1"), timeout=5).read())


@case("BUFFER_FULL")
async def one_message_too_many(world: World) -> Seen:
    async with world.buffer(SDR_BUFFER_MAX_PENDING_MESSAGES="1") as stub:
        await enqueue(stub, message("m1"))
        seen = await refused(enqueue(stub, message("m2")))
        assert seen.retry_after_ms
        return seen


@case("SUPERSEDED")
async def a_reply_to_too_little(world: World) -> Seen:
    async with world.buffer() as stub:
        await enqueue(stub, message("m1"))
        await enqueue(stub, message("m2"))
        worker, turn_ = await assigned_to(stub)
        committed = await worker.commit(turn_, "Olá!", revision=turn_.revision - 1)
        assert [m.message_id for m in committed.superseded.messages] == ["m1", "m2"]
        assert committed.refusal.metadata["revision"] == "2"
        return in_frame(committed)


@case("STALE_EPOCH")
async def a_worker_from_yesterday(world: World) -> Seen:
    async with world.buffer() as stub:
        await enqueue(stub, message("m1"))
        worker, turn_ = await assigned_to(stub)
        turn_.epoch -= 1
        return in_frame(await worker.commit(turn_, "Olá!"))


@case("PAUSED")
async def a_reply_while_a_human_answers(world: World) -> Seen:
    async with world.buffer() as stub:
        [result] = await enqueue(stub, message("m1"))
        worker, turn_ = await assigned_to(stub)
        committed = await worker.commit(turn_, "um", "dois")
        pause = pb.PauseConversationRequest(conversation_id=result.conversation_id)
        await stub.PauseConversation(pause, timeout=5)
        return in_frame(await worker.result(turn_, committed.go))


@case("WRONG_STATE", example=0)
async def a_commit_to_a_turn_that_has_ended(world: World) -> Seen:
    async with world.buffer() as stub:
        await enqueue(stub, message("m1"))
        worker, turn_ = await assigned_to(stub)
        await worker.answer(turn_, "Olá!")
        return in_frame(await worker.commit(turn_, "Olá de novo!"))


@case("WRONG_STATE", example=0, literally=False)
async def a_finish_before_the_end(world: World) -> Seen:
    async with world.buffer() as stub:
        await enqueue(stub, message("m1"))
        worker, turn_ = await assigned_to(stub)
        return in_frame(await worker.finish(turn_))


@case("WRONG_STATE", example=1)
async def a_replay_before_the_honest_sentence_was_sent(world: World) -> Seen:
    async with world.buffer(SDR_BUFFER_MAX_ATTEMPTS="1") as stub:
        await enqueue(stub, message("m1"))
        worker, turn_ = await assigned_to(stub)
        release = pb.Release(turn_id=turn_.turn_id, epoch=turn_.epoch, reason=pb.RELEASE_REASON_FAILED)
        await worker.call.write(pb.RunTurnsRequest(release=release))
        await worker.assigned()
        letters = await stub.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=5)
        replay = pb.ReplayDeadLetterRequest(dead_letter_id=letters.dead_letters[0].dead_letter_id)
        return await refused(stub.ReplayDeadLetter(replay, timeout=5))


@case("WRONG_STATE", example=2)
async def a_summary_that_is_older_than_the_one_there(world: World) -> Seen:
    async with world.context() as (stub, _):
        for turn_id in ("t1", "t2"):
            await stub.RecordTurn(context_pb.RecordTurnRequest(record=turn(turn_id)), timeout=5)
        newer = context_pb.PutSummaryRequest(conversation_id="c1", summary="nova", version=2, through_sequence=4)
        await stub.PutSummary(newer, timeout=5)
        older = context_pb.PutSummaryRequest(conversation_id="c1", summary="velha", version=2, through_sequence=2)
        return await refused(stub.PutSummary(older, timeout=5))


@case("WRONG_STATE", example=3)
async def a_backup_of_the_buffer_under_a_name_that_is_taken(world: World) -> Seen:
    async with world.buffer() as stub:
        await stub.Backup(pb.BackupRequest(name="nightly"), timeout=5)
        return await refused(stub.Backup(pb.BackupRequest(name="nightly"), timeout=5))


@case("WRONG_STATE", example=3)
async def a_backup_of_the_context_under_a_name_that_is_taken(world: World) -> Seen:
    async with world.context() as (stub, _):
        await stub.Backup(context_pb.BackupRequest(name="nightly"), timeout=5)
        return await refused(stub.Backup(context_pb.BackupRequest(name="nightly"), timeout=5))


@case("FORGOTTEN")
async def a_late_record_of_a_forgotten_person(world: World) -> Seen:
    async with world.context() as (stub, _):
        forget = context_pb.ForgetContactRequest(contact="5581999998888", conversation_ids=["c1"])
        await stub.ForgetContact(forget, timeout=5)
        return await refused(stub.RecordTurn(context_pb.RecordTurnRequest(record=turn()), timeout=5))


@case("NOT_IMPLEMENTED")
async def a_method_of_a_later_version(world: World) -> Seen:
    async with world.agent() as stub:
        return await refused(stub.Summarize(agent_pb.SummarizeRequest(), timeout=5))


@case("BAD_PAGE_TOKEN")
async def a_made_up_page_of_lanes(world: World) -> Seen:
    async with world.buffer() as stub:
        return await refused(stub.ListLanes(pb.ListLanesRequest(page_token="x"), timeout=5))


@case("BAD_PAGE_TOKEN")
async def a_made_up_page_of_dead_letters(world: World) -> Seen:
    async with world.buffer() as stub:
        return await refused(stub.ListDeadLetters(pb.ListDeadLettersRequest(page_token="x"), timeout=5))


@case("BAD_PAGE_TOKEN")
async def a_made_up_page_of_leads(world: World) -> Seen:
    async with world.context() as (stub, _):
        return await refused(stub.ListLeads(context_pb.ListLeadsRequest(page_token="x"), timeout=5))


@case("MODEL_FAILED")
async def a_model_that_breaks(world: World) -> Seen:
    async def broken(*_: object, **__: object) -> AsyncIterator[None]:
        raise RuntimeError("secret")
        yield

    async with world.agent() as stub:
        world.patch.setattr(Playbook, "stream", broken)
        seen = await refused(respond(stub, [begin(), KNOWN]))
        assert "secret" not in seen.message
        return seen


@case("MODEL_FAILED")
async def a_model_that_takes_too_long(world: World) -> Seen:
    async with world.agent(SDR_AGENT_PLAYBOOK_DELAY_MS="60000") as stub:
        return await refused(respond(stub, [begin(remaining=ms_to_duration(100)), KNOWN]))


@case("MODEL_FAILED", example=1)
async def a_summary_that_fails_and_costs_all_the_same(world: World) -> Seen:
    lines = [
        lead_pb2.HistoryMessage(author=message_pb2.AUTHOR_LEAD, text="oi " * 200, sequence=n) for n in range(1, 60)
    ]
    async with OpenAIServer(otherwise=says("<|im_start|>")) as server:
        environ = {"SDR_AGENT_MODEL": f"openai:{MODEL}", "OPENAI_BASE_URL": server.url}
        async with world.agent(**environ) as stub:
            await until_warm(stub)
            return await refused(stub.Summarize(agent_pb.SummarizeRequest(history=lines), timeout=5))


@case("PROTOCOL")
async def a_reply_that_begins_with_the_context(world: World) -> Seen:
    async with world.agent() as stub:
        return await refused(respond(stub, [KNOWN]))


@case("PROTOCOL", literally=False)
async def a_reply_that_begins_twice(world: World) -> Seen:
    async with world.agent() as stub:
        return await refused(respond(stub, [begin(), begin()]))


@case("PROTOCOL", literally=False)
async def a_worker_without_a_name(world: World) -> Seen:
    async with world.buffer() as stub:
        call = stub.RunTurns()
        await call.write(pb.RunTurnsRequest(hello=pb.Hello(capacity=1)))
        return await refused(call.read())


@case("DEADLINE_EXCEEDED")
async def a_context_that_never_comes(world: World) -> Seen:
    async with world.agent() as stub:
        return await refused(respond(stub, [begin(remaining=ms_to_duration(50))]))


# ---- one against the other


@pytest.mark.parametrize(("reason", "example", "literally", "provoke"), CASES)
async def test_code_reason_and_metadata_are_what_the_contract_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, example: int, literally: bool, provoke: Provoke
) -> None:
    seen = await provoke(World(path=tmp_path, patch=monkeypatch))
    documented = CONTRACT[reason]
    assert (seen.reason, seen.metadata.keys()) == (reason, documented.examples[example].keys())
    assert seen.code in (None, documented.code)
    assert seen.message and all(seen.metadata.values())
    if literally:
        fixed = documented.examples[example].keys() - OPAQUE
        assert {key: seen.metadata[key] for key in fixed} == {key: documented.examples[example][key] for key in fixed}


def test_the_contract_is_read_whole() -> None:
    assert set(CONTRACT) == set(error_reason_pb2.ErrorReason.keys())
    codes = {code.name for code in grpc.StatusCode}
    for reason, documented in CONTRACT.items():
        if reason not in UNREACHABLE:
            assert documented.code in codes and documented.examples, reason


def test_every_example_is_provoked_above() -> None:
    wanted = {(reason, n) for reason, documented in CONTRACT.items() for n in range(len(documented.examples))}
    assert wanted - SHOWN == {(reason, 0) for reason in UNREACHABLE if CONTRACT[reason].examples}


def test_no_typed_error_is_missing_from_the_contract() -> None:
    for name in ("service_kit", "buffer_service", "context_service", "agent_service"):
        members = vars(importlib.import_module(f"{name}.errors")).values()
        typed = [m for m in members if isinstance(m, type) and issubclass(m, errors.ServiceError)]
        for error in typed:
            if error.reason not in NOT_IN_THE_CONTRACT:
                assert CONTRACT[error.reason].code == error.code.name, error
    assert not set(NOT_IN_THE_CONTRACT) & set(CONTRACT)
