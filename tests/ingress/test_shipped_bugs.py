"""Bugs that others shipped in systems like this one, each with its story: the real turn runner and the real buffer.
What the buffer alone decides is in tests/buffer_service/test_shipped_bugs.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2, turn_pb2
from ingress import buffer_link
from service_kit.clock import SystemClock
from tests.ingress.test_turn_runner import CONTACT, HONEST, SCOPE, Rig, Runner, another, changes, done, rig, text

both = pytest.mark.parametrize("strategy", ["enqueue", "preempt"])


def update(name: str) -> agent_pb.RespondResponse:
    return agent_pb.RespondResponse(effect=turn_pb2.Effect(lead_update=turn_pb2.LeadUpdate(name=name)))


async def lead_types(r: Rig, composing: bool = True) -> None:
    """Holds the reply for two seconds, or lets it go: a busy machine must not decide what a test sees."""
    typing = pb.Event(scope=SCOPE, contact=CONTACT, presence=pb.Presence(composing=composing))
    await r.services.enqueue([typing])


def by_human(words: str, *, as_echo: bool, message_id: str = "h1") -> pb.Event:
    body = message_pb2.Message(
        message_id=message_id,
        author=message_pb2.AUTHOR_HUMAN,
        type=message_pb2.MESSAGE_TYPE_TEXT,
        text=words,
        foreign=as_echo,
    )
    if as_echo:
        return pb.Event(scope=SCOPE, contact=CONTACT, echo=body)
    return pb.Event(scope=SCOPE, contact=CONTACT, message=body)


@both
async def test_enqueue_between_the_last_dequeue_and_the_release(tmp_path: Path, strategy: str) -> None:
    """The worker had sent everything and was writing history when the customer wrote once more. The queue was read
    already, the lock not yet free: nobody answered until the next message."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY=strategy) as r:
        check = r.context._check

        async def slowly(context: Any) -> None:
            if len(r.provider.sent) == 1:
                r.provider.sent.append("-")
                await r.write("2")
            await check(context)

        r.context._check = slowly  # type: ignore[method-assign]
        await r.write("1")
        await r.until(lambda: len(r.finished) == 2)
        assert r.provider.sent == ["você disse 1", "-", "você disse 2"]


@both
async def test_a_message_in_mid_turn_kills_the_reply_in_flight(tmp_path: Path, strategy: str) -> None:
    """Every new message cancelled what was running, also when half of the reply was already out: the customer got the
    first bubble of three replies and the whole of none."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY=strategy) as r:
        second_came = asyncio.Event()

        async def interrupt() -> None:
            r.provider.before = None
            await r.write("2")
            second_came.set()

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            words = ",".join(m.text for m in begin.messages)
            yield text(f"um a {words}\n\n")
            await second_came.wait()
            yield text(f"dois a {words}")
            yield done()

        r.agent.reply, r.provider.before = reply, interrupt
        await r.write("1")
        await r.until(lambda: len(r.finished) == 2)
        assert r.provider.sent == ["um a 1", "dois a 1", "um a 2", "dois a 2"]
        assert r.agent.cancelled == 0


@pytest.mark.slow
@both
async def test_a_crash_after_the_first_bubble_loses_the_rest(tmp_path: Path, strategy: str) -> None:
    """The reply lived in the worker's memory and the message was acknowledged when the first bubble was out. A deploy
    later the customer had read "Temos três opções:" and nothing after it."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY=strategy, SDR_BUFFER_LEASE_MS="1500") as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            if not begin.said:
                yield text("um\n\n")
                await asyncio.sleep(60)
            yield text("dois")
            yield done()

        r.agent.reply = reply
        result = await r.write("oi")
        await r.until(lambda: r.provider.sent == ["um"])
        while (await r.lane(result.conversation_id)).turn.parts[0].state != turn_pb2.PART_STATE_SENT:
            await asyncio.sleep(0.01)
        await Runner(r.runner, r.running).dies()
        async with another(r):
            await r.until(lambda: bool(r.finished))
        assert list(r.agent.begins[-1].said) == ["um"]
        assert r.provider.sent == ["um", "dois"]
        [record] = r.context.records
        assert [p.text for p in record.parts] == ["um", "dois"] and not record.truncated


