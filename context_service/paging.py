"""Page tokens: opaque to the caller, good for one method with the same filters only."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from context_service.store import PageAfter
from service_kit import page_tokens
from service_kit.errors import InvalidArgument

T = TypeVar("T")
M = TypeVar("M", bound=Message)
# Far below the 4 MiB that a gRPC client takes by default, whatever the page's rows hold.
MAX_PAGE_BYTES = 1024 * 1024


class Pager:
    """Pages of one method with one set of filters. The store is asked for one row more, which tells of a next page."""

    def __init__(self, method: str, *filters: str | int | None) -> None:
        self._purpose = [method, *filters]

    def request(self, page_size: int, page_token: str, *, default: int, most: int) -> PageAfter:
        """What to ask the store for. Errors: InvalidArgument; BadPageToken."""
        if not 0 <= page_size <= most:
            raise InvalidArgument(f"page_size has to be 0 to {most}.", field="page_size")
        return PageAfter(size=(page_size or default) + 1, after=self._decode(page_token) if page_token else None)

    def answer(
        self, rows: Sequence[T], page: PageAfter, *, key: Callable[[T], tuple[int, str]], encode: Callable[[T], M]
    ) -> tuple[list[M], str]:
        """The messages of this page and the token of the next one, empty when this is the last."""
        messages = encode_within(rows[: page.size - 1], encode)
        more = len(messages) < len(rows)
        return messages, self.token(key(rows[len(messages) - 1])) if more else ""

    def token(self, key: tuple[int, str]) -> str:
        """The token that goes on after the row with this key."""
        return page_tokens.make(self._purpose, key)

    def _decode(self, token: str) -> tuple[int, str]:
        instant, name = page_tokens.read(self._purpose, token)
        return instant, name


def encode_within(rows: Iterable[T], encode: Callable[[T], M], most: int = MAX_PAGE_BYTES) -> list[M]:
    """The first rows as protobuf messages: as many as fit, and at least one if there is one."""
    messages: list[M] = []
    size = 0
    for row in rows:
        message = encode(row)
        size += message.ByteSize()
        if messages and size > most:
            break
        messages.append(message)
    return messages
