"""What a network and a service do to a request, on request."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.stand_ins.postgrest.sql import EMPTY, Snippet


class Kind(StrEnum):
    """The first group never reaches the database; what begins with `commit_then` has committed before it fails."""

    DELAY = "delay"
    """Answered correctly, `delay_s` late (the delay comes first)."""
    STATUS = "status"
    """`status` with PostgREST's JSON error body."""
    PAGE = "page"
    """`status` with a proxy's HTML page, as Cloudflare's 520."""
    RESET = "reset"
    HANG = "hang"
    """No answer until the stand-in stops."""
    COMMIT_THEN_STATUS = "commit_then_status"
    COMMIT_THEN_RESET = "commit_then_reset"
    """The client cannot know: what HTTP/2's GOAWAY or a lost connection does to a request that was carried out."""
    COMMIT_THEN_HANG = "commit_then_hang"


PAGE: Final = "<!DOCTYPE html><html><head><title>Web server is returning an unknown error</title></head></html>"


@dataclass(kw_only=True)
class Fault:
    """Happens to the next `times` requests of this method and path (below `/rest/v1/`); empty ones are all."""

    kind: Kind
    times: int = 1
    method: str = ""
    path: str = ""
    status: int = 503
    delay_s: float = 0.0

    def matches(self, method: str, path: str) -> bool:
        """Whether it is this request's turn."""
        return self.times > 0 and self.method in ("", method) and self.path in ("", path)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request that came in. `role` is empty where the key was refused; `status` 0 where nothing was answered."""

    method: str
    path: str
    query: str
    role: str
    status: int
    connection: int
    started_s: float
    ended_s: float
    statement: Snippet = EMPTY
    """What PostgreSQL was asked, if it was."""
