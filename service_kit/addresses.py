"""Settings that more than one process reads, each declared once."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from service_kit.settings import Settings


class ProcessSettings(Settings):
    """What every process needs."""

    data_dir: Path = Field(
        Path("./data"),
        validation_alias="SDR_DATA_DIR",
        description="Where everything that must survive is kept; the process manager's logs and socket too.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="SDR_LOG_LEVEL", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", validation_alias="SDR_LOG_FORMAT", description="auto: console on a terminal, JSON lines otherwise."
    )

    @property
    def log_json(self) -> bool | None:
        """For `logs.configure`; None lets the terminal decide."""
        return None if self.log_format == "auto" else self.log_format == "json"


class BufferAddress(Settings):
    """Where the buffer listens."""

    buffer_address: str = Field(
        "127.0.0.1:50051", validation_alias="SDR_BUFFER_ADDRESS", description="gRPC address of the buffer service."
    )


class ContextAddress(Settings):
    """Where the context service listens."""

    context_address: str = Field(
        "127.0.0.1:50052", validation_alias="SDR_CONTEXT_ADDRESS", description="gRPC address of the context service."
    )


class AgentAddress(Settings):
    """Where the agent listens."""

    agent_address: str = Field(
        "127.0.0.1:50053", validation_alias="SDR_AGENT_ADDRESS", description="gRPC address of the agent service."
    )
