"""The status screen."""

from pathlib import Path

import pytest

from agentic_sdr.agent.v1 import agent_service_pb2
from agentic_sdr.buffer.v1 import buffer_service_pb2
from deploy.settings import SystemSettings
from deploy.status import Facts, ago, gather, screen
from deploy.supervision import ProcessState, Supervisor
from service_kit.settings import load
from tests.deploy.running import RunningSystem, free_addresses

pytestmark = pytest.mark.slow


def settings_in(directory: Path) -> SystemSettings:
    environ = {"SDR_DATA_DIR": str(directory / "data"), **free_addresses()}
    return load(SystemSettings, environ=environ, env_file=None)


def test_everything_down_is_said_plainly(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    lines = screen(settings, gather(settings, Supervisor(settings.data_dir)), now_s=0)
    assert lines[1] == "  nothing is running: make up"
    assert [line.split()[-1] for line in lines[2:6]] == ["down"] * 4
    assert lines[6:] == [
        "Webhooks       unknown: ingress does not answer",
        "Conversations  unknown: the buffer does not answer",
        "Bursts         unknown: the buffer does not answer",
        "Trouble        unknown: the buffer does not answer",
        "Agent          unknown: it does not answer",
    ]


def test_everything_up_fits_one_screen(tmp_path: Path) -> None:
    stats = buffer_service_pb2.GetStatsResponse(
        waiting_turns=1,
        running_turns=2,
        pending_messages=3,
        paused_conversations=4,
        dead_letters=5,
        unrecorded_turns=6,
        quarantined=7,
        needs_human=8,
        unknown_parts=9,
        strategy="preempt",
        counters={"bursts": 4, "replies": 5, "added_wait_ms": 2_000, "restarts": 3},
    )
    stats.oldest_pause_time.FromSeconds(100_000 - 7_300)
    up = ProcessState(name="ingress", state="RUNNING", pid=7, running_s=130, note="")
    facts = Facts(
        processes={"ingress": up, "agent_service": ProcessState(**{**vars(up), "state": "BACKOFF", "note": "exited"})},
        health={"agent_service": "no answer", "ingress": "ready, without agent"},
        stats=stats,
        console={
            "last_webhook_ms": {"evolution": 99_988_000},
            "refused": {"too_large": 1, "bad_token": 2},
            "context": {"trust": "out", "out_s": 75.2},
            "provider_states": {"loja-1": "close"},
        },
        agent=agent_service_pb2.GetAgentResponse(
            state=agent_service_pb2.AGENT_STATE_READY,
            model="playbook",
            persona="demo-solar",
            persona_display_name="Sol",
            persona_problem="facts.yaml, line 2: facts: is missing",
        ),
    )
    lines = screen(settings_in(tmp_path), facts, now_s=100_000)
    assert lines[1].endswith(" backoff, exited")
    assert lines[2].endswith(" ready, without agent, for 2 min, process 7")
    assert lines[3:] == [
        "Webhooks       last evolution 12 s ago · refused 3 (bad_token 2, too_large 1) · loja-1 is close",
        "Conversations  turns waiting 1, running 2 · messages pending 3 · paused 4 (the oldest for 2 h)"
        " · needs a human 8",
        "Bursts         replies per burst 1.25 · held 0.4 s on average · restarts 3 (strategy preempt)",
        "Trouble        answering without context for 1 min · dead letters 5 · unrecorded 6 · quarantined 7"
        " · fate unknown 9",
        "Agent          ready · model playbook, free of charge · persona demo-solar (Sol)"
        "; what its files say now is not taken: facts.yaml, line 2: facts: is missing",
    ]


def test_a_half_empty_answer_of_ingress_is_enough(tmp_path: Path) -> None:
    facts = Facts(processes={}, health={}, stats=None, console={}, agent=None)
    assert "Webhooks       none yet · refused 0" in screen(settings_in(tmp_path), facts, now_s=0)


def test_lengths_of_time_are_told_in_the_largest_unit() -> None:
    assert [ago(0, seconds) for seconds in (-5, 59, 60, 3_600, 200_000)] == ["0 s", "59 s", "1 min", "1 h", "2 d"]


def test_a_misspelt_name_hides_nothing(tmp_path: Path) -> None:
    system = RunningSystem(tmp_path, SDR_PERSONNA="x")
    status, down = system.run("status"), system.run("down")
    assert (status.returncode, down.returncode) == (0, 0)
    assert "did you mean SDR_PERSONA?" in status.stderr
    assert "nothing is running" in status.stdout
    assert f"Nothing runs in {system.data_dir}" in down.stdout
    refused = system.run("up")
    assert refused.returncode == 1
    assert "did you mean SDR_PERSONA?" in refused.stderr
    assert not system.data_dir.exists()


def test_there_may_be_no_logs_yet(tmp_path: Path) -> None:
    system = RunningSystem(tmp_path)
    assert "There are no logs" in system.run("logs").stdout
    assert system.run("logs", "nope").returncode == 2
