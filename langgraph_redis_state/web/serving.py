"""Serves the page: addresses, sockets, and the web server. Other machines can reach it only if somebody says so twice."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable

import uvicorn

from .. import RedisSaver
from .app import create
from .guard import Sessions


class AddressError(ValueError):
    """The page cannot be served at this address; the message says what to do."""


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def tcp_socket(host: str, port: int, *, others: bool) -> socket.socket:
    """Listens on an address.

    Raises:
        AddressError: it is not of this machine alone and `others` is not set, or it is in use.
    """
    if not is_local(host) and not others:
        raise AddressError(
            f"{host} can be reached from other machines, and this page shows conversations without TLS; use 127.0.0.1 and a "
            "tunnel (ssh -L), or say --allow-others"
        )
    listening: socket.socket | None = None
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(64)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise AddressError(f"{host}:{port} cannot be listened on ({error.strerror or error})") from error
    return listening


def unix_socket(path: str) -> socket.socket:
    """Listens on a unix socket that only this user can open.

    Raises:
        AddressError: something is there already, or it cannot be made.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(path)
        listening.listen(64)
    except OSError as error:
        listening.close()
        raise AddressError(f"the socket {path} cannot be made ({error.strerror}); is it of another server?") from error
    finally:
        os.umask(before)
    return listening


def hosts_of(listening: socket.socket, host: str) -> tuple[str, ...]:
    """What a browser may say in its Host header."""
    if listening.family == socket.AF_UNIX:
        return ("localhost",)
    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    names = {shown, "127.0.0.1", "localhost", "[::1]"} if is_local(host) else {shown}
    return tuple(f"{name}:{port}" for name in sorted(names))


def serve(
    saver: RedisSaver,
    listening: socket.socket,
    host: str,
    *,
    steering: RedisSaver | None,
    mask: bool,
    ready: Callable[[str], None],
) -> None:
    """Serves until it is interrupted. `ready` is called with the address that opens the page once."""
    sessions = Sessions()
    hosts = hosts_of(listening, host)
    app = create(saver, sessions, hosts, steering=steering, mask=mask)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, date_header=False, ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    local = listening.family == socket.AF_UNIX
    path = listening.getsockname() if local else ""
    shown = f"[{host}]" if ":" in host else host
    place = "localhost" if local else f"{shown}:{listening.getsockname()[1]}"
    ready(f"http://{place}/enter?token={sessions.token}")
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
        if local:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
