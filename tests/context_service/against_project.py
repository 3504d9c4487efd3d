"""`make test-supabase`: the contract of the context stores on a real Supabase project.

It works in tenants of its own, removes them afterwards, and sweeps nothing; all the same it wants a project for tests,
and the word that this is one: SUPABASE_TEST_PROJECT=yes. Settings come from the environment alone, never from `.env`.
With SUPABASE_DB_URL the project is migrated first; with SUPABASE_PUBLISHABLE_KEY that key must read nothing.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.context_service.guest import CONSENT, NEEDED, real_project

TESTS = Path(__file__).with_name("test_as_guest.py")


def main(arguments: list[str]) -> int:
    """0 when the project keeps the contract, 2 when it was not asked."""
    if real_project() is None:
        missing = [name for name in NEEDED if not os.environ.get(name)]
        missing += [f"{CONSENT}=yes"] if os.environ.get(CONSENT) != "yes" else []
        print(f"Missing: {', '.join(missing)} (a project for tests: see docs/howto/supabase.md)", file=sys.stderr)
        return 2
    if os.environ.get("SUPABASE_DB_URL"):
        migrated = subprocess.run([sys.executable, "-m", "context_service.migrate"], check=False)
        if migrated.returncode:
            return migrated.returncode
    return pytest.main([str(TESTS), "-q", "--deselect", f"{TESTS}::TestTheGuest", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
