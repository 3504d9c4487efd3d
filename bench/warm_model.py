"""What a warm model is worth: `python -m bench.warm_model [--quick] [--model FILE] [--json FILE]`.

The agent's own engine on weights in this process, with a fixed prefix of about 1 200 tokens. Time is from the call to
the first piece of text, or, cold, from the start of a process that loads the weights to that piece. The four ways are
measured by turns, so that the machine is the same for all of them. Only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_service.chat import ChatMessage, ChatRequest, ChatUsage, TextPiece
from agent_service.models.local import LocalEngine
from agent_service.models.local_settings import LocalSettings
from bench.small_weights import small_weights
from service_kit import logs
from service_kit.settings import load

SLOTS = 4
PREFIX_TOKENS = 1_200
MAX_OF_WARM = 0.08
MAX_OF_COLD = 0.05
CANCEL_MS = 200.0
_PATIENCE_S = 120.0
_RULE = "Regra {}: responda com calma, uma pergunta por vez, e nunca prometa um valor que não está nos fatos."


@dataclass(frozen=True, kw_only=True)
class First:
    """One call: milliseconds to its first text, and what of its prompt was cached."""

    ms: float
    usage: ChatUsage


@dataclass(kw_only=True)
class Measured:
    """Everything of one run. `concurrent` is per call, of four calls at once."""

    prefix_tokens: int = 0
    cold_ms: list[float] = field(default_factory=list)
    warm: list[First] = field(default_factory=list)
    primed: list[First] = field(default_factory=list)
    concurrent: list[First] = field(default_factory=list)
    load_ms: list[float] = field(default_factory=list)
    prime_ms: list[float] = field(default_factory=list)
    cancel_ms: list[float] = field(default_factory=list)
    cancel_tokens: list[int] = field(default_factory=list)


@asynccontextmanager
async def opened(model: Path, *, threads: int) -> AsyncGenerator[LocalEngine, None]:
    """The engine with its weights loaded, and nothing primed."""
    environ = {
        "SDR_AGENT_LOCAL_SLOTS": str(SLOTS),
        "SDR_AGENT_LOCAL_CONTEXT_TOKENS": "2048",
        "SDR_AGENT_LOCAL_THREADS": str(threads),
    }
    engine = LocalEngine(path=model, settings=load(LocalSettings, environ=environ, env_file=None))
    try:
        await engine.open()
        yield engine
    finally:
        await engine.close()


async def prefix_of(engine: LocalEngine, *, tokens: int) -> ChatRequest:
    """A system message of about so many tokens."""
    each = await engine.count_tokens(_RULE.format(10) + "\n") or 1
    return _prefix(round(tokens / each))


def _prefix(rules: int, *, first: str = "") -> ChatRequest:
    text = first + "\n".join(_RULE.format(number) for number in range(rules))
    return ChatRequest(messages=(ChatMessage(role="system", content=text),), max_output_tokens=4)


async def first_text(engine: LocalEngine, prefix: ChatRequest, message: str, *, since: float | None = None) -> First:
    """Ask, and take the time of the first text."""
    began = time.monotonic() if since is None else since
    ms, usage = float("nan"), ChatUsage()
    async with aclosing(engine.chat(_asked(prefix, message), ends_at=_ends_at())) as events:
        async for event in events:
            if isinstance(event, TextPiece) and ms != ms:
                ms = (time.monotonic() - began) * 1000
            elif isinstance(event, ChatUsage):
                usage = event
    return First(ms=ms, usage=usage)


async def cancelled(engine: LocalEngine, prefix: ChatRequest, message: str) -> tuple[float, int]:
    """Leave in the middle of a reply; milliseconds until the engine is idle, and tokens that it wrote after that."""
    request = ChatRequest(messages=_asked(prefix, message).messages, max_output_tokens=600)
    pieces = 0
    async with aclosing(engine.chat(request, ends_at=_ends_at())) as events:
        async for _ in events:
            pieces += 1
            if pieces == 5:
                break
        before = (await engine.server.counters())["tokens_predicted_total"]
        left = time.monotonic()
    while any(slot.busy for slot in await engine.server.slots()):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)
    ms = (time.monotonic() - left) * 1000
    return ms, round((await engine.server.counters())["tokens_predicted_total"] - before)


async def measure(model: Path, *, rounds: int, threads: int, tokens: int = PREFIX_TOKENS) -> Measured:
    """By turns: a cold process, warm without the prefix, primed, four at once."""
    found = Measured()
    async with opened(model, threads=threads) as engine:
        prefix = await prefix_of(engine, tokens=tokens)
        rules = len(prefix.messages[0].content.splitlines())
        found.prefix_tokens = await engine.count_tokens(prefix.messages[0].content) or 0
        for number in range(rounds):
            found.cold_ms.append(await asyncio.to_thread(_cold_process, model, rules, threads))
            # Another first word, and nothing of it can be in the cache.
            unknown = _prefix(rules, first=f"Versão {number}. ")
            found.warm.append(await first_text(engine, unknown, f"Oi, quanto custa? {number}"))
            fresh = _prefix(rules, first=f"Persona {number}. ")
            began = time.monotonic()
            await engine.warm(fresh)
            found.prime_ms.append((time.monotonic() - began) * 1000)
            for again in range(3):
                found.primed.append(await first_text(engine, fresh, f"{again} Oi, quanto custa?"))
            messages = [f"{each} Bom dia, vocês atendem aqui?" for each in range(SLOTS)]
            found.concurrent += await asyncio.gather(*(first_text(engine, fresh, text) for text in messages))
            ms, tokens = await cancelled(engine, fresh, "Conte tudo.")
            found.cancel_ms.append(ms)
            found.cancel_tokens.append(tokens)
        found.load_ms.append(float(engine.state().cold_start_ms or 0))
    return found


def _cold_process(model: Path, rules: int, threads: int) -> float:
    """Milliseconds from the start of a process to its first text."""
    command = [sys.executable, "-m", "bench.warm_model", "--cold", str(rules)]
    command += ["--model", str(model), "--threads", str(threads)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        ms = (time.monotonic() - began) * 1000
        if process.wait(timeout=_PATIENCE_S) or line.strip() != "first":
            raise RuntimeError("the cold process gave no text")
    return ms


async def _cold(model: Path, rules: int, threads: int) -> None:
    async with opened(model, threads=threads) as engine:
        asked = _asked(_prefix(rules), "Oi, quanto custa?")
        async with aclosing(engine.chat(asked, ends_at=_ends_at())) as events:
            async for event in events:
                if isinstance(event, TextPiece):
                    print("first", flush=True)
                    break


def numbers(found: Measured) -> dict[str, Any]:
    """Medians and ratios."""
    primed = statistics.median(one.ms for one in found.primed)
    warm = statistics.median(one.ms for one in found.warm)
    cold = statistics.median(found.cold_ms)
    return {
        "prefix_tokens": found.prefix_tokens,
        "cold_ms": round(cold, 1),
        "warm_ms": round(warm, 1),
        "primed_ms": round(primed, 1),
        "concurrent_ms": round(statistics.median(one.ms for one in found.concurrent), 1),
        "concurrent_worst_ms": round(max(one.ms for one in found.concurrent), 1),
        "primed_of_warm": round(primed / warm, 4),
        "primed_of_cold": round(primed / cold, 4),
        "cached": {name: _cached(getattr(found, name)) for name in ("warm", "primed", "concurrent")},
        "load_ms": round(statistics.median(found.load_ms), 1),
        "prime_ms": round(statistics.median(found.prime_ms), 1),
        "cancel_ms": round(max(found.cancel_ms), 1),
        "cancel_tokens": max(found.cancel_tokens),
    }


def report(found: dict[str, Any]) -> str:
    """For people."""
    warm, primed = found["warm_ms"], found["primed_ms"]
    rows = [
        ("cold process", found["cold_ms"], "", ""),
        ("warm, without the prefix", warm, found["cached"]["warm"], ""),
        ("primed", primed, found["cached"]["primed"], _targets(found)),
        (f"primed, {SLOTS} at once", found["concurrent_ms"], found["cached"]["concurrent"], _worst(found)),
    ]
    lines = [
        f"{os.cpu_count()} cores; {SLOTS} slots; a fixed prefix of {found['prefix_tokens']} tokens",
        f"{'':<26}{'ms to the first text':>21}{'of warm':>9}{'of cold':>9}{'cached':>8}",
    ]
    for title, ms, cached, note in rows:
        ratios = f"{ms / warm:>9.1%}{ms / found['cold_ms']:>9.1%}"
        lines.append(f"{title:<26}{ms:>21.0f}{ratios}{cached:>8}  {note}".rstrip())
    lines.append(f"loading {found['load_ms']:.0f} ms; priming all {SLOTS} slots {found['prime_ms']:.0f} ms")
    verdict = "met" if found["cancel_ms"] <= CANCEL_MS else "MISSED"
    lines.append(
        f"a cancelled reply: {found['cancel_tokens']} tokens more, idle after {found['cancel_ms']:.0f} ms at worst, "
        f"at most {CANCEL_MS:g}: {verdict}"
    )
    return "\n".join(lines)


def _targets(found: dict[str, Any]) -> str:
    met = found["primed_of_warm"] <= MAX_OF_WARM and found["primed_of_cold"] <= MAX_OF_COLD
    return f"at most {MAX_OF_WARM:.0%} and {MAX_OF_COLD:.0%}: {'met' if met else 'MISSED'}"


def _worst(found: dict[str, Any]) -> str:
    return f"the last of them after {found['concurrent_worst_ms']:.0f} ms"


def _cached(calls: Sequence[First]) -> str:
    return f"{sum(one.usage.cached for one in calls) / sum(one.usage.prompt for one in calls):.0%}"


def _asked(prefix: ChatRequest, message: str) -> ChatRequest:
    messages = (*prefix.messages, ChatMessage(role="user", content=message))
    return ChatRequest(messages=messages, max_output_tokens=prefix.max_output_tokens)


def _ends_at() -> float:
    return asyncio.get_running_loop().time() + _PATIENCE_S


def main() -> int:
    """Measures and prints; a missed target is no failure."""
    parser = argparse.ArgumentParser(description="First token of local weights: cold, warm, primed, four at once.")
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the small one")
    parser.add_argument("--threads", type=int, default=0, help="0: as the agent chooses")
    parser.add_argument("--prefix", type=int, default=PREFIX_TOKENS, help="tokens of the fixed prefix")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    parser.add_argument("--cold", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logs.configure(service="bench", level="ERROR")
    model = arguments.model or small_weights()
    if arguments.cold:
        asyncio.run(_cold(model, arguments.cold, arguments.threads))
        return 0
    rounds = 1 if arguments.quick else 3
    measured = measure(model, rounds=rounds, threads=arguments.threads, tokens=arguments.prefix)
    found = numbers(asyncio.run(measured))
    print(report(found))
    if arguments.json:
        arguments.json.write_text(json.dumps({"cores": os.cpu_count(), **found}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
