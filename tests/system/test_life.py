"""Start, stop and refuse: order does not matter, SIGTERM loses nothing, health tells the truth, unsafe is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy.running import free_addresses, free_port
from tests.system.harness import ROOT, SERVICES, System, new_contact, on_the_modules_loop, running, webhook

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
SETTINGS = {"SDR_AGENT_PLAYBOOK_DELAY_MS": "700"}


def start_alone(name: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """One service by itself, which is expected to refuse."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SDR_", "EVOLUTION_"))}
    return subprocess.run(
        [sys.executable, "-m", name],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", **free_addresses(), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@on_the_modules_loop
async def test_the_order_of_starting_does_not_matter(system: System) -> None:
    for name in SERVICES:
        await system.manage("stopProcess", name)
    for name in ("ingress", "agent_service", "context_service", "buffer_service"):
        await system.manage("startProcess", name, False)
        await asyncio.sleep(0.7)
    await system.wait_ready()
    contact = new_contact()
    await system.deliver(webhook(contact, "oi"))
    await system.settled(contact, 1)
    assert system.heard(contact)


@on_the_modules_loop
@pytest.mark.parametrize("name", SERVICES)
async def test_sigterm_drains_within_20_seconds_and_loses_nothing(system: System, name: str) -> None:
    contacts = [new_contact() for _ in range(5)]
    await asyncio.gather(*(system.deliver(webhook(c, "oi")) for c in contacts))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await system.manage("stopProcess", name)
    assert time.monotonic() - started < 20
    await system.manage("startProcess", name, False)
    await system.wait_ready()
    for contact in contacts:
        lane = await system.settled(contact, 1)
        [turn] = lane.ended_turns
        assert [p.text for p in turn.parts] == system.heard(contact)
        assert not turn.truncated


@on_the_modules_loop
async def test_health_follows_the_service_both_ways(system: System) -> None:
    async with grpc.aio.insecure_channel(system.address["buffer_service"]) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        answer = await check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await system.manage("stopProcess", "agent_service")
    await system.wait_ready(without=["agent"])
    await system.manage("stopProcess", "buffer_service")
    await system.wait_not_ready()
    assert await system.post(webhook(new_contact(), "oi")) == 503
    await system.manage("startProcess", "buffer_service", False)
    await system.manage("startProcess", "agent_service", False)
    await system.wait_ready()


@on_the_modules_loop
async def test_a_second_buffer_on_the_same_file_refuses_to_start(system: System) -> None:
    second = await asyncio.to_thread(
        start_alone,
        "buffer_service",
        SDR_DATA_DIR=str(system.directory),
        SDR_BUFFER_ADDRESS=f"127.0.0.1:{free_port()}",
    )
    assert second.returncode == 3
    assert "in use by another buffer" in second.stderr


def test_a_taken_port_names_who_holds_it(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        for name, variable in (("buffer_service", "SDR_BUFFER_ADDRESS"), ("ingress", "SDR_INGRESS_ADDRESS")):
            refused = start_alone(name, SDR_DATA_DIR=str(tmp_path), **{variable: f"127.0.0.1:{port}"})
            assert refused.returncode == 3
            assert str(os.getpid()) in refused.stderr and str(port) in refused.stderr


EVOLUTION = {"EVOLUTION_API_URL": "http://127.0.0.1:9", "EVOLUTION_API_KEY": "k" * 20}
UNSAFE = [
    ("buffer_service", {"SDR_DATA_DIR": "/proc/nowhere"}, "SDR_DATA_DIR"),
    ("context_service", {"SDR_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere"),
    ("buffer_service", {"SDR_BUFER_ADDRESS": "127.0.0.1:1"}, "SDR_BUFFER_ADDRESS"),
    ("buffer_service", {"SDR_BUFFER_STORE": "redis://localhost"}, "only sqlite"),
    ("context_service", {"SDR_CONTEXT_STORE": "supabase"}, "SDR_CONTEXT_STORE"),
    ("agent_service", {"SDR_AGENT_MODEL": "openai:gpt"}, "SDR_AGENT_MODEL"),
    ("agent_service", {"SDR_PERSONA": "nobody-here"}, "nobody-here"),
    ("ingress", EVOLUTION, "anybody could send webhooks"),
    ("ingress", {**EVOLUTION, "EVOLUTION_WEBHOOK_TOKEN": "t" * 20}, "SDR_PERSONA"),
    ("ingress", {**EVOLUTION, "EVOLUTION_WEBHOOK_TOKEN": "short", "SDR_PERSONA": "demo-solar"}, "16 bytes"),
    ("ingress", {"SDR_ADMIN_ADDRESS": "0.0.0.0:0"}, "SDR_ADMIN_TOKEN"),
]


@pytest.mark.parametrize(("name", "environ", "sentence"), UNSAFE)
def test_an_unsafe_configuration_does_not_start(
    tmp_path: Path, name: str, environ: dict[str, str], sentence: str
) -> None:
    refused = start_alone(name, **{"SDR_DATA_DIR": str(tmp_path), **environ})
    assert refused.returncode == 3, refused.stderr
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
    for secret in ("k" * 20, "t" * 20):
        assert secret not in refused.stderr + refused.stdout


async def test_a_blocked_worker_loses_its_turn_to_nobody_but_itself(tmp_path: Path) -> None:
    """SIGSTOP of ingress for three leases: its old epoch is refused, and the lead gets one answer."""
    async with running(tmp_path, SDR_AGENT_PLAYBOOK_DELAY_MS="1500", SDR_BUFFER_LEASE_MS="1500") as system:
        contact = new_contact()
        await system.deliver(webhook(contact, "oi"))
        await asyncio.sleep(0.3)
        pid = await system.kill("ingress", signal.SIGSTOP)
        await asyncio.sleep(4.5)
        os.kill(pid, signal.SIGCONT)
        lane = await system.settled(contact, 1)
        [turn] = lane.ended_turns
        assert [p.text for p in turn.parts] == system.heard(contact)
        assert len(system.heard(contact)) == len(set(system.heard(contact)))
