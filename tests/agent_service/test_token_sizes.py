"""Sizes of texts: asked of the tokenizer beforehand, estimated when it has nothing to say."""

import asyncio

import pytest

from agent_service.token_sizes import TokenSizes, estimate


class Tokenizer:
    """Counts a token per character, and remembers what it was asked."""

    def __init__(self, *, fails_after: int = 1_000_000, silent: bool = False, hangs: bool = False) -> None:
        self.asked: list[str] = []
        self._fails_after, self._silent, self._hangs = fails_after, silent, hangs

    async def __call__(self, text: str) -> int | None:
        self.asked.append(text)
        if self._hangs:
            await asyncio.Event().wait()
        if len(self.asked) > self._fails_after:
            raise ConnectionError("the server went away")
        return None if self._silent else len(text)


async def test_a_text_is_asked_for_once() -> None:
    tokenizer = Tokenizer()
    sizes = TokenSizes(tokenizer)
    await sizes.learn(["oi", "tudo bem?", "oi"])
    await sizes.learn(["tudo bem?", "e aí?"])
    assert tokenizer.asked == ["oi", "tudo bem?", "e aí?"]
    assert [sizes.size(text) for text in ("oi", "tudo bem?", "e aí?")] == [2, 9, 5]


async def test_what_is_unknown_is_estimated_without_asking() -> None:
    tokenizer = Tokenizer()
    sizes = TokenSizes(tokenizer)
    assert sizes.size("quanto custa?") == estimate("quanto custa?")
    assert sizes.size("") == 0
    assert tokenizer.asked == []


async def test_an_engine_without_a_tokenizer_is_asked_once_per_time() -> None:
    tokenizer = Tokenizer(silent=True)
    sizes = TokenSizes(tokenizer)
    await sizes.learn(["um", "dois", "três"])
    assert tokenizer.asked == ["um"]
    assert sizes.size("dois") == estimate("dois")


async def test_a_tokenizer_that_fails_is_no_trouble_for_the_reply() -> None:
    sizes = TokenSizes(Tokenizer(fails_after=1))
    await sizes.learn(["primeiro", "segundo"])
    assert sizes.size("primeiro") == 8
    assert sizes.size("segundo") == estimate("segundo")


async def test_a_tokenizer_that_hangs_is_not_waited_for() -> None:
    sizes = TokenSizes(Tokenizer(hangs=True))
    await sizes.learn(["oi"], within_s=0.01)
    assert sizes.size("oi") == estimate("oi")


async def test_sizes_are_bounded_and_the_ones_in_use_stay() -> None:
    tokenizer = Tokenizer()
    sizes = TokenSizes(tokenizer, kept=3)
    await sizes.learn(["uma palavra", "duas palavras", "três palavras"])
    assert sizes.size("uma palavra") == 11
    await sizes.learn(["quatro palavras"])
    assert sizes.size("uma palavra") == 11
    assert sizes.size("duas palavras") == estimate("duas palavras")


# What Gemma 3's tokenizer makes of them.
COUNTED = {
    "oi": 1,
    "não, 4 mil": 5,
    "Quanto vem, em média, a sua conta de luz por mês?": 14,
    "4.500,00": 8,
    "kkkkkkkkk 😂😂": 6,
    "https://www.exemplo.com.br/abc?x=123456789": 24,
    "aGVsbG8gd29ybGQgaXNzbyBlIHVtIHRlc3Rl": 23,
    "minha conta tá vindo uns 800 reais, aí queria ver se compensa botar placa solar": 23,
    '{"a": [1,2,3], "b": {"c": "x"}}': 19,
    "日本語のテキストです": 4,
    "àéîõüàéîõüàéîõüàéîõüàéîõü": 25,
    "https://a.b/" * 20: 120,
}


@pytest.mark.parametrize(("text", "counted"), COUNTED.items(), ids=range(len(COUNTED)))
def test_the_estimate_is_cautious_and_not_far_off(text: str, counted: int) -> None:
    assert counted <= estimate(text) <= 1.6 * counted + 6


def test_letters_of_fancy_writing_are_no_common_ones() -> None:
    """Two letters were taken for two and a half tokens; a vocabulary without them needs a token for most bytes."""
    assert estimate("\U0001d428\U0001d422 " * 100) >= 400


@pytest.mark.parametrize("text", ["\ud800", "\x00", " ", "\n\n\n", "a" * 100_000])
def test_every_text_has_an_estimate(text: str) -> None:
    assert estimate(text) >= 1
    assert TokenSizes(Tokenizer()).size(text) == estimate(text)
