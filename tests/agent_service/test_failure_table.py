"""The failure table of agent_service/README.md, row by row, through the real service and a scripted server.

`pytest -s -k sees_of_a_fault` prints it with the times of this machine; no test depends on them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

import agent_service
from agentic_sdr.agent.v1 import agent_service_pb2 as pb
from service_kit import errors
from tests.agent_service.language import TIMEOUT_S, Heard, ask, serving
from tests.agent_service.talking import demo
from tests.stand_ins.openai_server import MODEL, Answer, Called, OpenAIServer, calls, refuses, says

REAL = f"openai:{MODEL}"
PLAYBOOK = "playbook"
GOOD = "Bom dia! Aqui é a Helen, tudo bem?"
CUT = "Bom dia! Aqui é a Helen. "
SAVED = Called(name="update_lead", arguments='{"name": "João"}')
HALF = Called(name="update_lead", arguments='{"na')
OUT_OF_TURN = Called(name="send_message", arguments='{"to": "5581999990000"}')


OURS: Any = {"model": REAL, "text": GOOD}
BROKEN_OFF: Any = {"model": REAL, "text": CUT, "reason": "LENGTH"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault: how the server answers, and what becomes of the turn."""

    fault: str
    script: tuple[Answer, ...]
    model: str = PLAYBOOK
    why: str = ""
    reason: str = "STOP"
    calls: int = 1
    environ: dict[str, str] = field(default_factory=dict)
    text: str = ""


ROWS = (
    Row(fault="none", script=(says(GOOD),), **OURS),
    Row(fault="429, Retry-After 0.2 s", script=(refuses(429, Retry_After="0.2"), says(GOOD)), calls=2, **OURS),
    Row(fault="429, Retry-After 60 s", script=(refuses(429, Retry_After="60"),), why="rate_limited"),
    Row(fault="500 once", script=(refuses(500), says(GOOD)), calls=2, **OURS),
    Row(fault="500 again and again", script=(refuses(500),) * 2, why="server_error", calls=2),
    Row(fault="503 again and again", script=(refuses(503, Retry_After="0.1"),) * 2, why="server_error", calls=2),
    Row(fault="connection reset once", script=(Answer(fault="reset"), says(GOOD)), calls=2, **OURS),
    Row(fault="connection reset always", script=(Answer(fault="reset"),) * 9, why="unreachable", calls=3),
    Row(fault="refused (400)", script=(refuses(400),), why="refused"),
    Row(fault="key revoked (401)", script=(refuses(401),), why="refused"),
    Row(fault="hung before the headers", script=(Answer(wait_s=600),), why="no_first_token"),
    Row(fault="hung before the first token", script=(Answer(fault="hang"),), why="no_first_token"),
    Row(fault="hung in the first sentence", script=(says("Bom dia", fault="hang_after"),), why="stalled"),
    Row(fault="hung in mid-stream", script=(says(CUT, "Como", fault="hang_after"),), **BROKEN_OFF),
    Row(fault="reset in mid-stream", script=(says(CUT, "Como", fault="reset_after"),), **BROKEN_OFF),
    Row(fault="half JSON at once", script=(Answer(fault="half_json"),), why="broken"),
    Row(fault="half JSON in mid-stream", script=(says(CUT, fault="half_json"),), **BROKEN_OFF),
    Row(fault="error event in mid-stream", script=(says(CUT, fault="error_event"),), **BROKEN_OFF),
    Row(fault="`[DONE]` missing", script=(says(GOOD, fault="no_done"),), **OURS),
    Row(fault="`[DONE]` and finish_reason missing", script=(says(CUT, fault="eof"),), **BROKEN_OFF),
    Row(fault="endless output", script=(says("E aí? ", fault="endless"),), **{**BROKEN_OFF, "text": "E aí? " * 700}),
    Row(fault="one event without end", script=(Answer(fault="endless_line"),), why="endless"),
    Row(fault="slow drip", script=(says(CUT, *["a "] * 500, pause_s=0.02),), **BROKEN_OFF),
    Row(fault="cut at the output limit", script=(says(CUT, "Como", finish="length"),), **BROKEN_OFF),
    Row(fault="empty output", script=(says(),), why="empty"),
    Row(fault="unfit output", script=(says('<tool_call>{"name": "x"}</tool_call>'),), why="unfit"),
    Row(fault="tool loop", script=(calls(SAVED),) * 3, why="tool_loop", calls=3),
    Row(fault="unlisted tool", script=(calls(OUT_OF_TURN), says(GOOD)), calls=2, **OURS),
    Row(fault="arguments that are no JSON", script=(calls(HALF), says(GOOD)), calls=2, **OURS),
)


