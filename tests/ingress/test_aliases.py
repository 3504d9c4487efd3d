"""Who is who."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.providers.aliases import (
    JidKind,
    alias_of,
    canonical_phone,
    identify,
    other_ninth_digit_form,
    parse_jid,
    phone_from_text,
)

DIGITS = st.text("0123456789", min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("raw", "kind", "user"),
    [
        ("5581999990001@s.whatsapp.net", JidKind.PHONE, "5581999990001"),
        ("5581999990001:75@s.whatsapp.net", JidKind.PHONE, "5581999990001"),
        ("5581999990001_1:75@S.WhatsApp.NET", JidKind.PHONE, "5581999990001"),
        ("5581999990001@c.us", JidKind.PHONE, "5581999990001"),
        ("100000000000001:3@lid", JidKind.LID, "100000000000001"),
        ("120363000000000001@g.us", JidKind.GROUP, ""),
        ("5581999990001-1600000000@g.us", JidKind.GROUP, ""),
        ("status@broadcast", JidKind.STATUS, ""),
        ("1600000000@broadcast", JidKind.BROADCAST, ""),
        ("120363000000000009@newsletter", JidKind.NEWSLETTER, ""),
        ("0@s.whatsapp.net", JidKind.UNKNOWN, ""),
        ("٥٥٨١٩٩٩٩٩٠٠٠١@s.whatsapp.net", JidKind.UNKNOWN, ""),
        ("5511²999990001@s.whatsapp.net", JidKind.UNKNOWN, ""),
        ("5581999990001", JidKind.UNKNOWN, ""),
        ("@s.whatsapp.net", JidKind.UNKNOWN, ""),
        ("a@b@lid", JidKind.UNKNOWN, ""),
        ("1" * 500 + "@lid", JidKind.UNKNOWN, ""),
        ("", JidKind.UNKNOWN, ""),
        (None, JidKind.UNKNOWN, ""),
        (5581999990001, JidKind.UNKNOWN, ""),
    ],
)
def test_a_jid_is_classified(raw: object, kind: JidKind, user: str) -> None:
    jid = parse_jid(raw)
    assert (jid.kind, jid.user) == (kind, user)


@pytest.mark.parametrize(
    ("digits", "canonical"),
    [
        ("558199990001", "5581999990001"),
        ("5581999990001", "5581999990001"),
        ("551166660001", "5511966660001"),
        ("551133330001", "551133330001"),
        ("551155550001", "551155550001"),
        ("558099990001", "558099990001"),
        ("5508999900011", "5508999900011"),
        ("14155550100", "14155550100"),
        ("351912345678", "351912345678"),
        ("55819999000", "55819999000"),
    ],
)
def test_a_brazilian_mobile_has_nine_digits(digits: str, canonical: str) -> None:
    assert canonical_phone(digits) == canonical


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("5581999990001@s.whatsapp.net", "558199990001@s.whatsapp.net"),
        ("558199990001@s.whatsapp.net", "5581999990001@s.whatsapp.net"),
        ("551133330001@s.whatsapp.net", None),
        ("5511933330001@s.whatsapp.net", None),
        ("14155550100@s.whatsapp.net", None),
        ("100000000000001@lid", None),
        ("", None),
    ],
)
def test_the_other_form(address: str, other: str | None) -> None:
    assert other_ninth_digit_form(address) == other


@pytest.mark.parametrize(
    ("raw", "phone"),
    [
        ("+55 (81) 9999-0001", "5581999990001"),
        ("5581999990001", "5581999990001"),
        ("55.81.99999.0001", "5581999990001"),
        ("123", None),
        ("x5581999990001", None),
        ("٥٥٨١٩٩٩٩٩٠٠٠١", None),
        ("", None),
    ],
)
def test_a_phone_as_people_write_it(raw: str, phone: str | None) -> None:
    assert phone_from_text(raw) == phone


def test_a_person_has_one_contact_and_all_aliases() -> None:
    lid, phone = parse_jid("100000000000001:2@lid"), parse_jid("558199990001@c.us")
    both = identify([lid, parse_jid(None), phone, parse_jid("5511988880002@s.whatsapp.net")])
    assert both is not None
    assert both.contact == "5581999990001"
    assert both.aliases == ("phone:5581999990001", "lid:100000000000001")
    assert both.address == "100000000000001@lid"
    only_phone = identify([phone])
    assert only_phone is not None and only_phone.address == "558199990001@s.whatsapp.net"
    only_lid = identify([lid])
    assert only_lid is not None and only_lid.contact == "lid:100000000000001"


def test_a_business_scoped_id_is_an_alias() -> None:
    only = identify([], bsuid="BR.1000000000000001")
    assert only is not None
    assert (only.contact, only.aliases, only.address) == (
        "bsuid:BR.1000000000000001",
        ("bsuid:BR.1000000000000001",),
        "BR.1000000000000001",
    )
    assert identify([], bsuid="nobody") is None


def test_what_is_no_person_has_no_identity() -> None:
    assert identify([parse_jid("120363000000000001@g.us"), parse_jid("status@broadcast")]) is None


@given(digits=DIGITS)
def test_canonical_is_stable(digits: str) -> None:
    assert canonical_phone(canonical_phone(digits)) == canonical_phone(digits)


@given(area=st.integers(11, 99), local=st.integers(60_000_000, 99_999_999), device=st.integers(0, 99))
def test_both_forms_are_always_one_person(area: int, local: int, device: int) -> None:
    short, long = f"55{area}{local}:{device}@s.whatsapp.net", f"55{area}9{local}@c.us"
    if "0" in str(area):
        assert canonical_phone(f"55{area}{local}") == f"55{area}{local}"
        return
    assert alias_of(parse_jid(short)) == alias_of(parse_jid(long))
    assert other_ninth_digit_form(short) == parse_jid(long).address
    assert other_ninth_digit_form(long) == parse_jid(short).address


@given(one=DIGITS, other=DIGITS)
def test_two_people_never_become_one(one: str, other: str) -> None:
    """Only the two forms of one Brazilian mobile share a canonical phone."""
    if canonical_phone(one) == canonical_phone(other):
        assert one == other or {len(one), len(other)} == {12, 13}


@given(raw=st.text(max_size=60) | st.integers() | st.none() | st.lists(st.text()))
def test_nothing_raises(raw: object) -> None:
    jid = parse_jid(raw)
    assert jid.is_person == bool(jid.user)
