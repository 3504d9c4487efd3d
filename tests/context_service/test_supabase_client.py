"""What a network, a gateway and a key do to the store. Every failure is Unavailable, soon, and never "new customer"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from context_service.settings import SupabaseSettings
from context_service.store import LeadFilter, PageAfter
from context_service.store.supabase import SupabaseStore
from context_service.store.supabase_client import SupabaseClient, check_address
from service_kit.clock import ManualClock
from service_kit.errors import Unavailable
from service_kit.settings import ConfigurationError, load
from tests.context_service.builders import PHONE, message, query, record, update
from tests.context_service.keys import HASHER
from tests.context_service.supabase_project import store_of
from tests.stand_ins.postgres import Database
from tests.stand_ins.postgrest import Keys, PostgrestServer, legacy_key

RECORD = "rpc/sdr_record_turn"
SHORT_S = 0.3
# What reaches us instead of an answer. A hang and a slow answer are the ones that only our own time-out ends.
FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 404},
    {"kind": "page", "status": 520},
    {"kind": "page", "status": 302},
    {"kind": "page", "status": 200},
    {"kind": "reset"},
    {"kind": "hang"},
    {"kind": "delay", "delay_s": 5 * SHORT_S},
]


@pytest.fixture
async def store(server: PostgrestServer) -> AsyncIterator[SupabaseStore]:
    opened = store_of(server, ManualClock())
    yield opened
    await opened.close()


@pytest.fixture
async def hasty(server: PostgrestServer) -> AsyncIterator[SupabaseStore]:
    """The same with little patience."""
    opened = store_of(server, ManualClock(), timeout_s=SHORT_S)
    yield opened
    await opened.close()


def verbs(store: SupabaseStore) -> dict[str, Any]:
    return {
        "rpc/sdr_find_lead": lambda: store.find_lead(query()),
        "rpc/sdr_find_conversation": lambda: store.find_conversation(query()),
        "rpc/sdr_recent_messages": lambda: store.recent_messages(query()),
        "rpc/sdr_usage_today": lambda: store.usage_today(query()),
        RECORD: lambda: store.record_turn(record("t9")),
        "leads": lambda: store.list_leads(LeadFilter(tenant="default"), PageAfter(size=9)),
        "rpc/sdr_schema_version": store.check_schema,
    }


@asynccontextmanager
async def endpoint(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """What the stand-in for PostgREST would never do, because PostgREST wouldn't."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def refused_by(url: str) -> None:
    client = SupabaseClient(url=url, key=Keys().secret, timeout_s=SHORT_S, connections=4)
    store = SupabaseStore(client=client, clock=ManualClock(), hasher=HASHER)
    with pytest.raises(Unavailable):
        await store.find_lead(query())
    await store.close()


class TestFailures:
    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(str(one) for one in fault.values()))
    async def test_a_failure_is_unavailable_and_asked_once(
        self, server: PostgrestServer, store: SupabaseStore, hasty: SupabaseStore, fault: dict[str, Any]
    ) -> None:
        await store.record_turn(record(effects=[update(name="Ana")]))
        asked = hasty if fault["kind"] in ("hang", "delay") else store
        for path, verb in verbs(asked).items():
            server.seen.clear()
            server.fail(path=path, times=9, **fault)
            with capture_logs() as logs, pytest.raises(Unavailable) as refused:
                await verb()
            server.faults.clear()
            requests = [one for one in server.seen if one.path == path]
            # A start asks as many times as it keeps connections.
            assert len(requests) <= (4 if "version" in path else 1), "a built-in retry"
            assert refused.value.metadata == {"component": "store"}
            assert logs and all(line["event"].startswith("database_") for line in logs)
        assert (await store.get_lead_by_alias("default", f"phone:{PHONE}")).name == "Ana"

    async def test_the_time_is_for_all_of_a_request(self) -> None:
        """httpx's time-outs are for each step; a body that drips would never end."""

        async def drip(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse(headers={"Content-Type": "application/json"})
            await answer.prepare(request)
            while True:
                await answer.write(b" ")
                await asyncio.sleep(SHORT_S / 10)

        async with endpoint(drip) as url, asyncio.timeout(20):
            await refused_by(url)

    async def test_a_redirect_is_not_followed(self) -> None:
        """The key would travel along."""
        asked: list[str] = []

        async def elsewhere(request: web.Request) -> web.Response:
            asked.append(request.path)
            return web.Response(status=307, headers={"Location": f"{request.url.origin()}/stolen"})

        async with endpoint(elsewhere) as url:
            await refused_by(url)
        assert asked == ["/rest/v1/rpc/sdr_find_lead"]

    @pytest.mark.parametrize(
        "fault",
        [{"kind": "commit_then_reset"}, {"kind": "commit_then_status", "status": 502}, {"kind": "commit_then_hang"}],
    )
    async def test_a_repeat_after_an_answer_that_was_lost_is_a_duplicate(
        self, server: PostgrestServer, store: SupabaseStore, hasty: SupabaseStore, fault: dict[str, Any]
    ) -> None:
        server.fail(path=RECORD, **fault)
        with pytest.raises(Unavailable):
            await (hasty if "hang" in fault["kind"] else store).record_turn(record())
        # The one that hangs is committed behind the client's back, soon.
        again = await store.record_turn(record())
        assert (again.version, again.duplicate, again.after) == (1, True, None)
        assert len((await store.recent_messages(query())).value) == 2

    async def test_a_refusal_of_the_database_says_no_word_of_the_row(
        self, project: Database, store: SupabaseStore
    ) -> None:
        project.execute("ALTER TABLE messages ADD CONSTRAINT short CHECK (length(content) < 9)")
        with capture_logs() as logs, pytest.raises(Unavailable) as refused:
            await store.record_turn(record(messages=[message("m", "um segredo meu")]))
        assert logs == [{"event": "database_refused", "log_level": "error", "what": "sdr_record_turn", "code": "23514"}]
        assert "segredo" not in f"{refused.value} {refused.value.metadata} {refused.value.__cause__}"

    async def test_one_that_hangs_holds_nobody_else_up(self, server: PostgrestServer, store: SupabaseStore) -> None:
        await store.record_turn(record())
        server.fail("hang", path="rpc/sdr_find_lead")
        hanging = asyncio.create_task(store.find_lead(query()))
        while server.faults and server.faults[0].times:
            await asyncio.sleep(0.01)
        for _ in range(20):
            assert (await store.find_lead(query())).value is not None
        assert not hanging.done()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)


