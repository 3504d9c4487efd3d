"""`.env.example` and the list of known settings are what the settings models say."""

import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from deploy import env_example
from ingress.settings import IngressSettings
from service_kit.settings import load, names


def test_the_committed_files_are_up_to_date() -> None:
    stale = [path.name for path, text in env_example.rendered().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "make env-example"


def test_every_known_setting_is_in_the_example_once_and_commented_out() -> None:
    lines = [line[1:] for line in env_example.example().splitlines() if line.startswith("#") and line[1:2].isupper()]
    known = [line for line in env_example.known().splitlines() if not line.startswith("#")]
    assert sorted(line.partition("=")[0] for line in lines) == known
    assert names(IngressSettings).keys() <= set(known)
    assert not any(line and not line.startswith("#") for line in env_example.example().splitlines())


def test_the_example_taken_as_it_is_changes_no_default(tmp_path: Path) -> None:
    """A default that holds a sign or a space has to survive the way through the file."""
    text = "\n".join(
        line[1:] for line in env_example.example().splitlines() if line.startswith("#") and line[1:2].isupper()
    )
    file = tmp_path / ".env"
    file.write_text(text, encoding="utf-8")
    read = {name: value or "" for name, value in dotenv_values(file).items()}
    for _, models in env_example.GROUPS:
        for model in models:
            assert load(model, environ=read, env_file=None) == load(model, environ={}, env_file=None)


def test_the_check_shows_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example, known = tmp_path / ".env.example", tmp_path / "known_settings.txt"
    monkeypatch.setattr(env_example, "EXAMPLE_FILE", example)
    monkeypatch.setattr(env_example, "KNOWN_SETTINGS_FILE", known)
    monkeypatch.setattr(sys, "argv", ["env_example"])
    assert env_example.main() == 0
    monkeypatch.setattr(sys, "argv", ["env_example", "--check"])
    assert env_example.main() == 0
    known.write_text(known.read_text() + "SDR_GONE\n")
    before = known.read_text()
    assert env_example.main() == 1
    assert "-SDR_GONE" in capsys.readouterr().err
    assert known.read_text() == before
