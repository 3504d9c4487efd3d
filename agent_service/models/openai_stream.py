"""What the chunks of one streamed chat completion say, whichever server wrote them. Pure but for the loop's time."""

import asyncio
from collections.abc import Iterator
from typing import Any

from agent_service.chat import ChatEnd, ChatEvent, ChatUsage, ModelTrouble, TextPiece, Trouble
from agent_service.models.tool_deltas import ToolDeltas

# More characters than this for each allowed token, and the server ignores the limit that it was given.
_CHARS_PER_TOKEN = 12
_SPARE_CHARS = 400
_MOST_TOKENS = 10**9
_STOPPED = frozenset({"stop", "eos", "end_turn", "tool_calls", "function_call"})
_FILTERED = "content_filter"


class Reading:
    """One answer on its way in. `began`: a token of whatever kind was seen. `ended`: the model said that it is done."""

    def __init__(self, *, max_output_tokens: int) -> None:
        self.began = False
        self.ended_at = 0.0
        self._max_chars = max_output_tokens * _CHARS_PER_TOKEN + _SPARE_CHARS
        self._chars = 0
        self._finish = ""
        self._tools = ToolDeltas()
        self._usage: ChatUsage | None = None

    @property
    def ended(self) -> bool:
        return bool(self._finish)

    def take(self, chunk: Any) -> Iterator[TextPiece]:
        """The text of one chunk; all else is kept for the end. Raises ModelTrouble, or what a wrong shape raises."""
        self._usage = _usage(chunk) or self._usage
        for choice in (chunk.choices or ())[:1]:
            delta = choice.delta
            if getattr(delta, "refusal", None):
                raise ModelTrouble(Trouble.UNFIT, "the model refuses", at_work=True)
            for call in getattr(delta, "tool_calls", None) or ():
                self.began = True
                self._tools.add(call)
            text = getattr(delta, "content", None) or ""
            if text or _reasoning(delta):
                self.began = True
            if text:
                self._chars += len(text)
                if self._chars > self._max_chars:
                    raise ModelTrouble(Trouble.ENDLESS, "the answer is longer than it was allowed to be")
                yield TextPiece(text=text)
            if choice.finish_reason and not self._finish:
                self._finish = str(choice.finish_reason)
                self.ended_at = asyncio.get_running_loop().time()

    def finish(self) -> Iterator[ChatEvent]:
        """Tool calls, usage and the end. A stream that just stopped raises ModelTrouble: its answer may be half."""
        if not self._finish:
            raise ModelTrouble(Trouble.BROKEN, "the stream ended before the answer did")
        if self._finish == _FILTERED:
            raise ModelTrouble(Trouble.UNFIT, "the provider's filter cut the answer", at_work=True)
        calls = self._tools.calls()
        yield from calls
        if self._usage is not None:
            yield self._usage
        yield ChatEnd(reason="tool_calls" if calls else "stop" if self._finish in _STOPPED else "length")


def _reasoning(delta: Any) -> object:
    return getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)


def _usage(chunk: Any) -> ChatUsage | None:
    """What the chunk tells of tokens; None when it tells nothing, so that they are estimated."""
    told, timings = getattr(chunk, "usage", None), getattr(chunk, "timings", None)
    # llama.cpp counts what it read anew (`prompt_n`) and what its cache held (`cache_n`).
    own = timings if isinstance(timings, dict) else {}
    cached = _tokens(own.get("cache_n"))
    if told is None and "cache_n" in own:
        return ChatUsage(
            prompt=_tokens(own.get("prompt_n")) + cached, cached=cached, completion=_tokens(own.get("predicted_n"))
        )
    details = getattr(told, "prompt_tokens_details", None)
    usage = ChatUsage(
        prompt=_tokens(getattr(told, "prompt_tokens", None)),
        cached=_tokens(getattr(details, "cached_tokens", None)) or cached,
        completion=_tokens(getattr(told, "completion_tokens", None)),
    )
    return usage if usage.prompt or usage.completion else None


def _tokens(value: object) -> int:
    """The server's number; 0 for what is none. One that no store takes would keep the whole turn out of the books."""
    return int(value) if isinstance(value, int | float) and 0 <= value <= _MOST_TOKENS else 0
