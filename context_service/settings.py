"""What can be set, and its defaults."""

from pathlib import Path

from pydantic import Field

from service_kit.addresses import ContextAddress, ProcessSettings
from service_kit.settings import ConfigurationError


class ContextSettings(ProcessSettings, ContextAddress):
    """Settings of the context service."""

    context_store: str = Field(
        "",
        validation_alias="SDR_CONTEXT_STORE",
        description="Where leads and history are kept: sqlite:PATH; empty means sqlite:<SDR_DATA_DIR>/context.db",
    )

    def sqlite_path(self) -> Path:
        """The database file. Raises ConfigurationError for any other kind of store."""
        if not self.context_store:
            return Path(self.data_dir) / "context.db"
        scheme, _, place = self.context_store.partition(":")
        if scheme == "supabase":
            raise ConfigurationError("SDR_CONTEXT_STORE=supabase is not built yet; use sqlite:PATH until it arrives.")
        if scheme != "sqlite" or not place:
            raise ConfigurationError("SDR_CONTEXT_STORE has to be sqlite:PATH; other stores arrive later.")
        return Path(place)
