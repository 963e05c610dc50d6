"""The short way of a script to a single server: the sync client of redis-py, with an `evalsha` that does only what is needed,
and a `packet` of commands.

redis-py's own way takes more time than a small script on the server: it looks for commands that need more than sending,
records metrics that mostly nobody collects, and takes a connection from the pool in many steps. Here a script is packed once,
sent, and answered on an idle connection of the same pool. Everything else is redis-py's: its connections, which reconnect,
check their health, and time out, and its `Retry`, with the same errors.

State: an idle connection leaves the pool's queue and comes back to it, or is closed. Nothing on the server.
Round trips: one, as before.
Cut in the middle: a connection that was interrupted closes itself, and a closed one connects again when it is used.
The long way is taken if no connection is idle, if one is closed or has unread data, in a forked child, or if somebody watches
commands: a patched `execute_command`, or redis-py's own metrics.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

from .library import is_named, redis_module
from .workarounds import packer

R = TypeVar("R")


@cache
def direct_client(client_class: Any) -> Any:
    """The same client, whose `evalsha` and `packet` take the short way. It needs hiredis, and a pool that waits (`Idle`).
    redis-py 5 keeps its own way: there a client decides which errors are retried (`_disconnect_raise`), and not its `Retry`."""
    packing = packer()
    if packing is None or hasattr(client_class, "_disconnect_raise"):
        return client_class
    own, metrics = client_class.execute_command, _metrics()

    def watched(client: Any) -> bool:
        now = client.execute_command
        return getattr(now, "__func__", None) is not own or hasattr(now, "__wrapped__") or metrics()

    def evalsha(client: Any, *arguments: bytes) -> Any:
        if watched(client):
            return client_class.evalsha(client, *arguments)
        packed = packing.pack("EVALSHA", *arguments)

        def asked(connection: Any) -> Any:
            connection.send_packed_command(packed)
            return connection.read_response()

        return _on_a_connection(client.connection_pool, asked)

    def packet(client: Any, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
        if watched(client):
            return by_pipeline(client, commands)
        packed = [b"".join(map(packing.pack_bytes, commands))]

        def asked(connection: Any) -> list[Any]:
            connection.send_packed_command(packed)
            return [_reply(connection) for _ in commands]

        return _on_a_connection(client.connection_pool, asked)

    return type(client_class.__name__, (client_class,), {"evalsha": evalsha, "packet": packet})


def by_pipeline(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Sends commands in one packet, redis-py's own way. The replies may contain errors of the server."""
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies


def _on_a_connection(pool: Any, asked: Callable[[Any], R]) -> R:
    connection = taken(pool)
    try:
        replied: R = connection.retry.call_with_retry(partial(asked, connection), lambda _: connection.disconnect())
        return replied
    finally:
        given_back(pool, connection)


def _reply(connection: Any) -> Any:
    """The next reply, which may be an error of the server."""
    try:
        return connection.read_response()
    except Exception as error:
        if not is_named(error, "ResponseError"):
            raise
        return error


def taken(pool: Any) -> Any:
    """A connection of the pool: one that is idle and ready, else what the pool makes of it."""
    if pool.pid == os.getpid():
        idle = pool.pool
        try:
            connection = idle.queue.pop()
        except IndexError:
            return pool.get_connection()
        if connection is not None and _ready(connection):
            return connection
        idle.put_nowait(connection)
    return pool.get_connection()


def _ready(connection: Any) -> bool:
    """Whether it is connected and has no unread data; if not, it is closed, and connects when it is used."""
    try:
        if not connection.can_read():
            return True
    except Exception as error:
        if not is_named(error, "ConnectionError", "TimeoutError", "OSError"):
            connection.disconnect()
            raise
    connection.disconnect()
    return False


def given_back(pool: Any, connection: Any) -> None:
    """Returns a connection to the pool."""
    asked_to_close = getattr(connection, "should_reconnect", None)
    if not pool.pid == connection.pid == os.getpid() or (asked_to_close is not None and asked_to_close()):
        pool.release(connection)
        return
    try:
        pool.pool.put_nowait(connection)
    except queue.Full:  # the pool was made anew meanwhile
        connection.disconnect()


def _metrics() -> Callable[[], bool]:
    """Whether redis-py's own metrics are collected (redis-py 7.2 and newer have some)."""
    try:
        instance = redis_module(".observability.providers").get_observability_instance
    except ImportError:
        return lambda: False
    return lambda: instance().get_provider_manager() is not None
