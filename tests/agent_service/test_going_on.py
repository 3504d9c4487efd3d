"""Going on after a crash, and turns without words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.conversation import Author, End, Kind, Lead, Line, Message, Turn
from agent_service.playbook.going_on import rest_of
from agent_service.playbook.media import wordless_reply
from tests.agent_service.talking import MONDAY_10H, demo

BUBBLES = ("Prazer, Ana!", "Funciona assim, a usina gera.\nO prazo depende.", "Qual a sua conta?")


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        ((), BUBBLES),
        (BUBBLES[:1], BUBBLES[1:]),
        (BUBBLES[:2], BUBBLES[2:]),
        (BUBBLES, ()),
        (("Prazer, Ana!", "Funciona assim, a usina gera."), ("O prazo depende.", BUBBLES[2])),
        (("Prazer,   Ana!",), BUBBLES[1:]),
        (("Outra coisa.",), BUBBLES[2:]),
        (("Outra coisa?",), ()),
        (("Outra coisa.", "Qual a sua conta"), ("Qual a sua conta?",)),
    ],
)
def test_what_is_left_of_a_reply(said: tuple[str, ...], rest: tuple[str, ...]) -> None:
    assert rest_of(BUBBLES, said) == rest


@given(st.lists(st.text(alphabet="ab c\n?", min_size=1).filter(str.strip), min_size=1, max_size=4), st.data())
def test_said_and_rest_make_the_whole(bubbles: list[str], data: st.DataObject) -> None:
    whole = "".join("".join(bubbles).split())
    cut = data.draw(st.integers(0, len(bubbles)))
    rest = rest_of(bubbles, bubbles[:cut])
    assert "".join("".join([*bubbles[:cut], *rest]).split()) == whole


def _turn(*kinds: Kind, said_before: tuple[str, ...] = (), first: bool = False, lead: Lead | None = None) -> Turn:
    return Turn(
        messages=tuple(Message(text="", kind=kind) for kind in kinds),
        history=tuple(Line(author=Author.ASSISTANT, text=text) for text in said_before),
        first_contact=first,
        lead=lead or Lead(),
        now_ms=MONDAY_10H,
    )


@pytest.mark.parametrize(
    "kind", [Kind.AUDIO, Kind.IMAGE, Kind.VIDEO, Kind.DOCUMENT, Kind.CONTACT_CARD, Kind.UNSUPPORTED]
)
def test_media_without_words_are_asked_for_in_writing_once(kind: Kind) -> None:
    persona = demo()
    first = wordless_reply(persona, _turn(kind, first=True))
    assert first is not None and first.bubbles[-1] == persona.media_sentence and "Helen" in first.bubbles[0]
    later = wordless_reply(persona, _turn(kind, said_before=("Oi!",)))
    assert later is not None and later.bubbles == (persona.media_sentence,)
    said = ["Oi!", persona.media_sentence]
    for _ in range(5):
        again = wordless_reply(persona, _turn(kind, said_before=tuple(said)))
        assert again is not None and len(again.bubbles) == 1 and again.bubbles[0] != said[-1]
        assert again.bubbles[0] in persona.sentences.media_again
        said.append(again.bubbles[0])


def test_a_picture_while_the_bill_is_open_is_thanked_for() -> None:
    step = next(step for step in demo().script if step.id == "bill")
    reply = wordless_reply(demo(), _turn(Kind.IMAGE, said_before=(step.ask[0],)))
    assert reply is not None and step.amount is not None and reply.bubbles[0] in step.amount.photo


def test_a_sticker_alone_is_no_reason_to_speak() -> None:
    reply = wordless_reply(demo(), _turn(Kind.STICKER, said_before=("Oi!",)))
    assert reply is not None and reply.end is End.SILENT and not reply.bubbles
    assert wordless_reply(demo(), _turn(Kind.STICKER, first=True)) is None


def test_words_and_places_go_to_the_model() -> None:
    with_words = Turn(messages=(Message(text="", kind=Kind.AUDIO), Message(text="oi")))
    assert wordless_reply(demo(), with_words) is None
    assert wordless_reply(demo(), _turn(Kind.LOCATION)) is None
