"""Where a model server is, as far as its address tells."""

import ipaddress
from urllib.parse import urlsplit


def is_private(base_url: str) -> bool:
    """Whether the server is this machine or a neighbour: a private address, or a name without a dot."""
    host = urlsplit(base_url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
    return address.is_private or address.is_loopback


def costs_money(base_url: str) -> bool:
    """Whether calls to that server are paid for: a neighbour's are not."""
    return not is_private(base_url)
