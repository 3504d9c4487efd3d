"""Replay: what an export holds becomes turns again, and the scripted dialogues are the regression suite."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from agent_service.agent import Agent
from agent_service.conversation import (
    Author,
    EffectCalled,
    End,
    Ended,
    HandOver,
    Kind,
    Lead,
    LeadPatch,
    ModelEvent,
    TextDelta,
    Turn,
)
from agent_service.models.playbook import Playbook
from agent_service.persona import LoadedPersona
from agent_service.persona_source import PersonaSource
from agent_service.replay.__main__ import main
from agent_service.replay.comparing import compare
from agent_service.replay.dialogues import Dialogue, load_dialogues, play
from agent_service.replay.playing import answer
from agent_service.replay.recording import RecordedTurn, RecordingUnreadable, read_export
from agentic_sdr.common.v1 import message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from context_service.app import ContextApp
from context_service.settings import ContextSettings
from service_kit.clock import ManualClock, SystemClock
from service_kit.settings import ConfigurationError, load
from service_kit.testing import in_process
from tests.agent_service.talking import demo
from tests.context_service import builders

DIALOGUES = Path(__file__).parent / "dialogues"


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command reads the environment; it must meet no key here."""
    monkeypatch.setenv("SDR_AGENT_MODEL", "playbook")


@lru_cache
def loaded(persona: str) -> LoadedPersona:
    return PersonaSource(persona, clock=SystemClock()).load()


async def warm(persona: str) -> Agent:
    clock = SystemClock()
    agent = Agent(
        load_persona=lambda: loaded(persona),
        make_model=lambda known: Playbook(persona=known, clock=clock),
        clock=clock,
        max_replies=4,
    )
    await agent.warm_up()
    return agent


class Scripted:
    """An agent that says what it is told, and remembers what it was given."""

    def __init__(self, *events: ModelEvent, error: Exception | None = None) -> None:
        self.turns: list[Turn] = []
        self._events, self._error = events, error

    async def reply(self, turn: Turn, *, ends_at: float) -> AsyncIterator[ModelEvent]:
        self.turns.append(turn)
        for event in self._events:
            yield event
        if self._error:
            raise self._error


# ---- the regression suite


@pytest.mark.parametrize("dialogue", load_dialogues(DIALOGUES), ids=lambda dialogue: dialogue.name)
async def test_the_playbook_holds_the_dialogue(dialogue: Dialogue) -> None:
    agent = await warm(dialogue.persona)
    outcome = await play(dialogue, agent, loaded(dialogue.persona).persona)
    await agent.close()
    assert not outcome.problems, "\n".join(("", *outcome.lines, *outcome.problems))


def scripted(**values: Any) -> Dialogue:
    base = {"about": "a test", "persona": "demo-solar", "turns": [{"lead": "oi"}]}
    return Dialogue.model_validate({**base, **values})


OK = (TextDelta(text="Bom dia!\n\nTudo bem?"), Ended(why=End.STOP))
STOOD_IN = Ended(why=End.STOP, fallback_reason="rate_limited")
NAMED = EffectCalled(effect=LeadPatch(name="Ana", bill_cents=450_000))


