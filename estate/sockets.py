"""Listening sockets, bound before the fork so that addresses are known and a restart loses no connection."""

from __future__ import annotations

import socket


def listen(port: int = 0) -> socket.socket:
    """A listening loopback TCP socket.

    With `proto=IPPROTO_TCP`: asyncio disables Nagle only on sockets that say so.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    listener.setblocking(False)
    return listener


def port_of(listener: socket.socket) -> int:
    """The port a socket is bound to."""
    return int(listener.getsockname()[1])


def url_of(listener: socket.socket) -> str:
    """The HTTP base URL a socket serves."""
    return f"http://127.0.0.1:{port_of(listener)}"


def free_port() -> int:
    """A port nobody listens on now; the server it is for may still lose the race for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
