"""Settings of the agent."""

from pydantic import Field

from service_kit.addresses import AgentAddress, ProcessSettings


class AgentSettings(AgentAddress, ProcessSettings):
    """Read once at start."""

    model: str = Field(
        "playbook",
        validation_alias="SDR_AGENT_MODEL",
        description="Who writes the replies: playbook. openai:NAME and gguf:PATH arrive later.",
    )
    persona: str = Field(
        "demo-solar",
        validation_alias="SDR_PERSONA",
        description="A packaged persona's name, or the path of a persona file.",
    )
    playbook_delay_ms: int = Field(
        0,
        ge=0,
        le=120_000,
        validation_alias="SDR_AGENT_PLAYBOOK_DELAY_MS",
        description="Slows the playbook like a language model: its time to the first token, and again over the text.",
    )
    max_replies: int = Field(
        256,
        ge=1,
        le=10_000,
        validation_alias="SDR_AGENT_MAX_REPLIES",
        description="Replies under way at the same time; above it calls are refused as UNAVAILABLE.",
    )
