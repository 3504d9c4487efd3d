"""Settings of the agent."""

import json
import re
from collections.abc import Mapping

from pydantic import Field, SecretStr, field_validator

from agent_service.models.local_settings import LocalSettings
from agent_service.models.prices import Prices
from service_kit.addresses import AgentAddress, ProcessSettings

DEFAULT_BASE_URL = "https://api.openai.com/v1"


class ModelSettings(ProcessSettings):
    """Who writes the replies, and what it may cost."""

    model: str = Field(
        "auto",
        validation_alias="SDR_AGENT_MODEL",
        description="Who writes the replies: playbook, openai:NAME (any compatible server, see OPENAI_BASE_URL) or "
        "gguf:PATH (weights in the agent's own process). auto: a small model of OpenAI when OPENAI_API_KEY is set and "
        "OPENAI_BASE_URL is not, else the playbook.",
    )
    fallback_models: str = Field(
        "",
        validation_alias="SDR_AGENT_FALLBACK_MODELS",
        description="Models that are asked, in this order, when the first can't answer; names separated by commas.",
    )
    playbook_fallback: bool = Field(
        True,
        validation_alias="SDR_AGENT_PLAYBOOK_FALLBACK",
        description="The playbook answers when no language model can. false: the lead gets the honest sentence, and a "
        "human is called.",
    )
    openai_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="OPENAI_API_KEY",
        description="Key of OpenAI or of the compatible server; a server at a private address may need none.",
    )
    openai_base_url: str = Field(
        DEFAULT_BASE_URL,
        validation_alias="OPENAI_BASE_URL",
        pattern=r"^https?://\S+$",
        description="Where the openai: models are; recipes in docs/howto/language-models.md.",
    )
    extra_body: str = Field(
        "",
        validation_alias="SDR_AGENT_EXTRA_BODY",
        description='A JSON object that goes into every request to an openai: model, e.g. {"reasoning_effort":"low"}.',
    )
    first_token_ms: int = Field(
        8_000,
        ge=100,
        le=120_000,
        validation_alias="SDR_AGENT_FIRST_TOKEN_MS",
        description="Without a token for so long, the next model is asked; at the start, the others serve while it "
        "warms up.",
    )
    idle_ms: int = Field(
        5_000,
        ge=100,
        le=120_000,
        validation_alias="SDR_AGENT_IDLE_MS",
        description="A stream that is silent for so long is given up; what was said stands.",
    )
    max_output_tokens: int = Field(
        1024,
        ge=16,
        le=32_768,
        validation_alias="SDR_AGENT_MAX_OUTPUT_TOKENS",
        description="Of one call; a reasoning model's thoughts are among them.",
    )
    prompt_tokens: int = Field(
        6_000,
        ge=1_000,
        le=1_000_000,
        validation_alias="SDR_AGENT_PROMPT_TOKENS",
        description="Of one call; history that doesn't fit is replaced by a summary.",
    )
    prices: str = Field(
        "",
        validation_alias="SDR_AGENT_PRICES",
        description="NAME=input/cached/output, separated by commas, in US dollars per million tokens; without a price "
        "replies cost 0.",
    )
    daily_tokens_per_conversation: int = Field(
        500_000,
        ge=0,
        validation_alias="SDR_AGENT_DAILY_TOKENS_PER_CONVERSATION",
        description="Above it the persona's limit_sentence is said, once a day. Days are counted in UTC. 0: no limit.",
    )
    daily_tokens_per_tenant: int = Field(
        0,
        ge=0,
        validation_alias="SDR_AGENT_DAILY_TOKENS_PER_TENANT",
        description="The same for all conversations of a tenant together.",
    )
    reprime_after_ms: int = Field(
        240_000,
        ge=0,
        validation_alias="SDR_AGENT_REPRIME_AFTER_MS",
        description="A model that costs nothing reads its fixed prefix again after so long without a call. 0: never.",
    )

    @field_validator("openai_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
            raise ValueError("holds characters that no header can carry")
        return value

    @field_validator("extra_body")
    @classmethod
    def _is_object(cls, value: str) -> str:
        try:
            found = json.loads(value or "{}")
        except ValueError:
            raise ValueError("must be a JSON object") from None
        if not isinstance(found, dict):
            raise ValueError("must be a JSON object")
        return value

    @field_validator("prices")
    @classmethod
    def _are_prices(cls, value: str) -> str:
        Prices.parse(value)
        return value

    @property
    def extra(self) -> Mapping[str, object]:
        """`extra_body`, read."""
        return dict(json.loads(self.extra_body or "{}"))


class AgentSettings(AgentAddress, ModelSettings, LocalSettings):
    """Read once at start."""

    persona: str = Field(
        "demo-solar",
        validation_alias="SDR_PERSONA",
        description="A packaged persona's name, or the path of a persona's folder or file.",
    )
    loop_guard: bool = Field(
        True,
        validation_alias="SDR_AGENT_LOOP_GUARD",
        description="A conversation whose other side looks like a machine is handed to a human in silence.",
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
