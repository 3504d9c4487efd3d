"""Hot reload: what becomes current, when, and what never does."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from agent_service.persona import LoadedPersona
from agent_service.persona_source import PersonaSource
from service_kit.clock import ManualClock
from service_kit.settings import ConfigurationError
from tests.agent_service.test_persona_files import copy_of_demo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_of_demo(tmp_path / "mine")


@pytest.fixture
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as events:
        yield events


def source_of(folder: Path) -> PersonaSource:
    source = PersonaSource(str(folder), clock=ManualClock())
    source.load()
    return source


def rename(folder: Path, agent: str, *, then: str = "") -> None:
    file = folder / "persona.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines = [f"agent: {agent}" if line.startswith("agent:") else line for line in lines]
    file.write_text("\n".join(lines) + "\n" + then, encoding="utf-8")


def events(logged: list[structlog.typing.EventDict]) -> list[str]:
    return [str(each["event"]) for each in logged]


async def test_a_change_counts_when_it_stood_still(folder: Path) -> None:
    source = source_of(folder)
    first = source.current
    rename(folder, "Ana")
    assert not await source.poll() and source.current is first
    assert await source.poll()
    assert source.current.persona.agent == "Ana" and source.current.version != first.version
    assert not await source.poll()


async def test_a_file_that_is_still_being_written_is_waited_for(folder: Path) -> None:
    source = source_of(folder)
    for agent in ("A", "An", "Ana"):
        rename(folder, agent)
        assert not await source.poll()
    assert source.current.persona.agent == "Helen" and not source.problem
    assert await source.poll() and source.current.persona.agent == "Ana"


async def test_a_broken_version_changes_nothing_and_is_seen(
    folder: Path, logged: list[structlog.typing.EventDict]
) -> None:
    source = source_of(folder)
    first = source.current
    rename(folder, "Ana", then="colour: blue\n")
    for _ in range(5):
        assert not await source.poll()
    assert source.current is first
    assert "persona.yaml" in source.problem and "colour: is no key here" in source.problem
    assert events(logged) == ["persona_refused"], "once, not at every look"
    assert logged[0]["kept_version"] == first.version


async def test_a_mended_file_is_taken_and_the_problem_is_over(
    folder: Path, logged: list[structlog.typing.EventDict]
) -> None:
    source = source_of(folder)
    rename(folder, "Ana", then="colour: blue\n")
    await source.poll()
    await source.poll()
    rename(folder, "Ana")
    text = (folder / "persona.yaml").read_text(encoding="utf-8").replace("colour: blue\n", "")
    (folder / "persona.yaml").write_text(text, encoding="utf-8")
    assert not await source.poll() and source.problem
    assert await source.poll() and not source.problem and source.current.persona.agent == "Ana"
    assert events(logged) == ["persona_refused", "persona_reloaded"]


async def test_going_back_to_what_is_spoken_ends_the_problem_too(
    folder: Path, logged: list[structlog.typing.EventDict]
) -> None:
    source = source_of(folder)
    first, before = source.current, (folder / "faq.yaml").read_bytes()
    (folder / "faq.yaml").write_text("faq: [", encoding="utf-8")
    await source.poll()
    await source.poll()
    assert source.problem
    (folder / "faq.yaml").write_bytes(before)
    assert not await source.poll() and not source.problem and source.current is first
    assert events(logged) == ["persona_refused", "persona_restored"]
    (folder / "faq.yaml").write_text("faq: [", encoding="utf-8")
    await source.poll()
    await source.poll()
    assert source.problem, "the same mistake again is told again"


async def test_a_folder_that_vanishes_keeps_the_version(
    folder: Path, tmp_path: Path, logged: list[structlog.typing.EventDict]
) -> None:
    source = source_of(folder)
    first = source.current
    away = folder.rename(tmp_path / "away")
    assert not await source.poll() and not source.problem, "an editor may be replacing it"
    assert not await source.poll() and source.problem and source.current is first
    assert not await source.poll() and events(logged) == ["persona_refused"]
    away.rename(folder)
    assert not await source.poll() and not source.problem


async def test_a_snapshot_never_changes(folder: Path) -> None:
    """A turn that began with one version ends with it."""
    source = source_of(folder)
    taken = source.current
    said = taken.persona.model_dump_json()
    rename(folder, "Ana")
    await source.poll()
    await source.poll()
    assert source.current is not taken and taken.persona.agent == "Helen"
    assert taken.persona.model_dump_json() == said


async def test_a_version_is_prepared_before_it_is_current(folder: Path) -> None:
    source = source_of(folder)
    seen: list[tuple[str, str]] = []

    async def prepare(loaded: LoadedPersona) -> None:
        seen.append((source.current.persona.agent, loaded.persona.agent))

    rename(folder, "Ana")
    await source.poll(prepare)
    await source.poll(prepare)
    assert seen == [("Helen", "Ana")] and source.current.persona.agent == "Ana"


async def test_a_version_that_cannot_be_prepared_is_refused(folder: Path) -> None:
    source = source_of(folder)

    async def refuse(loaded: LoadedPersona) -> None:
        raise ConfigurationError("the prompt is too long")

    rename(folder, "Ana")
    await source.poll(refuse)
    assert not await source.poll(refuse) and source.problem == "the prompt is too long"
    assert source.current.persona.agent == "Helen"


async def test_watching_looks_by_the_clock(folder: Path) -> None:
    clock = ManualClock()
    source = PersonaSource(str(folder), clock=clock, look_every_s=2.0)
    source.load()
    taken = asyncio.Event()

    async def prepare(loaded: LoadedPersona) -> None:
        taken.set()

    watching = asyncio.create_task(source.watch(prepare))
    rename(folder, "Ana")
    while not taken.is_set():
        while not clock.sleepers and not taken.is_set():
            await asyncio.sleep(0)
        clock.advance(2000)
    while source.current.persona.agent != "Ana":
        await asyncio.sleep(0)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


def test_a_start_with_a_broken_persona_is_refused(folder: Path) -> None:
    rename(folder, "Ana", then="colour: blue\n")
    with pytest.raises(ConfigurationError, match="colour"):
        PersonaSource(str(folder), clock=ManualClock()).load()


async def test_nothing_is_handed_out_before_it_is_loaded() -> None:
    source = PersonaSource("demo-solar", clock=ManualClock())
    with pytest.raises(RuntimeError, match="loaded"):
        _ = source.current
    with pytest.raises(RuntimeError, match="loaded"):
        await source.poll()


async def test_the_folder_is_the_one_of_the_start_wherever_the_process_goes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    source = PersonaSource(folder.name, clock=ManualClock())
    source.load()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    rename(folder, "Ana")
    await source.poll()
    assert await source.poll() and not source.problem
