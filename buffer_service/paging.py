"""Page tokens: opaque, and bound to the method and filters that made them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from buffer_service.errors import BadPageToken

MAX_TOKEN = 1_024


def _fingerprint(method: str, filters: object) -> str:
    return hashlib.sha256(json.dumps([method, filters]).encode()).hexdigest()[:8]


def make(method: str, filters: object, position: list[Any]) -> str:
    """A token for what comes after this position."""
    raw = json.dumps([_fingerprint(method, filters), *position]).encode()
    return base64.urlsafe_b64encode(raw).decode()


def read(method: str, filters: object, token: str, *, length: int) -> list[Any] | None:
    """The position; None for the first page. Raises BadPageToken."""
    if not token:
        return None
    if len(token) > MAX_TOKEN:
        raise BadPageToken(field="page_token")
    try:
        fingerprint, *position = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error, TypeError, RecursionError):
        raise BadPageToken(field="page_token") from None
    if fingerprint != _fingerprint(method, filters) or len(position) != length:
        raise BadPageToken(field="page_token")
    return list(position)
