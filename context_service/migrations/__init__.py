"""The schema of the Supabase store: plain SQL files, applied in order, each in one transaction of its own.

The database remembers in `sdr_migrations` which were applied, with a digest each, so that an edited file is noticed.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

BOOTSTRAP = """
CREATE TABLE IF NOT EXISTS public.sdr_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""

# Files that were mended in place, because none that comes later could: with other rows they took hours, or put today
# over an instant. A database that was brought through the earlier text has the same schema.
_EARLIER: Final = {
    "0002_what_was_missing": "25233ef9ec86721bf10581ac611b39d60be06cbb112f504dab9cadb5f888c84f",
    "0008_everybody_can_be_found": "2d2fa7676f59f2003b2563a6e82733c2187d230db76ab87d521a5ad4bd61a8dc",
}


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

    def was_applied_as(self, version: int, digest: str) -> bool:
        """What the database remembers is this file, or its text from before it was mended."""
        return version == self.version and digest in (self.digest, _EARLIER.get(self.name))


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
