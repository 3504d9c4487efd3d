"""Where the Evolution API is, and how its webhooks prove themselves."""

import re
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from service_kit.settings import Settings

MIN_SECRET_BYTES = 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HEADER_SAFE = re.compile(r"[!#-&(-~]+", re.ASCII)


class EvolutionSettings(Settings):
    """Evolution API v2. All empty: the provider is off."""

    evolution_api_url: str = Field(
        "", validation_alias="EVOLUTION_API_URL", description="Base address of the Evolution API, http or https"
    )
    evolution_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="EVOLUTION_API_KEY", description="Evolution's key: global, or of the instance"
    )
    evolution_instance: str = Field(
        "",
        validation_alias="EVOLUTION_INSTANCE",
        max_length=100,
        description="Instance to assume when a webhook names none",
    )
    evolution_webhook_token: SecretStr = Field(
        SecretStr(""),
        validation_alias="EVOLUTION_WEBHOOK_TOKEN",
        description="Secret that webhooks carry as `Authorization: Bearer …` or `?token=`, at least 16 bytes",
    )
    evolution_webhook_jwt_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="EVOLUTION_WEBHOOK_JWT_KEY",
        description="Evolution's `jwt_key`, with which it signs its webhooks, at least 16 bytes",
    )

    @property
    def evolution_is_configured(self) -> bool:
        """Whether this provider is to be used at all."""
        return bool(self.evolution_api_url)

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> Self:
        problems = self.evolution_problems()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def evolution_problems(self) -> list[str]:
        """What is wrong with these settings, as sentences without a value."""
        secrets = {
            "EVOLUTION_WEBHOOK_TOKEN": self.evolution_webhook_token.get_secret_value(),
            "EVOLUTION_WEBHOOK_JWT_KEY": self.evolution_webhook_jwt_key.get_secret_value(),
        }
        api_key = self.evolution_api_key.get_secret_value()
        named = self.evolution_instance
        problems = [] if not named or is_instance_name(named) else ["EVOLUTION_INSTANCE cannot be an instance's name"]
        problems += [*_unprintable({"EVOLUTION_API_KEY": api_key, **secrets}), *_too_short(secrets)]
        if self.evolution_api_url:
            problems += _url_problems(self.evolution_api_url)
            if not api_key:
                problems.append("EVOLUTION_API_URL is set but EVOLUTION_API_KEY is not: nothing could be sent")
            if not any(secrets.values()):
                problems.append(
                    "EVOLUTION_API_URL is set but neither EVOLUTION_WEBHOOK_TOKEN nor EVOLUTION_WEBHOOK_JWT_KEY is: "
                    "anybody could send webhooks"
                )
        elif api_key or any(secrets.values()):
            problems.append("Evolution is half configured: EVOLUTION_API_URL is not set")
        return problems


def is_instance_name(name: str) -> bool:
    """Whether the services behind take it, and an address with it leads where it should."""
    # Only dots would be a step in the path of the address that answers are sent to.
    short = len(name) <= 100 and len(name.encode("utf-8", "replace")) <= 256
    return bool(short and name.strip(" .")) and not _CONTROL.search(name)


def _unprintable(secrets: dict[str, str]) -> list[str]:
    return [
        f"{name} holds spaces, quotes, a line end or characters that no header can carry"
        for name, value in secrets.items()
        if value and not _HEADER_SAFE.fullmatch(value)
    ]


def _too_short(secrets: dict[str, str]) -> list[str]:
    return [
        f"{name} is shorter than {MIN_SECRET_BYTES} bytes"
        for name, value in secrets.items()
        if value and len(value.encode("utf-8", "replace")) < MIN_SECRET_BYTES
    ]


def _url_problems(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return ["EVOLUTION_API_URL is not an address"]
    if not usable or not re.fullmatch(r"[!-~]+", url) or any(quote in url for quote in "\"'"):
        return ["EVOLUTION_API_URL is not an http or https address"]
    if parts.username is not None or parts.password is not None:
        return ["EVOLUTION_API_URL holds a user name or password; the key belongs into EVOLUTION_API_KEY"]
    if parts.query or parts.fragment:
        return ["EVOLUTION_API_URL holds a query or a fragment; only the base address belongs there"]
    return []