class TestConnections:
    async def test_a_thousand_calls_use_the_same_few(self, server: PostgrestServer, store: SupabaseStore) -> None:
        for _ in range(1_000):
            await store.find_conversation(query())
        assert server.connections == 1
        await asyncio.gather(*(store.find_conversation(query()) for _ in range(200)))
        assert server.connections <= 20, "the pool of the test's store"

    async def test_callers_who_go_lose_no_place(self, server: PostgrestServer, store: SupabaseStore) -> None:
        """Each request that was cancelled at the wrong moment cost the pool a place for ever; a minute of impatient
        callers, and the store answered nobody until it was restarted."""
        for steps in range(40):
            asking = [asyncio.create_task(store.find_lead(query())) for _ in range(25)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        async with asyncio.timeout(10):
            await asyncio.gather(*(store.find_lead(query()) for _ in range(60)))
        assert server.connections <= 20, "what nobody waits for ends by itself, and its connection is used again"

    async def test_what_hangs_gives_its_place_back(self, server: PostgrestServer, hasty: SupabaseStore) -> None:
        server.fail("hang", times=60)
        found = await asyncio.gather(*(hasty.find_lead(query()) for _ in range(60)), return_exceptions=True)
        assert {type(one) for one in found} == {Unavailable}
        server.faults.clear()
        async with asyncio.timeout(20):  # Some may be too slow for so little patience.
            while Unavailable in {type(one) for one in found}:
                asking = (hasty.find_lead(query()) for _ in range(20))
                found = await asyncio.gather(*asking, return_exceptions=True)

    async def test_a_request_under_way_or_in_line_fails_when_the_store_is_closed(
        self, server: PostgrestServer, store: SupabaseStore
    ) -> None:
        """Who waited for a place got the HTTP client's RuntimeError."""
        server.fail("hang", times=20)
        waiting = [asyncio.create_task(store.find_lead(query())) for _ in range(25)]
        while server.faults and server.faults[0].times:
            await asyncio.sleep(0.01)
        await store.close()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(one) for one in found} == {Unavailable}

    async def test_a_lost_connection_is_replaced(self, server: PostgrestServer, store: SupabaseStore) -> None:
        await store.check_schema()
        server.fail("reset", path="rpc/sdr_find_lead")
        with pytest.raises(Unavailable):
            await store.find_lead(query())
        await store.find_lead(query())

    async def test_pings_keep_warm_what_a_lookup_needs_and_ask_seldom(self, server: PostgrestServer) -> None:
        clock = ManualClock()
        store = store_of(server, clock)
        for _ in range(31):
            await store.ping()
            clock.advance(500)
        assert server.connections == 4 and len(server.seen) == 8, "four at once, every 15 s"
        server.fail("status", times=9, status=503)
        clock.advance(15_000)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await store.ping()
        await store.close()


