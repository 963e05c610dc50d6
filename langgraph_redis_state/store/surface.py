"""`RedisStore`: the surface that LangGraph sees, sync and async. The operations are in `operations`."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Iterable, Mapping
from typing import Any

from langgraph.store.base import BaseStore, IndexConfig, Op, Result, TTLConfig
from typing_extensions import Self

from .. import validation
from ..client.driver import arun, run
from ..connected import Connected
from ..saver import RedisSaver
from .items import KEYED
from .operations import Items
from .vectors import Index, Vectors

PREFIX = "lgrs:store"

SWEEP_MINUTES = 60

_NOT_FOR_STORES = {
    *("refresh_ttl_on_read", "max_versions", "max_age", "max_thread_bytes", "tombstone", "conflict"),
    *("index_metadata", "cache_bytes", "name_key", "freshness", "witness"),
}

_OF_CONNECTIONS = (
    *("client", "async_client", "redis_options", "durability", "read_only"),
    *("redis_url", "redis_client", "connection_args"),  # spellings.py
)

_ANSWERS = {
    "store_prefix": "set prefix=, with which all keys begin",
    "vector_prefix": "set prefix=, with which all keys begin",
    "cluster_mode": "a Cluster is named by the URL: redis+cluster://host:port",
}
"""Arguments of langgraph-checkpoint-redis' stores, and what to do instead."""

_TTL_KEYS = {"default_ttl", "refresh_on_read", "omit_expired", "sweep_interval_minutes"}


class RedisStore(Connected, BaseStore):
    """LangGraph's long-term memory on plain Redis >= 6.2 or Valkey: `get`, `put`, `delete`, `search`, `list_namespaces` and
    `batch`, each also with an `a` before its name, as `BaseStore` documents them. It needs no `setup()`.

    Args:
        url: where the server is, as for `RedisSaver`.
        prefix: what all keys begin with. Two stores with different prefixes never see each other.
        ttl: `{"default_ttl": minutes, "refresh_on_read": bool}`, as LangGraph's `TTLConfig` has it: an item expires so many
            minutes after it was last written, or read if `refresh_on_read` (the default). A read refreshes a TTL of which less
            than 90 % is left. `sweep_interval_minutes`: within this time of writing, what expired is removed everywhere (60).
            Items that expired are never returned, so `omit_expired` is always true.
        index: `{"dims": ..., "embed": ..., "fields": [...]}`, as LangGraph's `IndexConfig` has it, for semantic search. It
            needs a server with vector sets: Redis 8. None: `query`, and the `index` of a put, have no effect.
        saver: uses this saver's connections instead of its own, and leaves them open. No `url` or connection options then.
        options: other arguments of `RedisSaver`: `client`, `async_client`, `durability`, `compression`, `integrity_key`,
            `accept_unkeyed`, `encryption_key`, `decrypt_only`, `serde`, `redis_options`, `read_only`.

    Raises:
        ValueError, TypeError: an option is not possible; the message says what is.

    Every method raises `ServerUnavailableError` or `ServerRefusedError` when the server does not serve,
    `CheckpointCorruptError` or `CheckpointLostError` when stored bytes are not what was written. None means that the server
    said so.
    """

    supports_ttl = True

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str = PREFIX,
        ttl: TTLConfig | None = None,
        saver: RedisSaver | None = None,
        index: IndexConfig | None = None,
        **options: Any,
    ) -> None:
        for name in options.keys() & _ANSWERS.keys():
            raise TypeError(f"{type(self).__name__} has no argument {name!r}: {_ANSWERS[name]} (docs/migration.md)")
        if idle := options.keys() & _NOT_FOR_STORES:
            raise TypeError(
                f"{type(self).__name__} has no argument {min(idle)!r}, which is for threads; what a store takes is in "
                "docs/store.md, and ttl={'default_ttl': minutes} lets items expire"
            )
        if callable(options.get("encryption_key")):
            raise TypeError("encryption_key: a store takes a key, or several; a key provider gives the keys of threads")
        if index is not None and options.get("encryption_key") is not None:
            raise ValueError(
                "index= stores vectors, which tell what was embedded, as they are; leave it out with encryption_key"
            )
        self.ttl_config, sweep_minutes = _checked_ttl(ttl)
        if saver is not None:
            if url is not None or not options.keys().isdisjoint(_OF_CONNECTIONS):
                raise TypeError(f"a store with saver= uses the saver's connections; pass no url, {', '.join(_OF_CONNECTIONS)}")
            if prefix == saver._engine.settings.prefix:
                raise ValueError(
                    f"prefix {prefix!r} is the saver's; `verify` would not know the store's keys there. Use another"
                )
            options["read_only"] = saver._engine.settings.read_only
        own = RedisSaver(*([] if url is None else [url]), prefix=prefix, cache_bytes=0, **options)
        self._connection, self._engine = (own if saver is None else saver)._connection, own._engine
        self._borrowed = saver is not None
        self.index_config, self._index = index, None if index is None else Index(index)
        self.embeddings = None if self._index is None else self._index.embeddings
        seal = self._engine.settings.keyring.seal(prefix.encode(), KEYED)
        assert seal is not None  # there is no key provider
        self._items = Items(self._engine, own.serde, sweep_minutes * 60, self._index, seal)

    @classmethod
    def from_conn_string(cls, url: str, **options: Any) -> Self:
        """The name other stores have for the constructor. The store itself is the context manager, sync and async."""
        return cls(url, **options)

    def setup(self) -> Any:
        """Nothing is needed before first use; this checks that the server can be reached."""
        self.ping()

    async def asetup(self) -> None:
        """Nothing is needed before first use; this checks that the server can be reached."""
        await self.aping()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """The results of several operations, in their order: reads first, then writes, the last one to an item counts.

        In one round trip, for up to 1,000 writes (8 MB) to a bucket, and without searches and listings, which take their own.
        What stands below the same two first labels is written in one script: all of it or nothing.
        """
        listed, vectors = list(ops), Vectors()
        if self._index is not None:
            asked, by = self._index.asked(listed), self._index.embeddings
            documents = by.embed_documents(asked.documents) if asked.documents else []
            vectors = self._index.packed(asked, documents, [by.embed_query(each) for each in asked.queries])
        return run(self._items.batch(listed, vectors), self._connection)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """`batch`, awaited. Values are serialized before this waits for the first time, or after it waited for embeddings."""
        listed, vectors = list(ops), Vectors()
        if self._index is not None:
            asked, by = self._index.asked(listed), self._index.embeddings
            documents = await by.aembed_documents(asked.documents) if asked.documents else []
            vectors = self._index.packed(asked, documents, [await by.aembed_query(each) for each in asked.queries])
        return await arun(self._items.batch(listed, vectors), self._connection)

    def sweep_ttl(self) -> int:
        """Removes all items that expired, and returns how many there were. Writes do so too, little by little."""
        return run(self._items.sweep(), self._connection)

    async def asweep_ttl(self) -> int:
        """`sweep_ttl`, awaited."""
        return await arun(self._items.sweep(), self._connection)

    def repair(self) -> int:
        """Rebuilds the order of items after an eviction or damage: how many entries were wrong. Reads everything."""
        return run(self._items.repair(), self._connection)

    async def arepair(self) -> int:
        """`repair`, awaited."""
        return await arun(self._items.repair(), self._connection)

    def close(self) -> None:
        """Closes the connections that were made here. Later calls raise `SaverClosedError`."""
        if not self._borrowed:
            super().close()

    async def aclose(self) -> None:
        """`close`, awaited."""
        if not self._borrowed:
            await super().aclose()


