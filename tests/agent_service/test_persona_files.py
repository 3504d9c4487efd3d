"""A persona as a folder: what is read, what it is called, and where a mistake is."""

import hashlib
import os
from pathlib import Path

import pytest
import yaml

from agent_service import persona_files
from agent_service.persona import load_persona, read_persona
from agent_service.persona_files import PersonaFiles
from service_kit.settings import ConfigurationError

DEMO = persona_files.find("demo-solar")


def copy_of_demo(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in persona_files.read(DEMO).contents:
        (folder / name).write_bytes(content)
    return folder


def problem(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_persona(str(path))
    return str(caught.value)


def test_a_folder_and_one_file_with_the_same_keys_are_the_same_persona(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    data = persona_files.read(DEMO).documents().data
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    assert load_persona(str(file)) == load_persona("demo-solar")


def test_the_split_into_files_is_free(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "p")
    everything = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("facts.yaml", "never.yaml"))
    for name in ("facts.yaml", "never.yaml"):
        (folder / name).unlink()
    (folder / "what-is-true.yaml").write_text(everything, encoding="utf-8")
    assert load_persona(str(folder)) == load_persona("demo-solar")


def test_the_version_is_the_hash_of_names_and_bytes() -> None:
    files = PersonaFiles(path=Path("p"), contents=(("b.yaml", b"2"), ("a.yaml", b"1")))
    expected = hashlib.sha256(b"a.yaml\x001\x001b.yaml\x001\x002").hexdigest()[:12]
    assert files.version == expected


@pytest.mark.parametrize(
    "other",
    [
        (("a.yaml", b"1"), ("b.yaml", b"3")),
        (("a.yaml", b"1"), ("c.yaml", b"2")),
        (("a.yaml", b"12"), ("b.yaml", b"")),
        (("a.yaml", b"1"),),
    ],
)
def test_every_byte_and_name_counts(other: tuple[tuple[str, bytes], ...]) -> None:
    files = PersonaFiles(path=Path("p"), contents=(("a.yaml", b"1"), ("b.yaml", b"2")))
    assert PersonaFiles(path=Path("p"), contents=other).version != files.version


def test_the_version_does_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "elsewhere")
    assert persona_files.read(folder).version == persona_files.read(DEMO).version


def test_what_editors_leave_behind_is_no_part_of_it(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "p")
    before = persona_files.read(folder).version
    for name in (".#faq.yaml", ".faq.yaml.swp", "faq.yaml~", "#faq.yaml", "notes.txt"):
        (folder / name).write_text("{", encoding="utf-8")
    (folder / "old").mkdir()
    assert persona_files.read(folder).version == before


def test_every_problem_of_every_file_is_told_at_once_with_file_line_and_key(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "p")
    (folder / "facts.yaml").write_text("# what is true\nfacts: []\n", encoding="utf-8")
    persona = (folder / "persona.yaml").read_text(encoding="utf-8").replace("state: PE", "state: pernambuco")
    (folder / "persona.yaml").write_text(persona + "colour: blue\n", encoding="utf-8")
    line = persona[: persona.index("state: pernambuco")].count("\n") + 1
    told = problem(folder)
    assert f"{folder / 'facts.yaml'}, line 2: facts: " in told
    assert f"{folder / 'persona.yaml'}, line {line}: state: " in told
    assert f"{folder / 'persona.yaml'}, line {persona.count(chr(10)) + 1}: colour: " in told


def test_a_contradiction_is_found_in_its_step(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "p")
    script = (folder / "script.yaml").read_text(encoding="utf-8").replace("    stage: OFFER\n", "    stage: OFER\n")
    (folder / "script.yaml").write_text(script, encoding="utf-8")
    line = script[: script.index("stage: OFER")].count("\n") + 1
    expected = f"{folder / 'script.yaml'}, line {line}: script.interest.stage: OFER is not one of the stages"
    assert problem(folder) == expected


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("again.yaml", "facts: [Um fato.]", "facts: is in"),
        ("again.yaml", "goal: um\ngoal: dois", "again.yaml, line 2: goal: stands there twice"),
        ("again.yaml", "a: {b: 1, b: 2}", "again.yaml, line 1: b: stands there twice"),
        ("again.yaml", "a: [\n  1", "again.yaml, line 2: cannot be read: "),
        ("again.yaml", "a: Atenção: isto", "again.yaml, line 1: cannot be read: a text that holds ': ' has to stand"),
        ("again.yaml", "a:\n\t- b", "again.yaml, line 2: cannot be read: indent with spaces"),
        ("again.yaml", 'a: "b\nc: d', "again.yaml, line 2: cannot be read: a quote"),
        ("again.yml", "a: b", "again.yml: is not read under this name, call it again.yaml"),
        ("again.yaml", "- a", "again.yaml: must be a mapping of keys"),
        ("again.yaml", "a: 2026-99-99", "again.yaml: cannot be read: "),
        ("again.yaml", "[" * 5_000, "again.yaml"),
        ("again.yaml", "a: &a [*a]", "a: is no key here"),
        ("again.yaml", "\x00", "again.yaml: cannot be read: "),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, name: str, text: str, told: str) -> None:
    folder = copy_of_demo(tmp_path / "p")
    (folder / name).write_text(text, encoding="utf-8")
    assert told in problem(folder)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line", ["  - &n{0} [{1}]", "  - &n{0} {{<<: [{1}]}}", "  - &n{0} {{a: [{1}]}}"], ids=["lists", "merges", "maps"]
)
def test_a_few_lines_that_unfold_to_everything_are_refused_at_once(tmp_path: Path, line: str) -> None:
    """Ten lines of aliases of aliases kept the start, and every look at the files, busy for more than four minutes."""
    lines = ["facts:", "  - &n0 {a: lol}"]
    lines += [line.format(at, ",".join([f"*n{at - 1}"] * 9)) for at in range(1, 10)]
    folder = copy_of_demo(tmp_path / "p")
    (folder / "facts.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert "facts.yaml: cannot be read: holds more than 100000 values" in problem(folder)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "p")
    os.mkfifo(folder / "pipe.yaml")
    assert "pipe.yaml: is no ordinary file" in problem(folder)


def test_two_broken_files_are_both_named(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "p")
    (folder / "one.yaml").write_text("a: [", encoding="utf-8")
    (folder / "two.yaml").write_bytes(b"\xff\xfe\x00")
    told = problem(folder)
    assert "one.yaml" in told and "two.yaml: cannot be read: is not UTF-8 text" in told


def test_folders_without_a_persona(tmp_path: Path) -> None:
    assert "holds no .yaml file" in problem(tmp_path)
    assert "there is no persona" in problem(tmp_path / "gone")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (persona_files.MAX_BYTES + 1))
    assert "too large" in problem(tmp_path)


def test_what_is_derived_comes_with_the_version() -> None:
    files = persona_files.read(DEMO)
    loaded = read_persona(files)
    assert loaded.version == files.version and len(loaded.version) == 12 and loaded.path == DEMO
    assert loaded.words == loaded.persona.words()


def test_lead_fields_are_what_the_script_asks_for() -> None:
    persona = load_persona("demo-solar")
    assert list(persona.lead_fields)[:3] == ["name", "amount", "flow"]
    assert persona.lead_fields["name"] == "Como posso te chamar?"
    assert "meeting_day" in persona.preference_fields and not {"name", "amount", "flow"} & set(
        persona.preference_fields
    )
