"""Holds the clients: one sync client, and one async client for each event loop. No commands are run here.

loops   An async client works only in the loop that opened its sockets. So each loop gets its own, built at its first use
        and released after the loop is closed.
forks   A child must not use its parent's sockets. redis-py's sync pools notice the new process id and open new
        connections; its async pools do not. So a child forgets its parent's async clients, and the locks.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from ..durability import Durability
from ..errors import InvalidConfigError, SaverClosedError
from .batching import Batches
from .clients import Clients, build, build_async, check_client, describe, release, release_all, socket_timeout
from .contact import Contact
from .options import DEFAULTS, check_options
from .url import ServerAddress


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
            for ``redis`` and ``rediss``. Its query
            (``?socket_timeout=3``) takes precedence over `options`, as in redis-py. None: only the given clients are used.
        client: A sync client: `redis.Redis`, `redis.RedisCluster`, or one of valkey-py. Never closed here.
        async_client: An async client, for the loop that uses it first. Never closed here. If `url` is given too, other
            loops get a client built from it.
        options: Keyword arguments of redis-py's connections, and ``max_connections`` and ``timeout`` of its pools. For
            Sentinel also ``sentinel_kwargs`` (how to connect to the sentinels, say their password) and
            ``min_other_sentinels``.
        durability: What each write waits for.
        read_only: Scripts are run so that the server allows no writes in them, where it can.

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
        read_only: bool = False,
    ) -> None:
        if url is None and client is None and async_client is None:
            raise InvalidConfigError("No server: pass a URL (url=), or a client (client=, async_client=).")
        if client is not None:
            check_client(client, "client", is_async=False)
        if async_client is not None:
            check_client(async_client, "async_client", is_async=True)
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"redis_options maps names of arguments to their values; it is not {options!r}.")
        if options and url is None:
            raise ValueError("redis_options are for clients built from a URL; set them on the given client instead.")
        self._target = None if url is None else ServerAddress.parse(url)
        self._options = {} if self._target is None else check_options(self._target, dict(options or {}))
        self.where = str(self._target) if self._target is not None else describe(client or async_client)

        self.durability = durability
        self.read_only = read_only
        self.lacking: set[str] = set()
        """Commands that this server does not have, or does not let the user run, and that can be done without."""
        self.replicas_seen: dict[str, int] = {}
        """How many replicas each server had when last asked, for `Replicas("all")`."""
        if durability is not None:
            waits = [socket_timeout(given) for given in (client, async_client) if given is not None]
            if self._target is not None:
                waits.append(self._options.get("socket_timeout", DEFAULTS["socket_timeout"]))
            for patience in waits:
                if patience is not None and durability.timeout >= patience:
                    raise ValueError(
                        f"durability: its timeout ({durability.timeout:g} s) must be less than the client's socket_timeout "
                        f"({patience:g} s), which would give up first."
                    )

        self.contact: Contact | None = None
        """The first look at the server: None for given clients, after the first reply, and after `close`."""
        if self._target is not None and client is None and async_client is None:
            times = (self._options.get(name) for name in ("socket_connect_timeout", "socket_timeout"))
            self.contact = Contact(self._target, *times)
        self._injected = client
        self._injected_async = async_client
        self._injected_loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._built: Clients | None = None
        self._built_async: dict[asyncio.AbstractEventLoop, Clients] = {}
        self._closed = False
        # Two locks: building a sync Cluster client asks the server, and no event loop may wait for that.
        self._lock = threading.Lock()
        self._async_lock = threading.Lock()
        # A saver that is never closed: its async clients would warn when they are collected.
        weakref.finalize(self, release_all, self._built_async)
        _living.add(self)

    @property
    def closed(self) -> bool:
        """Whether `close` or `aclose` was called."""
        return self._closed

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
                    built = self._built = build(self._target, self._options)
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
                release(other, self._built_async.pop(other))
            built = self._built_async.get(loop)
            if built is None:
                built = self._built_async[loop] = build_async(self._target, self._options)
        return built.client

    def batches(self, client: Any) -> Batches | None:
        """Joins the calls of the running loop. None for a given client, whose class may have its own `execute_command`."""
        built = self._built_async.get(asyncio.get_running_loop())
        return built.batches if built is not None and built.client is client else None

    def close(self) -> None:
        """Close what was built here, never a given client. Idempotent.

        An async client can be closed properly only in its loop. If the loop is idle, it is run for that. If it runs or is
        closed, the sockets are dropped. Prefer `aclose`.
        """
        self._closed, self.contact = True, None
        with self._lock:
            built, self._built = self._built, None
        if built is not None:
            built.close()
        with self._async_lock:
            left = list(self._built_async.items())
            self._built_async.clear()
        for loop, clients in left:
            release(loop, clients, may_run=True)

    async def aclose(self) -> None:
        """Close what was built here: the running loop's client is awaited, the rest is as in `close`. Idempotent."""
        self._closed, self.contact = True, None
        with self._async_lock:
            mine = self._built_async.pop(asyncio.get_running_loop(), None)
        self.close()
        if mine is not None:
            await mine.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise SaverClosedError(f"This saver is closed ({self.where}); make a new one.")

    def _is_injected_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        with self._async_lock:
            if self._injected_loop is None:
                self._injected_loop = weakref.ref(loop)
            return self._injected_loop() is loop

    def _forget_parent(self) -> None:
        self._lock = threading.Lock()  # a thread of the parent may hold them, and does not exist here
        self._async_lock = threading.Lock()
        # Not closed and never collected: closing would remove the parent's sockets from the epoll set that both share.
        _abandoned.append(dict(self._built_async))
        self._built_async.clear()


_living: weakref.WeakSet[Connection] = weakref.WeakSet()

_abandoned: list[object] = []


def _after_fork_in_child() -> None:
    for connection in list(_living):
        connection._forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
