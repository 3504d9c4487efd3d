"""The seam between a language model's behaviour (prompt, tools, policy) and the server that runs it.

An engine speaks one protocol, OpenAI's chat completions, to one server. It knows nothing of leads, personas or turns.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Trouble(StrEnum):
    """Why a model could not answer."""

    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    SERVER_ERROR = "server_error"
    REFUSED = "refused"
    NO_FIRST_TOKEN = "no_first_token"
    STALLED = "stalled"
    OUT_OF_TIME = "out_of_time"
    BROKEN = "broken"
    ENDLESS = "endless"
    EMPTY = "empty"
    UNFIT = "unfit"
    TOOL_LOOP = "tool_loop"


_AT_WORK = frozenset({Trouble.NO_FIRST_TOKEN, Trouble.STALLED, Trouble.OUT_OF_TIME, Trouble.BROKEN, Trouble.ENDLESS})


class ModelTrouble(Exception):
    """A model could not answer, or not to the end. The text is for the log; it quotes neither prompt nor reply.

    `at_work`: the server had the call and read the prompt, which is paid for; by default the kind of trouble tells.
    """

    def __init__(
        self, trouble: Trouble, text: str = "", *, retry_after_s: float | None = None, at_work: bool | None = None
    ) -> None:
        super().__init__(text or trouble.value)
        self.trouble = trouble
        self.retry_after_s = retry_after_s
        self.at_work = trouble in _AT_WORK if at_work is None else at_work


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A tool that the model called; `arguments` is what it wrote, which need not be JSON."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    """One message of a conversation with a model."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """What a model is asked. `tools` is a JSON list, byte-stable; `cache_key` groups requests that share a prefix."""

    messages: tuple[ChatMessage, ...]
    tools: str = ""
    max_output_tokens: int = 1024
    cache_key: str = ""


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, kw_only=True)
class ChatUsage:
    """Tokens of one call; zeros when the server doesn't tell."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True, kw_only=True)
class ChatEnd:
    """The last event: the model stopped ("stop", "tool_calls") or was cut ("length")."""

    reason: str


ChatEvent = TextPiece | ToolCall | ChatUsage | ChatEnd


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """What is known of an engine, for people."""

    calls: int = 0
    failures: int = 0
    trouble: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    connections_opened: int = 0
    open_streams: int = 0
    connection_age_ms: int | None = None
    cold_start_ms: int | None = None


class ChatEngine(Protocol):
    """One server with one model. One per process; `open` before anything else."""

    @property
    def name(self) -> str:
        """As shown to people: "openai:gpt-5-mini", "gguf:gemma3-270m"."""
        ...

    @property
    def costs_money(self) -> bool:
        """Whether each call is paid for."""
        ...

    @property
    def hangs(self) -> bool:
        """Whether its server owes an answer for longer than a turn waits for the first token. Loading is no hanging."""
        ...

    async def open(self) -> None:
        """Connect or load. Raises ConfigurationError for what waiting won't mend."""
        ...

    async def warm(self, prefix: ChatRequest) -> None:
        """Put the fixed prefix into the cache (of every slot) and generate one token. Raises ModelTrouble."""
        ...

    def chat(self, request: ChatRequest, *, ends_at: float) -> AsyncGenerator[ChatEvent, None]:
        """One call, streamed; `ends_at` is the loop's time. Raises ModelTrouble. Closing it stops the model at once."""
        ...

    async def count_tokens(self, text: str) -> int | None:
        """By the model's own tokenizer; None where there is none at hand."""
        ...

    def state(self) -> EngineState:
        """Counters."""
        ...

    async def close(self) -> None:
        """Let go of what `open` took."""
        ...
