"""A word that stands only in the prompt, so that a reply which holds it has given the prompt away.

Paraphrased or translated, a prompt no longer looks like itself; an invented word survives both.
"""

import hashlib

from agent_service.persona import Persona


def canary(persona: Persona) -> str:
    """The persona's own, always the same: "zelador-3fa94c07d1"."""
    return f"zelador-{hashlib.sha256(f'canary:{persona.name}'.encode()).hexdigest()[:10]}"