@pytest.mark.parametrize(
    ("turn", "events", "problem"),
    [
        ({}, OK, ""),
        ({"mentions": "bom dia"}, OK, ""),
        ({"mentions": ["bom dia", "boa noite"]}, OK, "turn 1: says nothing of “boa noite”"),
        ({"never": "tudo"}, OK, "turn 1: says “tudo”"),
        ({"facts": {"name": "Ana", "bill_value": ["R$ 400", "R$ 4.500"]}}, (NAMED, *OK), ""),
        ({"facts": {"name": "Ana"}}, OK, "turn 1: name is unknown, not Ana"),
        ({"facts": {"bill_value": "R$ 400"}}, (NAMED, *OK), "turn 1: bill_value is R$ 4.500, not R$ 400"),
        ({"facts": {"name": None}}, (NAMED, *OK), "turn 1: name is Ana, not unknown"),
        ({"stage": "BILL"}, OK, "turn 1: stage is unknown, not BILL"),
        ({"handoff": True}, OK, "turn 1: should be handed over"),
        ({"handoff": False}, (EffectCalled(effect=HandOver(reason="x")), *OK), "turn 1: handed over: x"),
        ({}, (Ended(why=End.STOP),), "turn 1: says nothing"),
        ({"silent": True}, (Ended(why=End.SILENT),), ""),
        ({"silent": True}, OK, "turn 1: should be silent"),
        ({}, (TextDelta(text="\n\n".join("abcdefghi")), *OK), "turn 1: says 10 bubbles"),
        ({}, (TextDelta(text="Chame update_lead."),), "turn 1: says “update_lead”"),
        ({}, (TextDelta(text="Qual o seu CPF?"),), "turn 1: says “qual o seu cpf”"),
        ({}, (TextDelta(text="Te retorno em breve."),), "turn 1: says “te retorno”"),
        (
            {},
            (*OK[:1], Ended(why=End.STOP, fallback_reason="rate_limited")),
            "turn 1: no answer of this model: rate_limited",
        ),
    ],
)
async def test_what_is_not_as_it_should_be_is_said(
    turn: dict[str, Any], events: tuple[ModelEvent, ...], problem: str
) -> None:
    outcome = await play(scripted(turns=[{"lead": "oi", **turn}]), Scripted(*events), demo())
    assert outcome.problems == ((problem,) if problem else ())


async def test_a_model_that_fails_is_a_problem_and_not_the_end_of_the_run() -> None:
    agent = Scripted(*OK[:1], error=RuntimeError("gone"))
    outcome = await play(scripted(turns=[{"lead": "oi"}, {"lead": "e aí?"}]), agent, demo())
    assert len(agent.turns) == 2 and outcome.problems == (
        "turn 1: no answer of this model: RuntimeError: gone",
        "turn 2: no answer of this model: RuntimeError: gone",
    )


async def test_a_dialogue_keeps_facts_and_history_as_the_services_would() -> None:
    agent = Scripted(NAMED, *OK)
    dialogue = scripted(
        known={"name": "Bia", "preferences.city": "Olinda"},
        past=[{"lead": "oi"}, {"human": "Aqui é o Beto."}],
        turns=[{"lead": ["oi", {"kind": "image"}]}, {"lead": "e aí?", "days_later": 2}],
        end={"facts": {"name": "Ana", "city": "Olinda"}, "mentions": ["tudo bem"]},
    )
    outcome = await play(dialogue, agent, demo())
    assert not outcome.problems
    first, second = agent.turns
    assert first.lead.name == "Bia" and first.lead.preferences == {"city": "Olinda"}
    assert [line.author for line in first.history] == [Author.LEAD, Author.HUMAN]
    assert [message.kind for message in first.messages] == [Kind.TEXT, Kind.IMAGE]
    assert second.lead.name == "Ana" and not second.first_contact
    assert [line.sequence for line in second.history] == [1, 2, 3, 4, 5, 6]
    assert [line.text for line in second.history[-2:]] == ["Bom dia!", "Tudo bem?"]
    assert second.now_ms - first.now_ms > 2 * 86_400_000


async def test_a_dialogue_ends_with_the_hand_over() -> None:
    agent = Scripted(EffectCalled(effect=HandOver(reason="x")), *OK)
    outcome = await play(scripted(turns=[{"lead": "oi"}, {"lead": "oi?"}]), agent, demo())
    assert outcome.problems == ("turn 1: handed over, but the dialogue goes on",) and len(agent.turns) == 1


@pytest.mark.parametrize(
    "text",
    ["about: x", "[", "{about: x, persona: p, turns: []}", "{about: x, persona: p, turns: [{lead: oi, never: Á}]}"],
)
def test_a_broken_dialogue_is_refused_by_its_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "quebrado.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"quebrado\.yaml"):
        load_dialogues(file)


def test_a_folder_without_dialogues_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no dialogues"):
        load_dialogues(tmp_path)


