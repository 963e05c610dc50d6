"""TODO"""

from __future__ import annotations

import inspect
from typing import Any


def check_client(client: Any, argument: str, *, is_async: bool) -> None:
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
    if _decodes(client):
        raise ValueError(f"The saver stores bytes: build the client for {argument}= without decode_responses=True.")


def _decodes(client: Any) -> bool:
    # redis-py and valkey-py, sync and async, Cluster and Sentinel: all have an encoder that knows.
    encoder = client.get_encoder() if hasattr(client, "get_encoder") else getattr(client, "encoder", None)
    return bool(getattr(encoder, "decode_responses", False))


def describe(client: Any) -> str:
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
