"""Every Evolution fixture and every malformed body through the parser."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_sdr.buffer.v1 import buffer_service_pb2
from agentic_sdr.common.v1 import message_pb2
from ingress.providers import NoticeKind, ParsedWebhook
from ingress.providers.aliases import alias_of, parse_jid
from ingress.providers.evolution.parse import MAX_QUARANTINE_BYTES, parse_webhook
from tests.fixtures.providers_fixtures import MANIFEST, evolution, evolution_bodies, malformed_bodies

NOW_S = 1_900_000_000
NOW_MS = NOW_S * 1000
LEAD, HUMAN = message_pb2.AUTHOR_LEAD, message_pb2.AUTHOR_HUMAN
KINDS = MANIFEST["evolution"]
BY_KIND: dict[str, list[str]] = {}
for _name, _row in KINDS.items():
    BY_KIND.setdefault(_row["kind"], []).append(_name)

ONE_LEAD_MESSAGE = [
    name
    for kind in ("inbound_message", "stale_message", "duplicate", "poll_vote", "unsupported_message")
    for name in BY_KIND[kind]
    if "ids" not in KINDS[name]
]
IGNORED = [name for kind in ("ignore", "group_message", "reaction", "edit", "revoke") for name in BY_KIND[kind]]


def parsed(body: bytes) -> ParsedWebhook:
    return parse_webhook(body, now_ms=NOW_MS, default_instance="padrao")


def events(name: str) -> list[buffer_service_pb2.Event]:
    return [event for body in evolution_bodies(name, now_s=NOW_S) for event in parsed(body).events]


def envelope(*, instance: Any = "loja-demo", sender: Any = "5581999990000@s.whatsapp.net", **data: Any) -> bytes:
    key = {"remoteJid": "5581999990001@s.whatsapp.net", "fromMe": False, "id": "AC01"} | data.pop("key", {})
    item = {"key": key, "message": {"conversation": "oi"}, "messageTimestamp": NOW_S} | data
    return json.dumps({"event": "messages.upsert", "instance": instance, "sender": sender, "data": item}).encode()


def only(body: bytes) -> buffer_service_pb2.Event:
    result = parsed(body)
    assert len(result.events) == 1, result
    return result.events[0]


def test_every_kind_of_the_manifest_is_covered() -> None:
    covered = {*ONE_LEAD_MESSAGE, *IGNORED, "28_upsert_data_list.json", "76_burst_out_of_order.json"}
    for kind in ("human_outbound", "foreign_send", "delivery_status", "presence", "connection"):
        covered.update(BY_KIND[kind])
    assert covered == set(KINDS)


@pytest.mark.parametrize("name", ONE_LEAD_MESSAGE)
def test_a_message_of_the_lead(name: str) -> None:
    row = KINDS[name]
    (event,) = events(name)
    message = event.message
    assert (message.message_id, message.author) == (row["id"], LEAD)
    assert (event.scope.tenant, event.scope.channel, event.scope.instance) == ("default", "evolution", "loja-demo")
    if "text" in row:
        assert message.text == (row["text"] or "")
    assert alias_of(parse_jid(row["chat"])) in event.contact.aliases
    if row.get("lid"):
        assert alias_of(parse_jid(row["lid"])) in event.contact.aliases
    assert message.provider_time.seconds == NOW_S - row.get("age_s", 0)
    assert message.reply_to == (row.get("reply_to") or "")
    assert [media.mime_type for media in message.media] == ([row["media"]] if "media" in row else [])


def test_details_of_media() -> None:
    image = events("06_image_caption_base64.json")[0].message
    assert (image.type, image.media[0].size_bytes) == (message_pb2.MESSAGE_TYPE_IMAGE, 48211)
    assert image.media[0].media_id == image.message_id
    assert events("08_image_no_caption_2_3_4.json")[0].message.media[0].size_bytes == 77000
    assert events("08_image_no_caption_2_3_4.json")[0].message.media[0].url.startswith("https://")
    voice = events("09_audio_ptt_base64.json")[0].message
    assert (voice.type, voice.media[0].voice) == (message_pb2.MESSAGE_TYPE_AUDIO, True)
    document = events("11_document_with_caption.json")[0].message.media[0]
    assert (document.file_name, document.size_bytes) == ("conta março.pdf", 2147483665)
    assert events("52_view_once_v2_image.json")[0].message.type == message_pb2.MESSAGE_TYPE_IMAGE


@pytest.mark.parametrize("name", ["54_location.json", "55_live_location.json"])
def test_details_of_a_location(name: str) -> None:
    place = events(name)[0].message
    assert place.type == message_pb2.MESSAGE_TYPE_LOCATION
    assert [place.location.latitude, place.location.longitude] == KINDS[name]["location"]


def test_details_of_choices() -> None:
    for name in ("56_buttons_response.json", "58_template_button_reply.json"):
        message = events(name)[0].message
        assert (message.type, message.choice_id) == (message_pb2.MESSAGE_TYPE_CHOICE, KINDS[name]["choice_id"])
    vote = events("66_poll_update.json")[0].message
    assert (vote.type, vote.text) == (message_pb2.MESSAGE_TYPE_CHOICE, "Manhã")


def test_details_of_an_advertisement_and_of_unknown_content() -> None:
    referral = events("64_ctwa_ad.json")[0].message.referral
    assert (referral.source_id, referral.headline) == ("120000000000000001", "Promoção exemplo")
    unknown = events("69_unknown_content.json")[0].message
    assert (unknown.type, unknown.provider_type) == (message_pb2.MESSAGE_TYPE_UNSUPPORTED, "unknown")


def test_both_forms_of_a_number_are_one_contact_and_keep_their_address() -> None:
    short, long = events("27_ninth_digit_missing.json")[0].contact, events("01_conversation_text.json")[0].contact
    assert short.contact == long.contact == "5581999990001"
    assert (short.address, long.address) == ("558199990001@s.whatsapp.net", "5581999990001@s.whatsapp.net")


def test_a_lid_is_the_contact_only_without_a_phone() -> None:
    assert events("25_lid_only_no_alt.json")[0].contact.contact == "lid:100000000000001"
    with_phone = events("20_lid_2_3_6.json")[0].contact
    assert (with_phone.contact, with_phone.address) == ("5581999990001", "100000000000001@lid")


@pytest.mark.parametrize("name", ["28_upsert_data_list.json", "76_burst_out_of_order.json"])
def test_all_messages_of_a_list_come_in_its_order(name: str) -> None:
    assert sorted(event.message.message_id for event in events(name)) == sorted(KINDS[name]["ids"])
    in_order = sorted(events(name), key=lambda event: event.message.provider_time.ToMilliseconds())
    if "text" in KINDS[name]:
        assert "\n".join(event.message.text for event in in_order) == KINDS[name]["text"]


def test_a_human_on_the_phone_teaches_no_alias() -> None:
    (event,) = events("16_from_me_human_on_phone.json")
    assert (event.message.author, event.message.text) == (HUMAN, "Oi! Aqui é o atendente, já te respondo")
    assert list(event.contact.aliases) == ["phone:5581999990001"]
    assert event.contact.display_name == ""


def test_an_api_send_is_an_echo() -> None:
    (event,) = events("17_send_message_api_echo.json")
    assert event.WhichOneof("event") == "echo"
    assert (event.echo.author, event.echo.foreign) == (HUMAN, True)
    assert (event.echo.message_id, event.echo.text) == ("3EB04523540F1504CD1710", "Claro! Qual o seu bairro?")


def test_receipts() -> None:
    expected = {"READ": buffer_service_pb2.DELIVERY_STATUS_READ}
    expected["DELIVERY_ACK"] = buffer_service_pb2.DELIVERY_STATUS_DELIVERED
    for name in BY_KIND["delivery_status"]:
        (event,) = events(name)
        assert event.receipt.provider_message_id == KINDS[name]["id"]
        assert event.receipt.status == expected[KINDS[name]["status"]]


def test_presence() -> None:
    for name in BY_KIND["presence"]:
        (event,) = events(name)
        assert event.presence.composing == (KINDS[name]["state"] == "composing")
        assert list(event.contact.aliases) == [alias_of(parse_jid(KINDS[name]["chat"]))]


@pytest.mark.parametrize("name", IGNORED)
def test_noise_is_counted_and_goes_no_further(name: str) -> None:
    (body,) = evolution_bodies(name, now_s=NOW_S)
    result = parsed(body)
    assert result.events == ()
    assert sum(result.ignored.values()) >= 1


def test_connection_and_pairing_are_notices_without_secrets() -> None:
    for name in BY_KIND["connection"]:
        (notice,) = parsed(evolution_bodies(name)[0]).notices
        assert (notice.kind, notice.state) == (NoticeKind.CONNECTION, KINDS[name]["state"])
    result = parsed(evolution_bodies("44_qrcode_updated.json")[0])
    assert result.notices[0].kind is NoticeKind.PAIRING
    assert evolution("44_qrcode_updated.json")["data"]["qrcode"]["code"] not in repr(result)


READABLE = {
    "08_null_char_escaped.json": "antesdepois",
    "18_rtl_bidi.json": None,
    "19_zalgo_combining.json": None,
    "17_emoji_zwj.json": None,
    "23_utf8_bom.bin": "TEXTO",
}
QUARANTINED = {
    "01_truncated.json": "not_json",
    "06_deep_nesting.json": "too_deep",
    "09_null_bytes_raw.bin": "not_json",
    "10_invalid_utf8.bin": "not_utf8",
    "21_duplicate_keys.json": "duplicate_keys",
    "22_empty_body.bin": "empty",
    "25_form_urlencoded.bin": "not_json",
    "26_gzip_bytes.bin": "not_utf8",
    "30_trailing_garbage.json": "not_json",
}


@pytest.mark.parametrize("name", list(MANIFEST["malformed"]))
def test_no_malformed_body_raises_or_vanishes(name: str) -> None:
    for body in malformed_bodies(name):
        result = parsed(body)
        assert result.events or result.ignored
        for event in result.events:
            assert buffer_service_pb2.Event.FromString(event.SerializeToString()) == event


@pytest.mark.parametrize(("name", "text"), READABLE.items())
def test_an_odd_but_good_message_survives(name: str, text: str | None) -> None:
    (body,) = malformed_bodies(name)
    message = only(body).message
    assert message.author == LEAD
    assert message.text == (text or json.loads(body)["data"]["message"]["conversation"])


@pytest.mark.parametrize(("name", "reason"), QUARANTINED.items())
def test_what_cannot_be_read_is_kept_whole(name: str, reason: str) -> None:
    (body,) = malformed_bodies(name)
    event = only(body)
    assert event.unparsed.reason == reason
    assert event.unparsed.body == body
    assert event.scope.instance == "padrao"


def test_a_good_envelope_beside_bad_ones_survives() -> None:
    (body,) = malformed_bodies("02_top_level_array.json")
    result = parsed(body)
    assert [event.WhichOneof("event") for event in result.events] == ["message", "unparsed", "unparsed", "unparsed"]
    assert [event.unparsed.body for event in result.events[1:]] == [b"1", b"null", b'"x"']


def test_a_good_item_beside_bad_ones_survives() -> None:
    item = json.loads(envelope())["data"]
    body = {"event": "messages.upsert", "instance": "a", "data": {"messages": [None, {"key": {}}, item]}}
    kinds = [event.WhichOneof("event") for event in parsed(json.dumps(body).encode()).events]
    assert sorted(map(str, kinds)) == ["message", "unparsed", "unparsed"]


def test_wrong_types_are_quarantined_if_they_claim_to_be_a_message() -> None:
    reasons = [
        [e.unparsed.reason for e in parsed(body).events] for body in malformed_bodies("04_evolution_wrong_types.json")
    ]
    assert reasons == [
        ["no_event"],
        ["data"],
        ["key"],
        ["from_me"],
        ["content"],
        ["content"],
        ["data", "data", "key", "remote_jid"],
        [],
    ]


def test_many_bad_items_are_one_event() -> None:
    body = json.dumps({"event": "messages.upsert", "instance": "a", "data": [None] * 10_000}).encode()
    assert only(body).unparsed.reason == "many_bad_items"


def test_a_body_for_quarantine_is_cut_and_holds_no_key() -> None:
    body = b'{"apikey": "FAKE-INSTANCE-TOKEN", "x": "' + b"a" * (2 * MAX_QUARANTINE_BYTES)
    kept = only(body).unparsed.body
    assert len(kept) <= MAX_QUARANTINE_BYTES
    assert b"FAKE-INSTANCE-TOKEN" not in kept


def test_impossible_times_are_now() -> None:
    stamps = [only(body).message.provider_time.ToMilliseconds() for body in malformed_bodies("14_timestamps.json")]
    t0 = MANIFEST["t0"]
    now, at_t0 = NOW_MS, t0 * 1000
    assert stamps == [now, now, now, now, t0 * 1000 + 123, now, at_t0 + 750, at_t0, now, at_t0]


@pytest.mark.parametrize("number", ["1e400", "9" * 5000, "-1e400"])
def test_a_number_beyond_all_bounds_costs_nothing_but_itself(number: str) -> None:
    body = envelope(messageTimestamp=7).replace(b'"messageTimestamp": 7', f'"messageTimestamp": {number}'.encode())
    assert only(body).message.provider_time.seconds == NOW_S


def test_a_number_beyond_all_bounds_does_not_hide_that_the_rest_is_broken() -> None:
    """The second reading, which passes over the number, once raised: 503 until Evolution gave the body up."""
    assert only(b'{"a": ' + b"9" * 5000 + b', "b": }').unparsed.reason == "not_json"


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_json_does_not_know_is_quarantined(constant: str) -> None:
    body = envelope(messageTimestamp=7).replace(b'"messageTimestamp": 7', f'"messageTimestamp": {constant}'.encode())
    assert only(body).unparsed.reason == "not_a_number"


@pytest.mark.slow
def test_megabytes_of_thumbnail_cost_little_and_nothing_else() -> None:
    body = evolution("06_image_caption_base64.json", now_s=NOW_S)
    thumbnail = {str(index): index % 256 for index in range(500_000)}
    body["data"]["message"]["imageMessage"]["jpegThumbnail"] = thumbnail
    message = only(json.dumps(body, separators=(",", ":")).encode()).message
    assert (message.text, message.media[0].size_bytes) == ("tem desse modelo?", 48211)


def test_a_body_of_too_many_objects_is_quarantined() -> None:
    assert only(b"[" + b"{}," * 200_000 + b"{}]").unparsed.reason == "too_many_objects"


def test_a_long_text_is_cut_between_words_of_bytes_and_marked() -> None:
    (body,) = malformed_bodies("11_text_200kb.json")
    message = only(body).message
    assert message.text_cut
    assert 65_530 <= len(message.text.encode()) <= 65_536
    exactly = only(envelope(message={"conversation": "é" * 32_768})).message
    assert (len(exactly.text), exactly.text_cut) == (32_768, False)


def test_a_family_is_not_torn_apart_by_the_cut() -> None:
    family = "👨‍👩‍👧‍👦"
    text = only(envelope(message={"conversation": family * 5000})).message.text
    assert text == family * (65_536 // len(family.encode()))


def test_half_an_emoji_is_replaced() -> None:
    assert only(envelope(message={"conversation": "oi \ud83d"})).message.text == "oi \ufffd"


@pytest.mark.parametrize("body", malformed_bodies("28_injection_strings.json"))
def test_a_hostile_instance_is_only_a_name(body: bytes) -> None:
    event = only(body)
    assert event.scope.instance == json.loads(body)["instance"]
    assert event.message.message_id


@pytest.mark.parametrize("instance", [None, "", "..", "a\nb", "a\x00b", "x" * 101, "\ud800" * 100, 7, ["x"], " "])
def test_an_unusable_instance_falls_back(instance: Any) -> None:
    assert only(envelope(instance=instance)).scope.instance == "padrao"


def test_without_any_instance_a_message_is_quarantined() -> None:
    result = parse_webhook(envelope(instance=None), now_ms=NOW_MS)
    assert [event.unparsed.reason for event in result.events] == ["no_instance"]


@pytest.mark.parametrize("suffix", ["", ":75"])
def test_our_own_account_is_nobody(suffix: str) -> None:
    key = {"remoteJid": f"558199990000{suffix}@s.whatsapp.net", "fromMe": True}
    result = parsed(envelope(key=key, sender="5581999990000@s.whatsapp.net"))
    assert (result.events, result.ignored["own_account"]) == ((), 1)


def test_our_own_number_in_alt_is_not_learnt() -> None:
    key = {"remoteJid": "100000000000001@lid", "remoteJidAlt": "5581999990000:12@s.whatsapp.net"}
    assert list(only(envelope(key=key)).contact.aliases) == ["lid:100000000000001"]


@pytest.mark.parametrize("message_id", [None, "", 7, "x" * 257, "a\u0000b"])
def test_without_a_usable_id_an_item_is_quarantined(message_id: Any) -> None:
    assert only(envelope(key={"id": message_id})).unparsed.reason == "message_id"


@pytest.mark.parametrize(
    ("message", "kind", "text", "choice"),
    [
        ({"listResponseMessage": {"title": "A", "singleSelectReply": {"selectedRowId": "r1"}}}, "CHOICE", "A", "r1"),
        (
            {
                "interactiveResponseMessage": {
                    "body": {"text": "B"},
                    "nativeFlowResponseMessage": {"paramsJson": '{"id": "n1"}'},
                }
            },
            "CHOICE",
            "B",
            "n1",
        ),
        (
            {"interactiveResponseMessage": {"body": {"text": "B"}, "nativeFlowResponseMessage": {"paramsJson": "{"}}},
            "CHOICE",
            "B",
            "",
        ),
        ({"contactMessage": {"displayName": "Ana", "vcard": "BEGIN"}}, "CONTACT_CARD", "Ana", ""),
        (
            {"contactsArrayMessage": {"contacts": [{"displayName": "A"}, {"displayName": "B"}]}},
            "CONTACT_CARD",
            "A, B",
            "",
        ),
        ({"orderMessage": {"orderId": "1"}}, "UNSUPPORTED", "", ""),
        ({"pollUpdateMessage": {"vote": {"encPayload": {"0": 1}}}}, "UNSUPPORTED", "", ""),
        (None, "UNSUPPORTED", "", ""),
    ],
)
def test_other_content(message: Any, kind: str, text: str, choice: str) -> None:
    read = only(envelope(message=message)).message
    assert read.type == message_pb2.MessageType.Value(f"MESSAGE_TYPE_{kind}")
    assert (read.text, read.choice_id) == (text, choice)


def test_wrappers_are_opened_only_so_deep() -> None:
    message: Any = {"conversation": "fundo"}
    for _ in range(8):
        message = {"ephemeralMessage": {"message": message}}
    assert only(envelope(message=message)).message.text == "fundo"
    beyond = {"ephemeralMessage": {"message": message}}
    assert only(envelope(message=beyond)).message.type == message_pb2.MESSAGE_TYPE_UNSUPPORTED


def test_a_bare_number_is_no_name() -> None:
    assert only(envelope(pushName="5581999990001")).contact.display_name == ""
    assert only(envelope(pushName="Ana\u202e\nLima")).contact.display_name == "Ana Lima"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELD = st.sampled_from(["key", "message", "messageTimestamp", "pushName", "contextInfo", "messageType"])


@given(body=st.binary(max_size=200))
def test_no_bytes_raise(body: bytes) -> None:
    assert parsed(body).events


@given(field=FIELD, value=JSON)
def test_no_value_in_an_item_raises_or_loses_it(field: str, value: Any) -> None:
    result = parsed(envelope(**{field: value}) if field != "key" else _with_key(value))
    assert result.events or result.ignored
    for event in result.events:
        event.SerializeToString()


def _with_key(value: Any) -> bytes:
    body = json.loads(envelope())
    body["data"]["key"] = value
    return json.dumps(body).encode()


@given(
    name=st.sampled_from(["conversation", "imageMessage", "audioMessage", "locationMessage", "listResponseMessage"]),
    value=JSON,
)
def test_no_content_raises(name: str, value: Any) -> None:
    result = parsed(envelope(message={name: value}))
    assert len(result.events) == 1


@pytest.mark.parametrize("message_id", ["AB\u0001C", "A\nB", "A\x7fB", "replay:1", "x" * 300])
def test_an_id_that_the_services_behind_would_refuse_goes_to_quarantine_alone(message_id: str) -> None:
    """The sender chooses it: it once kept a good neighbour out for ever, or stopped a conversation's history."""
    key = {"remoteJid": "5581999990001@s.whatsapp.net", "fromMe": False}
    text = {"message": {"conversation": "oi"}, "messageTimestamp": 1_773_144_930}
    items = [{"key": {**key, "id": message_id}, **text}, {"key": {**key, "id": "GOOD"}, **text}]
    body = json.dumps({"event": "messages.upsert", "instance": "loja-demo", "data": items}).encode()
    found = parsed(body).events
    assert sorted(e.WhichOneof("event") or "" for e in found) == ["message", "unparsed"]
    assert [e.message.message_id for e in found if e.HasField("message")] == ["GOOD"]
