"""Settings of weights that run in the agent's own process."""

from pathlib import Path

from pydantic import Field

from service_kit.settings import Settings


class LocalSettings(Settings):
    """Read only where a model is `gguf:PATH`."""

    local_slots: int = Field(
        4,
        ge=1,
        le=64,
        validation_alias="SDR_AGENT_LOCAL_SLOTS",
        description="Replies that weights in the agent's own process write at the same time; more of them wait.",
    )
    local_context_tokens: int = Field(
        8192,
        ge=1024,
        le=1_048_576,
        validation_alias="SDR_AGENT_LOCAL_CONTEXT_TOKENS",
        description="Prompt and reply of one slot, together; memory for all of them is taken at the start.",
    )
    local_threads: int = Field(
        0,
        ge=0,
        le=1024,
        validation_alias="SDR_AGENT_LOCAL_THREADS",
        description="Threads that calculate. 0: one per core that this process may use, but for one.",
    )
    local_template: Path | None = Field(
        None,
        validation_alias="SDR_AGENT_LOCAL_TEMPLATE",
        description="A file with a chat template (Jinja) that replaces the weights' own.",
    )
