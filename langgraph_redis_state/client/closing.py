"""TODO"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from .clients import Clients


def release_all(clients: dict[asyncio.AbstractEventLoop, Clients]) -> None:
    for loop, built in list(clients.items()):
        release(loop, built)
    clients.clear()


def release(loop: asyncio.AbstractEventLoop, clients: Clients, *, may_run: bool = False) -> None:
    """Release the sockets of a client from wherever we are: `may_run` allows to run an idle loop for it."""
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop or loop.is_closed():
        _abort(clients, loop)
        return
    # RuntimeError: another thread closed the loop, or began to run it, since we looked.
    with contextlib.suppress(RuntimeError):
        if may_run and here is None and not loop.is_running():
            closing = clients.aclose()
            try:
                loop.run_until_complete(closing)
                return
            finally:
                closing.close()
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_abort, clients, loop)
        return
    _abort(clients, loop)


def _abort(clients: Clients, loop: asyncio.AbstractEventLoop) -> None:
    """Drop the sockets of an async client without awaiting, in its running loop or when that is closed.

    redis-py can close a connection only by awaiting. A connection collected with its writer still set warns, and so
    does a transport with its socket. Hence the private names: a connection's ``_writer`` and ``_reader`` (5.2 to 8.1).
    """
    for connection in _connections(clients):
        writer = getattr(connection, "_writer", None)
        if writer is None:
            continue
        connection._writer = connection._reader = None
        transport = writer.transport
        if not loop.is_closed():
            transport.abort()
            continue
        # `abort` schedules `_call_connection_lost`, which closes the socket, and a closed loop refuses. So it is called
        # here. The second `abort` changes nothing but lets Python 3.10 mark a TLS transport as closed. Other loops
        # (uvloop) close their sockets themselves.
        tls = getattr(transport, "_ssl_protocol", None)
        lowest = transport if tls is None else tls._transport
        for step in (transport.abort, getattr(lowest, "_call_connection_lost", None), transport.abort):
            with contextlib.suppress(RuntimeError):
                if step is not None:
                    step(*(() if step == transport.abort else (None,)))
    for client in clients.all:
        if hasattr(client, "_initialize"):
            client._initialize = True  # a cluster client that is collected while "initialized" warns


def _connections(clients: Clients) -> Iterator[Any]:
    """Every connection of an async client, idle or in use. redis-py has no public way to name them."""
    for client in clients.all:
        pool = getattr(client, "connection_pool", None)
        yield from list(getattr(pool, "_available_connections", ()))
        yield from list(getattr(pool, "_in_use_connections", ()))
        nodes = getattr(client, "nodes_manager", None)
        for known in (getattr(nodes, "nodes_cache", {}), getattr(nodes, "startup_nodes", {})):
            for node in list(known.values()):
                yield from list(node._connections)