# ---- recorded conversations


def row(number: int, **values: Any) -> dict[str, Any]:
    return {"row_id": number, "tenant": "default", "conversation_id": "c1", "lead_id": "l1", **values}


def line(sequence: int, turn_id: str, sender: str, content: str, **values: Any) -> dict[str, Any]:
    created = f"2026-11-23T13:{sequence:02}:00.000Z"
    base = row(sequence, sequence=sequence, turn_id=turn_id, sender=sender, content=content, created_at=created)
    return {**base, "message_type": "text", "details": None, **values}


def change(number: int, by: str, field: str, value: str | None) -> dict[str, Any]:
    return row(number, field=field, old_value=None, new_value=value, changed_by=by)


PLACE = '{"location": {"latitude": -8.0, "longitude": -34.9}}'
NO_EXPORTS = [
    "",
    "[1]",
    '{"chunk": "x"}',
    "\xff",
    "[]",
    "{}",
    '{"turns": [{}], "messages": [], "lead_changes": []}',
    '{"turns": 1}',
]
EXPORT: dict[str, Any] = {
    "tenant": "default",
    "leads": [row(1)],
    "lead_aliases": [],
    "conversations": [row(1)],
    "messages": [
        line(1, "t1", "lead", "oi, sou a Ana"),
        line(2, "t1", "assistant", "Prazer, Ana!"),
        line(3, "t1", "assistant", "Quanto vem a conta?"),
        line(4, "t2", "lead", "400"),
        line(5, "t2", "lead", "não, 4 mil", details='{"accepted_ms": 1}'),
        line(6, "t2", "assistant", "Anotei R$ 400."),
        line(7, "t3", "lead", "alguém?"),
        line(8, "t3", "human", "Oi, Beto aqui."),
        line(
            9, "t4", "lead", "", message_type="location", details='{"location": {"latitude": -8.0, "longitude": -34.9}}'
        ),
        line(10, "t4", "assistant", "Tive um problema.", details='{"fallback": true}'),
        line(11, "t5", "lead", "quero uma pessoa", message_type="poll"),
        line(12, "t5", "assistant", "Claro!"),
    ],
    "turns": [
        row(1, turn_id="t1", kind="answer", handoff=0),
        row(2, turn_id="t2", kind="answer", handoff=0),
        row(3, turn_id="t3", kind="record", handoff=0),
        row(4, turn_id="t4", kind="answer", handoff=0),
        row(5, turn_id="t5", kind="answer", handoff=1),
    ],
    "lead_changes": [
        change(1, "t1", "name", "Ana"),
        change(2, "t1", "current_stage", "BILL"),
        change(3, "t2", "bill_value", "400.00"),
        change(4, "t2", "interested", "1"),
        change(5, "api", "preferences.city", "Olinda"),
        change(6, "t5", "handoff", "asked"),
        change(7, "t5", "current_stage", "HUMAN_HANDOFF"),
        change(8, "t5", "preferences.city", None),
    ],
}


def test_an_export_becomes_the_turns_that_the_agent_was_given() -> None:
    first, second, fourth, fifth = read_export(json.dumps(EXPORT))
    assert (first.turn.lead, first.turn.first_contact) == (Lead(stage="INITIAL_CONTACT"), True)
    assert first.said == ("Prazer, Ana!", "Quanto vem a conta?")
    assert first.lead_after == second.turn.lead == Lead(name="Ana", stage="BILL")
    assert [message.text for message in second.turn.messages] == ["400", "não, 4 mil"]
    assert [each.text for each in second.turn.history] == ["oi, sou a Ana", "Prazer, Ana!", "Quanto vem a conta?"]
    assert second.turn.now_ms == 1_795_439_100_000
    assert second.lead_after == Lead(name="Ana", stage="BILL", bill_cents=40_000, interested=True)
    assert [(each.author, each.text) for each in fourth.turn.history[-2:]] == [
        (Author.LEAD, "alguém?"),
        (Author.HUMAN, "Oi, Beto aqui."),
    ]
    assert fourth.turn.messages[0].location == (-8.0, -34.9)
    assert fifth.turn.messages[0].kind is Kind.UNSUPPORTED and fifth.turn.history[-1].fallback
    assert fifth.turn.lead.preferences == {"city": "Olinda"} and fifth.lead_after.preferences == {}
    assert fifth.handed_over and not fourth.handed_over and fifth.lead_after.stage == "HUMAN_HANDOFF"


