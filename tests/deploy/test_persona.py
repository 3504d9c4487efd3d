"""`make persona` and `make persona-check`: what they make, what they leave alone, and how they end."""

from pathlib import Path

import pytest

from agent_service.persona import load_persona
from deploy import persona


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["persona", *arguments])
    return persona.main()


@pytest.mark.parametrize("example", ["demo-solar", "demo-clinica"])
def test_a_copy_is_a_persona_of_its_own(
    example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "new", "--name", "minha-empresa", "--from", example) == 0
    told = capsys.readouterr().out
    assert "SDR_PERSONA=personas/minha-empresa" in told and "make persona-check NAME=minha-empresa" in told
    made = load_persona("personas/minha-empresa")
    assert made.name == "minha-empresa"
    assert made == load_persona(example).model_copy(update={"name": "minha-empresa"})
    assert "# QUEM FALA" in Path("personas/minha-empresa/persona.yaml").read_text(encoding="utf-8")
    assert [each.name for each in Path("personas").iterdir()] == ["minha-empresa"], "nothing half-made is left"
    assert run(monkeypatch, "check", "minha-empresa") == 0
    assert "is still" in capsys.readouterr().out


def test_what_is_there_is_never_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Path("personas/minha-empresa/persona.yaml")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    assert run(monkeypatch, "new", "--name", "minha-empresa") == 1
    assert mine.read_text(encoding="utf-8") == "mine" and len(list(mine.parent.iterdir())) == 1


@pytest.mark.parametrize("name", ["", "Minha", "a/b", "../x", "demo-solar", "-x", "é"])
def test_names_that_are_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "new", f"--name={name}") == 2
    assert not Path("personas").exists()


def test_an_example_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "new", "--name", "x", "--from", "nobody") == 1
    told = capsys.readouterr().err
    assert "demo-clinica" in told and "SDR_PERSONA" not in told


def test_an_own_persona_in_one_file_can_be_copied_too(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Path("old.yaml")
    run(monkeypatch, "new", "--name", "a")
    parts = [each.read_text(encoding="utf-8") for each in sorted(Path("personas/a").iterdir())]
    one.write_text("\n".join(parts), encoding="utf-8")
    assert run(monkeypatch, "new", "--name", "b", "--from", "old.yaml") == 0
    assert load_persona("personas/b").name == "b"


def test_the_check_ends_with_1_when_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "new", "--name", "a")
    file = Path("personas/a/sentences.yaml")
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"Imagina!"', '"Te retorno em breve."'), encoding="utf-8")
    line = text[: text.index('"Imagina!"')].count("\n") + 1
    capsys.readouterr()
    assert run(monkeypatch, "check", "a") == 1
    assert f"error    personas/a/sentences.yaml, line {line}: sentences.thanks.0: " in capsys.readouterr().out
    file.write_text("sentences: [", encoding="utf-8")
    assert run(monkeypatch, "check") == 1
    told = capsys.readouterr().out
    assert "personas/a: cannot be used" in told and "demo-solar (version" in told
    assert run(monkeypatch, "check", "--packaged") == 0
    assert run(monkeypatch, "check", "nobody") == 1
