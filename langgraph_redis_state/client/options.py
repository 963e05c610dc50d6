"""Options of redis-py's connections: their defaults, which the caller may set, and in which form each client takes them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Mapping
from typing import Any

from .. import validation
from .library import redis_module
from .url import ServerAddress
from .workarounds import retried_errors

DEFAULTS: Mapping[str, Any] = {
    "max_connections": 50,
    "timeout": 20.0,
    "socket_timeout": 10.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
    "health_check_interval": 30,
    # RESP2 needs no handshake, so a new connection costs no round trip and proxies that lack HELLO work. The default
    # of redis-py changed from 2 to 3 between the versions this package supports.
    "protocol": 2,
}

_RETRIES = 3


# Parameters of redis-py's classes that a caller may not set: the URL sets them, the saver decides them (it reads and writes
# bytes, and only on primaries, since a replica may be behind), or they are internal to redis-py.
_NOT_OPTIONS = {
    *("host", "port", "path", "db", "url", "ssl", "startup_nodes", "unix_socket_path"),
    *("decode_responses", "encoder_class", "command_packer", "cache", "cache_config", "cache_factory"),
    *("read_from_replicas", "load_balancing_strategy", "nodes_flag"),
    *("connection_class", "connection_pool", "connection_pool_class", "queue_class"),
    *("event_dispatcher", "policy_resolver", "himport_registry", "maint_notifications_pool_handler"),
    *("oss_cluster_maint_notifications_handler", "maintenance_state", "maintenance_notification_hash"),
    *("orig_host_address", "orig_socket_timeout", "orig_socket_connect_timeout"),
}


@functools.cache
def parameters(*functions: Any) -> frozenset[str]:
    """The parameter names of functions, and of classes with the bases to which they pass ``**kwargs``."""
    names: set[str] = set()
    for function in functions:
        for owner in inspect.getmro(function) if inspect.isclass(function) else (function,):
            if inspect.isclass(owner) and "__init__" not in vars(owner):
                continue
            for parameter in inspect.signature(vars(owner)["__init__"] if inspect.isclass(owner) else owner).parameters:
                names.add(parameter)
    return frozenset(names - {"self", "args", "kwargs", "connection_kwargs"})


def connection_classes(target: ServerAddress) -> tuple[Any, Any]:
    """redis-py's connection classes for this URL, sync and async."""
    name = "UnixDomainSocketConnection" if target.scheme == "unix" else "SSLConnection" if target.tls else "Connection"
    return getattr(redis_module(".connection"), name), getattr(redis_module(".asyncio.connection"), name)


def accepted(target: ServerAddress) -> frozenset[str]:
    """The option names that both the sync and the async client of the installed redis-py accept."""
    sync_class, async_class = connection_classes(target)
    if target.topology == "cluster":
        cluster = redis_module(".cluster")
        # The sync Cluster client silently drops names that are not in this list.
        known = frozenset[str](getattr(cluster, "REDIS_ALLOWED_KEYS", ())) or parameters(sync_class)
        known |= parameters(cluster.RedisCluster)
        names = parameters(redis_module(".asyncio.cluster").RedisCluster) & known | {"timeout"}
    else:
        names = parameters(sync_class) & parameters(async_class) | {"max_connections", "timeout"}
    if target.topology == "sentinel":
        names |= {"sentinel_kwargs", "min_other_sentinels"}
    return names - _NOT_OPTIONS


