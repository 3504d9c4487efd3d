"""A stand-in for a Supabase project's data API: PostgREST's behaviour, as far as the `supabase` client needs it.

It runs SQL on a real PostgreSQL in the role that the key names. What it covers and what it doesn't is in
`docs/reference/supabase-testing.md`; what it doesn't know it refuses with 501.
"""

from tests.stand_ins.postgrest.faults import Fault, Kind, Seen
from tests.stand_ins.postgrest.keys import Keys, legacy_key
from tests.stand_ins.postgrest.server import PostgrestServer

__all__ = ["Fault", "Keys", "Kind", "PostgrestServer", "Seen", "legacy_key"]
