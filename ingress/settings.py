"""Settings of ingress. Lengths are milliseconds."""

from __future__ import annotations

from pydantic import Field, SecretStr

from ingress.edge_settings import EdgeSettings
from ingress.reply_parts import PartSettings
from service_kit.addresses import AgentAddress, BufferAddress, ContextAddress, ProcessSettings


class AdminSettings(ProcessSettings):
    """The admin listener."""

    admin_address: str = Field(
        "127.0.0.1:8089",
        validation_alias="SDR_ADMIN_ADDRESS",
        description="HOST:PORT of the console page, /readyz and /metrics. Never expose it to the internet.",
    )
    admin_token: SecretStr = Field(
        SecretStr(""),
        validation_alias="SDR_ADMIN_TOKEN",
        description="Asked for (Authorization: Bearer …) unless the peer is on this machine with no proxy between.",
    )


class PersonaChoice(ProcessSettings):
    """Whether the business was named."""

    persona: str = Field(
        "",
        validation_alias="SDR_PERSONA",
        description="Who speaks: a persona's name or file. A real provider needs it; without one it is demo-solar.",
    )


class IngressSettings(
    AdminSettings, PersonaChoice, BufferAddress, ContextAddress, AgentAddress, EdgeSettings, PartSettings
):
    """Everything that can be said to ingress, besides its providers."""

    max_turns: int = Field(
        200,
        ge=1,
        le=250,
        validation_alias="SDR_INGRESS_MAX_TURNS",
        description="Turns that this process works on at once; below the agent's limit of streams.",
    )
    typing_after_ms: int = Field(
        300,
        ge=0,
        validation_alias="SDR_INGRESS_TYPING_AFTER_MS",
        description="A typing indicator is shown when nothing was committed for this long.",
    )
    context_timeout_ms: int = Field(
        2_000,
        ge=50,
        le=20_000,
        validation_alias="SDR_INGRESS_CONTEXT_TIMEOUT_MS",
        description="After this long a turn goes on without the context service.",
    )
    record_timeout_ms: int = Field(
        500,
        ge=50,
        le=10_000,
        validation_alias="SDR_INGRESS_RECORD_TIMEOUT_MS",
        description="After this long a turn finishes unrecorded; the record follows.",
    )
    pacing_ms: int = Field(
        0,
        ge=0,
        le=5_000,
        validation_alias="SDR_INGRESS_PACING_MS",
        description="Pause between two bubbles of a reply. 0: none.",
    )
