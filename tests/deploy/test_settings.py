"""`make up` says what a process would refuse before it stops anything that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy import processes, settings
from tests.deploy.running import ROOT

EVOLUTION = {
    "EVOLUTION_API_URL": "http://127.0.0.1:9",
    "EVOLUTION_API_KEY": "k" * 20,
    "EVOLUTION_WEBHOOK_TOKEN": "t" * 20,
}
WRONG = [
    ({**EVOLUTION}, "SDR_PERSONA"),
    ({**EVOLUTION, "EVOLUTION_WEBHOOK_TOKEN": "short", "SDR_PERSONA": "demo-solar"}, "16 bytes"),
    ({"SDR_BUFFER_STRATEGY": "sometimes"}, "SDR_BUFFER_STRATEGY"),
    ({"SDR_BUFER_ADDRESS": "127.0.0.1:1"}, "SDR_BUFFER_ADDRESS"),
    # These four stopped a system that answered leads, which then did not come up again.
    ({"SDR_PERSONA": "nobody"}, "SDR_PERSONA: there is no persona nobody"),
    ({"SDR_CONTEXT_STORE": "postgres"}, "SDR_CONTEXT_STORE has to be sqlite:PATH or supabase."),
    ({"SDR_CONTEXT_STORE": "supabase", "SUPABASE_URL": "https://x.supabase.co"}, "needs SUPABASE_SECRET_KEY"),
    ({"SDR_BUFFER_STORE": "redis://localhost"}, "SDR_BUFFER_STORE"),
]


@pytest.mark.parametrize(("environ", "sentence"), WRONG)
def test_what_a_process_would_refuse_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as refused:
        settings.strictly()
    assert sentence in str(refused.value)
    assert "k" * 20 not in str(refused.value)


def test_every_problem_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "personas" / "mine").mkdir(parents=True)
    monkeypatch.setenv("SDR_PERSONA", "mine")
    monkeypatch.setenv("SDR_CONTEXT_STORE", "mysql")
    with pytest.raises(SystemExit) as refused:
        settings.strictly()
    assert "SDR_PERSONA: there is no persona mine, but there is personas/mine:" in str(refused.value)
    assert "SDR_CONTEXT_STORE" in str(refused.value)


def test_what_is_right_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {**EVOLUTION, "SDR_PERSONA": "demo-solar"}.items():
        monkeypatch.setenv(name, value)
    assert settings.strictly().ingress_address


def test_only_weights_of_our_own_have_to_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make up` gave up after a minute, in which a large model on a small machine had not read its prompt yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDR_AGENT_MODEL", "playbook")
    assert not processes.loads_weights()
    monkeypatch.setenv("SDR_AGENT_MODEL", "gguf:/models/a.gguf")
    assert processes.loads_weights()


def test_who_only_stops_or_looks_does_not_import_the_system() -> None:
    """It was half a second of a processor, each time."""
    code = "import sys, deploy.down, deploy.logs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"ingress.app", "agent_service.models", "aiohttp"} & set(done.stdout.split())
