"""TODO"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from .batching import Batches
from .idle import Idle
from .options import accepted, connection_classes, parameters, redis_module, settings_for
from .url import ServerAddress

SENTINEL_SECONDS = 2.0
"""How long one sentinel is waited for, unless `sentinel_kwargs` says else."""


@dataclass(frozen=True)
class Clients:
    """A client, and those that found the server for it (Sentinel)."""

    client: Any
    sentinels: tuple[Any, ...] = ()
    batches: Batches = field(default_factory=Batches)

    @property
    def all(self) -> tuple[Any, ...]:
        return (self.client, *self.sentinels)

    async def aclose(self) -> None:
        for client in self.all:
            await client.aclose()


def build(target: ServerAddress, options: Mapping[str, Any]) -> Clients:
    waiting_pool = _waiting_pool()
    if target.topology == "cluster":
        cluster = redis_module(".cluster")
        (host, port), *others = target.nodes
        settings = settings_for(target, options, accepted(target), is_async=False)
        if target.tls:
            settings.setdefault("redis_connect_func", _ping)  # which a cluster client calls after its own
        # Only a cluster client made from a URL lets its nodes have a pool that waits.
        first = f"{'rediss' if target.tls else 'redis'}://{f'[{host}]' if ':' in host else host}:{port}"
        return Clients(
            cluster.RedisCluster(
                url=first,
                startup_nodes=[cluster.ClusterNode(*node) for node in others],
                connection_pool_class=_releasing_once(waiting_pool),
                **settings,
            )
        )
    kind, _ = connection_classes(target)
    settings = settings_for(target, options, parameters(waiting_pool, kind), is_async=False)
    settings["db"] = target.db
    if target.tls:
        settings.setdefault("redis_connect_func", _say_hello)
    if target.topology == "sentinel":
        sentinels = redis_module(".sentinel")

        def disconnect(pool: Any, inuse_connections: bool = True) -> None:
            if inuse_connections:
                waiting_pool.disconnect(pool)
            else:  # after a fail-over; the pool that waits has no such option before redis-py 7
                for connection in list(pool.pool.queue):
                    if connection is not None:
                        connection.disconnect()

        # redis-py's Sentinel pool raises "Too many connections"; this one waits for a free one.
        bases = (sentinels.SentinelConnectionPool, waiting_pool)
        pool_class = type("WaitingSentinelPool", bases, {"disconnect": disconnect})
        sentinel, settings = _sentinel(sentinels.Sentinel, target, settings)
        client = sentinel.master_for(target.service, connection_pool_class=pool_class, **settings)
        return Clients(client, tuple(sentinel.sentinels))
    pool = waiting_pool(connection_class=kind, **_address(target), **settings)
    return Clients(redis_module().Redis.from_pool(pool))


def _releasing_once(pool_class: Any) -> Any:
    """The same pool, which takes a connection back only from the thread that has it.

    redis-py's cluster client, when a redirection leads to a node it cannot use, releases the connection of its try before a
    second time. By then another thread may have it, and two threads on one connection get each other's replies.
    """

    class ReleasingOncePool(pool_class):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            self._holders: dict[Any, int] = {}
            self._getting = threading.local()
            super().__init__(*args, **settings)

        def get_connection(self, *args: Any, **options: Any) -> Any:
            self._getting.now = True  # it releases by itself what it cannot connect
            try:
                connection = super().get_connection(*args, **options)
            except (AttributeError, TypeError, ValueError) as error:
                if not closed_meanwhile(error):
                    raise
                # the Cluster client knows what to do about this one, and its caller nothing about the other
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


def closed_meanwhile(error: Exception) -> bool:
    """Whether this is what redis-py stumbles over when another thread closes a connection that it is looking at: as its Cluster
    client does to all connections of a node, when it learns the nodes anew."""
    if isinstance(error, AttributeError):
        return error.obj is None and error.name in ("sendall", "recv", "recv_into", "fileno", "settimeout", "gets", "feed")
    return isinstance(error, TypeError | ValueError) and any(sign in str(error) for sign in ("fileno()", "file descriptor"))


def _say_hello(connection: Any) -> None:
    """What redis-py does with a new connection, and a PING.

    TLS 1.3 servers send session tickets after the handshake. Without AUTH or HELLO (RESP2, no password) nothing reads them,
    and redis-py's pool takes them for a stale reply: "Connection not ready".
    """
    connection.on_connect()
    _ping(connection)


def _ping(connection: Any) -> None:
    connection.send_command("PING", check_health=False)
    connection.read_response()


def build_async(target: ServerAddress, options: Mapping[str, Any]) -> Clients:
    waiting_pool = redis_module(".asyncio.connection").BlockingConnectionPool
    if target.topology == "cluster":
        cluster = redis_module(".asyncio.cluster")
        settings = settings_for(target, options, parameters(cluster.RedisCluster), is_async=True)
        settings.pop("timeout", None)
        settings["max_connections"] = options.get("max_connections", 2**31)
        nodes = [cluster.ClusterNode(*node) for node in target.nodes]
        return Clients(cluster.RedisCluster(startup_nodes=nodes, ssl=target.tls, **settings))
    _, kind = connection_classes(target)
    kind = _packing_fast(kind)
    settings = settings_for(target, options, parameters(waiting_pool, kind), is_async=True)
    settings["db"] = target.db
    if target.topology == "sentinel":
        sentinels = redis_module(".asyncio.sentinel")
        pool_class = type("WaitingSentinelPool", (sentinels.SentinelConnectionPool, waiting_pool), {})
        sentinel, settings = _sentinel(sentinels.Sentinel, target, settings)
        client = sentinel.master_for(target.service, connection_pool_class=pool_class, **settings)
        return Clients(client, tuple(sentinel.sentinels))
    pool = waiting_pool(connection_class=kind, **_address(target), **settings)
    return Clients(redis_module(".asyncio").Redis.from_pool(pool))


@cache
def _packing_fast(kind: type) -> type:
    """An async connection that packs commands with hiredis, as the sync ones do: calls have many arguments, and packing
    them in Python takes longer."""
    packer = _packer()
    if packer is None:
        return kind

    def pack_command(connection: Any, *arguments: Any) -> Any:
        return packer.pack(*arguments)

    return type(kind.__name__, (kind,), {"pack_command": pack_command})


def _address(target: ServerAddress) -> dict[str, Any]:
    if target.scheme == "unix":
        return {"path": target.path}
    host, port = target.nodes[0]
    return {"host": host, "port": port}


def _sentinel(kind: Any, target: ServerAddress, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A Sentinel client, and the settings that are left for its master. The URL's user is the master's."""
    rest = {name: value for name, value in settings.items() if name not in ("sentinel_kwargs", "min_other_sentinels")}
    if target.tls:
        rest["ssl"] = True
    shared = {
        name: value
        for name, value in rest.items()
        if name.startswith(("socket_", "ssl", "lib_")) or name in ("protocol", "driver_info")
        if name in parameters(redis_module().Redis)
    }
    # The next sentinel is asked when one does not answer, which a healthy one does at once: waiting longer, and redis-py's own
    # ten retries, would only delay that. redis-py 5.2 cannot read what sentinels say in RESP3.
    brief = {
        name: min(rest[name] or SENTINEL_SECONDS, SENTINEL_SECONDS) for name in ("socket_timeout", "socket_connect_timeout")
    }
    sentinel = kind(
        list(target.nodes),
        min_other_sentinels=settings.get("min_other_sentinels", 0),
        sentinel_kwargs={**shared, **brief, "retry": None, "protocol": 2, **settings.get("sentinel_kwargs", {})},
    )
    return sentinel, rest


@cache
def _packer() -> Any:
    """Packs commands with hiredis, which gets bytes alone: also of what redis-py sends by itself (SELECT, HELLO, AUTH). Other
    kinds make it run Python code, and a signal handler that raises in there can crash the interpreter. None without hiredis."""
    if not redis_module(".utils").HIREDIS_AVAILABLE:
        return None
    pack, pack_plain = redis_module(".connection").HiredisRespSerializer().pack, import_module("hiredis").pack_command

    class Packer:
        def pack(self, *arguments: Any) -> Any:
            if arguments[0] == "EVALSHA":  # what follows is bytes, and need not be looked at
                return [pack_plain((b"EVALSHA", *arguments[1:]))]
            return pack(
                *(each.encode() if type(each) is str else b"%d" % each if type(each) is int else each for each in arguments)
            )

    return Packer()


@cache
def _waiting_pool() -> Any:
    """redis-py's pool that waits for a free connection, safe where signal handlers raise: see `Idle` and `_packer`."""
    pool_class = redis_module(".connection").BlockingConnectionPool

    class WaitingPool(pool_class):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{"queue_class": Idle, "command_packer": _packer(), **settings})

    return WaitingPool
