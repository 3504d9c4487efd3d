import asyncio
import io
import json
import logging
import sys
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from service_kit import logs

PHONE = "5511987654321"


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out)
    return line


def test_a_json_line_has_what_every_line_has(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="s", json=True)
    structlog.contextvars.bind_contextvars(request_id="r1")
    logs.get("mod").bind(turn=3).info("thing_done", took_ms=1.5, flags={"a": [True, None]})
    line = printed(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "service": "s",
        "event": "thing_done",
        "logger": "mod",
        "request_id": "r1",
        "turn": 3,
        "took_ms": 1.5,
        "flags": {"a": [True, None]},
    }


def test_levels_are_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="s", json=True, level="warning")
    logs.get("mod").info("thing_done")
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="s", json=False)
    logs.get("mod").info("service_ready", n=1)
    logs.get("mod").error("thing_failed")
    out = capsys.readouterr().out
    assert "✅ service_ready" in out
    assert "❌ thing_failed" in out


class Message:
    def __repr__(self) -> str:
        return "Message(text='oi, quero comprar')"


def test_personal_data_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="s", json=True)
    logs.get("mod").warning(
        "thing_done",
        text="hello",
        Authorization="Bearer x",
        bot_token="x",
        jid=f"{PHONE}@s.whatsapp.net",
        nested={"phone": "x", "deep": [{"email": "a@b"}, f"+{PHONE}"]},
        pretty="+55 (11) 98765-4321",
        message=Message(),
        raw=b"oi",
        created_ms=1_763_848_000_123,
        turn_id="12345678-1234-1234-1234-123456789012",
    )
    out = capsys.readouterr().out
    line = json.loads(out)
    assert (line["text"], line["Authorization"], line["bot_token"]) == (logs.REDACTED,) * 3
    assert line["nested"] == {"phone": logs.REDACTED, "deep": [{"email": logs.REDACTED}, f"+{logs.NUMBER}"]}
    assert (line["jid"], line["message"]) == (f"{logs.NUMBER}@s.whatsapp.net", "<Message>")
    assert line["pretty"] == logs.NUMBER
    assert (line["created_ms"], line["turn_id"]) == (1_763_848_000_123, "12345678-1234-1234-1234-123456789012")
    assert "comprar" not in out


def test_tracebacks_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="s", json=True)
    try:
        raise ValueError(f"bad {PHONE}")
    except ValueError:
        logs.get("mod").exception("thing_failed")
    line = printed(capsys)
    assert line["level"] == "error"
    assert line["exception"].endswith("ValueError"), "the exception's own words may quote a person"
    assert "test_tracebacks_are_redacted" in line["exception"]


def test_libraries_are_heard_from_warning_on(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="s", json=True, level="DEBUG")
    logging.getLogger("lib").info("quiet")
    logging.getLogger("lib").warning("call %s", PHONE)
    line = printed(capsys)
    assert (line["event"], line["logger"], line["level"]) == ("library_logged", "lib", "warning")
    assert line["message"] == f"call {logs.NUMBER}"
    logging.getLogger("lib").warning("%d", "not a number")
    assert printed(capsys)["message"] == "[unreadable]"


async def test_a_task_that_nobody_waited_for_tells_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    """asyncio puts the task's repr into the message, and with it the exception's words: a lead's, once."""

    async def fail(words: str) -> None:
        words.encode()

    logs.configure(service="s", json=True)
    task = asyncio.create_task(fail("oi, quero comprar \ud800"))
    await asyncio.wait([task])
    asyncio.get_running_loop().call_exception_handler(
        {"message": "Task exception was never retrieved", "exception": task.exception(), "future": task}
    )
    out = capsys.readouterr().out
    assert "comprar" not in out
    line = json.loads(out)
    assert line["message"] == "Task exception was never retrieved"
    assert line["exception"].endswith("UnicodeEncodeError")


def test_no_line_grows_without_bound(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(service="s", json=True)
    logging.getLogger("lib").warning("a%sz", "é" * 1_000_000)
    out = capsys.readouterr().out
    assert len(out) < 10_000
    message = json.loads(out)["message"]
    assert message.startswith("aé") and message.endswith("éz") and "more …" in message


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("as_json", [True, False])
def test_logging_cannot_raise(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    logs.configure(service="s", json=as_json)
    loop: list[Any] = []
    loop.append(loop)
    log = logs.get("mod")
    log.info("thing_done", error=Unprintable())
    assert printed(capsys)["event"] == "log_line_lost"
    log.info("thing_done", loop=loop, odd="\ud800", number=float("nan"), **{"": 1})
    assert "thing_done" in capsys.readouterr().out


@pytest.mark.parametrize("stream", [None, "closed", "ascii", "broken"])
def test_any_state_of_stdout_is_survived(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    closed = io.StringIO()
    closed.close()
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    streams = {None: None, "closed": closed, "ascii": ascii_only, "broken": Broken()}
    logs.configure(service="s", json=True)
    monkeypatch.setattr(sys, "stdout", streams[stream])
    logs.get("mod").info("thing_done", word="ação")


@given(before=st.text(alphabet="abcxyz-@ :"), digits=st.from_regex(r"[0-9]{8,15}", fullmatch=True), after=st.text())
def test_no_long_number_survives(before: str, digits: str, after: str) -> None:
    assert digits not in logs.redact_text(before + digits + after)
