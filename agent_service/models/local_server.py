"""llama.cpp's server inside this process: how it is started, asked about itself, and stopped.

What it does was measured on xllamacpp 2026.10 (llama.cpp b11549):

- It has threads of its own and installs no signal handler. It must be started after any fork; the agent never forks.
- Making and dropping the `Server` hold Python's lock: nothing else of this process runs meanwhile. Hence the file is
  read into the page cache before, and all slots are idle before it is dropped; with an open stream that took 30 s.
- It serves whoever can reach the port, so that each start makes a key that only this process knows.
- A `id_slot` that does not exist waits for ever.
"""

import asyncio
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp

from agent_service.chat import ModelTrouble, Trouble
from agent_service.models.local_settings import LocalSettings
from agent_service.models.local_weights import Weights
from service_kit import logs
from service_kit.settings import ConfigurationError

# Tokens of prompt that are read at once. It is how late a cancelled turn stops, and how long the other slots' next
# tokens wait; larger ones read hardly faster on CPUs.
_BATCH = 128
_ERRORS_ONLY = 1
_READ_BYTES = 4 << 20
_CALL_S = 10.0
# A reply that holds the slot comes to its end first.
_SLOT_S = 60.0
_IDLE_POLL_S = 0.02
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
_log = logs.get(__name__)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One of the server's conversations at a time; `tokens` is the prompt that it was given last, 0 if none."""

    number: int
    busy: bool
    tokens: int


