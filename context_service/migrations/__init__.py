"""The schema of the Supabase store: plain SQL files, applied in order, each in one transaction of its own.

The database remembers in `sdr_migrations` which were applied, with a digest each, so that an edited file is noticed.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

BOOTSTRAP = """
CREATE TABLE IF NOT EXISTS public.sdr_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file; the n-th one leads to version n."""

    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@lru_cache(maxsize=1)
def migrations() -> tuple[Migration, ...]:
    """All of this version, in order."""
    files = (item for item in resources.files(__package__).iterdir() if item.name.endswith(".sql"))
    ordered = sorted(files, key=lambda item: item.name)
    return tuple(
        Migration(version=number, name=item.name.removesuffix(".sql"), sql=item.read_text(encoding="utf-8"))
        for number, item in enumerate(ordered, 1)
    )


def current_version() -> int:
    """The version that this code needs."""
    return len(migrations())
