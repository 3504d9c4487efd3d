"""A chat request as OpenAI's protocol writes it, and what of it not every compatible server takes."""

import json
from functools import lru_cache
from typing import Any

from agent_service.chat import ChatMessage, ChatRequest

_INSTEAD = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}


def body(request: ChatRequest, *, model: str) -> dict[str, Any]:
    """What every server takes."""
    return {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        **({"tools": _tools(request.tools)} if request.tools else {}),
    }


class Parameters:
    """What not every server takes. What one refuses by name is not sent to it again."""

    def __init__(self, *, official: bool) -> None:
        self._refused: set[str] = set()
        # OpenAI's newer models refuse the old name, many compatible servers don't know the new one.
        limit = "max_completion_tokens" if official else "max_tokens"
        self.sent = {limit, "stream_options", *(("prompt_cache_key",) if official else ())}

    def drop(self, name: str) -> bool:
        """Leave it out from now on, or send what takes its place; False when that has been tried."""
        if name not in self.sent:
            return False
        self.sent.discard(name)
        self._refused.add(name)
        instead = _INSTEAD.get(name)
        if instead is not None and instead not in self._refused:
            self.sent.add(instead)
        return True

    def of(self, request: ChatRequest) -> dict[str, Any]:
        """Name and value of all that are sent with this request."""
        values: dict[str, Any] = {
            "max_completion_tokens": request.max_output_tokens,
            "max_tokens": request.max_output_tokens,
            "stream_options": {"include_usage": True},
            "prompt_cache_key": request.cache_key,
        }
        return {name: value for name, value in values.items() if name in self.sent and value}


def _message(message: ChatMessage) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        found["tool_call_id"] = message.tool_call_id
    return found


@lru_cache(maxsize=16)
def _tools(tools: str) -> Any:
    return json.loads(tools)
