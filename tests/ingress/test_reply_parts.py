"""Cutting a streamed reply into bubbles."""

import pytest
import regex  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from ingress.reply_parts import HARD_CAP_UNITS, PartCutter

FAMILY = "👨‍👩‍👧‍👦"


def utf16_units(text: str) -> int:
    """The length as WhatsApp counts it."""
    return len(text.encode("utf-16-le")) // 2


def cut(text: str, *, step: int = 10_000, max_chars: int = 1000, max_parts: int = 8) -> list[str]:
    cutter = PartCutter(max_chars=max_chars, max_parts=max_parts)
    parts = [part for at in range(0, len(text), step) for part in cutter.feed(text[at : at + step])]
    return parts + cutter.finish()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" \n\n \t", []),
        ("Oi!", ["Oi!"]),
        ("Oi!\n\nTudo bem?", ["Oi!", "Tudo bem?"]),
        ("Oi!\n \t\nTudo bem?\n\n\n\n", ["Oi!", "Tudo bem?"]),
        ("Oi!\r\n\r\nTudo bem?", ["Oi!", "Tudo bem?"]),
        ("um\ndois", ["um\ndois"]),
        ("\n\n  Oi!", ["Oi!"]),
    ],
)
def test_an_empty_line_ends_a_part(text: str, parts: list[str]) -> None:
    for step in (1, 2, 100):
        assert cut(text, step=step) == parts


def test_a_part_is_complete_as_soon_as_the_empty_line_is() -> None:
    cutter = PartCutter()
    assert cutter.feed("Oi!\n") == []
    assert cutter.feed("\n") == ["Oi!"]
    assert cutter.feed("Tudo") == []
    assert cutter.finish() == ["Tudo"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Uma frase. Outra frase aqui", ["Uma frase.", "Outra frase aqui"]),
        ("palavra palavra palavra", ["palavra palavra", "palavra"]),
        ("a" * 45, ["a" * 20, "a" * 20, "a" * 5]),
        ("uma linha\noutra linha longa", ["uma linha", "outra linha longa"]),
        (FAMILY * 4, [FAMILY * 2, FAMILY * 2]),
        ("x" * 20 + "\n\n" + "y", ["x" * 20, "y"]),
    ],
)
def test_a_long_part_is_cut_where_it_hurts_least(text: str, parts: list[str]) -> None:
    for step in (1, 3, 100):
        assert cut(text, step=step, max_chars=20) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("primeiro passo\n2. segundo passo", ["primeiro passo", "2. segundo passo"]),
        ("primeiro passo\n *12.* segundo passo", ["primeiro passo", "*12.* segundo passo"]),
        ("Pode ser. Com a Dra. Ana Lima", ["Pode ser.", "Com a Dra. Ana Lima"]),
        ("São R$ 1.450. Por mês fica bom", ["São R$ 1.450.", "Por mês fica bom"]),
    ],
)
def test_a_full_stop_that_ends_nothing_is_no_place_to_cut(text: str, parts: list[str]) -> None:
    """A long numbered list was cut between a number and its item, every time: "12." at the end of one bubble."""
    for step in (1, 3, 100):
        assert cut(text, step=step, max_chars=21) == parts


def test_the_last_part_takes_the_rest() -> None:
    assert cut("a\n\nb\n\nc\n\nd", max_parts=2) == ["a", "b\n\nc\n\nd"]
    assert cut("a\n\nb", max_parts=1) == ["a\n\nb"]


def test_nothing_is_longer_than_the_provider_takes_and_nothing_is_lost() -> None:
    parts = cut("😀" * 5000, max_parts=1)
    assert [utf16_units(part) for part in parts] == [4096, 4096, 1808]


PIECES = ["a", "b", "á", "a\u0301", "\u0301", " ", "\n", "\n\n", ". ", "?", FAMILY, "🇧🇷", "\r\n", "\t"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=150).map("".join) | st.text()


def visible(text: str) -> list[str]:
    return [grapheme for grapheme in regex.findall(r"\X", text) if not grapheme.isspace()]


@given(text=TEXT, max_chars=st.integers(15, 60), max_parts=st.integers(1, 5))
def test_no_visible_grapheme_is_lost_torn_or_invented(text: str, max_chars: int, max_parts: int) -> None:
    parts = cut(text, max_chars=max_chars, max_parts=max_parts)
    if all(len(grapheme) <= 15 for grapheme in visible(text)):
        assert [grapheme for part in parts for grapheme in visible(part)] == visible(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part.strip() and utf16_units(part) <= HARD_CAP_UNITS for part in parts)
    assert len(parts) <= max_parts


@given(text=TEXT, max_chars=st.integers(15, 60), step=st.integers(1, 30))
def test_chunks_make_no_difference(text: str, max_chars: int, step: int) -> None:
    assert cut(text, step=step, max_chars=max_chars) == cut(text, max_chars=max_chars)


def test_a_reply_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PartCutter(max_parts=0)