class AsyncRedisStore(RedisStore):
    """`RedisStore`, whose `setup()` is awaited, as in langgraph-checkpoint-redis. All methods are here, sync and async."""

    def setup(self) -> Awaitable[None]:
        """`await store.setup()` checks that the server can be reached; nothing is needed before first use."""
        return _Setup(self)


class _Setup:
    """What `await store.setup()` awaits. Unlike a coroutine it may be left alone."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def __await__(self) -> Generator[Any, Any, None]:
        return self._store.asetup().__await__()


def _checked_ttl(ttl: Any) -> tuple[TTLConfig | None, float]:
    """The configuration, and the minutes between sweeps."""
    if ttl is None:
        return None, SWEEP_MINUTES
    if not isinstance(ttl, Mapping) or (unknown := ttl.keys() - _TTL_KEYS):
        what = repr(ttl) if not isinstance(ttl, Mapping) else f"unknown keys {sorted(unknown)}"
        raise ValueError(f"ttl is a mapping with {', '.join(sorted(_TTL_KEYS))}, and times in minutes, not {what}")
    if ttl.get("default_ttl") is not None:
        validation.ttl_ms(ttl["default_ttl"], "ttl: default_ttl", "minutes")
    interval = ttl.get("sweep_interval_minutes")
    if interval is not None:
        validation.ttl_ms(interval, "ttl: sweep_interval_minutes", "minutes")
    found: Any = dict(ttl)
    return found, float(interval or SWEEP_MINUTES)
