"""Builds clients for a URL, closes them, and checks clients that the caller gives. Runs no commands."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from .batching import Batches
from .direct import direct_client
from .library import redis_module
from .options import accepted, connection_classes, parameters, settings_for
from .url import ServerAddress
from .workarounds import abort, packer, ping_after_connect, releasing_once, sentinel_pool, waiting_pool

SENTINEL_SECONDS = 2.0
"""Timeout for each sentinel, unless `sentinel_kwargs` sets another."""


@dataclass(frozen=True)
class Clients:
    """A client, and the clients of the sentinels that name its server."""

    client: Any
    sentinels: tuple[Any, ...] = ()
    batches: Batches | None = None
    """Joins the calls of one event loop; None for a Cluster, whose keys are on many nodes, and for sync clients."""

    @property
    def all(self) -> tuple[Any, ...]:
        return (self.client, *self.sentinels)

    def close(self) -> None:
        for client in self.all:
            # A Cluster client that was built from a URL does not close its pools.
            if hasattr(client, "disconnect_connection_pools"):
                client.disconnect_connection_pools()
            client.close()

    async def aclose(self) -> None:
        for client in self.all:
            await client.aclose()

    def abort(self, loop: asyncio.AbstractEventLoop) -> None:
        for client in self.all:
            abort(client, loop)


def build(target: ServerAddress, options: Mapping[str, Any]) -> Clients:
    """The sync client for a URL."""
    if target.topology == "cluster":
        cluster = redis_module(".cluster")
        (host, port), *others = target.nodes
        settings = settings_for(target, options, accepted(target), is_async=False)
        if target.tls:
            settings.setdefault("redis_connect_func", ping_after_connect(in_cluster=True))
        # Only a Cluster client that is built from a URL lets its nodes have a pool that waits.
        first = f"{'rediss' if target.tls else 'redis'}://{f'[{host}]' if ':' in host else host}:{port}"
        client = cluster.RedisCluster(
            url=first,
            startup_nodes=[cluster.ClusterNode(*node) for node in others],
            connection_pool_class=releasing_once(waiting_pool()),
            **settings,
        )
        return Clients(client)
    kind, _ = connection_classes(target)
    settings = settings_for(target, options, parameters(waiting_pool(), kind), is_async=False)
    if target.tls:
        settings.setdefault("redis_connect_func", ping_after_connect(in_cluster=False))
    if target.topology == "sentinel":
        sentinels = redis_module(".sentinel")
        pool_class, made = sentinel_pool(sentinels.SentinelConnectionPool), direct_client(redis_module().Redis)
        return _of_sentinels(sentinels.Sentinel, pool_class, target, settings, redis_class=made)
    pool = waiting_pool()(connection_class=kind, **_address(target), **settings)
    return Clients(direct_client(redis_module().Redis).from_pool(pool))


def build_async(target: ServerAddress, options: Mapping[str, Any]) -> Clients:
    """The async client for a URL, for one event loop."""
    pool_class = redis_module(".asyncio.connection").BlockingConnectionPool
    if target.topology == "cluster":
        cluster = redis_module(".asyncio.cluster")
        settings = settings_for(target, options, parameters(cluster.RedisCluster), is_async=True)
        settings.pop("timeout", None)
        settings["max_connections"] = options.get("max_connections", 2**31)
        nodes = [cluster.ClusterNode(*node) for node in target.nodes]
        return Clients(cluster.RedisCluster(startup_nodes=nodes, ssl=target.tls, **settings))
    _, kind = connection_classes(target)
    kind = packing_fast(kind)
    settings = settings_for(target, options, parameters(pool_class, kind), is_async=True)
    if target.topology == "sentinel":
        sentinels = redis_module(".asyncio.sentinel")
        # redis-py's Sentinel pool raises "Too many connections"; this pool waits for a free connection.
        waiting = type("WaitingSentinelPool", (sentinels.SentinelConnectionPool, pool_class), {})
        return replace(_of_sentinels(sentinels.Sentinel, waiting, target, settings), batches=Batches())
    pool = pool_class(connection_class=kind, **_address(target), **settings)
    return Clients(redis_module(".asyncio").Redis.from_pool(pool), batches=Batches())


@cache
def packing_fast(kind: type) -> type:
    """An async connection class that packs commands with hiredis, as redis-py's sync connections do: calls have many arguments,
    and packing them in Python takes longer."""
    fast = packer()
    if fast is None:
        return kind

    def pack_command(connection: Any, *arguments: Any) -> Any:
        return fast.pack(*arguments)

    return type(kind.__name__, (kind,), {"pack_command": pack_command})


def _address(target: ServerAddress) -> dict[str, Any]:
    if target.scheme == "unix":
        return {"path": target.path, "db": target.db}
    host, port = target.nodes[0]
    return {"host": host, "port": port, "db": target.db}


def _of_sentinels(
    sentinel_class: Any, pool_class: Any, target: ServerAddress, settings: dict[str, Any], **made_as: Any
) -> Clients:
    """A client of the primary that the sentinels name. The URL's user is the primary's."""
    rest = {name: value for name, value in settings.items() if name not in ("sentinel_kwargs", "min_other_sentinels")}
    rest["db"] = target.db
    if target.tls:
        rest["ssl"] = True
    shared = {
        name: value
        for name, value in rest.items()
        if name.startswith(("socket_", "ssl", "lib_")) or name in ("protocol", "driver_info")
        if name in parameters(redis_module().Redis)
    }
    # A healthy sentinel answers at once. Longer timeouts and redis-py's ten retries would only delay asking the next sentinel.
    brief = {
        name: min(rest[name] or SENTINEL_SECONDS, SENTINEL_SECONDS) for name in ("socket_timeout", "socket_connect_timeout")
    }
    sentinel = sentinel_class(
        list(target.nodes),
        min_other_sentinels=settings.get("min_other_sentinels", 0),
        sentinel_kwargs={**shared, **brief, "retry": None, "protocol": 2, **settings.get("sentinel_kwargs", {})},
    )
    client = sentinel.master_for(target.service, connection_pool_class=pool_class, **made_as, **rest)
    return Clients(client, tuple(sentinel.sentinels))


# --- closing ----------------------------------------------------------------------------------------------------------


def release_all(clients: dict[asyncio.AbstractEventLoop, Clients]) -> None:
    for loop, built in list(clients.items()):
        release(loop, built)
    clients.clear()


def release(loop: asyncio.AbstractEventLoop, clients: Clients, *, may_run: bool = False) -> None:
    """Releases the sockets of async clients, from any thread or loop. `may_run` allows to run their loop if it is idle."""
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop or loop.is_closed():
        clients.abort(loop)
        return
    # RuntimeError: meanwhile another thread closed the loop, or began to run it.
    with contextlib.suppress(RuntimeError):
        if may_run and here is None and not loop.is_running():
            closing = clients.aclose()
            try:
                loop.run_until_complete(closing)
                return
            finally:
                closing.close()
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(clients.abort, loop)
        return
    clients.abort(loop)


# --- given clients ----------------------------------------------------------------------------------------------------


def check_client(client: Any, argument: str, *, is_async: bool) -> None:
    """Raises TypeError or ValueError if the caller's client cannot be used as this argument."""
    kind = type(client)
    execute = getattr(kind, "execute_command", None)
    if hasattr(client, "master_for"):
        raise TypeError(f"{argument}= got a Sentinel; pass what its master_for('<service>') returns.")
    if execute is None:
        expected = "redis.asyncio.Redis or redis.asyncio.RedisCluster" if is_async else "redis.Redis or RedisCluster"
        raise TypeError(f"{argument}= takes a client such as {expected}, not {kind.__module__}.{kind.__qualname__}.")
    if inspect.iscoroutinefunction(execute) is not is_async:
        found, right = ("a sync", "client") if is_async else ("an async", "async_client")
        raise TypeError(f"{argument}= got {found} client ({kind.__module__}.{kind.__qualname__}); pass it as {right}=.")
    if hasattr(client, "command_stack"):
        raise TypeError(f"{argument}= got a pipeline ({kind.__module__}.{kind.__qualname__}); pass the client that made it.")
    # all clients of redis-py and valkey-py (sync, async, Cluster, Sentinel) have an encoder with this setting
    encoder = client.get_encoder() if hasattr(client, "get_encoder") else getattr(client, "encoder", None)
    if getattr(encoder, "decode_responses", False):
        raise ValueError(f"The saver stores bytes: build the client for {argument}= without decode_responses=True.")


def describe(client: Any) -> str:
    """A given client, for errors: its class and its server, without the password."""
    kind = type(client)
    package = kind.__module__.split(".")
    name = ".".join([package[0], *(["asyncio"] if "asyncio" in package else []), kind.__name__])
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        settings = getattr(pool, "connection_kwargs", {})
        service = getattr(pool, "service_name", None)
        address = service or settings.get("path") or f"{settings.get('host', '?')}:{settings.get('port', '?')}"
        return f"injected client {name}({address}/{settings.get('db') or 0})"
    nodes = getattr(getattr(client, "nodes_manager", None), "startup_nodes", {})
    return f"injected client {name}({','.join(sorted(map(str, nodes)))})"


def socket_timeout(client: Any) -> float | None:
    """Seconds that a given client waits for a reply; None: for ever."""
    # a plain client has a pool; a Cluster client gives the settings of its connections
    pool = getattr(client, "connection_pool", None)
    settings = client.get_connection_kwargs() if pool is None else getattr(pool, "connection_kwargs", {})
    seconds: float | None = settings.get("socket_timeout")
    return seconds
