"""The agent as a process in front of a scripted server: what whoever starts it reads."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from service_kit.process import EXIT_NOT_STARTED
from tests.stand_ins.openai_server import MODEL, OpenAIServer

ROOT = Path(__file__).parents[2]
KEY = "sk-test-0123456789abcdef"


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [0.0, 1.5], ids=["at once", "while the port already answers"])
async def test_a_refused_key_is_one_sentence_and_no_traceback(tmp_path: Path, wait_s: float) -> None:
    """The warm-up goes on behind an open port; what it found out late was a traceback and the exit code of a crash."""
    async with OpenAIServer() as server:
        server.models_status, server.models_wait_s = 401, wait_s
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent_service",
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}",
                "SDR_AGENT_ADDRESS": f"unix:{tmp_path / 'agent'}",
                "SDR_AGENT_MODEL": f"openai:{MODEL}",
                "OPENAI_BASE_URL": server.url,
                "OPENAI_API_KEY": KEY,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    sentence = f"agent_service could not start: openai:{MODEL}: OPENAI_API_KEY was refused by {server.url} (401)"
    assert process.returncode == EXIT_NOT_STARTED and sentence in err.decode()
    assert KEY not in (out + err).decode() and "Traceback" not in (out + err).decode()
