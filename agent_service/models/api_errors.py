"""The client library's errors in the engine's words. What a server wrote goes into a log only as its short code."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
import openai

from agent_service.chat import ModelTrouble, Trouble
from service_kit.settings import ConfigurationError

_MAX_RETRY_AFTER_S = 3_600.0
_SHORT_CODE = re.compile(r"[\w.-]{1,60}")
# Waiting doesn't mend them, whatever the status says.
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
# What this one lead wrote is at fault; the server is well, and others are answered.
_FILTERED = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
# A value that is too large for this request, in a parameter that the server does take.
_TOO_LARGE = re.compile(r"too (?:large|long|high|big|small)|exceed|maximum|at (?:most|least)", re.IGNORECASE)
_OUTPUT_USED_UP = re.compile(r"could not finish the message because max_tokens", re.IGNORECASE)


def to_trouble(error: openai.APIError) -> ModelTrouble:
    """The kind of trouble that an error of the client is."""
    if isinstance(error, openai.APITimeoutError):
        connecting = isinstance(error.__cause__, httpx2.ConnectTimeout | httpx2.PoolTimeout)
        return ModelTrouble(Trouble.UNREACHABLE if connecting else Trouble.NO_FIRST_TOKEN, "timed out")
    if isinstance(error, openai.APIConnectionError):
        return ModelTrouble(Trouble.UNREACHABLE, type(error.__cause__).__name__)
    if not isinstance(error, openai.APIStatusError):
        # An error event in the middle of a stream that had begun with 200.
        return ModelTrouble(Trouble.SERVER_ERROR, f"error event {_code(error)}".strip())
    text = f"{error.status_code} {_code(error)}".strip()
    if error.status_code == 429 and _code(error) not in _NO_MONEY:
        return ModelTrouble(Trouble.RATE_LIMITED, text, retry_after_s=retry_after_s(error.response.headers))
    if error.status_code >= 500 or error.status_code in (408, 409, 425):
        return ModelTrouble(Trouble.SERVER_ERROR, text, retry_after_s=retry_after_s(error.response.headers))
    if used_up_output(error):
        return ModelTrouble(Trouble.EMPTY, "all output tokens went into reasoning", at_work=True)
    if _code(error) in _FILTERED:
        return ModelTrouble(Trouble.UNFIT, text)
    return ModelTrouble(Trouble.REFUSED, text)


def to_configuration_error(error: openai.APIStatusError, *, model: str, base_url: str) -> ConfigurationError:
    """A sentence for whoever started the process: waiting won't mend it."""
    status = error.status_code
    if status in (401, 403):
        why = f"OPENAI_API_KEY was refused by {base_url} ({status})"
    elif status == 404:
        why = f"{base_url} does not know it; check SDR_AGENT_MODEL and OPENAI_BASE_URL ({status})"
    else:
        why = f"{base_url} refused the first request ({f'{status} {_code(error)}'.strip()}); see SDR_AGENT_EXTRA_BODY"
    return ConfigurationError(f"{model}: {why}")


def refused_parameter(error: openai.APIStatusError, candidates: Collection[str]) -> str | None:
    """Which of the parameters the server says that it doesn't take; none when it takes it with another value."""
    if _TOO_LARGE.search(error.message):
        return None
    if error.param in candidates:
        return error.param
    return next((name for name in sorted(candidates) if re.search(rf"\b{name}\b", error.message)), None)


def used_up_output(error: openai.APIStatusError) -> bool:
    """Whether a reasoning model thought until its output tokens were used up; some servers call that a bad request."""
    return error.status_code == 400 and _OUTPUT_USED_UP.search(error.message) is not None


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """Seconds to wait as the server asks for: `retry-after-ms`, or `retry-after` as seconds or as a date."""
    with_ms, plain = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    try:
        seconds = float(with_ms) / 1000 if with_ms else float(plain)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(plain) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    # Comparisons with a NaN are false, which makes this None too.
    return min(seconds, _MAX_RETRY_AFTER_S) if seconds >= 0 else None


def _code(error: openai.APIError) -> str:
    code = error.code or ""
    return code if _SHORT_CODE.fullmatch(code) else ""
