"""Workarounds for bugs and limits of the supported client libraries. All of them are in this module.

| fault | ends with |
| --- | --- |
| a signal handler that raises can leave the queue of a pool locked, or crash hiredis: `waiting_pool`, `packer` | none yet |
| one that raises while a connection is made leaves it half connected: `whole_or_closed` | none yet |
| the sync Cluster client releases a connection twice after a redirection: `releasing_once` | none yet |
| another thread or task closes a connection that is being taken or written to: `closed_meanwhile` | none yet |
| the sync Cluster client fails on a node without a slot: `node_without_slot` | none yet |
| async connections are closed by awaiting only, and warn when collected open: `abort` | none yet |
| pools mistake TLS session tickets for a stale reply: `ping_after_connect` | none yet |
| packets to a node of an async Cluster lose their connection when cancelled: `send_to_node` | redis-py 8 |
| a pool that waits closes connections in use, too: `close_idle`, `sentinel_pool` | redis-py 7 |
| async clients repeat calls after connection errors only if `retry_on_error` names them: `retried_errors` | redis-py 6 |
| Sentinel's replies in RESP3 cannot be read (clients.py asks in RESP2) | redis-py 5.3 |
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, wraps
from importlib import import_module
from typing import Any

from ..effects import Command
from .idle import Idle
from .library import Node, SyncClient, in_cluster, is_named, redis_module

# --- errors that are no RedisError ------------------------------------------------------------------------------------


def closed_meanwhile(error: Exception) -> bool:
    """Whether redis-py used a connection that another thread or task closed: its Cluster clients close all connections of a
    node when they reload the slots."""
    if isinstance(error, AttributeError):
        of_socket = ("sendall", "recv", "recv_into", "fileno", "settimeout", "write", "writelines")
        return error.obj is None and error.name in (*of_socket, "gets", "feed")
    return isinstance(error, TypeError | ValueError) and any(sign in str(error) for sign in ("fileno()", "file descriptor"))


def node_without_slot(error: Exception) -> bool:
    """Whether the sync Cluster client met a node that has no slot yet."""
    names = ("redis_connection", "execute_command", "connection_kwargs", "connection")
    return isinstance(error, AttributeError) and error.obj is None and error.name in names


def retried_errors() -> list[type[Exception]]:
    errors = redis_module(".exceptions")
    return [errors.ConnectionError, errors.TimeoutError]


# --- pools and connections --------------------------------------------------------------------------------------------


@cache
def packer() -> Any:
    """Packs commands with hiredis, and gives it only bytes, also for redis-py's own commands (SELECT, HELLO, AUTH). For other
    types hiredis runs Python code, and a signal handler that raises there can crash the interpreter. None without hiredis."""
    if not redis_module(".utils").HIREDIS_AVAILABLE:
        return None
    pack, pack_plain = redis_module(".connection").HiredisRespSerializer().pack, import_module("hiredis").pack_command

    class Packer:
        pack_bytes = staticmethod(pack_plain)

        def pack(self, *arguments: Any) -> Any:
            if arguments[0] == "EVALSHA":  # its arguments are bytes already
                return [pack_plain((b"EVALSHA", *arguments[1:]))]
            return pack(
                *(each.encode() if type(each) is str else b"%d" % each if type(each) is int else each for each in arguments)
            )

    return Packer()


@cache
def waiting_pool() -> Any:
    """redis-py's pool that waits for a free connection, safe where signal handlers raise: see `Idle`, `packer` and
    `whole_or_closed`."""
    module = redis_module(".connection")
    pool_class = module.BlockingConnectionPool

    class WaitingPool(pool_class):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **settings: Any) -> None:
            settings["connection_class"] = whole_or_closed(settings.get("connection_class", module.Connection))
            super().__init__(*args, **{"queue_class": Idle, "command_packer": packer(), **settings})

    return WaitingPool


@cache
def whole_or_closed(connection_class: Any) -> Any:
    """The same connection, which closes if it is interrupted while it connects. redis-py takes one that is half connected for
    connected, and each use of it fails."""

    def closing(connect: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(connect)
        def connect_or_close(connection: Any, *args: Any, **options: Any) -> Any:
            try:
                return connect(connection, *args, **options)
            except BaseException:
                connection.disconnect()
                raise

        return connect_or_close

    ways = [name for name in ("connect", "connect_check_health") if hasattr(connection_class, name)]  # the second: redis-py 6
    return type(
        connection_class.__name__, (connection_class,), {name: closing(getattr(connection_class, name)) for name in ways}
    )


def sentinel_pool(sentinel_pool_class: Any) -> Any:
    """A Sentinel pool that waits for a free connection, and after a failover closes only idle connections."""
    waiting = waiting_pool()

    def disconnect(pool: Any, inuse_connections: bool = True) -> None:
        if inuse_connections:
            waiting.disconnect(pool)
        else:
            for connection in filter(None, list(pool.pool.queue)):
                connection.disconnect()

    return type("WaitingSentinelPool", (sentinel_pool_class, waiting), {"disconnect": disconnect})


def releasing_once(pool_class: Any) -> Any:
    """The same pool, which takes a connection back only from the thread that holds it.

    If a redirection leads to a node that redis-py's Cluster client cannot use, the client releases the connection of its
    previous attempt a second time. By then another thread may hold it, and two threads on one connection get each other's
    replies.
    """

    class ReleasingOncePool(pool_class):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            self._holders: dict[Any, int] = {}
            self._getting = threading.local()
            super().__init__(*args, **settings)

        def get_connection(self, *args: Any, **options: Any) -> Any:
            self._getting.now = True  # the pool itself releases a connection that cannot connect
            try:
                connection = super().get_connection(*args, **options)
            except (AttributeError, TypeError, ValueError) as error:
                if not closed_meanwhile(error):
                    raise
                # the Cluster client repeats the command after this error
                raise redis_module(".exceptions").ConnectionError(
                    "another thread closed the connection that was being taken"
                ) from error
            finally:
                self._getting.now = False
            self._holders[connection] = threading.get_ident()
            return connection

        def release(self, connection: Any) -> None:
            if not getattr(self._getting, "now", False):
                if self._holders.get(connection) != threading.get_ident():
                    return
                del self._holders[connection]
            super().release(connection)

    return ReleasingOncePool


def ping_after_connect(in_cluster: bool) -> Callable[[Any], None]:
    """A `redis_connect_func` for TLS: redis-py's own initialization of a connection, and a PING.

    TLS 1.3 servers send session tickets after the handshake. Without AUTH or HELLO (RESP2, no password) nothing reads them, and
    redis-py's pool mistakes them for a stale reply: "Connection not ready".
    """

    def connected(connection: Any) -> None:
        if not in_cluster:  # a Cluster client initializes the connection before it calls this
            connection.on_connect()
        connection.send_command("PING", check_health=False)
        connection.read_response()

    return connected


# --- sending and closing ----------------------------------------------------------------------------------------------


def client_of_node(client: Any, node: Node) -> SyncClient:
    """A client of one node: its pipelines use one connection. Those of a Cluster client use one for each command."""
    of_node: Callable[[Node], SyncClient] = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
    return of_node(node)


async def send_to_node(node: Any, commands: Sequence[Command]) -> list[Any]:
    """Sends commands on one connection to a node of an async Cluster client. The replies may contain errors of the server."""
    replies: list[Any] = []
    line = node.acquire_connection()
    try:
        await line.send_packed_command(line.pack_commands(commands))
        for command in commands:
            try:
                replies.append(await node.parse_response(line, command[0]))
            except Exception as error:
                if not is_named(error, "ResponseError"):
                    raise
                replies.append(error)
    except BaseException:
        await line.disconnect(nowait=True)  # replies that are still to come belong to no call
        raise
    finally:
        release = getattr(node, "release", None) or node._free.append
        release(line)
    return replies


def close_idle(client: Any) -> None:
    """Closes the idle connections, one of which may hold replies to other calls."""
    if in_cluster(client):
        client.disconnect_connection_pools()
        return
    try:
        client.connection_pool.disconnect(inuse_connections=False)
    except TypeError:
        client.connection_pool.disconnect()


async def close_idle_async(client: Any) -> None:
    if in_cluster(client):
        await asyncio.gather(*(node.disconnect() for node in client.get_nodes()))
    else:
        await client.connection_pool.disconnect(inuse_connections=False)


def abort(client: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Closes the sockets of an async client without awaiting, in its running loop or after the loop is closed.

    A connection that is collected with its writer still set warns, and so does a transport with its socket. So this uses the
    private attributes `_writer` and `_reader` of a connection (the same in redis-py 5.2 to 8.1).
    """
    for connection in _connections(client):
        writer = getattr(connection, "_writer", None)
        if writer is None:
            continue
        connection._writer = connection._reader = None
        transport = writer.transport
        if not loop.is_closed():
            transport.abort()
            continue
        # `abort` schedules `_call_connection_lost`, which closes the socket. A closed loop schedules nothing, so it is called
        # here. The second `abort` only lets Python 3.10 mark a TLS transport as closed. uvloop closes its sockets itself.
        tls = getattr(transport, "_ssl_protocol", None)
        lost = getattr(transport if tls is None else tls._transport, "_call_connection_lost", None)
        with contextlib.suppress(RuntimeError):
            transport.abort()
        if lost is not None:
            with contextlib.suppress(RuntimeError):
                lost(None)
        with contextlib.suppress(RuntimeError):
            transport.abort()
    if hasattr(client, "_initialize"):
        client._initialize = True  # otherwise a Cluster client warns when it is collected


def _connections(client: Any) -> Iterator[Any]:
    """Every connection of an async client, idle or in use. redis-py has no public attribute for them."""
    pool = getattr(client, "connection_pool", None)
    yield from list(getattr(pool, "_available_connections", ()))
    yield from list(getattr(pool, "_in_use_connections", ()))
    nodes = getattr(client, "nodes_manager", None)
    for known in (getattr(nodes, "nodes_cache", {}), getattr(nodes, "startup_nodes", {})):
        for node in list(known.values()):
            yield from list(node._connections)
