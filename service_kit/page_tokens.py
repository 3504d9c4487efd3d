"""Page tokens: opaque to the caller, good for one purpose (a method with its filters) only."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from service_kit.errors import BadPageToken

_MAX_CHARS = 1024
_DIGEST_CHARS = 16


def make(purpose: Sequence[object], key: Sequence[str | int]) -> str:
    """The token that goes on after the row with this key."""
    payload = json.dumps(list(key))
    return base64.urlsafe_b64encode(f"{_digest(purpose, payload)}{payload}".encode()).decode().rstrip("=")


def read(purpose: Sequence[object], token: str) -> list[Any]:
    """The key that this purpose put into the token. Raises BadPageToken."""
    if len(token) > _MAX_CHARS:
        raise BadPageToken
    try:
        text = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)).decode()
    except (binascii.Error, UnicodeError):
        raise BadPageToken from None
    digest, payload = text[:_DIGEST_CHARS], text[_DIGEST_CHARS:]
    # Nothing is parsed that this purpose did not write.
    if digest != _digest(purpose, payload):
        raise BadPageToken
    return list(json.loads(payload))


def _digest(purpose: Sequence[object], payload: str) -> str:
    return hashlib.sha256(f"{json.dumps(list(purpose))}{payload}".encode()).hexdigest()[:_DIGEST_CHARS]