async def played(row: Row) -> tuple[Heard, OpenAIServer]:
    async with OpenAIServer() as server:
        async with serving(server, **row.environ) as stub:
            server.script.extend(row.script)
            remaining_ms = 4_000 if row.fault == "slow drip" else 20_000
            heard = await ask(stub, "oi", remaining_ms=remaining_ms)
            agent = await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)
            assert not any(model.open_streams for model in agent.models) and agent.active_replies == 0
        return heard, server


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
async def test_what_the_lead_sees_of_a_fault(row: Row) -> None:
    heard, server = await played(row)
    print(f"\n{line_of(row)} {heard.first_ms} ms |")
    assert heard.done is not None
    seen = (heard.done.model, heard.done.fallback_reason, heard.reason, heard.done.fallback, len(server.turns))
    assert seen == (row.model, row.why, row.reason, False, row.calls)
    if row.model == PLAYBOOK:
        assert "Helen" in heard.text and "João" not in str(heard.effects), (
            "a real reply, with nothing of the failed one"
        )
    else:
        told = row.text.strip()
        assert heard.text.strip() == told[: len(heard.text)].strip() and len(heard.text) > min(len(told), 1000) - 2
    assert heard.done.HasField("first_token")


@pytest.mark.parametrize("fault", ["500 again and again", "hung before the first token", "unfit output"])
async def test_without_the_playbook_the_agent_says_that_it_failed(fault: str) -> None:
    """Then ingress says the persona's honest sentence and calls a human; the agent never says half a promise."""
    row = next(row for row in ROWS if row.fault == fault)
    async with OpenAIServer() as server, serving(server, SDR_AGENT_PLAYBOOK_FALLBACK="false") as stub:
        server.script.extend(row.script)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(stub)
    error = errors.parse(caught.value)
    assert (error.reason, error.metadata) == ("MODEL_FAILED", {"model": REAL})


async def test_the_next_model_of_the_chain_is_asked_before_the_playbook() -> None:
    async with OpenAIServer() as server, serving(server, SDR_AGENT_FALLBACK_MODELS="openai:other") as stub:
        server.otherwise = lambda asked: says(GOOD) if asked.body["model"] == "other" else Answer(fault="hang")
        heard = await ask(stub)
    assert heard.done is not None and heard.text == GOOD
    assert (heard.done.model, heard.done.fallback_reason) == ("openai:other", "no_first_token")


async def test_nobody_waits_longer_than_the_turn_may_take() -> None:
    """A first model that hangs for as long as it is let must leave the others their share."""
    environ = {"SDR_AGENT_FIRST_TOKEN_MS": "120000", "SDR_AGENT_FALLBACK_MODELS": "openai:other"}
    async with OpenAIServer(otherwise=Answer(fault="hang")) as server, serving(server, **environ) as stub:
        heard = await ask(stub, remaining_ms=3_000)
    assert heard.done is not None and heard.done.model == PLAYBOOK and heard.reason == "STOP"
    assert [asked.body["model"] for asked in server.turns] == [MODEL, "other"]
    assert heard.done.total.ToMilliseconds() <= 3_000


async def test_the_honest_sentence_is_the_persona_s() -> None:
    async with OpenAIServer() as server, serving(server) as stub:
        agent = await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)
    assert agent.honest_sentence == demo().honest_sentence


def line_of(row: Row) -> str:
    """The row in the README, without its last column."""
    sees = "the playbook's reply" if row.model == PLAYBOOK else "the model's reply"
    sees = "its whole sentences so far" if row.reason == "LENGTH" else sees
    who = "playbook" if row.model == PLAYBOOK else "model"
    recorded = ", ".join(filter(None, (who, row.reason, row.why, f"{row.calls} calls" if row.calls > 1 else "")))
    return f"| {row.fault} | {sees} | {recorded} |"


def test_the_readme_holds_this_table() -> None:
    text = (Path(agent_service.__file__).parent / "README.md").read_text(encoding="utf-8")
    table = text.partition("| fault |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [line[: line.rindex("|", 0, len(line) - 1) + 1] for line in table] == [line_of(row) for row in ROWS]
