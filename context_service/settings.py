"""What can be set, and its defaults."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr

from service_kit.addresses import ContextAddress, ProcessSettings
from service_kit.settings import ConfigurationError

# The buffer hands a turn out again for 8 days; until then its record must be known.
MIN_RETENTION_DAYS = 10


class SupabaseSettings(ProcessSettings):
    """Where a Supabase project is, for the service and for `make migrate`."""

    supabase_url: str = Field(
        "", validation_alias="SUPABASE_URL", description="Address of the Supabase project, https://….supabase.co"
    )
    supabase_secret_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_KEY"),
        description="The project's secret key (sb_secret_… or the service_role token). Only this service has it.",
    )
    supabase_db_url: SecretStr = Field(
        SecretStr(""),
        validation_alias="SUPABASE_DB_URL",
        description="postgresql://… of the project's database, for `make migrate` alone.",
    )


class ContextSettings(SupabaseSettings, ContextAddress):
    """Settings of the context service."""

    context_store: str = Field(
        "",
        validation_alias="SDR_CONTEXT_STORE",
        description="Where leads and history are kept: sqlite:PATH, or supabase; empty means "
        "sqlite:<SDR_DATA_DIR>/context.db",
    )
    context_db_timeout_ms: int = Field(
        2_000,
        ge=100,
        le=60_000,
        validation_alias="SDR_CONTEXT_DB_TIMEOUT_MS",
        description="A request to the database that takes longer has failed; connecting included.",
    )
    context_db_connections: int = Field(
        20,
        ge=4,
        le=500,
        validation_alias="SDR_CONTEXT_DB_CONNECTIONS",
        description="Connections to a remote database at most; a lookup uses four for one round trip.",
    )
    context_ttl_ms: int = Field(
        30_000,
        ge=0,
        le=86_400_000,
        validation_alias="SDR_CONTEXT_TTL_MS",
        description="Edits of a remote database by others are seen after at most this long. 0: nothing is cached.",
    )
    context_cache_entries: int = Field(
        10_000,
        ge=0,
        validation_alias="SDR_CONTEXT_CACHE_ENTRIES",
        description="Conversations kept in front of a remote database.",
    )
    context_cache_bytes: int = Field(
        128 * 1024 * 1024,
        ge=0,
        validation_alias="SDR_CONTEXT_CACHE_BYTES",
        description="Bytes of them, roughly.",
    )
    retention_days: float = Field(
        0,
        ge=0,
        validation_alias="SDR_RETENTION_DAYS",
        description="Messages, turns and changes that are older are deleted, and leads of which nothing newer is left. "
        f"0 keeps them until ForgetContact; otherwise at least {MIN_RETENTION_DAYS}.",
    )
    privacy_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="SDR_PRIVACY_KEY",
        description="Hashes the contacts of people who are never to be written to, when they are erased. At least 24 "
        "bytes; the same on every replica. Empty: SDR_DATA_DIR/privacy.key, made at the first start.",
    )

    @property
    def uses_supabase(self) -> bool:
        """The remote store is wanted."""
        return self.context_store == "supabase"

    def check(self) -> None:
        """Refuse what cannot work. Raises ConfigurationError."""
        if 0 < self.retention_days < MIN_RETENTION_DAYS:
            raise ConfigurationError(
                f"SDR_RETENTION_DAYS has to be 0 or at least {MIN_RETENTION_DAYS}: turns are recorded again until then."
            )
        if self.uses_supabase:
            # Whoever keeps to a file is spared the client, which takes a second to import.
            from context_service.store.supabase_client import check_address

            check_address(self.supabase_url, self.supabase_secret_key.get_secret_value())
        else:
            self.sqlite_path()

    def sqlite_path(self) -> Path:
        """The database file. Raises ConfigurationError for any other kind of store."""
        if not self.context_store:
            return Path(self.data_dir) / "context.db"
        scheme, _, place = self.context_store.partition(":")
        if scheme != "sqlite" or not place:
            raise ConfigurationError("SDR_CONTEXT_STORE has to be sqlite:PATH or supabase.")
        return Path(place)
