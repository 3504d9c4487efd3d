"""Settings of the buffer. Lengths are milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from buffer_service.turn_taking import Policy, Strategy
from buffer_service.turn_taking.hold import AdaptiveHold
from service_kit.addresses import BufferAddress, ProcessSettings
from service_kit.settings import ConfigurationError, Settings

PROFILES: dict[str, dict[str, str]] = {
    "fast": {"SDR_BUFFER_COMMIT_HOLD_MS": "200", "SDR_BUFFER_MAX_HOLD_MS": "2000", "SDR_BUFFER_QUIET_MS": "300"},
    "patient": {"SDR_BUFFER_COMMIT_HOLD_MS": "2500", "SDR_BUFFER_MAX_HOLD_MS": "15000", "SDR_BUFFER_QUIET_MS": "2500"},
    "classic": {"SDR_BUFFER_STRATEGY": "fixed_delay", "SDR_BUFFER_FIXED_DELAY_MS": "10000"},
}


class TurnDeadline(Settings):
    """The turn's deadline, which the buffer measures."""

    turn_deadline_ms: int = Field(
        30_000,
        ge=11_000,
        le=600_000,
        validation_alias="SDR_TURN_DEADLINE_MS",
        description="A lead gets an answer within this long after the oldest message of the turn was accepted.",
    )
    turn_reserve_ms: int = Field(
        3_000,
        ge=500,
        le=10_000,
        validation_alias="SDR_TURN_RESERVE_MS",
        description="This long before the deadline holds end, and messages wait for the next turn.",
    )


class BufferSettings(ProcessSettings, BufferAddress, TurnDeadline):
    """Everything that can be said to the buffer."""

    store: str = Field(
        "",
        validation_alias="SDR_BUFFER_STORE",
        description="sqlite:PATH; empty means sqlite:<SDR_DATA_DIR>/buffer.db. (redis:// arrives later.)",
    )
    profile: Literal["", "fast", "patient", "classic"] = Field(
        "",
        validation_alias="SDR_BUFFER_PROFILE",
        description="A preset over the knobs below; one that is set by itself wins. fast: hardly holds. patient: waits "
        "longer for people who write in pieces. classic: the fixed wait of 10 s that flow builders have.",
    )
    strategy: Literal["preempt", "enqueue", "fixed_delay"] = Field(
        "preempt",
        validation_alias="SDR_BUFFER_STRATEGY",
        description="preempt: answer at once, messages join until the first bubble is sent. enqueue: group them while "
        "busy. fixed_delay: the old behaviour.",
    )
    commit_hold_ms: str = Field(
        "adaptive",
        pattern=r"^(adaptive|\d{1,5})$",
        validation_alias="SDR_BUFFER_COMMIT_HOLD_MS",
        description="Strategy preempt: the reply leaves when the lead was quiet for this long. adaptive: by what the "
        "last message sounds like and by the gaps between this person's messages.",
    )
    max_hold_ms: int = Field(
        8_000,
        ge=0,
        le=60_000,
        validation_alias="SDR_BUFFER_MAX_HOLD_MS",
        description="Strategy preempt: this long after a turn opened its reply is held no longer, whatever comes.",
    )
    quiet_ms: int = Field(
        700,
        ge=0,
        le=60_000,
        validation_alias="SDR_BUFFER_QUIET_MS",
        description="Messages that came during a turn are answered when the lead was quiet for this long.",
    )
    busy_timeout_ms: int = Field(
        10_000,
        ge=0,
        le=120_000,
        validation_alias="SDR_BUFFER_BUSY_TIMEOUT_MS",
        description="… or when the oldest of them is this old.",
    )
    fixed_delay_ms: int = Field(
        10_000,
        ge=0,
        le=120_000,
        validation_alias="SDR_BUFFER_FIXED_DELAY_MS",
        description="Strategy fixed_delay: every turn waits this long.",
    )
    lease_ms: int = Field(
        3_000,
        ge=1_500,
        le=60_000,
        validation_alias="SDR_BUFFER_LEASE_MS",
        description="A worker that sends no heartbeat for this long loses its turns.",
    )
    max_attempts: int = Field(
        5,
        ge=1,
        le=20,
        validation_alias="SDR_BUFFER_MAX_ATTEMPTS",
        description="A turn that was lost this often becomes a dead letter, and the lead gets the honest sentence.",
    )
    handoff_quiet_ms: int = Field(
        8 * 3_600_000,
        ge=1_000,
        validation_alias="SDR_HANDOFF_QUIET_MS",
        description="A pause ends when no human wrote for this long; what they wrote before that begins none.",
    )
    stale_after_ms: int = Field(
        3_600_000,
        ge=1_000,
        validation_alias="SDR_INGRESS_STALE_AFTER_MS",
        description="A message that is older than this when it is accepted is recorded without an answer.",
    )
    max_pending_messages: int = Field(
        200_000,
        ge=1,
        validation_alias="SDR_BUFFER_MAX_PENDING_MESSAGES",
        description="More unanswered messages than this, over all conversations, are refused with a retry delay.",
    )
    max_pending_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        validation_alias="SDR_BUFFER_MAX_PENDING_BYTES",
        description="More bytes of unanswered messages than this are refused with a retry delay.",
    )
    min_free_disk_bytes: int = Field(
        200 << 20,
        ge=0,
        validation_alias="SDR_BUFFER_MIN_FREE_DISK_BYTES",
        description="With less free disk than this, messages are refused with a retry delay.",
    )
    retention_days: float = Field(
        8.0,
        ge=8.0,
        validation_alias="SDR_BUFFER_RETENTION_DAYS",
        description="Recorded turns are kept this long, for deduplication: providers repeat webhooks for 7 days.",
    )
    people_retention_days: float = Field(
        0,
        ge=0,
        validation_alias="SDR_RETENTION_DAYS",
        description="What was said, and who said nothing since, is deleted when it is older, by buffer and context; "
        "dead letters that nobody looked at too. 0 keeps it until ForgetContact; otherwise at least 10.",
    )

    @property
    def path(self) -> Path:
        """The SQLite file."""
        if not self.store:
            return self.data_dir / "buffer.db"
        kind, _, path = self.store.partition(":")
        if kind != "sqlite" or not path:
            raise ConfigurationError(f"SDR_BUFFER_STORE={self.store!r}: only sqlite:PATH is supported")
        return Path(path)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_profile(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = PROFILES.get(str(given.get("SDR_BUFFER_PROFILE", "")), {})
        return {**preset, **given}

    @property
    def policy(self) -> Policy:
        """The knobs of turn-taking."""
        adaptive = self.commit_hold_ms == "adaptive"
        return Policy(
            strategy=Strategy(self.strategy),
            lease=self.lease_ms,
            hold=AdaptiveHold() if adaptive else int(self.commit_hold_ms),
            max_hold=self.max_hold_ms,
            quiet=self.quiet_ms,
            busy_timeout=self.busy_timeout_ms,
            fixed_delay=self.fixed_delay_ms,
            deadline=self.turn_deadline_ms,
            reserve=self.turn_reserve_ms,
            max_attempts=self.max_attempts,
            handoff_quiet=self.handoff_quiet_ms,
            stale_after=self.stale_after_ms,
        )
