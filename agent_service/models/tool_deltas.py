"""Tool calls as they come out of a stream, piece by piece and in every dialect of the protocol."""

from dataclasses import dataclass
from typing import Any

from agent_service.chat import ModelTrouble, ToolCall, Trouble

MAX_CALLS = 16
MAX_ARGUMENT_CHARS = 32 * 1024


@dataclass(kw_only=True)
class _Open:
    call_id: str
    name: str = ""
    arguments: str = ""


class ToolDeltas:
    """Puts the calls of one answer together, in the order in which they began."""

    def __init__(self) -> None:
        self._calls: list[_Open] = []
        self._at: dict[object, _Open] = {}

    def add(self, delta: Any) -> None:
        """One element of `delta.tool_calls`. Raises ModelTrouble when there is no end of it."""
        function = getattr(delta, "function", None)
        call = self._of(getattr(delta, "index", None), getattr(delta, "id", None) or "")
        call.name = call.name or getattr(function, "name", None) or ""
        call.arguments += getattr(function, "arguments", None) or ""
        if len(self._calls) > MAX_CALLS or len(call.arguments) > MAX_ARGUMENT_CHARS:
            raise ModelTrouble(Trouble.ENDLESS, "the tool calls do not end")

    def calls(self) -> tuple[ToolCall, ...]:
        """All of them, once the answer is complete."""
        return tuple(
            ToolCall(call_id=call.call_id or f"call_{number}", name=call.name, arguments=call.arguments or "{}")
            for number, call in enumerate(self._calls)
        )

    def _of(self, index: object, call_id: str) -> _Open:
        known = self._at.get(index)
        # Some servers leave the index out, or say 0 for every parallel call: then the id tells them apart.
        if known is None or (call_id and known.call_id and call_id != known.call_id):
            known = self._at[index] = _Open(call_id=call_id)
            self._calls.append(known)
        known.call_id = known.call_id or call_id
        return known
