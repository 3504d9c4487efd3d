"""A Supabase project on this machine, for `make up` against it: PostgreSQL 18 and the PostgREST stand-in.

`python -m tests.stand_ins.supabase --port 54321 [--migrate]` prints the settings, one `NAME=value` per line, then
`ready`, and runs until SIGTERM or SIGINT; then everything is gone. With `--migrate` the product's own migrations are
applied first; without, `make migrate` with the printed SUPABASE_DB_URL applies them to the running project.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

from tests.stand_ins.postgres import Database, PostgresCluster
from tests.stand_ins.postgrest import Keys, PostgrestServer

MIGRATE: Final = (sys.executable, "-m", "context_service.migrate")


def settings_of(url: str, keys: Keys, database: Database) -> Iterable[tuple[str, str]]:
    """What the product, its migrations and a curious person need."""
    yield "SUPABASE_URL", url
    yield "SUPABASE_SECRET_KEY", keys.secret
    yield "SUPABASE_PUBLISHABLE_KEY", keys.publishable
    yield "SUPABASE_DB_URL", database.url()


def migrate(database: Database, command: Iterable[str] = MIGRATE) -> None:
    """Apply the product's migrations as its operator would. Raises SystemExit when they fail."""
    done = subprocess.run([*command], check=False, env=os.environ | {"SUPABASE_DB_URL": database.url()})
    if done.returncode:
        sys.exit(f"The migrations failed with exit code {done.returncode}.")


async def serve(database: Database, *, port: int) -> None:
    """Answer until a signal comes."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with PostgrestServer(database_url=database.url("authenticator"), port=port) as server:
        for setting, value in settings_of(server.url, server.keys, database):
            print(f"{setting}={value}")
        print("ready", flush=True)
        await stopped.wait()


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(description="A Supabase project on this machine, for tests.")
    parser.add_argument("--port", type=int, default=0, help="of the data API; 0 is any free one")
    parser.add_argument("--migrate", action="store_true", help="apply the product's migrations first")
    parser.add_argument("--durable", action="store_true", help="PostgreSQL waits for the disk, as in production")
    arguments = parser.parse_args()
    # Until the API is up a signal ends the program by an exception, so that the server and its files go too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with PostgresCluster.running(durable=arguments.durable) as cluster, cluster.database() as database:
        if arguments.migrate:
            migrate(database)
        asyncio.run(serve(database, port=arguments.port))


if __name__ == "__main__":
    main()
