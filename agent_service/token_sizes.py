"""How many tokens a text has: by the engine's own tokenizer where there is one, else by a cautious estimate."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b

from service_kit import logs

_log = logs.get(__name__)
_KEPT = 8_192
_WITHIN_S = 0.25
# Letters of 𝐟𝐚𝐧𝐜𝐲 writing are in few vocabularies and cost what an emoji costs.
_COMMON = "\uffff"
_PIECES = re.compile(r"[^\W_\U00010000-\U0010ffff]+|\n+|[^\S\n]+|.")
# Bytes per token of running Portuguese: current tokenizers reach 3.7 to 4.5 over words and punctuation together.
_BYTES_PER_TOKEN = 3.4
# A run that no language has (a pasted key, base64) falls into far smaller tokens.
_LONG_RUN = 24
_BYTES_PER_TOKEN_OF_NOISE = 1.5
_TOKENS_PER_SIGN = 0.75


class TokenSizes:
    """Sizes of texts in tokens, remembered by digest: the agent keeps nobody's words.

    `count` is `ChatEngine.count_tokens`: None where the engine has no tokenizer at hand. At most `kept` sizes are held;
    those that were not used for the longest time are let go.
    """

    def __init__(self, count: Callable[[str], Awaitable[int | None]], *, kept: int = _KEPT) -> None:
        self._count = count
        self._kept = kept
        self._sizes: OrderedDict[bytes, int] = OrderedDict()

    async def learn(self, texts: Iterable[str], *, within_s: float = _WITHIN_S) -> None:
        """Ask the tokenizer for the texts that are not known yet, for at most so long; never raises for its faults.

        A reply must not wait for a tokenizer: what it could not tell is estimated.
        """
        unknown = [text for text in dict.fromkeys(texts) if text and _digest(text) not in self._sizes]
        try:
            async with asyncio.timeout(within_s):
                for text in unknown:
                    size = await self._count(text)
                    if size is None:
                        return
                    self._keep(_digest(text), max(1, size))
        except TimeoutError:
            _log.info("token_count_late", texts=len(unknown))
        except Exception as error:
            _log.warning("token_count_failed", error=type(error).__name__)

    def size(self, text: str) -> int:
        """Tokens of the text; no I/O. 0 only for the empty text."""
        if not text:
            return 0
        digest = _digest(text)
        known = self._sizes.get(digest)
        if known is None:
            return estimate(text)
        self._sizes.move_to_end(digest)
        return known

    def _keep(self, digest: bytes, size: int) -> None:
        self._sizes[digest] = size
        while len(self._sizes) > self._kept:
            self._sizes.popitem(last=False)


def estimate(text: str) -> int:
    """Tokens of a text without a tokenizer: rather too many than too few, for Portuguese and for what people paste."""
    if not text:
        return 0
    size = 0.5
    for piece in _PIECES.findall(text):
        length = len(piece.encode("utf-8", "replace"))
        if not piece[0].isalnum() or piece[0] > _COMMON:
            # Blanks belong to the next word, line breaks and ASCII signs are mostly tokens, an emoji is some.
            size += 0 if piece[0] in " \t" else _TOKENS_PER_SIGN * (1 if piece.isascii() else length)
        elif len(piece) > _LONG_RUN:
            size += length / _BYTES_PER_TOKEN_OF_NOISE
        else:
            digits = sum(character.isdigit() for character in piece)
            size += digits + (length - digits + 1) / _BYTES_PER_TOKEN
    return max(1, round(size))


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
