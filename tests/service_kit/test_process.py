"""A real process: ready line, drain, hard exit, failed starts, a blocked loop."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

pytestmark = pytest.mark.slow  # waits for real processes and real time

DUMMY = Path(__file__).with_name("dummy.py")
ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(**environ: str) -> subprocess.Popen[str]:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ}
        process = subprocess.Popen(
            [sys.executable, str(DUMMY)], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "service_ready":
            return event
    raise AssertionError(f"never ready: {process.communicate()}")


def call(address: str, method: str) -> Any:
    channel = grpc.insecure_channel(address)
    return channel, channel.unary_stream(f"/test.v1.Dummy/{method}")


def test_ready_line_names_the_bound_address(start: Start) -> None:
    event = wait_ready(start())
    assert re.fullmatch(r"127\.0\.0\.1:\d+", event["listening"])
    assert event["service"] == "dummy"
    channel = grpc.insecure_channel(event["listening"])
    assert channel.unary_unary("/test.v1.Dummy/Echo")(b"hi", timeout=5) == b"hi"
    channel.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_although_streams_are_open(start: Start, number: signal.Signals) -> None:
    process = start(SDR_DUMMY_GRACE_S="30")
    address = wait_ready(process)["listening"]
    channel, forever = call(address, "Forever")
    stream = forever(b"")
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    assert next(stream) == b"tick"
    assert next(watch) == b"\x08\x01"
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=10) == 0
    assert time.monotonic() - began < 4
    assert set(stream) <= {b"tick"}  # Ended with OK: iterating to the end does not raise.
    assert list(watch) == [b"\x08\x02"]
    channel.close()


def test_a_second_signal_exits_hard(start: Start) -> None:
    process = start(DUMMY_STUBBORN="1", SDR_DUMMY_GRACE_S="30")
    address = wait_ready(process)["listening"]
    channel, forever = call(address, "Forever")
    stream = forever(b"")
    assert next(stream) == b"tick"
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.terminate()
    assert process.wait(timeout=2) == 130
    channel.close()


def test_a_second_signal_works_although_the_loop_is_blocked(start: Start) -> None:
    """With the loop's own handlers, both signals waited for the loop."""
    process = start()
    address = wait_ready(process)["listening"]
    channel = grpc.insecure_channel(address)
    blocked = channel.unary_unary("/test.v1.Dummy/Block").future(b"9", timeout=9)
    time.sleep(1)
    process.terminate()
    time.sleep(0.2)
    process.terminate()
    assert process.wait(timeout=2) == 130
    blocked.cancel()
    channel.close()


def test_a_stubborn_stream_is_cut_at_the_grace(start: Start) -> None:
    process = start(DUMMY_STUBBORN="1", SDR_DUMMY_GRACE_S="0.5")
    address = wait_ready(process)["listening"]
    channel, forever = call(address, "Forever")
    stream = forever(b"")
    assert next(stream) == b"tick"
    process.terminate()
    assert process.wait(timeout=5) == 0
    channel.close()


def test_a_signal_during_open_stops_the_start(start: Start) -> None:
    process = start(DUMMY_OPEN="hang")
    assert process.stdout is not None
    assert process.stdout.readline() == "opening\n"
    process.terminate()
    assert process.wait(timeout=3) == 0


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"SDR_DUMY_ADDRESS": "x:1"},
            "dummy could not start: SDR_DUMY_ADDRESS is not a setting; did you mean SDR_DUMMY_ADDRESS?",
        ),
        (
            {"SDR_DUMMY_GRACE_S": "soon"},
            "dummy could not start: SDR_DUMMY_GRACE_S is not valid: input should be a valid",
        ),
        ({"SDR_DUMMY_ADDRESS": "nowhere"}, "dummy could not start: cannot listen on nowhere"),
        ({"SDR_DUMMY_ADDRESS": "unix:/nowhere/s"}, "the directory /nowhere does not exist"),
        ({"DUMMY_OPEN": "refuse"}, "dummy could not start: the store is of another version"),
        ({"DUMMY_OPEN": "crash"}, "dummy could not start: OSError: disk on fire"),
    ],
)
def test_a_failed_start_is_one_sentence_and_exit_3(start: Start, environ: dict[str, str], sentence: str) -> None:
    process = start(**environ)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 3
    assert sentence in stderr
    assert len(stderr.splitlines()) == 1


def test_a_taken_port_names_its_holder(start: Start) -> None:
    """With the default so_reuseport two processes shared a port and both answered."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        process = start(SDR_DUMMY_ADDRESS=address)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 3
    assert f"cannot listen on {address}: it is in use by process {os.getpid()} (" in stderr


def test_a_taken_socket_is_not_stolen(start: Start, tmp_path: Path) -> None:
    """gRPC unlinks an existing socket before it binds, and would cut a living service off."""
    address = f"unix:{tmp_path / 's'}"
    first = start(SDR_DUMMY_ADDRESS=address)
    wait_ready(first)
    second = start(SDR_DUMMY_ADDRESS=address)
    _, stderr = second.communicate(timeout=10)
    assert second.returncode == 3
    assert f"it is in use by process {first.pid} (" in stderr
    first.kill()
    first.wait()
    wait_ready(start(SDR_DUMMY_ADDRESS=address))


def test_a_dead_side_task_stops_the_process_loudly(start: Start) -> None:
    process = start(DUMMY_BACKGROUND="crash")
    stdout, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert any(json.loads(line)["event"] == "process_failed" for line in stdout.splitlines())
    assert "side task died" in stdout


def test_a_closed_stdout_does_not_stop_the_service(start: Start) -> None:
    process = start()
    address = wait_ready(process)["listening"]
    assert process.stdout is not None
    process.stdout.close()
    channel = grpc.insecure_channel(address)
    for _ in range(3):
        assert channel.unary_unary("/test.v1.Dummy/Echo")(b"hi", timeout=5) == b"hi"
    channel.close()
    process.terminate()
    assert process.wait(timeout=5) == 0


async def test_health_follows_the_loop(start: Start) -> None:
    address = wait_ready(start())["listening"]
    async with grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary("/test.v1.Dummy/Block")(b"1.6", timeout=5) == b"blocked"
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        async with asyncio.timeout(2):
            while await check(b"", timeout=1) != b"\x08\x02":
                await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            while await check(b"", timeout=1) != b"\x08\x01":
                await asyncio.sleep(0.1)
