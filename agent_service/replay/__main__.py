"""Conversations again, with the persona and the model that the settings name.

    python -m agent_service.replay EXPORT.json          what ExportContact handed over: then, and now
    python -m agent_service.replay --dialogues [PATH]   the scripted ones: what is not as it should be

Exit code 0: nothing that matters differs. 1: something does. 2: usage. 3: settings, or a file that can't be read.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from agent_service.agent import Agent
from agent_service.app import make_agent
from agent_service.persona import Persona
from agent_service.persona_source import PersonaSource
from agent_service.replay.comparing import Comparison, compare
from agent_service.replay.dialogues import Outcome, load_dialogues, play
from agent_service.replay.playing import answer
from agent_service.replay.recording import RecordedTurn, RecordingUnreadable, read_export
from agent_service.settings import AgentSettings
from service_kit import logs
from service_kit.clock import SystemClock
from service_kit.process import starting
from service_kit.settings import ConfigurationError, load, names

DIALOGUES = Path("tests/agent_service/dialogues")
# Whoever compares models wants to hear the one that was named, or nothing.
_ALONE = {"SDR_AGENT_FALLBACK_MODELS": "", "SDR_AGENT_PLAYBOOK_FALLBACK": "false"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it; the exit code."""
    asked = _parser().parse_args(arguments)
    chosen = {"SDR_AGENT_MODEL": asked.model, "SDR_PERSONA": asked.persona}
    # What this prints may be read by a program: log lines go elsewhere.
    with contextlib.redirect_stdout(sys.stderr), starting("replay"):
        settings = _settings({name: value for name, value in chosen.items() if value})
        logs.configure(service="replay", level="warning", json=False)
        if asked.dialogues is not None:
            report, code = _dialogues_report(asyncio.run(_dialogues(settings, asked)), asked)
        else:
            report, code = _export_report(asyncio.run(_export(settings, asked)), asked)
    sys.stdout.write(report + "\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agent_service.replay", description=(__doc__ or "").split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("export", nargs="?", type=Path, help="the JSON of ContextService.ExportContact")
    what.add_argument("--dialogues", nargs="?", type=Path, const=DIALOGUES, metavar="PATH", help="a file or a folder")
    parser.add_argument("--model", default="", help="as SDR_AGENT_MODEL: playbook, openai:NAME, gguf:PATH")
    parser.add_argument("--persona", default="", help="as SDR_PERSONA; dialogues name their own")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="of the dialogues, these")
    parser.add_argument("--strict", action="store_true", help="other words for the same matter too")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--verbose", action="store_true", help="also what is as it was")
    return parser


def _settings(chosen: Mapping[str, str]) -> AgentSettings:
    known = names(AgentSettings)
    alone = {name: value for name, value in _ALONE.items() if name in known}
    return load(AgentSettings, environ={**os.environ, **alone, **chosen})


@contextlib.asynccontextmanager
async def _agent(settings: AgentSettings) -> AsyncIterator[tuple[Agent, Persona]]:
    """A warm agent in this process, and who it speaks for."""
    clock = SystemClock()
    agent = make_agent(settings, source=PersonaSource(settings.persona, clock=clock), clock=clock)
    try:
        await agent.warm_up()
        if (persona := agent.report().persona) is not None:
            yield agent, persona
    finally:
        await agent.close()


# ---- recorded conversations


async def _export(settings: AgentSettings, asked: argparse.Namespace) -> list[Comparison]:
    turns: tuple[RecordedTurn, ...] = _read(asked.export)
    async with _agent(settings) as (agent, persona):
        return [compare(recorded, await answer(agent, persona, recorded.turn)) for recorded in turns]


def _read(path: Path) -> tuple[RecordedTurn, ...]:
    try:
        return read_export(path.read_bytes())
    except (OSError, RecordingUnreadable) as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _export_report(found: list[Comparison], asked: argparse.Namespace) -> tuple[str, int]:
    code = 1 if any(each.matters or (asked.strict and each.reworded) for each in found) else 0
    if asked.json:
        return json.dumps([each.as_json() for each in found], ensure_ascii=False, indent=1), code
    shown = [each.as_text() for each in found if asked.verbose or each.matters or each.reworded]
    differing, reworded = sum(each.matters for each in found), sum(each.reworded for each in found)
    shown.append(f"{len(found)} turns: {differing} differ, {reworded} are worded differently")
    return "\n".join(shown), code


# ---- scripted dialogues


async def _dialogues(settings: AgentSettings, asked: argparse.Namespace) -> list[Outcome]:
    every = load_dialogues(asked.dialogues)
    if unknown := {*asked.only} - {each.name for each in every}:
        there = ", ".join(each.name for each in every)
        raise ConfigurationError(f"there is no dialogue {', '.join(sorted(unknown))}; there are {there}")
    dialogues = [each for each in every if not asked.only or each.name in asked.only]
    outcomes: list[Outcome] = []
    for name in dict.fromkeys(each.persona for each in dialogues):
        async with _agent(settings.model_copy(update={"persona": name})) as (agent, persona):
            outcomes += [await play(each, agent, persona) for each in dialogues if each.persona == name]
    return outcomes


def _dialogues_report(outcomes: list[Outcome], asked: argparse.Namespace) -> tuple[str, int]:
    failed = sum(bool(each.problems) for each in outcomes)
    code = 1 if failed or not outcomes else 0
    if asked.json:
        listed = [{"name": each.name, "problems": each.problems, "lines": each.lines} for each in outcomes]
        return json.dumps(listed, ensure_ascii=False, indent=1), code
    shown: list[str] = []
    for each in outcomes:
        shown.append(f"{'≠' if each.problems else '='} {each.name}")
        if each.problems or asked.verbose:
            shown += [f"    {line}" for line in (*each.lines, *(f"! {problem}" for problem in each.problems))]
    shown.append(f"{len(outcomes)} dialogues: {failed} not as they should be")
    return "\n".join(shown), code


if __name__ == "__main__":
    sys.exit(main())