class TestKeys:
    @pytest.mark.parametrize("key", ["secret", "legacy_service"])
    async def test_the_new_and_the_legacy_key_work(self, server: PostgrestServer, key: str) -> None:
        client = SupabaseClient(url=server.url, key=getattr(server.keys, key), timeout_s=20, connections=4)
        store = SupabaseStore(client=client, clock=ManualClock(), hasher=HASHER)
        await store.check_schema()
        assert (await store.record_turn(record())).version == 1
        await store.close()

    @pytest.mark.parametrize(
        ("url", "key", "sentence"),
        [
            ("https://x.supabase.co", Keys().publishable, "is the publishable .anonymous. key"),
            ("https://x.supabase.co", Keys().legacy_anonymous, "is the publishable .anonymous. key"),
            ("https://x.supabase.co", legacy_key("authenticated"), "is the publishable .anonymous. key"),
            ("https://x.supabase.co", "garbage", "neither a secret key .* nor a service_role token"),
            ("https://x.supabase.co", "a.b.c", "neither a secret key .* nor a service_role token"),
            ("https://x.supabase.co", "", "needs SUPABASE_SECRET_KEY"),
            ("", "", "needs SUPABASE_URL and SUPABASE_SECRET_KEY"),
            ("http://x.supabase.co", Keys().secret, "has to begin with https://"),
            ("ftp://127.0.0.1", Keys().secret, "has to begin with https://"),
            ("x.supabase.co", Keys().secret, "has to begin with https://"),
        ],
    )
    def test_another_key_or_an_open_road_is_refused_with_a_sentence(self, url: str, key: str, sentence: str) -> None:
        with pytest.raises(ConfigurationError, match=sentence) as refused:
            check_address(url, key)
        assert not key or key not in str(refused.value)

    def test_both_names_of_the_key_are_taken(self) -> None:
        for name in ("SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_KEY"):
            settings = load(SupabaseSettings, environ={name: Keys().secret}, env_file=None)
            assert settings.supabase_secret_key.get_secret_value() == Keys().secret
            assert Keys().secret not in f"{settings!r} {settings}"

    async def test_a_revoked_key_is_unavailable_and_the_log_says_so(self, server: PostgrestServer) -> None:
        key = "sb_secret_that_was_revoked"
        client = SupabaseClient(url=server.url, key=key, timeout_s=20, connections=4)
        store = SupabaseStore(client=client, clock=ManualClock(), hasher=HASHER)
        with capture_logs() as logs, pytest.raises(Unavailable, match="refuses the secret key") as refused:
            await store.find_lead(query())
        assert [line["event"] for line in logs] == ["database_key_refused"]
        assert key not in f"{logs} {refused.value!r} {refused.value.metadata}"
        await store.close()

    async def test_no_key_and_no_phone_in_any_log_line(
        self, server: PostgrestServer, hasty: SupabaseStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The libraries' own loggers too: httpx tells every address at INFO."""
        with capture_logs() as logs:
            for fault in FAULTS:
                for path, verb in verbs(hasty).items():
                    server.fail(path=path, **fault)
                    await asyncio.gather(verb(), return_exceptions=True)
                    server.faults.clear()
            await asyncio.gather(hasty.get_lead_by_alias("default", f"phone:{PHONE}"), return_exceptions=True)
        told = f"{logs}{capsys.readouterr()}"
        assert "database_unreachable" in told and "database_refused" in told
        assert server.keys.secret not in told and PHONE not in told


class TestLists:
    async def test_more_than_a_thousand_rows_come_completely(
        self, project: Database, server: PostgrestServer, store: SupabaseStore
    ) -> None:
        project.execute("""
            INSERT INTO leads (phone_number, updated_at)
            SELECT '55' || n, timestamptz '2025-01-01' + (n / 7) * interval '1 second'
            FROM generate_series(1, 2500) AS n
        """)
        assert server.max_rows == 1_000
        found: list[str] = []
        page = PageAfter(size=200)
        while True:
            leads = await store.list_leads(LeadFilter(tenant="default"), page)
            found += [one.phone_number for one in leads]
            if len(leads) < page.size:
                break
            page = PageAfter(size=page.size, after=(leads[-1].updated_ms, leads[-1].lead_id))
        assert len(found) == len(set(found)) == 2_500
        assert all("limit=200" in one.query for one in server.seen)

    async def test_a_history_of_thousands_is_not_cut_silently(self, project: Database, store: SupabaseStore) -> None:
        await store.record_turn(record())
        project.execute("""
            INSERT INTO messages (conversation_id, sequence, role, sender, content, message_type)
            SELECT id, n, 'user', 'lead', n::text, 'text' FROM conversations, generate_series(3, 3000) AS n
        """)
        listed = await store.list_messages("c1", PageAfter(size=2_000))
        assert [one.sequence for one in listed] == list(range(1, 2_001))
        newest = (await store.recent_messages(query(limit=1_500))).value
        assert [one.sequence for one in newest] == list(range(1_501, 3_001))

    @pytest.mark.parametrize("awkward", ['a"b', "a,b", "a\\b", "(x)", "a.b:c*", "ç%20&=", "' or 1=1"])
    async def test_names_with_the_grammars_own_characters(self, store: SupabaseStore, awkward: str) -> None:
        recorded = await store.record_turn(record("t1", awkward, contact=f"bsuid:{awkward}"))
        assert (await store.get_lead_by_alias("default", f"bsuid:{awkward}")).lead_id == recorded.lead_id
        [listed] = await store.list_conversations("default", "", PageAfter(size=9))
        after = PageAfter(size=9, after=(listed.updated_ms + 1, awkward))
        assert await store.list_conversations("default", "", after) == (listed,)
        assert (
            await store.list_conversations("default", "", PageAfter(size=9, after=(listed.updated_ms, awkward))) == ()
        )
