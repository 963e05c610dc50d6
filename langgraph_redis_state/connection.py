"""Where the server is, and the clients that reach it: the only place that builds them.

A `Connection` turns a URL, or clients that the caller has, into one sync client and one async client for each event
loop. It may import ``redis`` (inside functions: it is imported when first used), parse URLs and open and close clients. It
must not know what a checkpoint is, run a command, or translate an error of a command: that is `drivers`.

Two promises shape it:

    loops   An async client works in the loop that opened its sockets and in no other. So there is one for each loop,
            built when that loop first asks, and let go of once the loop is closed.
    forks   A child must not speak on its parent's sockets. redis-py's sync pools notice a new process id and start
            over by themselves; its async ones do not, so a child forgets its parent's async clients (and locks).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import threading
import urllib.parse
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from . import checks
from .batches import Batches
from .contact import Contact
from .durability import Durability
from .errors import InvalidConfigError, SaverClosedError
from .idle import Idle

__all__ = ["Connection"]

# valkey:// and valkeys:// are other names for redis:// and rediss://, also before +cluster and +sentinel.
_SCHEMES = {
    "redis": "redis://[user:password@]host[:port][/db]",
    "rediss": "rediss://[user:password@]host[:port][/db]",
    "unix": "unix://[user:password@]/path/to/socket[?db=0]",
    "redis+cluster": "redis+cluster://[user:password@]host[:port],host[:port]",
    "rediss+cluster": "rediss+cluster://[user:password@]host[:port],host[:port]",
    "redis+sentinel": "redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]",
    "rediss+sentinel": "rediss+sentinel://[user:password@]host[:port],host[:port]/service[/db]",
}

_VALKEY = re.compile(r"^valkey(?=s?(\+|$))")

_DEFAULTS: Mapping[str, Any] = {
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
SENTINEL_SECONDS = 2.0
"""How long one sentinel is waited for, unless `sentinel_kwargs` says else."""

# Parameters of redis-py's classes that are not a caller's to set: what the URL says, what the saver decides (it reads
# and writes bytes, and on primaries: a replica may be behind), and redis-py's own plumbing.
_NOT_OPTIONS = frozenset(
    {
        "host",
        "port",
        "path",
        "db",
        "url",
        "ssl",
        "startup_nodes",
        "unix_socket_path",
        "decode_responses",
        "encoder_class",
        "command_packer",
        "cache",
        "cache_config",
        "cache_factory",
        "read_from_replicas",
        "load_balancing_strategy",
        "nodes_flag",
        "connection_class",
        "connection_pool",
        "connection_pool_class",
        "queue_class",
        "event_dispatcher",
        "policy_resolver",
        "himport_registry",
        "maint_notifications_pool_handler",
        "oss_cluster_maint_notifications_handler",
        "maintenance_state",
        "maintenance_notification_hash",
        "orig_host_address",
        "orig_socket_timeout",
        "orig_socket_connect_timeout",
    }
)


class Connection:
    """Where the server is, and the clients that reach it: one sync client, one async client for each event loop.

    Clients built here wait for a free connection rather than fail with "too many connections": at most
    ``max_connections`` (50) for each client, waited for ``timeout`` (20 s). The rest of the defaults:
    ``socket_timeout`` 10 s, ``socket_connect_timeout`` 5 s, ``socket_keepalive`` on, ``health_check_interval`` 30 s,
    ``protocol`` 2, no ``CLIENT SETINFO``, and ``retry`` 3 times with exponential backoff and jitter on connection
    errors and timeouts. Each can be overridden in `options`. On Cluster the limits count for each node, and redis-py's
    async cluster client, which has no pool that waits, opens as many connections as it needs unless
    ``max_connections`` is given.

    Thread-safe, and usable in a forked child.

    Args:
        url: ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+cluster://host,host``,
            ``redis+sentinel://host,host/service``, and the last two with ``rediss``; ``valkey`` and ``valkeys`` are other names
            for ``redis`` and ``rediss``. What its query says
            (``?socket_timeout=3``) wins over `options`, as in redis-py. None: only the given clients are used.
        client: A sync client: `redis.Redis`, `redis.RedisCluster`, or one of valkey-py. Never closed here.
        async_client: An async client, for the loop that uses it first. Never closed here. If `url` is given too, other
            loops get a client built from it.
        options: Keyword arguments of redis-py's connections, and ``max_connections`` and ``timeout`` of its pools. For
            Sentinel also ``sentinel_kwargs`` (how to connect to the sentinels, say their password) and
            ``min_other_sentinels``.
        durability: What the drivers make sure of after each write.

    Raises:
        ValueError: The URL or an option is not allowed, a client or an option asks for decoded responses, or `durability`
            would wait longer than the client does (``socket_timeout``).
        TypeError: `client` is async, `async_client` is sync, or either is not a client.
        InvalidConfigError: There is neither a URL nor a client.
    """

    where: str
    """For error messages: the URL without its password, or which client was given."""

    def __init__(
        self,
        url: str | None,
        *,
        client: Any | None = None,
        async_client: Any | None = None,
        options: Mapping[str, Any] | None = None,
        durability: Durability | None = None,
    ) -> None:
        if url is None and client is None and async_client is None:
            raise InvalidConfigError("No server: pass a URL (url=), or a client (client=, async_client=).")
        if client is not None:
            _check_client(client, "client", is_async=False)
        if async_client is not None:
            _check_client(async_client, "async_client", is_async=True)
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"redis_options maps names of arguments to their values; it is not {options!r}.")
        if options and url is None:
            raise ValueError("redis_options are for clients built from a URL; set them on the given client instead.")
        self._target = None if url is None else _Target.parse(url)
        self._options = {} if self._target is None else _check_options(self._target, dict(options or {}))
        self.where = str(self._target) if self._target is not None else _describe(client or async_client)

        self.durability = durability
        self.replicas_seen: dict[str, int] = {}
        """How many replicas each server had when last asked, for `Replicas("all")`."""
        if durability is not None:
            for patience in self._socket_timeouts(client, async_client):
                if patience is not None and durability.timeout >= patience:
                    raise ValueError(
                        f"durability: its timeout ({durability.timeout:g} s) must be less than the client's socket_timeout "
                        f"({patience:g} s), which would give up first."
                    )

        self._contact: Contact | None = None
        if self._target is not None:
            target, times = self._target, (self._options.get(f"socket_{name}") for name in ("connect_timeout", "timeout"))
            self._contact = Contact(target.nodes, target.path, target.topology, target.tls, *times)
        self._injected = client
        self._injected_async = async_client
        self._injected_loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._built: _Clients | None = None
        self._built_async: dict[asyncio.AbstractEventLoop, _Clients] = {}
        self._closed = False
        # Two locks: building a cluster client asks the server, and no event loop shall wait for that.
        self._lock = threading.Lock()
        self._async_lock = threading.Lock()
        # A saver made at import time is often never closed; its async clients would complain when they are collected.
        weakref.finalize(self, _let_go_of_all, self._built_async)
        _living.add(self)

    @property
    def closed(self) -> bool:
        """Whether `close` or `aclose` was called."""
        return self._closed

    def contact(self, *, is_async: bool = False) -> Contact | None:
        """How to look at the server before it is used for the first time; None for a given client, and when closed."""
        return None if self._closed or (self._injected_async if is_async else self._injected) is not None else self._contact

    def client(self) -> Any:
        """The sync client, built at first use.

        Raises:
            SaverClosedError: After `close`.
            InvalidConfigError: There is only an async client.
        """
        self._check_open()
        if self._injected is not None:
            return self._injected
        if self._target is None:
            raise InvalidConfigError("This saver has only an async client; pass client= or url= for the sync methods.")
        built = self._built
        if built is None:
            with self._lock:
                self._check_open()
                built = self._built
                if built is None:
                    built = self._built = _build(self._target, self._options)
        return built.client

    def async_client(self) -> Any:
        """The async client of the running loop, built at its first use.

        Raises:
            SaverClosedError: After `close`, or the given async client belongs to another loop and there is no URL.
            InvalidConfigError: There is only a sync client.
            RuntimeError: No loop is running.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._injected_async is not None and self._is_injected_loop(loop):
            return self._injected_async
        if self._target is None:
            if self._injected_async is None:
                raise InvalidConfigError("This saver has only a sync client; pass async_client= or url= for the async methods.")
            raise SaverClosedError(
                "The injected async client belongs to another event loop; pass url= so that the saver builds one for each loop."
            )
        built = self._built_async.get(loop)
        if built is not None and len(self._built_async) == 1:
            return built.client
        with self._async_lock:
            self._check_open()
            for other in [other for other in self._built_async if other.is_closed()]:
                _let_go(other, self._built_async.pop(other))
            built = self._built_async.get(loop)
            if built is None:
                built = self._built_async[loop] = _build_async(self._target, self._options)
        return built.client

    def batches(self, client: Any) -> Batches | None:
        """What the running loop sends together; None for a given client, whose class may do more with each command."""
        built = self._built_async.get(asyncio.get_running_loop())
        return built.batches if built is not None and built.client is client else None

    def close(self) -> None:
        """Close what was built here, never a given client. Idempotent.

        An async client can be closed properly only in its loop: in a running one its sockets are dropped, in an idle
        one it is closed, in a closed one only its sockets are left, and they are released. Prefer `aclose`.
        """
        self._closed = True
        with self._lock:
            built, self._built = self._built, None
        if built is not None:
            for client in built.all:
                # A cluster client built from a URL leaves its pools to the caller.
                if hasattr(client, "disconnect_connection_pools"):
                    client.disconnect_connection_pools()
                client.close()
        with self._async_lock:
            left = list(self._built_async.items())
            self._built_async.clear()
        for loop, clients in left:
            _let_go(loop, clients, may_run=True)

    async def aclose(self) -> None:
        """Close what was built here: the running loop's client is awaited, the rest is as in `close`. Idempotent."""
        self._closed = True
        with self._async_lock:
            mine = self._built_async.pop(asyncio.get_running_loop(), None)
        self.close()
        if mine is not None:
            await mine.aclose()

    def _socket_timeouts(self, *injected: Any) -> Iterator[float | None]:
        """Seconds that each of the clients waits for a reply; None: for ever."""
        if self._target is not None:
            yield self._options.get("socket_timeout", _DEFAULTS["socket_timeout"])
        for client in injected:
            # a plain client has a pool; a Cluster client gives the settings of its connections
            pool = getattr(client, "connection_pool", None)
            if pool is not None:
                yield getattr(pool, "connection_kwargs", {}).get("socket_timeout")
            elif client is not None:
                yield client.get_connection_kwargs().get("socket_timeout")

    def _check_open(self) -> None:
        if self._closed:
            raise SaverClosedError(f"This saver is closed ({self.where}); make a new one.")

    def _is_injected_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        with self._async_lock:
            if self._injected_loop is None:
                self._injected_loop = weakref.ref(loop)
            return self._injected_loop() is loop

    def _forget_parent(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held them, and is not here to let go
        self._async_lock = threading.Lock()
        # Not closed and never collected: closing would take the parent's sockets out of the epoll set both share.
        _abandoned.append(dict(self._built_async))
        self._built_async.clear()


_living: weakref.WeakSet[Connection] = weakref.WeakSet()
_abandoned: list[object] = []


def _after_fork_in_child() -> None:
    for connection in list(_living):
        connection._forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# --- the URL


@dataclass(frozen=True)
class _Target:
    """A parsed URL. Its messages never repeat a part of the URL: a password with a ``/`` in it can be in any."""

    scheme: str
    nodes: tuple[tuple[str, int], ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str = ""
    service: str = ""
    db: int = 0
    query: str = field(default="", repr=False)

    @property
    def tls(self) -> bool:
        return self.scheme.startswith("rediss")

    @property
    def topology(self) -> str:
        """``redis``, ``unix``, ``cluster`` or ``sentinel``."""
        return self.scheme.partition("+")[2] or ("unix" if self.scheme == "unix" else "redis")

    def __str__(self) -> str:
        user = f"{urllib.parse.quote(self.username or '')}:***@" if self.password else ""
        if not self.password and self.username:
            user = f"{urllib.parse.quote(self.username)}@"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        end = {
            "redis": f"/{self.db}",
            "unix": f"{self.path}?db={self.db}",
            "cluster": "",
            "sentinel": f"/{self.service}/{self.db}",
        }[self.topology]
        return f"{self.scheme}://{user}{hosts}{end}"

    @classmethod
    def parse(cls, url: str) -> _Target:
        if not isinstance(url, str):
            raise TypeError(
                f"A URL is text such as redis://localhost:6379/0, not {type(url).__name__}; a client is passed as client=."
            )
        scheme = url.partition("://")[0].lower() if "://" in url else ""
        scheme = _VALKEY.sub("redis", scheme)
        if scheme not in _SCHEMES:
            # the scheme alone: what follows may hold a password
            found = f"begins with {scheme}://" if scheme.replace("+", "").isalnum() else "has no scheme"
            raise ValueError(f"Not a URL of a Redis server, it {found}; allowed are: {', '.join(_SCHEMES.values())}.")

        def wrong(what: str) -> ValueError:
            return ValueError(
                f"A {scheme}:// URL {what}; it looks like {_SCHEMES[scheme]}, and special characters in a user or "
                "password are percent-encoded."
            )

        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError:
            raise wrong("cannot be parsed") from None
        if parts.fragment:
            raise wrong("has no fragment (#)")
        auth, _, hosts = parts.netloc.rpartition("@")
        username, _, password = (urllib.parse.unquote(part) for part in auth.partition(":"))
        segments = [urllib.parse.unquote(part) for part in parts.path.strip("/").split("/")]
        query = urllib.parse.parse_qs(parts.query)
        db_text, service = "", ""

        if scheme == "unix":
            if hosts or len(parts.path) < 2:
                raise wrong("takes an absolute path, after three slashes")
        else:
            if scheme.endswith("sentinel"):
                service, *segments = segments
                if not service:
                    raise wrong("names the service after the hosts")
            if len(segments) > 1:
                raise wrong("has nothing after the hosts but what is shown here")
            db_text = segments[0] if segments else ""
        db_text = query.pop("db", [db_text])[0]
        if db_text and not (db_text.isascii() and db_text.isdigit()):
            raise wrong("takes a number as database")
        if scheme.endswith("cluster") and int(db_text or 0):
            raise wrong("has no database number: a cluster has only database 0")

        nodes = []
        if scheme != "unix":
            default_port = 26379 if scheme.endswith("sentinel") else 6379
            for text in hosts.split(",") if scheme.partition("+")[1] else [hosts]:
                host, port_text = _split_host(text)
                if not host:
                    raise wrong("needs a host (an IPv6 address stands in brackets)")
                if port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
                    raise wrong("takes a number from 1 to 65535 as port")
                nodes.append((urllib.parse.unquote(host), int(port_text or default_port)))
        return cls(
            scheme=scheme,
            nodes=tuple(nodes),
            username=username or None,
            password=password or None,
            path=urllib.parse.unquote(parts.path) if scheme == "unix" else "",
            service=service,
            db=int(db_text or 0),
            query=urllib.parse.urlencode(query, doseq=True),
        )


def _split_host(text: str) -> tuple[str, str]:
    """Host and port as text; the host is empty if it is missing or a bare IPv6 address."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return (host, rest[1:]) if rest[:1] in ("", ":") else ("", "")
    host, _, port = text.partition(":")
    return ("", "") if ":" in port else (host, port)


# --- options


def _redis(module: str = "") -> Any:
    """A module of redis-py, imported when first needed. Untyped: its annotations differ from version to version."""
    return import_module(f"redis{module}")


def _parameters(*functions: Any) -> set[str]:
    """The names that these classes (with their bases, to which they pass ``**kwargs``) and functions accept."""
    names: set[str] = set()
    for function in functions:
        for owner in inspect.getmro(function) if inspect.isclass(function) else (function,):
            if inspect.isclass(owner) and "__init__" not in vars(owner):
                continue
            for parameter in inspect.signature(vars(owner)["__init__"] if inspect.isclass(owner) else owner).parameters:
                names.add(parameter)
    return names - {"self", "args", "kwargs", "connection_kwargs"}


def _connection_classes(target: _Target) -> tuple[Any, Any]:
    """redis-py's connection classes for this URL, sync and async."""
    name = "UnixDomainSocketConnection" if target.scheme == "unix" else "SSLConnection" if target.tls else "Connection"
    return getattr(_redis(".connection"), name), getattr(_redis(".asyncio.connection"), name)


def _accepted(target: _Target) -> set[str]:
    """The option names that the sync **and** the async client of this installed redis-py understand."""
    sync_class, async_class = _connection_classes(target)
    if target.topology == "cluster":
        cluster = _redis(".cluster")
        # The sync cluster client drops names that are not in this list without a word.
        known = set(getattr(cluster, "REDIS_ALLOWED_KEYS", ())) or _parameters(sync_class)
        known |= _parameters(cluster.RedisCluster)
        names = _parameters(_redis(".asyncio.cluster").RedisCluster) & known | {"timeout"}
    else:
        names = _parameters(sync_class) & _parameters(async_class) | {"max_connections", "timeout"}
    if target.topology == "sentinel":
        names |= {"sentinel_kwargs", "min_other_sentinels"}
    return names - _NOT_OPTIONS


def _check_options(target: _Target, options: dict[str, Any]) -> dict[str, Any]:
    """What the caller set, in `options` and in the URL's query, or a ValueError that says what is allowed."""
    if not options and not target.query:
        return {}  # without importing redis
    try:
        query = _redis(".connection").parse_url(f"redis://host/?{target.query}")  # for the types of the values
    except ValueError as error:
        raise ValueError(f"{error} ({target})") from None
    query.pop("host", None)
    for given in (options, query):
        decode = given.pop("decode_responses", False)
        if decode and str(decode).lower() not in ("0", "f", "false", "n", "no"):
            raise ValueError("The saver stores bytes: drop the option decode_responses=True.")
    merged = {**options, **query}
    allowed = _accepted(target)
    unknown = sorted(set(merged) - allowed)
    if unknown:
        raise ValueError(
            f"redis_options does not take {', '.join(map(repr, unknown))} with a {target.scheme}:// URL; allowed are: "
            f"{', '.join(sorted(allowed))}."
        )
    checks.whole(merged.get("max_connections", 1), "redis_options: max_connections", 1)
    for name in ("socket_timeout", "socket_connect_timeout"):
        if merged.get(name) is not None:
            checks.timeout(merged[name], f"redis_options: {name}")
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
    # An object that is never connected shows whether redis-py accepts the values.
    probe, _ = _connection_classes(target)
    try:
        probe(**{name: value for name, value in merged.items() if name in _parameters(probe)})
    except (_redis(".exceptions").RedisError, TypeError, ValueError) as error:
        raise ValueError(f"redis_options: {error}") from None
    return merged


def _settings(target: _Target, options: Mapping[str, Any], names: set[str], *, is_async: bool) -> dict[str, Any]:
    """The keyword arguments of a pool or a client that accepts these names."""
    settings: dict[str, Any] = {name: value for name, value in _DEFAULTS.items() if name in names}
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
        # before redis-py 6 async clients repeat after these only if told so
        errors = _redis(".exceptions")
        settings["retry_on_error"] = [errors.ConnectionError, errors.TimeoutError]
    settings |= {
        name: value for name, value in (("username", target.username), ("password", target.password)) if value is not None
    }
    if int(settings["protocol"]) == 3 and "maint_notifications_config" in names - options.keys():
        # With RESP3 redis-py asks every new connection for notices that only Redis Enterprise sends.
        settings["maint_notifications_config"] = _redis(".maint_notifications").MaintNotificationsConfig(enabled=False)
    return settings


def _retry(options: Mapping[str, Any], *, is_async: bool) -> Any:
    """The default, or the caller's `retry` in the kind that this client needs: redis-py has one class for each."""
    sync_kind, async_kind = _redis(".retry").Retry, _redis(".asyncio.retry").Retry
    kind = async_kind if is_async else sync_kind
    if "retry" not in options:
        return kind(_redis(".backoff").EqualJitterBackoff(cap=1.0, base=0.05), _RETRIES)
    given = options["retry"]
    if given is None or isinstance(given, kind) or not isinstance(given, (sync_kind, async_kind)):
        return given
    # Neither class tells what it was made of in public; these names are the same in redis-py 5.2 to 8.1.
    return kind(given._backoff, given._retries, given._supported_errors)


# --- clients


@dataclass(frozen=True)
class _Clients:
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


def _build(target: _Target, options: Mapping[str, Any]) -> _Clients:
    waiting_pool = _waiting_pool()
    if target.topology == "cluster":
        cluster = _redis(".cluster")
        (host, port), *others = target.nodes
        settings = _settings(target, options, _accepted(target), is_async=False)
        if target.tls:
            settings.setdefault("redis_connect_func", _ping)  # which a cluster client calls after its own
        # Only a cluster client made from a URL lets its nodes have a pool that waits.
        first = f"{'rediss' if target.tls else 'redis'}://{f'[{host}]' if ':' in host else host}:{port}"
        return _Clients(
            cluster.RedisCluster(
                url=first,
                startup_nodes=[cluster.ClusterNode(*node) for node in others],
                connection_pool_class=_releasing_once(waiting_pool),
                **settings,
            )
        )
    kind, _ = _connection_classes(target)
    settings = _settings(target, options, _parameters(waiting_pool, kind), is_async=False)
    settings["db"] = target.db
    if target.tls:
        settings.setdefault("redis_connect_func", _say_hello)
    if target.topology == "sentinel":
        sentinels = _redis(".sentinel")

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
        return _Clients(client, tuple(sentinel.sentinels))
    pool = waiting_pool(connection_class=kind, **_address(target), **settings)
    return _Clients(_redis().Redis.from_pool(pool))


@cache
def _waiting_pool() -> Any:
    """redis-py's pool that waits for a free connection, safe where signal handlers raise: see `Idle` and `_packer`."""
    pool_class = _redis(".connection").BlockingConnectionPool

    class WaitingPool(pool_class):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{"queue_class": Idle, "command_packer": _packer(), **settings})

    return WaitingPool


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
                raise _redis(".exceptions").ConnectionError(
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


def _build_async(target: _Target, options: Mapping[str, Any]) -> _Clients:
    waiting_pool = _redis(".asyncio.connection").BlockingConnectionPool
    if target.topology == "cluster":
        cluster = _redis(".asyncio.cluster")
        settings = _settings(target, options, _parameters(cluster.RedisCluster), is_async=True)
        settings.pop("timeout", None)
        settings["max_connections"] = options.get("max_connections", 2**31)
        nodes = [cluster.ClusterNode(*node) for node in target.nodes]
        return _Clients(cluster.RedisCluster(startup_nodes=nodes, ssl=target.tls, **settings))
    _, kind = _connection_classes(target)
    kind = _packing_fast(kind)
    settings = _settings(target, options, _parameters(waiting_pool, kind), is_async=True)
    settings["db"] = target.db
    if target.topology == "sentinel":
        sentinels = _redis(".asyncio.sentinel")
        pool_class = type("WaitingSentinelPool", (sentinels.SentinelConnectionPool, waiting_pool), {})
        sentinel, settings = _sentinel(sentinels.Sentinel, target, settings)
        client = sentinel.master_for(target.service, connection_pool_class=pool_class, **settings)
        return _Clients(client, tuple(sentinel.sentinels))
    pool = waiting_pool(connection_class=kind, **_address(target), **settings)
    return _Clients(_redis(".asyncio").Redis.from_pool(pool))


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


@cache
def _packer() -> Any:
    """Packs commands with hiredis, which gets bytes alone: also of what redis-py sends by itself (SELECT, HELLO, AUTH). Other
    kinds make it run Python code, and a signal handler that raises in there can crash the interpreter. None without hiredis."""
    if not _redis(".utils").HIREDIS_AVAILABLE:
        return None
    pack, pack_plain = _redis(".connection").HiredisRespSerializer().pack, import_module("hiredis").pack_command

    class Packer:
        def pack(self, *arguments: Any) -> Any:
            if arguments[0] == "EVALSHA":  # what follows is bytes, and need not be looked at
                return [pack_plain((b"EVALSHA", *arguments[1:]))]
            return pack(
                *(each.encode() if type(each) is str else b"%d" % each if type(each) is int else each for each in arguments)
            )

    return Packer()


def _address(target: _Target) -> dict[str, Any]:
    if target.scheme == "unix":
        return {"path": target.path}
    host, port = target.nodes[0]
    return {"host": host, "port": port}


def _sentinel(kind: Any, target: _Target, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A Sentinel client, and the settings that are left for its master. The URL's user is the master's."""
    rest = {name: value for name, value in settings.items() if name not in ("sentinel_kwargs", "min_other_sentinels")}
    if target.tls:
        rest["ssl"] = True
    shared = {
        name: value
        for name, value in rest.items()
        if name.startswith(("socket_", "ssl", "lib_")) or name in ("protocol", "driver_info")
        if name in _parameters(_redis().Redis)
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


def _check_client(client: Any, argument: str, *, is_async: bool) -> None:
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


def _describe(client: Any) -> str:
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


# --- letting go of async clients from outside their loop


def _let_go_of_all(clients: dict[asyncio.AbstractEventLoop, _Clients]) -> None:
    for loop, built in list(clients.items()):
        _let_go(loop, built)
    clients.clear()


def _let_go(loop: asyncio.AbstractEventLoop, clients: _Clients, *, may_run: bool = False) -> None:
    """Release the sockets of a client from wherever we are: `may_run` allows to run an idle loop for it."""
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop or loop.is_closed():
        _cut(clients, loop)
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
        loop.call_soon_threadsafe(_cut, clients, loop)
        return
    _cut(clients, loop)


def _cut(clients: _Clients, loop: asyncio.AbstractEventLoop) -> None:
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


def _connections(clients: _Clients) -> Iterator[Any]:
    """Every connection of an async client, idle or in use. redis-py has no public way to name them."""
    for client in clients.all:
        pool = getattr(client, "connection_pool", None)
        yield from list(getattr(pool, "_available_connections", ()))
        yield from list(getattr(pool, "_in_use_connections", ()))
        nodes = getattr(client, "nodes_manager", None)
        for known in (getattr(nodes, "nodes_cache", {}), getattr(nodes, "startup_nodes", {})):
            for node in list(known.values()):
                yield from list(node._connections)
