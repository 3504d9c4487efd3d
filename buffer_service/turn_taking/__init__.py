"""Turn-taking as a pure state machine: no I/O, no clock of its own. Instants and lengths are milliseconds."""

from buffer_service.turn_taking.core import TurnTaking
from buffer_service.turn_taking.policy import Policy, Strategy

__all__ = ["Policy", "Strategy", "TurnTaking"]
