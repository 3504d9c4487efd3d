from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from structlog.testing import capture_logs

from service_kit import settings
from service_kit.settings import ConfigurationError, Settings, load


class Model(Settings):
    address: str = Field("127.0.0.1:1", validation_alias="SDR_BUFFER_ADDRESS", description="where it listens")
    limit: int = Field(5, validation_alias=AliasChoices("SDR_LIMIT", "SDR_OLD_LIMIT"))
    key: SecretStr = Field(SecretStr(""), validation_alias="OPENAI_API_KEY")
    peers: list[str] = Field([], validation_alias="SDR_PEERS")

    @field_validator("address")
    @classmethod
    def _has_port(cls, value: str) -> str:
        if ":" not in value:
            raise ValueError("an address is HOST:PORT")
        return value


class Required(Settings):
    data: Path = Field(validation_alias="SDR_DATA_DIR", description="where the data lives")


def read(environ: dict[str, str], model: type[Settings] = Model, env_file: Path | None = None) -> Any:
    return load(model, environ=environ, env_file=env_file)


def refusal(environ: dict[str, str], model: type[Settings] = Model) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(environ, model)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "known_settings.txt"
    monkeypatch.setattr(settings, "KNOWN_SETTINGS_FILE", path)
    return path


def test_defaults_environment_and_file_in_order(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("\ufeffSDR_BUFFER_ADDRESS=file:1\nSDR_LIMIT=7\n# comment\n", encoding="utf-8")
    assert read({}).limit == 5
    loaded = read({"SDR_LIMIT": "9", "SDR_PEERS": '["a"]'}, env_file=env_file)
    assert (loaded.address, loaded.limit, loaded.peers) == ("file:1", 9, ["a"])
    assert read({"sdr_old_limit": "3"}).limit == 3
    with pytest.raises(ValidationError):
        loaded.limit = 1


def test_an_empty_value_counts_as_unset(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("SDR_LIMIT=7\n")
    assert read({"SDR_LIMIT": "", "SDR_BUFFER_ADDRESS": " "}, env_file=env_file).limit == 7
    assert "SDR_DATA_DIR is required but not set (where the data lives)" in refusal({"SDR_DATA_DIR": ""}, Required)


def test_unknown_names_are_refused_all_at_once_with_the_nearest_right_one() -> None:
    text = refusal({"SDR_BUFER_ADDRESS": "x", "SDR_LIMITS": "1", "SDR_XQZ": "", "SDR_LIMIT": "many"})
    assert text.splitlines()[:3] == [
        "SDR_BUFER_ADDRESS is not a setting; did you mean SDR_BUFFER_ADDRESS?",
        "SDR_LIMITS is not a setting; did you mean SDR_LIMIT?",
        "SDR_XQZ is not a setting",
    ]
    assert text.splitlines()[3].startswith("SDR_LIMIT is not valid: input should be a valid integer")


def test_unknown_names_in_the_file_are_refused_too(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("SDR_LIMITT=7\n")
    with pytest.raises(ConfigurationError, match="SDR_LIMITT is not a setting; did you mean SDR_LIMIT"):
        read({}, env_file=env_file)


def test_names_of_other_services_are_known(known: Path) -> None:
    known.write_text("# generated\nSDR_AGENT_MODEL\n")
    read({"SDR_AGENT_MODEL": "x"})
    assert "did you mean SDR_AGENT_MODEL?" in refusal({"SDR_AGENT_MODL": "x"})


def test_what_kubernetes_injects_is_ignored_unless_it_is_a_setting(known: Path) -> None:
    injected = {
        "SDR_BUFFER_SERVICE_HOST": "10.0.0.1",
        "SDR_BUFFER_SERVICE_PORT": "50051",
        "SDR_BUFFER_SERVICE_PORT_GRPC": "50051",
        "SDR_BUFFER_PORT": "tcp://10.0.0.1:50051",
        "SDR_BUFFER_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "SDR_BUFFER_PORT_50051_TCP_ADDR": "10.0.0.1",
        "SDR_BUFFER_PORT_50051_UDP_PROTO": "udp",
    }
    read(injected)
    assert "SDR_BUFFER_PORT is not a setting" in refusal({"SDR_BUFFER_PORT": "50051"})

    class Ported(Settings):
        port: int = Field(1, validation_alias="SDR_BUFFER_SERVICE_PORT")

    assert read(injected, Ported).port == 50051


def test_foreign_names_only_warn_and_only_when_near() -> None:
    with capture_logs() as events:
        read({"OPENAI_API_KEYS": "hunter2", "OPENAI_ORGANISATION": "x", "OTHER": "x"})
    assert [(event["variable"], event["nearest"]) for event in events] == [("OPENAI_API_KEYS", "OPENAI_API_KEY")]
    assert "hunter2" not in str(events)


def test_values_are_never_printed() -> None:
    assert "hunter2" not in refusal({"SDR_LIMIT": "hunter2", "SDR_PEERS": "[1"})
    assert "SDR_PEERS" in refusal({"SDR_PEERS": "hunter2"})
    assert refusal({"SDR_BUFFER_ADDRESS": "x"}) == "SDR_BUFFER_ADDRESS is not valid: an address is HOST:PORT"


def test_an_unreadable_file_is_a_sentence(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(b"SDR_LIMIT=\xff\n")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read({}, env_file=env_file)


def test_direct_construction_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDR_LIMIT", "8")
    assert Model(_env_file=None).limit == 8  # type: ignore[call-arg]


def test_names_lists_every_variable() -> None:
    assert list(settings.names(Model)) == [
        "SDR_BUFFER_ADDRESS",
        "SDR_LIMIT",
        "SDR_OLD_LIMIT",
        "OPENAI_API_KEY",
        "SDR_PEERS",
    ]
