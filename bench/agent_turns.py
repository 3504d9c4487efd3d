"""Many turns of a language model: `python -m bench.agent_turns [--quick] [--json FILE]`.

The real agent process before a scripted OpenAI-compatible server, three turns at a time. Shown: the TCP connections
that the turns opened, how much memory the process takes for each turn, and the streams that are open in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop

from agentic_sdr.agent.v1 import agent_service_pb2 as pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc as rpc
from agentic_sdr.common.v1 import lead_pb2, message_pb2
from bench.processes import NotStarted, Processes, free_ports
from bench.results import percentile
from service_kit.channels import client_options
from service_kit.durations import ms_to_duration, ms_to_timestamp

AT_ONCE = 3
MAX_CONNECTIONS = 3
MAX_BYTES_PER_TURN = 500.0
SAMPLES = 20
_TIMEOUT_S = 60.0
_READY = re.compile(r"ready (\S+)")


@dataclass(kw_only=True)
class Measured:
    """What was seen of the agent process."""

    turns: int
    took_ms: list[float] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)
    connections: int = 0
    open_streams: int = 0
    failures: int = 0
    warm_up_ms: int = 0

    @property
    def bytes_per_turn(self) -> float:
        """The slope of resident memory over the second half: the first one fills pools and caches."""
        half = self.memory[len(self.memory) // 2 :]
        mean_x = sum(turns for turns, _ in half) / len(half)
        mean_y = sum(size for _, size in half) / len(half)
        spread = sum((turns - mean_x) ** 2 for turns, _ in half)
        return sum((turns - mean_x) * (size - mean_y) for turns, size in half) / spread if spread else 0.0


async def measure(folder: Path, turns: int) -> Measured:
    """Starts both processes and has so many turns answered."""
    processes = Processes(folder)
    [port] = free_ports(1)
    try:
        processes.start("model", ["-m", "tests.stand_ins.openai_server"], {"PYTHONUNBUFFERED": "1"})
        url = await _ready(processes, folder / "model.log")
        environ = {
            "SDR_AGENT_ADDRESS": f"127.0.0.1:{port}",
            "SDR_AGENT_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": url,
            "SDR_LOG_LEVEL": "WARNING",
        }
        processes.start("agent_service", ["-m", "agent_service"], environ)
        await processes.wait_listening(port)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=client_options()) as channel:
            return await _turns(rpc.AgentServiceStub(channel), processes, turns)
    finally:
        processes.stop()


async def _turns(stub: Any, processes: Processes, turns: int) -> Measured:
    found = Measured(turns=turns)
    found.warm_up_ms = (await _warm(stub)).warm_up.ToMilliseconds()
    numbers = iter(range(turns))

    async def one() -> None:
        for number in numbers:
            started = time.perf_counter()
            await _turn(stub, number)
            found.took_ms.append((time.perf_counter() - started) * 1000)
            if len(found.took_ms) % max(1, turns // SAMPLES) == 0:
                found.memory.append((len(found.took_ms), processes.rss_bytes()["agent_service"]))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one())
    model = (await _agent(stub)).models[0]
    found.connections, found.open_streams = model.connections_opened, model.open_streams
    found.failures = model.failures
    return found


async def _turn(stub: Any, number: int) -> None:
    answered = False
    async for response in stub.Respond(_frames(number), timeout=_TIMEOUT_S):
        answered = answered or response.HasField("text")
    if not answered:
        raise RuntimeError(f"turn {number} was not answered")


def _frames(number: int) -> Iterator[pb.RespondRequest]:
    conversation, now = f"c-{number}", ms_to_timestamp(1_795_438_800_000 + number)
    message = message_pb2.Message(
        message_id=f"m-{number}",
        author=message_pb2.AUTHOR_LEAD,
        type=message_pb2.MESSAGE_TYPE_TEXT,
        text=f"oi, minha conta vem {number} reais",
        accept_time=now,
    )
    begin = pb.Begin(turn_id=f"t-{number}", conversation_id=conversation, remaining=ms_to_duration(30_000))
    begin.messages.append(message)
    yield pb.RespondRequest(begin=begin)
    yield pb.RespondRequest(context=lead_pb2.ConversationContext(conversation_id=conversation))


async def _warm(stub: Any) -> pb.GetAgentResponse:
    while True:
        agent = await _agent(stub)
        if agent.state != pb.AGENT_STATE_WARMING:
            return agent
        await asyncio.sleep(0.05)


async def _agent(stub: Any) -> pb.GetAgentResponse:
    agent: pb.GetAgentResponse = await stub.GetAgent(pb.GetAgentRequest(), timeout=_TIMEOUT_S)
    return agent


async def _ready(processes: Processes, log: Path) -> str:
    """The address that the scripted server prints when it listens."""
    ends = time.monotonic() + 20.0
    while time.monotonic() < ends:
        processes.check()
        if found := _READY.search(_read(log)):
            return found[1]
        await asyncio.sleep(0.05)
    raise NotStarted(f"the scripted server did not get ready; see {log}")


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8") if log.exists() else ""


def numbers(found: Measured) -> dict[str, Any]:
    """The same as the report, as data."""
    return {
        "turns": found.turns,
        "at_once": AT_ONCE,
        "p50_ms": round(percentile(found.took_ms, 50), 2),
        "p99_ms": round(percentile(found.took_ms, 99), 2),
        "connections": found.connections,
        "open_streams": found.open_streams,
        "failures": found.failures,
        "bytes_per_turn": round(found.bytes_per_turn, 1),
        "rss_bytes": [found.memory[0][1], found.memory[-1][1]],
        "warm_up_ms": found.warm_up_ms,
    }


def report(found: dict[str, Any]) -> str:
    """For people."""
    first, last = (size / (1 << 20) for size in found["rss_bytes"])
    rows = (
        ("TCP connections opened", found["connections"], f"at most {MAX_CONNECTIONS}", MAX_CONNECTIONS),
        ("streams open at the end", found["open_streams"], "none", 0),
        ("bytes of memory per turn", found["bytes_per_turn"], f"at most {MAX_BYTES_PER_TURN:g}", MAX_BYTES_PER_TURN),
        ("calls that failed", found["failures"], "none", 0),
    )
    return "\n".join(
        [
            f"{os.cpu_count()} cores; {found['turns']} turns, {found['at_once']} at a time, in new conversations; "
            f"p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms a turn; {first:.1f} to {last:.1f} MiB resident",
            *(
                f"{title:<26}{value:>10}  {target}: {'met' if value <= most else 'MISSED'}"
                for title, value, target, most in rows
            ),
        ]
    )


def main() -> int:
    """Measures and prints; 1 when a turn was not answered, never because of a number."""
    parser = argparse.ArgumentParser(description="Connections, memory and streams of many turns of a language model.")
    parser.add_argument("--quick", action="store_true", help="a third of the turns; the slope is coarse")
    parser.add_argument("--turns", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    arguments = parser.parse_args()
    turns = arguments.turns or (1_000 if arguments.quick else 3_000)
    with tempfile.TemporaryDirectory(prefix="sdr-bench-") as folder:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = numbers(runner.run(measure(Path(folder), turns)))
        except (NotStarted, TimeoutError, ExceptionGroup, grpc.aio.AioRpcError) as error:
            print(f"The measurement broke off: {error!r}", file=sys.stderr)
            return 1
    print(report(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