def test_an_export_is_read_as_grpcurl_prints_it() -> None:
    """Chunks are cut at bytes, here in the middle of an "é" too, and each is base64 by itself."""
    document = json.dumps({**EXPORT, "tenant": "é" * 40}, ensure_ascii=False).encode()
    chunks = [document[at : at + 11] for at in range(0, len(document), 11)]
    printed = "\n".join(json.dumps({"chunk": b64encode(chunk).decode()}, indent=2) for chunk in chunks)
    assert read_export(printed.encode()) == read_export(json.dumps(EXPORT))


def test_conversations_don_t_read_each_other() -> None:
    other = line(1, "x1", "lead", "segredo", conversation_id="c2")
    export = {
        **EXPORT,
        "messages": [*EXPORT["messages"], {**other, "row_id": 99}],
        "turns": [row(0, turn_id="x1", kind="answer", handoff=0, conversation_id="c2", lead_id="l2"), *EXPORT["turns"]],
    }
    assert all("segredo" not in line.text for each in read_export(json.dumps(export)) for line in each.turn.history)


def test_a_long_conversation_is_given_as_the_context_would() -> None:
    messages = [line(n, f"t{n}", "lead", f"linha {n}", created_at="2026-11-23T13:00:00.000Z") for n in range(1, 61)]
    turns = [row(n, turn_id=f"t{n}", kind="answer", handoff=0) for n in range(1, 61)]
    read = read_export(json.dumps({**EXPORT, "messages": messages, "turns": turns, "lead_changes": []}))
    assert len(read[-1].turn.history) == 40 and read[-1].turn.history_cut and not read[40].turn.history_cut


@pytest.mark.parametrize(
    "document", ["", "[]", "{}", '{"turns": [{}], "messages": [], "lead_changes": []}', '{"turns": 1}', "[" * 100_000]
)
def test_what_is_no_export_is_refused(document: str) -> None:
    with pytest.raises(RecordingUnreadable, match="ExportContact"):
        read_export(document)


def recorded(**values: Any) -> RecordedTurn:
    second = read_export(json.dumps(EXPORT))[1]
    return replace(second, **values)


async def test_the_same_facts_in_other_words_do_not_matter() -> None:
    agent = Scripted(EffectCalled(effect=LeadPatch(bill_cents=40_000, interested=True)), *OK)
    found = compare(recorded(), await answer(agent, demo(), recorded().turn))
    assert found.reworded and not found.matters and found.facts == {}
    assert "now    Bom dia!" in found.as_text()


async def test_other_facts_stages_and_hand_overs_are_named() -> None:
    agent = Scripted(
        EffectCalled(effect=LeadPatch(bill_cents=400_000)), EffectCalled(effect=HandOver(reason="asked")), *OK
    )
    found = compare(recorded(), await answer(agent, demo(), recorded().turn))
    assert found.matters
    assert {name: (each.then, each.now) for name, each in found.facts.items()} == {
        "bill_value": ("R$ 400", "R$ 4.000"),
        "interested": ("sim", ""),
        "stage": ("BILL", "HUMAN_HANDOFF"),
        "handoff": ("não", "sim"),
    }
    assert "bill_value: R$ 400 → R$ 4.000" in found.as_text()


# ---- the command


def exported(tmp_path: Path, document: object = EXPORT) -> str:
    file = tmp_path / "export.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return str(file)