@pytest.mark.slow
@both
async def test_the_lease_expires_in_mid_turn(tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker stopped for a garbage collection, its lock ran out, another took the conversation over; then the first
    one woke, still believed in its lock, and the customer got both replies."""
    monkeypatch.setattr(buffer_link, "HEARTBEAT_S", 60.0)
    async with rig(tmp_path, SDR_BUFFER_STRATEGY=strategy, SDR_BUFFER_LEASE_MS="1500") as r:
        wakes, was_refused = asyncio.Event(), asyncio.Event()

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            number = len(r.agent.begins)
            await (wakes if number == 1 else was_refused).wait()
            yield update(f"nome {number}")
            yield text(f"resposta {number}")
            yield done()

        r.agent.reply = reply
        await r.write("oi")
        await r.until(lambda: bool(r.agent.begins))
        monkeypatch.undo()
        async with another(r):
            await r.until(lambda: len(r.agent.begins) == 2)
            wakes.set()
            await r.until(lambda: r.runner.held_turns == 0)
            was_refused.set()
            await r.until(lambda: bool(r.finished))
        assert r.provider.sent == ["resposta 2"]
        [record] = r.context.records
        assert [e.lead_update.name for e in changes(record)] == ["nome 2"]


@both
async def test_a_permission_is_used_long_after_it_was_given(tmp_path: Path, strategy: str) -> None:
    """The lock was checked, the process was stopped for a while, and then it sent: nothing had looked at the time
    between the check and the first byte. By then the turn had been given up, and answered by another."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY=strategy) as r:

        class Stopped(SystemClock):
            lost_s = 0.0

            def monotonic(self) -> float:
                return super().monotonic() + self.lost_s

        clock = r.runner._clock = Stopped()
        on_frame = r.runner.link._on_frame

        def stop_before_reading(frame: pb.RunTurnsResponse) -> None:
            if frame.committed.HasField("go") and not clock.lost_s:
                clock.lost_s = 5.0
            on_frame(frame)

        r.runner.link._on_frame = stop_before_reading
        await r.write("oi")
        await r.until(lambda: bool(r.finished))
        assert r.runner.counters["late_permissions"] == 1
        assert r.provider.sent == ["você disse oi"], "said to be not begun, and asked for again"


@pytest.mark.parametrize("told", ["joined", "refused"])
async def test_superseded_between_check_and_send(tmp_path: Path, told: str) -> None:
    """The worker asked "anything new?", heard no, and sent; in the millisecond between, the customer had written "não,
    espera". The draft must not be sent, whether the news overtakes the question or is its answer."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY="preempt") as r:
        if told == "refused":
            r.runner._joined = lambda joined: None  # type: ignore[method-assign]
        await r.write("1")
        await lead_types(r)
        await r.until(lambda: bool(r.agent.begins))
        await r.write("2")
        await lead_types(r, False)
        await r.until(lambda: bool(r.finished))
        assert r.provider.sent == ["você disse 1", "você disse 2"], "one reply, to both"
        [record] = r.context.records
        assert [m.text for m in record.messages] == ["1", "2"]


async def test_discarded_speculation_wrote_state(tmp_path: Path) -> None:
    """The model had called its tools before the next message made its reply worthless: the draft was thrown away, the
    customer's record kept the wrong budget."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY="preempt") as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            name = f"de {len(begin.messages)}"
            yield update(name)
            yield text(name)
            if len(begin.messages) == 2:
                await asyncio.sleep(60)
            yield agent_pb.RespondResponse(effect=turn_pb2.Effect(handoff=turn_pb2.Handoff(reason=name)))
            yield done()

        r.agent.reply = reply
        result = await r.write("1")
        await lead_types(r)
        await r.until(lambda: len(r.agent.begins) == 1)
        await asyncio.sleep(0.1)
        await r.write("2")
        await r.until(lambda: len(r.agent.begins) == 2)
        await asyncio.sleep(0.1)
        await r.write("3")
        await lead_types(r, False)
        await r.until(lambda: bool(r.finished))
        assert r.provider.sent == ["de 3"]
        assert not any(begin.said_effects or begin.said for begin in r.agent.begins)
        [record] = r.context.records
        assert [e.lead_update.name or e.handoff.reason for e in changes(record)] == ["de 3", "de 3"]
        kept = (await r.lane(result.conversation_id)).ended_turns[0]
        assert [p.text for p in kept.parts] == ["de 3"]


async def test_endless_typing_starves_the_reply(tmp_path: Path) -> None:
    """Every "typing…" pushed the reply back by two seconds. A customer whose phone lay face down on the keyboard got no
    answer for a quarter of an hour."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY="preempt", SDR_BUFFER_MAX_HOLD_MS="1200") as r:

        async def types() -> None:
            while True:
                await lead_types(r)
                await asyncio.sleep(0.1)

        loop = asyncio.get_running_loop()
        await r.write("oi")
        began = loop.time()
        typist = asyncio.create_task(types())
        await r.until(lambda: bool(r.provider.sent), seconds=5)
        took = loop.time() - began
        typist.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await typist
        assert 1.0 < took < 4.0, "typing holds the reply, and not for longer than the cap"


@both
@pytest.mark.parametrize("as_echo", [False, True], ids=["message", "echo"])
async def test_a_human_takes_over_between_two_parts(tmp_path: Path, strategy: str, as_echo: bool) -> None:
    """The seller wrote "deixa comigo" while the bot was in the middle of its answer; the bot's other two bubbles came
    after it, and quoted a price that the seller had just lowered."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY=strategy) as r:

        async def take_over() -> None:
            r.provider.before = None
            await r.services.enqueue([by_human("deixa comigo", as_echo=as_echo)])

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("um\n\ndois\n\ntrês")
            yield done()

        r.agent.reply, r.provider.before = reply, take_over
        result = await r.write("oi")
        await r.until(lambda: len(r.context.records) == 2)
        await r.write("e o preço?")
        await asyncio.sleep(0.2)
        assert r.provider.sent == ["um"], "only the part that was on its way"
        assert (await r.lane(result.conversation_id)).state == pb.LANE_STATE_PAUSED


@both
async def test_an_echo_before_the_http_reply_taken_for_a_foreign_send(tmp_path: Path, strategy: str) -> None:
    """The provider's copy of our own bubble overtook the answer to our request. Its id was unknown, so "a human wrote",
    so the bot silenced itself after its first bubble, in one conversation of fifty."""
    async with rig(tmp_path, SDR_BUFFER_STRATEGY=strategy) as r:
        words = ["um", "dois", "três"]

        async def echoes_first() -> None:
            number = len(r.provider.sent)
            said = words[number] if number != 1 else f"{words[number]} (editado)"
            await r.services.enqueue([by_human(said, as_echo=True, message_id=f"id-{number + 1}")])

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("\n\n".join(words))
            yield done()

        r.agent.reply, r.provider.before = reply, echoes_first
        result = await r.write("oi")
        await r.until(lambda: bool(r.finished))
        assert r.provider.sent == words
        assert (await r.lane(result.conversation_id)).state == pb.LANE_STATE_IDLE


@pytest.mark.slow
@both
async def test_an_oversized_turn_kills_one_worker_after_the_other(tmp_path: Path, strategy: str) -> None:
    """One customer pasted a novel. The worker that read it ran out of memory, the job went back to the queue, the next
    worker took it, and in ten minutes there was no worker left for anybody."""
    limits = {"SDR_BUFFER_LEASE_MS": "1500", "SDR_BUFFER_MAX_ATTEMPTS": "2"}
    async with rig(tmp_path, SDR_BUFFER_STRATEGY=strategy, **limits) as r:
        read = asyncio.Event()

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            if any(len(m.text) > 60_000 for m in begin.messages):
                read.set()
                await asyncio.sleep(60)
            yield text("oi")
            yield done()

        r.agent.reply = reply
        result = await r.write("x" * 64_000, "novel")
        await asyncio.wait_for(read.wait(), 5)
        await Runner(r.runner, r.running).dies()
        read.clear()
        async with another(r) as second:
            await asyncio.wait_for(read.wait(), 8)
            await second.dies()
            async with another(r):
                await r.until(lambda: bool(r.finished))
                assert r.provider.sent == [HONEST]
                await r.write("e agora?")
                await r.until(lambda: len(r.finished) == 2)
        assert len(r.agent.begins) == 3, "an apology asks no model"
        assert r.provider.sent == [HONEST, "oi"]
        letters = await r.services.buffer.ListDeadLetters(pb.ListDeadLettersRequest(), timeout=5)
        assert [len(m.text) for m in letters.dead_letters[0].messages] == [64_000]
        assert (await r.lane(result.conversation_id)).needs_human