class LocalServer:
    """One per process. `start` before anything else; `url` and `key` are what a client needs."""

    def __init__(self, *, weights: Weights, settings: LocalSettings, template: str = "") -> None:
        self._weights = weights
        self._settings = settings
        self._template = template
        self._server: Any = None
        self._http: aiohttp.ClientSession | None = None
        # States of slots; the persona's prompt stands in them, and nothing of any lead.
        self._states = tempfile.TemporaryDirectory(prefix="sdr-prefix-")
        self.url = ""
        self.key = secrets.token_urlsafe(24)

    async def start(self) -> None:
        """Load the weights. Errors: ConfigurationError."""
        await asyncio.to_thread(self._load)
        self.url = str(self._server.listening_address)
        self._http = aiohttp.ClientSession(
            self.url,
            headers={"authorization": f"Bearer {self.key}"},
            # The server drops connections that were kept; a new one on loopback costs nothing.
            connector=aiohttp.TCPConnector(force_close=True),
            trust_env=False,
        )

    async def stop(self, *, wait_s: float = 5.0) -> None:
        """Wait until the slots are idle, then let the weights go."""
        if self._http is not None:
            idle = await self._wait_idle(wait_s)
            await self._http.close()
            self._server = None
            _log.info("local_model_stopped", idle=idle)
        self._states.cleanup()

    async def render(self, messages: list[dict[str, Any]], tools: Any) -> str:
        """The prompt as the weights will read it."""
        body = {"messages": messages, "add_generation_prompt": True, **({"tools": tools} if tools else {})}
        return str((await self._post("/apply-template", body))["prompt"])

    async def count_tokens(self, text: str) -> int:
        """By the weights' own tokenizer, without the tokens that a prompt's start and markup add."""
        return len((await self._post("/tokenize", {"content": text}))["tokens"])

    async def read(self, slot: int, prompt: str, *, timeout_s: float) -> int:
        """Read the prompt into the slot and write one token. Answers the prompt's length in tokens."""
        body = {"prompt": prompt, "id_slot": slot, "n_predict": 1, "cache_prompt": True}
        return int((await self._post("/completion", body, timeout_s=timeout_s))["tokens_evaluated"])

    async def keep(self, slot: int, name: str) -> int:
        """Remember the slot's state under that name, when it is idle. Answers its length in tokens."""
        return int((await self._post(f"/slots/{slot}?action=save", {"filename": name}, timeout_s=_SLOT_S))["n_saved"])

    async def put(self, slot: int, name: str) -> None:
        """Give the slot a remembered state, milliseconds instead of seconds; a busy slot gets it when it is idle."""
        await self._post(f"/slots/{slot}?action=restore", {"filename": name}, timeout_s=_SLOT_S)

    async def slots(self) -> list[Slot]:
        """All of them."""
        return [
            Slot(number=slot["id"], busy=slot["is_processing"], tokens=slot.get("n_prompt_tokens", 0))
            for slot in await self._call("GET", "/slots")
        ]

    async def counters(self) -> dict[str, float]:
        """The engine's own counters, by their names without the prefix."""
        text = await self._call("GET", "/metrics")
        rows = [line.split() for line in text.splitlines() if line.startswith("llamacpp:")]
        return {name.removeprefix("llamacpp:"): float(value) for name, value in rows}

    async def _wait_idle(self, wait_s: float) -> bool:
        try:
            async with asyncio.timeout(wait_s):
                while any(slot.busy for slot in await self.slots()):  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(_IDLE_POLL_S)
        except (TimeoutError, ModelTrouble):
            return False
        return True

    def _load(self) -> None:
        try:
            xllamacpp = import_module("xllamacpp")
        except ImportError:
            raise ConfigurationError(
                "SDR_AGENT_MODEL=gguf:… needs llama.cpp, which is not installed: "
                "pip install 'agentic-sdr[local]' (make up installs it by itself)"
            ) from None
        _read_through(self._weights.path)
        try:
            self._server = xllamacpp.Server(self._params(xllamacpp))
        except (RuntimeError, ValueError):
            raise ConfigurationError(
                f"SDR_AGENT_MODEL: llama.cpp cannot load {self._weights.path}; the lines above say why "
                "(usually a file that is not whole, an architecture newer than llama.cpp, or too little memory)"
            ) from None

    def _params(self, xllamacpp: Any) -> Any:
        settings = self._settings
        params = xllamacpp.CommonParams()
        params.model.path = str(self._weights.path)
        params.port = 0
        params.api_keys = [self.key]
        params.n_parallel = settings.local_slots
        params.n_ctx = settings.local_slots * settings.local_context_tokens
        params.n_batch = params.n_ubatch = _BATCH
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.local_threads or calculating_threads()
        # A request holds one for as long as it runs; those about slots and tokens must not wait behind replies.
        params.n_threads_http = settings.local_slots + 8
        params.use_jinja = True
        params.chat_template = self._template
        # Words that no lead sees, seconds before the first that one does.
        params.enable_reasoning = 0
        params.cache_prompt = True
        # It would copy a slot's state to memory (8 GiB by default) whenever another conversation takes the slot.
        params.cache_ram_mib = 0
        params.slot_save_path = self._states.name + os.sep
        params.endpoint_metrics = params.endpoint_slots = True
        params.ui = False
        # It writes past our logs to stderr; below errors it would also quote what it was sent.
        params.verbosity = _ERRORS_ONLY
        return params

    async def _post(self, path: str, body: Mapping[str, Any], *, timeout_s: float = _CALL_S) -> Any:
        return await self._call("POST", path, body, timeout_s=timeout_s)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = _CALL_S
    ) -> Any:
        assert self._http is not None, "start() comes first"
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._http.request(method, path, json=None if body is None else dict(body)) as response,
            ):
                if response.status != 200:
                    raise ModelTrouble(Trouble.SERVER_ERROR, f"{path.partition('?')[0]}: {response.status}")
                return await (response.json() if response.content_type == "application/json" else response.text())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ModelTrouble(Trouble.UNREACHABLE, f"{path.partition('?')[0]}: {type(error).__name__}") from None


def calculating_threads() -> int:
    """One core less than there are, for everything else that runs.

    The threads wait for each other at every step: one that has to share its core holds up all. With a second busy
    process on two cores, two threads were two to seven times slower than one.
    """
    return max(1, usable_cores() - 1)


def usable_cores(cpu_max: Path = _CPU_MAX) -> int:
    """Cores that this process may keep busy, by its affinity and its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):
        return cores


def _read_through(path: Path) -> None:
    buffer = bytearray(_READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
