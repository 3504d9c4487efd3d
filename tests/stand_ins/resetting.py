"""What a peer sees when a server dies in the middle of a request."""

import struct
from socket import SO_LINGER, SOL_SOCKET

from aiohttp import web


def reset(request: web.Request) -> web.Response:
    """Reset the connection (RST, not FIN); the response is what aiohttp wants to be given, and goes nowhere."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
