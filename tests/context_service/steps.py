"""Every step of a database function: each row that it is about to change, and the commit, may be its last."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.stand_ins.postgres import Database

# The sequence counts although what was counted is rolled back. The trigger has its owner's rights: only they may end a
# connection of another role. At a commit a deferred constraint fires.
_HOOK: Final = """
CREATE SCHEMA steps;
CREATE SEQUENCE steps.number;
CREATE TABLE steps.plan (stop_at bigint NOT NULL, kill boolean NOT NULL);
INSERT INTO steps.plan VALUES (0, false);
CREATE FUNCTION steps.step() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    plan steps.plan;
BEGIN
    SELECT * INTO plan FROM steps.plan;
    IF nextval('steps.number') = plan.stop_at THEN
        IF plan.kill THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
        END IF;
        PERFORM pg_advisory_lock(77);
        PERFORM pg_advisory_unlock(77);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
DO $$
DECLARE
    one regclass;
BEGIN
    FOR one IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('CREATE TRIGGER step BEFORE INSERT OR UPDATE OR DELETE ON %s '
            'FOR EACH ROW EXECUTE FUNCTION steps.step()', one);
    END LOOP;
END $$;
CREATE CONSTRAINT TRIGGER step_commit AFTER INSERT ON public.turns
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION steps.step();
"""
_ADMINISTRATOR: Final = "supabase_admin"


class Steps:
    """Counts steps, and stops at one of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def install(self) -> None:
        """Once per database."""
        self._database.execute(_HOOK, role=_ADMINISTRATOR)

    def kill_at(self, number: int) -> None:
        """The connection that makes this step, counted from now, is ended by the server."""
        self._plan(number, kill=True)

    def wait_at(self, number: int) -> None:
        """The connection that makes this step waits there until the advisory lock 77 is free."""
        self._plan(number, kill=False)

    def off(self) -> None:
        """No more stops."""
        self._plan(0, kill=False)

    def count(self) -> int:
        """How many steps there were since the last plan."""
        with self._database.connect(_ADMINISTRATOR) as connection:
            row = connection.execute("SELECT last_value, is_called FROM steps.number").fetchone()
        return row[0] if row and row[1] else 0

    async def somebody_waits(self) -> int:
        """Return when the step is reached: the process id of the server's side."""
        with self._database.connect(_ADMINISTRATOR) as connection:
            while True:
                found = connection.execute(
                    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted "
                    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                ).fetchone()
                if found:
                    return int(found[0])
                await asyncio.sleep(0.005)

    def _plan(self, number: int, *, kill: bool) -> None:
        with self._database.connect(_ADMINISTRATOR) as connection:
            connection.execute("UPDATE steps.plan SET stop_at = %s, kill = %s", (number, kill))
            connection.execute("ALTER SEQUENCE steps.number RESTART")