def check_options(target: ServerAddress, options: dict[str, Any]) -> dict[str, Any]:
    """The caller's settings, from `options` and the URL's query. Raises ValueError, which says what is allowed."""
    if not options and not target.query:
        return {}  # without importing redis
    try:
        query = redis_module(".connection").parse_url(f"redis://host/?{target.query}")  # for the types of the values
    except ValueError as error:
        raise ValueError(f"{error} ({target})") from None
    query.pop("host", None)
    for given in (options, query):
        decode = given.pop("decode_responses", False)
        if decode and str(decode).lower() not in ("0", "f", "false", "n", "no"):
            raise ValueError("The saver stores bytes: drop the option decode_responses=True.")
    merged = {**options, **query}
    allowed = accepted(target)
    unknown = sorted(set(merged) - allowed)
    if unknown:
        raise ValueError(
            f"redis_options does not take {', '.join(map(repr, unknown))} with a {target.scheme}:// URL; allowed are: "
            f"{', '.join(sorted(allowed))}."
        )
    validation.whole(merged.get("max_connections", 1), "redis_options: max_connections", 1)
    for name in ("socket_timeout", "socket_connect_timeout"):
        if merged.get(name) is not None:
            validation.timeout(merged[name], f"redis_options: {name}")
    for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"):
        given = merged.get(name)
        if given is not None and not (isinstance(given, str | bytes | os.PathLike) and os.path.exists(given)):
            raise ValueError(f"redis_options: {name}: there is no {given!r}")
    if merged.get("retry") is not None and not hasattr(merged["retry"], "call_with_retry"):
        given = merged["retry"]
        raise ValueError(f"redis_options: retry is a redis.retry.Retry, such as Retry(ExponentialBackoff(), 3), not {given!r}")
    if not isinstance(merged.get("sentinel_kwargs", {}), Mapping):
        raise ValueError(f"redis_options: sentinel_kwargs maps names to values, it is not {merged['sentinel_kwargs']!r}")
    wait = merged.get("timeout", 0)
    if wait is not None and (isinstance(wait, bool) or not isinstance(wait, (int, float)) or wait < 0):
        raise ValueError("redis_options: timeout is a number of seconds, or None to wait for ever.")
    # A connection object that is never connected shows whether redis-py accepts the values.
    probe, _ = connection_classes(target)
    try:
        probe(**{name: value for name, value in merged.items() if name in parameters(probe)})
    except (redis_module(".exceptions").RedisError, TypeError, ValueError) as error:
        raise ValueError(f"redis_options: {error}") from None
    return merged


def settings_for(target: ServerAddress, options: Mapping[str, Any], names: frozenset[str], *, is_async: bool) -> dict[str, Any]:
    """The keyword arguments of a pool or a client that accepts these names."""
    settings: dict[str, Any] = {name: value for name, value in DEFAULTS.items() if name in names}
    # CLIENT SETINFO is two commands on every new connection, unknown to servers before 7.2 and to some proxies.
    if "driver_info" in names:
        settings["driver_info"] = None
    else:
        settings |= {"lib_name": None, "lib_version": None}
    # A copy of each list: redis-py's async connections append to the one they are given.
    settings |= {name: list(value) if isinstance(value, list) else value for name, value in options.items()}
    if "driver_info" in names and {"lib_name", "lib_version"} & settings.keys():
        del settings["driver_info"]
    settings["retry"] = _retry(options, is_async=is_async)
    if "retry_on_error" in names and not {"retry", "retry_on_error"} & options.keys():
        settings["retry_on_error"] = retried_errors()
    settings |= {
        name: value for name, value in (("username", target.username), ("password", target.password)) if value is not None
    }
    if int(settings["protocol"]) == 3 and "maint_notifications_config" in names - options.keys():
        # With RESP3, redis-py subscribes each new connection to notices that only Redis Enterprise sends.
        settings["maint_notifications_config"] = redis_module(".maint_notifications").MaintNotificationsConfig(enabled=False)
    return settings


def _retry(options: Mapping[str, Any], *, is_async: bool) -> Any:
    """The default, or the caller's `retry` in the kind that this client needs: redis-py has one class for each."""
    sync_kind, async_kind = redis_module(".retry").Retry, redis_module(".asyncio.retry").Retry
    kind = async_kind if is_async else sync_kind
    if "retry" not in options:
        return kind(redis_module(".backoff").EqualJitterBackoff(cap=1.0, base=0.05), _RETRIES)
    given = options["retry"]
    if given is None or isinstance(given, kind) or not isinstance(given, (sync_kind, async_kind)):
        return given
    # The classes have no public attributes for their arguments; these names are the same in redis-py 5.2 to 8.1.
    return kind(given._backoff, given._retries, given._supported_errors)
