"""Every Evolution fixture and every malformed body, each on fresh data: over HTTP into the real edge, through the real
gRPC client into the real buffer, and judged by what the buffer then shows. `MANIFEST.json` says what is right."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import message_pb2, turn_pb2
from buffer_service.app import BufferApp
from buffer_service.settings import BufferSettings
from ingress.edge import PublicEdge
from ingress.edge_settings import EdgeSettings
from ingress.providers.aliases import alias_of, parse_jid
from ingress.providers.evolution import EvolutionProvider
from ingress.providers.evolution.settings import EvolutionSettings
from ingress.services import Services
from service_kit.clock import SystemClock
from service_kit.server import Server, ServerConfig
from service_kit.settings import load
from tests.buffer_service.test_service import Worker
from tests.fixtures.providers_fixtures import MANIFEST, ROOT, T0, evolution_bodies, malformed_bodies

pytestmark = pytest.mark.slow

EVOLUTION, CLOUD = "/webhooks/evolution", "/webhooks/whatsapp"
TOKEN = "token-for-tests-0123456789"
INSTANCE = MANIFEST["constants"]["instance"]
ALIAS_A = alias_of(parse_jid(MANIFEST["constants"]["customer_a"]["jid"]))
ALIAS_B = alias_of(parse_jid(MANIFEST["constants"]["customer_b"]["jid"]))
ROWS: dict[str, dict[str, Any]] = MANIFEST["evolution"]
MALFORMED: dict[str, dict[str, Any]] = MANIFEST["malformed"]
EVERY_STATE = [state for state in pb.LaneState.values() if state]
MEDIA_TYPES = {
    "image/jpeg": message_pb2.MESSAGE_TYPE_IMAGE,
    "image/webp": message_pb2.MESSAGE_TYPE_STICKER,
    "audio/ogg; codecs=opus": message_pb2.MESSAGE_TYPE_AUDIO,
    "application/pdf": message_pb2.MESSAGE_TYPE_DOCUMENT,
}


class System:
    """Edge and buffer of one test, and what a provider and a person with grpcurl may do with them."""

    def __init__(self, http: aiohttp.ClientSession, edge: PublicEdge, services: Services) -> None:
        self.http, self.edge, self.services = http, edge, services

    async def post(
        self, body: bytes, *, path: str = EVOLUTION, token: str = TOKEN, content_type: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        """One webhook: status and answer."""
        headers = {"Content-Type": content_type} | ({"Authorization": f"Bearer {token}"} if token else {})
        async with self.http.post(f"http://{self.edge.address}{path}", data=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def tell(self, name: str) -> list[dict[str, Any]]:
        """Posts an Evolution fixture, moved to now; every body gets a 200. The answers without their "ok"."""
        answers = []
        for body in evolution_bodies(name, now_s=int(time.time())):
            status, answer = await self.post(body)
            assert (status, answer.pop("status")) == (200, "ok")
            answers.append({key: count for key, count in answer.items() if count})
        return answers

    async def lane(self, alias: str = ALIAS_A, *, instance: str = INSTANCE) -> pb.Lane:
        """GetLane by alias."""
        scope = message_pb2.Scope(channel="evolution", instance=instance)
        return (await self.services.buffer.GetLane(pb.GetLaneRequest(scope=scope, alias=alias), timeout=5)).lane

    async def lanes(self) -> list[pb.Lane]:
        """All lanes there are."""
        request = pb.ListLanesRequest(states=EVERY_STATE, page_size=200)
        return list((await self.services.buffer.ListLanes(request, timeout=5)).lanes)

    async def stats(self) -> pb.GetStatsResponse:
        """GetStats."""
        return await self.services.buffer.GetStats(pb.GetStatsRequest(), timeout=5)

    async def holds_nothing(self) -> bool:
        """No lane, no conversation, nothing in quarantine."""
        stats = await self.stats()
        return not (await self.lanes() or stats.conversations or stats.quarantined or stats.waiting_turns)

    async def worker(self) -> Worker:
        """A turn runner by hand."""
        worker = Worker(self.services.buffer)
        await worker.hello()
        return worker


@asynccontextmanager
async def serving(data: Path, **more: str) -> AsyncIterator[System]:
    # A worker by hand sends no heartbeats: what is held as long as a lease would be lost.
    settings = load(
        BufferSettings,
        environ={"SDR_DATA_DIR": str(data), "SDR_BUFFER_COMMIT_HOLD_MS": "0", **more},
        env_file=None,
    )
    evolution = load(
        EvolutionSettings,
        environ={
            "EVOLUTION_API_URL": "http://127.0.0.1:9",
            "EVOLUTION_API_KEY": "key-for-tests",
            "EVOLUTION_WEBHOOK_TOKEN": TOKEN,
        },
        env_file=None,
    )
    clock = SystemClock()
    config = ServerConfig(service="buffer", address="127.0.0.1:0", grace_s=0.5)
    async with Server(BufferApp(settings), config) as server, aiohttp.ClientSession() as http:
        nobody = f"unix:{data / 'nobody'}"
        services = Services(buffer=server.address, context=nobody, agent=nobody)
        provider = EvolutionProvider(settings=evolution, clock=clock)
        edge = PublicEdge(
            providers={"evolution": provider},
            accept=services.enqueue,
            clock=clock,
            settings=load(EdgeSettings, environ={}, env_file=None),
        )
        await edge.open("127.0.0.1:0")
        try:
            yield System(http, edge, services)
        finally:
            await edge.close(0.2)
            await services.close()


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    async with serving(tmp_path) as running:
        yield running


def of_kind(*kinds: str, sequences: bool = False) -> list[str]:
    return [name for name, row in ROWS.items() if row["kind"] in kinds and ("ids" in row) is sequences]


ONE_MESSAGE = of_kind("inbound_message", "poll_vote", "unsupported_message")
SILENT = of_kind("reaction", "edit", "revoke", "ignore", "group_message", "connection")
TESTED_BY_NAME = {
    "28_upsert_data_list.json",
    "62b_duplicate_redelivered.json",
    "63_append_backlog_old.json",
    "76_burst_out_of_order.json",
}


def test_every_fixture_has_its_test() -> None:
    folder = {path.name for path in (ROOT / "evolution").iterdir()}
    others = of_kind("human_outbound", "foreign_send", "delivery_status", "presence")
    assert {*ONE_MESSAGE, *SILENT, *others, *TESTED_BY_NAME} == set(ROWS) == folder
    assert set(QUARANTINED) | set(READABLE) | {"02_top_level_array.json"} == set(MALFORMED)
    assert set(MALFORMED) == {path.name for path in (ROOT / "malformed").iterdir()}


# ---- what a lead says


def expected_type(row: dict[str, Any]) -> message_pb2.MessageType.ValueType:
    if row["kind"] == "unsupported_message":
        return message_pb2.MESSAGE_TYPE_UNSUPPORTED
    if row["kind"] == "poll_vote" or "choice_id" in row:
        return message_pb2.MESSAGE_TYPE_CHOICE
    if "location" in row:
        return message_pb2.MESSAGE_TYPE_LOCATION
    return MEDIA_TYPES[row["media"]] if "media" in row else message_pb2.MESSAGE_TYPE_TEXT


def check_content(message: message_pb2.Message, row: dict[str, Any]) -> None:
    """The message holds exactly what the manifest says of it."""
    assert (message.message_id, message.author) == (row["id"], message_pb2.AUTHOR_LEAD)
    assert message.type == expected_type(row)
    if "text" in row or row["kind"] == "unsupported_message":
        assert message.text == (row.get("text") or "")
    if row["kind"] == "poll_vote":
        assert message.text == ", ".join(row["choice"])
    assert message.reply_to == (row.get("reply_to") or "")
    assert message.choice_id == row.get("choice_id", "")
    assert message.referral.source_id == row.get("referral", "")
    assert [message.location.latitude, message.location.longitude] == row.get("location", [0, 0])
    assert message.HasField("location") == ("location" in row)
    assert not message.text_cut and not message.foreign
    check_media(message, row)


def check_media(message: message_pb2.Message, row: dict[str, Any]) -> None:
    assert [media.mime_type for media in message.media] == ([row["media"]] if "media" in row else [])
    for media in message.media:
        assert media.voice == row.get("voice", False)
        assert media.file_name == row.get("filename", "")
        if "size" in row:
            assert media.size_bytes == row["size"]


@pytest.mark.parametrize("name", ONE_MESSAGE)
async def test_a_message_waits_in_the_lane_of_its_alias(system: System, name: str) -> None:
    row = ROWS[name]
    before = int(time.time())
    assert await system.tell(name) == [{"accepted": 1}]
    lane = await system.lane(alias_of(parse_jid(row["chat"])))
    assert (lane.state, lane.scope.instance, lane.unrecorded) == (pb.LANE_STATE_WAITING, INSTANCE, 0)
    (message,) = lane.turn.messages
    check_content(message, row)
    assert before <= message.provider_time.seconds <= time.time() + 60
    assert (lane.turn.kind, lane.turn.revision) == (turn_pb2.TURN_KIND_ANSWER, 1)
    assert not lane.pending and not lane.ended_turns
    if row.get("lid"):
        assert await system.lane(alias_of(parse_jid(row["lid"]))) == lane
    (listed,) = await system.lanes()
    assert listed.conversation_id == lane.conversation_id
    stats = await system.stats()
    assert (stats.waiting_turns, stats.conversations, stats.quarantined) == (1, 1, 0)


async def test_content_without_a_key_keeps_the_providers_word(system: System) -> None:
    await system.tell("69_unknown_content.json")
    assert (await system.lane()).turn.messages[0].provider_type == "unknown"


async def test_an_exposed_key_is_kept_nowhere(system: System, tmp_path: Path) -> None:
    (body,) = evolution_bodies("75_apikey_exposed.json", now_s=int(time.time()))
    key = json.loads(body)["apikey"]
    assert len(key) > 8
    await system.post(body)
    await system.post(body[:-1])
    assert (await system.stats()).quarantined == 1
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"loja-demo" in kept and key.encode() not in kept


async def test_a_list_of_two_chats_is_two_lanes(system: System) -> None:
    name = "28_upsert_data_list.json"
    assert await system.tell(name) == [{"accepted": 3}]
    a, b = await system.lane(ALIAS_A), await system.lane(ALIAS_B)
    assert [m.message_id for lane in (a, b) for m in lane.turn.messages] == ROWS[name]["ids"]
    assert [m.text for lane in (a, b) for m in lane.turn.messages] == ["primeira", "segunda", "outra pessoa"]
    assert a.conversation_id != b.conversation_id and len(await system.lanes()) == 2


async def test_a_burst_out_of_order_is_one_turn_in_the_order_of_the_provider(system: System) -> None:
    name = "76_burst_out_of_order.json"
    assert await system.tell(name) == [{"accepted": 1}] * 5
    (lane,) = await system.lanes()
    assert lane.turn.revision == 5 and not lane.pending
    assigned = await (await system.worker()).assigned()
    assert assigned.turn_id == lane.turn.turn_id
    assert "\n".join(message.text for message in assigned.messages) == ROWS[name]["text"]
    assert sorted(message.message_id for message in assigned.messages) == sorted(ROWS[name]["ids"])
    # They were posted in another order, and it is not lost.
    assert [m.sequence for m in assigned.messages] != sorted(m.sequence for m in assigned.messages)


async def test_a_repeated_delivery_is_one_message(system: System) -> None:
    assert await system.tell("62a_duplicate_first.json") == [{"accepted": 1}]
    before = await system.lane()
    assert await system.tell("62b_duplicate_redelivered.json") == [{"duplicate": 1}]
    after = await system.lane()
    assert after == before
    assert [m.message_id for m in after.turn.messages] == [ROWS["62b_duplicate_redelivered.json"]["id"]]


async def test_an_old_message_goes_into_history_without_an_answer(system: System) -> None:
    name = "63_append_backlog_old.json"
    worker = await system.worker()
    assert await system.tell(name) == [{"recorded_only": 1}]
    record = (await worker.read("record")).record
    (message,) = record.turns[0].messages
    assert (message.message_id, message.text) == (ROWS[name]["id"], ROWS[name]["text"])
    assert abs(time.time() - message.provider_time.seconds - ROWS[name]["age_s"]) < 60
    assert worker.passed == []
    lane = await system.lane()
    assert (lane.state, lane.unrecorded, lane.HasField("turn")) == (pb.LANE_STATE_IDLE, 1, False)
    (ended,) = lane.ended_turns
    assert (ended.kind, ended.end_reason) == (turn_pb2.TURN_KIND_RECORD, pb.Turn.END_REASON_RECORD_ONLY)
    assert (await system.stats()).waiting_turns == 0


# ---- one person, many names


async def test_both_forms_of_a_number_are_one_conversation(system: System) -> None:
    await system.tell("01_conversation_text.json")
    await system.tell("27_ninth_digit_missing.json")
    (lane,) = await system.lanes()
    expected = [ROWS[n]["text"] for n in ("01_conversation_text.json", "27_ninth_digit_missing.json")]
    assert sorted(m.text for m in lane.turn.messages) == sorted(expected)
    assert lane.contact.contact == "5581999990001"
    # Written to in the form that arrived last.
    assert lane.contact.address == MANIFEST["constants"]["customer_a"]["jid12"]


async def test_a_lid_first_and_the_number_later_are_one_conversation(system: System) -> None:
    names = ("25_lid_only_no_alt.json", "20_lid_2_3_6.json")
    lid = alias_of(parse_jid(ROWS[names[0]]["lid"]))
    await system.tell(names[0])
    first = await system.lane(lid)
    assert first.contact.contact == lid
    with pytest.raises(grpc.aio.AioRpcError):
        await system.lane(ALIAS_A)
    await system.tell(names[1])
    (lane,) = await system.lanes()
    assert lane.conversation_id == first.conversation_id
    assert (lane.contact.contact, set(lane.contact.aliases)) == ("5581999990001", {lid, ALIAS_A})
    assert await system.lane(ALIAS_A) == await system.lane(lid)
    assert sorted(m.message_id for m in lane.turn.messages) == sorted(ROWS[name]["id"] for name in names)


async def test_a_lid_and_a_number_that_meet_become_the_older_conversation(system: System) -> None:
    await system.tell("25_lid_only_no_alt.json")
    await system.tell("02_conversation_text_2_2_3.json")
    assert len(await system.lanes()) == 2
    older = await system.lane("lid:100000000000001")
    await system.tell("20_lid_2_3_6.json")
    lane = await system.lane(ALIAS_A)
    assert lane.conversation_id == older.conversation_id == (await system.lane("lid:100000000000001")).conversation_id
    assert [entry.conversation_id for entry in await system.lanes()] == [lane.conversation_id]


async def test_versions_that_name_the_same_person_differently_are_one_conversation(system: System) -> None:
    names = [name for name in ONE_MESSAGE if "_lid_" in name or name.startswith("01_")]
    assert len(names) == 5
    for name in names:
        await system.tell(name)
    assert len(await system.lanes()) == 1
    turn = (await system.lane()).turn
    assert {m.message_id for m in turn.messages} == {ROWS[name]["id"] for name in names}


# ---- what is said for the business


@pytest.mark.parametrize("name", of_kind("human_outbound", "foreign_send"))
@pytest.mark.parametrize("before", [None, "01_conversation_text.json"])
async def test_a_colleague_takes_over_and_is_recorded(system: System, name: str, before: str | None) -> None:
    row = ROWS[name]
    if before:
        await system.tell(before)
    assert await system.tell(name) == [{"recorded_only": 1}]
    (lane,) = await system.lanes()
    assert lane.state == pb.LANE_STATE_PAUSED and not lane.HasField("turn")
    lane = await system.lane()
    said = [m for turn in lane.ended_turns for m in turn.messages if m.message_id == row["id"]]
    assert [m.author for m in said] == [message_pb2.AUTHOR_HUMAN]
    assert said[0].foreign == (row["kind"] == "foreign_send")
    assert said[0].text == row.get("text", "Claro! Qual o seu bairro?")
    assert lane.unrecorded == (2 if before else 1)
    stats = await system.stats()
    assert (stats.paused_conversations, stats.waiting_turns) == (1, 0)
    assert await system.tell("71_push_name_missing.json") == [{"recorded_only": 1}]
    assert await system.tell(name) == [{"duplicate": 1}]


ECHO = "17_send_message_api_echo.json"


async def test_the_echo_of_our_own_part_is_evidence_and_nothing_else(system: System) -> None:
    worker = await system.worker()
    await system.tell("01_conversation_text.json")
    turn = await worker.assigned()
    committed = await worker.commit(turn, "Claro! Qual o seu bairro?")
    # Evolution tells of the message before it answers the request that sends it.
    assert await system.tell(ECHO) == [{"noted": 1}]
    done = await worker.result(turn, committed.go, pb.SEND_OUTCOME_UNKNOWN)
    assert done.complete
    assert [p.provider_message_id for p in done.record.parts] == [ROWS[ECHO]["id"]]
    assert done.record.parts[0].state == turn_pb2.PART_STATE_SENT
    await worker.finish(turn)
    assert (await system.lane()).state == pb.LANE_STATE_IDLE
    assert await system.tell(ECHO) == [{"noted": 1}]
    assert (await system.stats()).paused_conversations == 0


async def test_an_echo_is_ours_by_its_id_whatever_it_says(system: System) -> None:
    worker = await system.worker()
    await system.tell("01_conversation_text.json")
    turn = await worker.assigned()
    committed = await worker.commit(turn, "Outro texto")
    assert (await worker.result(turn, committed.go, provider_id=ROWS[ECHO]["id"])).complete
    assert await system.tell(ECHO) == [{"noted": 1}]
    assert (await system.lane()).state == pb.LANE_STATE_RUNNING


@pytest.mark.parametrize("name", of_kind("delivery_status"))
async def test_a_receipt_is_noted_and_makes_no_lane(system: System, name: str) -> None:
    assert await system.tell(name) == [{"noted": 1}]
    assert await system.holds_nothing()
    worker = await system.worker()
    await system.tell("01_conversation_text.json")
    turn = await worker.assigned()
    committed = await worker.commit(turn, "Olá!")
    assert (await worker.result(turn, committed.go, provider_id=ROWS[name]["id"])).complete
    assert await system.tell(name) == [{"noted": 1}]
    assert len(await system.lanes()) == 1
    assert (await system.lane()).state == pb.LANE_STATE_RUNNING


# ---- what nobody says


@pytest.mark.parametrize("name", SILENT)
async def test_noise_gets_a_200_and_leaves_no_trace(system: System, name: str) -> None:
    assert await system.tell(name) == [{"ignored": 1}]
    assert await system.holds_nothing()
    await system.tell("01_conversation_text.json")
    before = await system.lane()
    assert await system.tell(name) == [{"ignored": 1}]
    assert await system.lane() == before
    assert len(await system.lanes()) == 1


@pytest.mark.parametrize("name", of_kind("connection"))
async def test_a_connection_that_changes_is_shown(system: System, name: str) -> None:
    await system.tell(name)
    assert system.edge.status.provider_states == {f"evolution/{INSTANCE}/connection": ROWS[name]["state"]}


@pytest.mark.parametrize("name", of_kind("presence"))
async def test_typing_is_noted_and_makes_no_lane(system: System, name: str) -> None:
    assert await system.tell(name) == [{"noted": 1}]
    assert await system.holds_nothing()
    await system.tell("01_conversation_text.json")
    before = await system.lane()
    assert await system.tell(name) == [{"noted": 1}]
    assert await system.lane() == before


# ---- a buffer that cannot


async def test_what_the_buffer_refuses_comes_back_and_is_not_lost(tmp_path: Path) -> None:
    (body,) = evolution_bodies("71_push_name_missing.json", now_s=int(time.time()))
    async with serving(tmp_path, SDR_BUFFER_MAX_PENDING_MESSAGES="1") as system:
        await system.tell("01_conversation_text.json")
        assert await system.post(body) == (503, {"status": "refused", "reason": "not_accepted"})
        assert len((await system.lane()).turn.messages) == 1
        worker = await system.worker()
        await worker.answer(await worker.assigned(), "Olá!")
        assert await system.post(body) == (200, {"status": "ok", "accepted": 1, "ignored": 0})


# ---- strangers

WITHOUT_CREDENTIAL = ["", "wrong-token-0123456789", TOKEN[:-1], TOKEN + "0"]


async def test_without_the_token_everything_is_401_and_nothing_is_stored(system: System) -> None:
    bodies = [b for name in ROWS for b in evolution_bodies(name, now_s=int(time.time()))]
    bodies += [body for name in MALFORMED for body in malformed_bodies(name)]
    for index, body in enumerate(bodies):
        token = WITHOUT_CREDENTIAL[index % len(WITHOUT_CREDENTIAL)]
        assert (await system.post(body, token=token))[0] == 401
    for token in WITHOUT_CREDENTIAL:
        assert (await system.post(bodies[0], token=token, path=f"{EVOLUTION}/messages-upsert"))[0] == 401
        assert (await system.post(bodies[0], token="", path=f"{EVOLUTION}?token={token}"))[0] == 401
    assert await system.holds_nothing()
    assert not (await system.stats()).HasField("last_event_time")
    assert set(system.edge.status.refused) == {"credential_missing", "credential_wrong"}
    assert await system.tell("01_conversation_text.json") == [{"accepted": 1}]


# ---- malformed bodies

# Nothing of these can be read; all of them are kept. By body, where the file is a list of them.
QUARANTINED: dict[str, list[dict[str, int]]] = {
    "01_truncated.json": [{"quarantined": 1}],
    "06_deep_nesting.json": [{"quarantined": 1}],
    "09_null_bytes_raw.bin": [{"quarantined": 1}],
    "10_invalid_utf8.bin": [{"quarantined": 1}],
    "21_duplicate_keys.json": [{"quarantined": 1}],
    "22_empty_body.bin": [{"quarantined": 1}],
    "25_form_urlencoded.bin": [{"quarantined": 1}],
    "26_gzip_bytes.bin": [{"quarantined": 1}],
    "30_trailing_garbage.json": [{"quarantined": 1}],
    "04_evolution_wrong_types.json": [
        *[{"quarantined": 1}] * 6,
        {"quarantined": 4},
        # A receipt that cannot be read tells nothing that anybody waits for.
        {"ignored": 1},
    ],
    # Bodies of the other provider.
    "05_cloud_wrong_types.json": [{"quarantined": 1}] * 7,
    "13_cloud_missing_fields.json": [{"quarantined": 1}] * 5,
}
# These are odd but hold good messages, one per body.
READABLE = {
    "08_null_char_escaped.json": 1,
    "11_text_200kb.json": 1,
    "14_timestamps.json": 10,
    "17_emoji_zwj.json": 1,
    "18_rtl_bidi.json": 1,
    "19_zalgo_combining.json": 1,
    "23_utf8_bom.bin": 1,
    "28_injection_strings.json": 7,
}


def moved_malformed(name: str) -> list[bytes]:
    """The bodies with t0 moved to now; as bytes, since most of them are no JSON."""
    now = str(int(time.time())).encode()
    return [body.replace(str(T0).encode(), now) for body in malformed_bodies(name)]


async def all_is_well(system: System, *, instance: str = INSTANCE) -> None:
    """A good message after all that is accepted and waits."""
    assert await system.tell("71_push_name_missing.json") == [{"accepted": 1}]
    lane = await system.lane(instance=instance)
    assert "sem nome" in [message.text for message in lane.turn.messages]


@pytest.mark.parametrize("name", QUARANTINED)
async def test_what_cannot_be_read_is_kept_and_hurts_nobody(system: System, name: str) -> None:
    bodies = moved_malformed(name)
    answers = []
    for body in bodies:
        status, answer = await system.post(body)
        assert (status, answer.pop("status")) == (200, "ok")
        answers.append({key: count for key, count in answer.items() if count})
    assert answers == QUARANTINED[name]
    stats = await system.stats()
    assert stats.quarantined == sum(answer.get("quarantined", 0) for answer in answers)
    assert stats.conversations == 0 and await system.lanes() == []
    await all_is_well(system)
    assert len(await system.lanes()) == 1


@pytest.mark.parametrize("name", READABLE)
async def test_a_good_message_in_an_odd_body_is_kept_as_it_was_said(system: System, name: str) -> None:
    for body in moved_malformed(name):
        assert await system.post(body) == (200, {"status": "ok", "accepted": 1, "ignored": 0})
        said = json.loads(body)
        lane = await system.lane(instance=said["instance"])
        (message,) = [m for m in lane.turn.messages if m.message_id == said["data"]["key"]["id"]]
        text = said["data"]["message"]["conversation"].replace("\x00", "")
        assert text.startswith(message.text) and message.text_cut == (message.text != text)
        assert len(message.text.encode()) > 65_000 if message.text_cut else message.text == text
        # Whatever the clock of the sender says, the message is answered.
        assert abs(message.provider_time.seconds - time.time()) < 60
    stats = await system.stats()
    assert (stats.quarantined, stats.conversations) == (0, len({lane.scope.instance for lane in await system.lanes()}))
    assert sum(len(lane.turn.messages) for lane in await system.lanes()) == READABLE[name]
    await all_is_well(system)


async def test_a_good_envelope_beside_bad_ones_in_one_body_survives(system: System) -> None:
    (body,) = moved_malformed("02_top_level_array.json")
    assert await system.post(body) == (200, {"status": "ok", "accepted": 1, "quarantined": 3, "ignored": 0})
    assert [message.text for message in (await system.lane()).turn.messages] == ["TEXTO"]
    assert (await system.stats()).quarantined == 3
    await all_is_well(system)


@pytest.mark.parametrize("name", [name for name, row in MALFORMED.items() if row["parse"] == "ok"])
async def test_a_good_envelope_after_a_malformed_one_survives(system: System, name: str) -> None:
    (good,) = evolution_bodies("68_event_name_uppercase.json", now_s=int(time.time()))
    row = ROWS["68_event_name_uppercase.json"]
    for body in moved_malformed(name):
        status, answer = await system.post(b"[" + body + b"," + good + b"]")
        assert status == 200 and answer.get("accepted", 0) + answer.get("duplicate", 0) >= 1
    lane = await system.lane()
    assert [m.text for m in lane.turn.messages if m.message_id == row["id"]] == [row["text"]]


async def test_a_good_item_beside_bad_ones_in_one_list_survives(system: System) -> None:
    (good,) = evolution_bodies("01_conversation_text.json", now_s=int(time.time()))
    wrong = [json.loads(body) for body in moved_malformed("04_evolution_wrong_types.json")]
    listed = next(body for body in wrong if isinstance(body["data"], list) and body["event"] == "messages.upsert")
    envelope = json.loads(good) | {"data": [*listed["data"], json.loads(good)["data"], "x"]}
    status, answer = await system.post(json.dumps(envelope).encode())
    assert (status, answer["accepted"], answer["quarantined"]) == (200, 1, 5)
    assert [m.text for m in (await system.lane()).turn.messages] == [ROWS["01_conversation_text.json"]["text"]]


async def test_a_body_that_says_it_is_no_json_is_kept(system: System) -> None:
    (form,) = malformed_bodies("25_form_urlencoded.bin")
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
        status, answer = await system.post(form, content_type=content_type)
        assert (status, answer["quarantined"]) == (200, 1)
    assert (await system.stats()).quarantined == 3
    await all_is_well(system)


async def test_a_cloud_api_webhook_is_503_while_that_provider_is_not_configured(system: System) -> None:
    bodies = [body for name in MALFORMED for body in moved_malformed(name)]
    bodies += [(ROOT / "cloud_api" / name).read_bytes() for name in MANIFEST["cloud_api"]]
    for body in bodies:
        assert await system.post(body, path=CLOUD) == (
            503,
            {"status": "refused", "reason": "whatsapp_not_configured"},
        )
    assert await system.holds_nothing()


async def test_a_cloud_api_body_at_the_wrong_door_is_kept(system: System) -> None:
    names = list(MANIFEST["cloud_api"])
    for name in names:
        status, answer = await system.post((ROOT / "cloud_api" / name).read_bytes())
        assert (status, answer["quarantined"]) == (200, 1)
    assert (await system.stats()).quarantined == len(names)
    assert await system.lanes() == []
    await all_is_well(system)