def test_the_command_shows_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([exported(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "bill_value: R$ 400 → R$ 4.000" in out and out.splitlines()[-1].startswith("4 turns: ")


def test_the_command_speaks_json_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([exported(tmp_path), "--json"]) == 1
    turns = json.loads(capsys.readouterr().out)
    assert [turn["turn_id"] for turn in turns] == ["t1", "t2", "t4", "t5"]
    assert turns[1]["facts"]["bill_value"] == {"then": "R$ 400", "now": "R$ 4.000"}


def test_wording_counts_only_when_it_is_asked_for(tmp_path: Path) -> None:
    """What the playbook says today, recorded, differs in nothing; with one word changed, only strictly."""
    document = {**EXPORT, "turns": EXPORT["turns"][:1], "messages": EXPORT["messages"][:1]}
    said = [
        line(2, "t1", "assistant", "Bom dia, Ana! Aqui é a Helen, consultora da Sol do Capibaribe, aqui de Recife."),
        line(3, "t1", "assistant", "Outra pergunta?"),
    ]
    document = {**document, "messages": [*document["messages"], *said], "lead_changes": EXPORT["lead_changes"][:2]}
    assert main([exported(tmp_path, document)]) == 0
    assert main([exported(tmp_path, document), "--strict"]) == 1


def test_the_command_runs_the_dialogues(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dialogues", str(DIALOGUES), "--only", "abertura", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "= abertura" in out and "Camila" in out and "1 dialogues: 0 not as they should be" in out


def test_a_dialogue_that_fails_is_told_with_all_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ruim.yaml").write_text(
        "about: wrong\npersona: demo-solar\nturns: [{lead: oi, facts: {name: Ana}}]\n", encoding="utf-8"
    )
    assert main(["--dialogues", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "≠ ruim" in out and "! turn 1: name is unknown, not Ana" in out and "lead: oi" in out
    assert main(["--dialogues", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["problems"] == ["turn 1: name is unknown, not Ana"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.json"],
        ["--dialogues", "nowhere"],
        ["--dialogues", str(DIALOGUES), "--model", "nonsense"],
        ["--dialogues", str(DIALOGUES), "--only", "abetura"],
    ],
)
def test_what_cannot_be_read_ends_with_code_3_and_a_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 3
    captured = capsys.readouterr()
    assert captured.out == "" and "replay could not start" in captured.err


async def test_what_the_store_exports_is_read(tmp_path: Path) -> None:
    """The rows above are written by hand; these come from the store itself, so that the two cannot drift apart."""
    settings = load(ContextSettings, environ={"SDR_DATA_DIR": str(tmp_path)}, env_file=None)
    photo = builders.message("m3", type=message_pb2.MESSAGE_TYPE_IMAGE)
    records = [
        builders.turn(
            "t1",
            messages=[builders.message("m1", "oi"), builders.message("m2", "sou a Ana")],
            parts=[builders.part(0, "Prazer, Ana!")],
            effects=[builders.update(name="Ana", bill_value_cents=450_050, interested=False, stage="BILL")],
        ),
        builders.turn(
            "t2",
            messages=[photo],
            parts=[builders.part(0, "Vou chamar alguém.")],
            effects=[
                builders.update(preferences={"city": "Olinda"}),
                turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="asked")),
            ],
        ),
    ]
    async with in_process(ContextApp(settings, clock=ManualClock())) as channel:
        stub = ContextServiceStub(channel)
        for record in records:
            await stub.RecordTurn(context_pb.RecordTurnRequest(record=record))
        request = context_pb.ExportContactRequest(contact=builders.PHONE)
        document = b"".join([answer.chunk async for answer in stub.ExportContact(request)])
    first, second = read_export(document)
    assert [message.text for message in first.turn.messages] == ["oi", "sou a Ana"] and first.turn.first_contact
    assert first.said == ("Prazer, Ana!",) and first.turn.lead.bill_cents is None
    assert first.lead_after == Lead(name="Ana", bill_cents=450_050, interested=False, stage="BILL")
    assert second.turn.messages[0].kind is Kind.IMAGE and len(second.turn.history) == 3
    assert second.handed_over and second.lead_after.stage == "HUMAN_HANDOFF"
    assert second.lead_after.preferences == {"city": "Olinda"}
