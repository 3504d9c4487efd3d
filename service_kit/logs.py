"""Structured logs: emoji on a terminal, JSON lines elsewhere, personal data never, and no way to raise."""

import json as jsonlib
import logging
import math
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

REDACTED = "[redacted]"
NUMBER = "[number]"
_KEYS = frozenset(
    {"text", "body", "message_text", "content", "phone", "contact", "address", "name", "email"}
    | {"token", "api_key", "apikey", "secret", "password", "authorization"}
)
_SECRET_SUFFIXES = ("_phone", "_email", "_token", "_api_key", "_secret", "_password", "_authorization")
_MAX_DEPTH = 6
_MAX_CHARS = 8_000
# Identifiers of 32 hexadecimal digits, with or without dashes, are kept whole: they are how two log lines are joined.
_DIGITS = re.compile(
    r"(?P<id>(?<![0-9a-f])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})(?![0-9a-f]))"
    r"|\d{8,}"
    r"|(?:\+?\d{1,3}[ -]?)?\(?\d{2,3}\)?[ -]?\d{3,5}[ -]\d{4}(?!\d)"
)
# No alternative above replaces fewer; most values have fewer, and this says so much faster.
_EIGHT_DIGITS = re.compile(r"(?:\D*+\d){8}")
_EMOJI = {"debug": "🔎", "info": "🔹", "warning": "⚠️ ", "error": "❌", "critical": "🔥"}
_EVENT_EMOJI = {"ready": "✅", "started": "🚀", "drained": "🚰", "stopped": "👋", "handled": "📨", "opened": "🔌"}
_LOG_METHODS = {"exception": "error", "warn": "warning", "msg": "info"}

Event = dict[str, Any]


def configure(*, service: str, level: str = "INFO", json: bool | None = None) -> None:
    """Send structlog and the standard library's warnings through one pipeline; `json=None` asks the terminal."""
    on_terminal = bool(sys.stdout and sys.stdout.isatty())
    as_json = not on_terminal if json is None else json
    pipeline = _Pipeline(service=service, render=_json_line if as_json else _console_renderer(colors=on_terminal))
    structlog.configure(
        processors=[pipeline],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_Output,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryHandler(pipeline)]
    root.setLevel(logging.WARNING)


def get(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that carries its name. Event names are static and in the past tense; data goes in keys."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(name))


def _with_frames(event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """`exc_info` as frames and class names. Never the exception's own words: they may quote what a person wrote."""
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    lines: list[str] = []
    while isinstance(error, BaseException):
        frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
        lines = [*frames, type(error).__name__, *(["caused"] if lines else []), *lines]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if lines:
        event["exception"] = "\n".join(line.rstrip() for line in lines)
    return event


def redact_text(text: str) -> str:
    """The text with everything that may be a phone number replaced."""
    if _EIGHT_DIGITS.match(text) is None:
        return text
    return _DIGITS.sub(lambda match: match["id"] or NUMBER, text)


def redact(key: str, value: object, *, depth: int = 0) -> object:
    """The value as it may be logged under that key: primitives only, nothing personal."""
    lowered = key.lower()
    if lowered in _KEYS or lowered.endswith(_SECRET_SUFFIXES):
        return REDACTED
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str | Path | datetime | BaseException):
        return _shortened(redact_text(str(value)))
    if depth >= _MAX_DEPTH:
        return "[deep]"
    if isinstance(value, Mapping):
        return {redact_text(str(k)): redact(str(k), v, depth=depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact("", item, depth=depth + 1) for item in value]
    # The repr of a message object would print its text.
    return f"<{type(value).__name__}>"


def _shortened(text: str) -> str:
    """Beginning and end: a recursion a thousand frames deep is told by both."""
    half = _MAX_CHARS // 2
    return text if len(text) <= _MAX_CHARS else f"{text[:half]} [… {len(text) - 2 * half} more …] {text[-half:]}"


class _Pipeline:
    """One structlog processor that does everything, so that one `except` covers everything."""

    def __init__(self, *, service: str, render: Callable[[Event], str]) -> None:
        self._service = service
        self._render = render

    def __call__(self, output: object, method: str, event: structlog.typing.EventDict) -> str:
        level = _LOG_METHODS.get(method, method)
        try:
            merged = structlog.contextvars.merge_contextvars(None, method, event)
            if isinstance(output, _Output) and output.name:
                merged.setdefault("logger", output.name)
            merged = _with_frames(merged)
            return self._render(self._head(level) | {key: redact(key, value) for key, value in merged.items()})
        except Exception as error:
            lost = {"event": "log_line_lost", "lost": _safe(event), "error": type(error).__name__}
            return _json_line(self._head(level) | lost)

    def _head(self, level: str) -> Event:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"timestamp": now, "level": level, "service": self._service}


class _Output:
    """The last step: a line to standard output, whatever state that is in."""

    def __init__(self, name: str = "", *_: object) -> None:
        self.name = name

    def msg(self, line: str) -> None:
        try:
            stream: TextIO = sys.stdout
            encoding = stream.encoding or "utf-8"
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):
            return  # Nobody reads any more; a service does not die of that.

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _LibraryHandler(logging.Handler):
    """Standard library records as events of the same pipeline."""

    def __init__(self, pipeline: _Pipeline) -> None:
        super().__init__(logging.WARNING)
        self._output = _Output()
        self._pipeline = pipeline

    def emit(self, record: logging.LogRecord) -> None:
        event: Event = {"event": "library_logged", "logger": record.name, "exc_info": record.exc_info}
        try:
            message = record.getMessage()
            # What follows its first line is a task's repr, which quotes the exception: what a person wrote, perhaps.
            event["message"] = message.partition("\n")[0] if record.name == "asyncio" else message
        except Exception:
            event["message"] = "[unreadable]"
        self._output.msg(self._pipeline(self._output, record.levelname.lower(), event))


def _json_line(event: Event) -> str:
    return jsonlib.dumps(event, ensure_ascii=False)


def _console_renderer(*, colors: bool) -> Callable[[Event], str]:
    render = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)

    def line(event: Event) -> str:
        name, level = str(event.get("event", "")), event["level"]
        by_event = _EVENT_EMOJI.get(name.rpartition("_")[2]) if level == "info" else None
        event["event"] = f"{by_event or _EMOJI.get(level, '🔹')} {name}"
        return str(render(None, level, event))

    return line


def _safe(event: Mapping[str, Any]) -> str:
    name = event.get("event")
    return redact_text(name)[:100] if isinstance(name, str) else REDACTED
