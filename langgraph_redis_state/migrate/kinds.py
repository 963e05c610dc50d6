"""Which kind of saver something is, told by the names of its classes, so that no other package is imported."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from .mongodb import MongoSource
from .redis_savers import PlainRedisSource, RedisStackSource, ValkeySource
from .sources import MemorySource, OwnSource, Source
from .sql import PostgresSource, SqliteSource

_KINDS: tuple[tuple[str, str, type[Source]], ...] = (
    ("langgraph_redis_state.saver", "RedisSaver", OwnSource),
    ("langgraph.checkpoint.memory", "InMemorySaver", MemorySource),
    ("langgraph.checkpoint.sqlite", "SqliteSaver", SqliteSource),
    ("langgraph.checkpoint.sqlite.aio", "AsyncSqliteSaver", SqliteSource),
    ("langgraph.checkpoint.postgres", "PostgresSaver", PostgresSource),
    ("langgraph.checkpoint.postgres.aio", "AsyncPostgresSaver", PostgresSource),
    ("langgraph.checkpoint.mongodb.saver", "MongoDBSaver", MongoSource),
    ("langgraph.checkpoint.redis", "RedisSaver", RedisStackSource),
    ("langgraph.checkpoint.redis.aio", "AsyncRedisSaver", RedisStackSource),
    ("langgraph.checkpoint.redis.shallow", "ShallowRedisSaver", RedisStackSource),
    ("langgraph.checkpoint.redis.ashallow", "AsyncShallowRedisSaver", RedisStackSource),
    ("langgraph_checkpoint_aws.checkpoint.valkey.saver", "ValkeySaver", ValkeySource),
    ("langgraph_checkpoint_aws.checkpoint.valkey.async_saver", "AsyncValkeySaver", ValkeySource),
    ("langgraph_checkpoint_plainredis.saver", "RedisSaver", PlainRedisSource),
    ("langgraph_checkpoint_plainredis.saver", "AsyncRedisSaver", PlainRedisSource),
)


def source_of(saver: Any, awaited: bool) -> Source:
    """What reads this saver, in sync or async code.

    Raises:
        TypeError: it is no saver, or can only be awaited, and this is sync code.
    """
    if not isinstance(saver, BaseCheckpointSaver):
        raise TypeError(f"a saver is a BaseCheckpointSaver, not {type(saver).__module__}.{type(saver).__qualname__}")
    lineage = [(kind.__module__, kind.__qualname__) for kind in type(saver).__mro__]
    for module, name, kind in _KINDS:
        if (module, name) in lineage:
            return kind(saver, _awaited(saver, awaited, both=kind is OwnSource, only_async=name.startswith("Async")))
    return Source(saver, _awaited(saver, awaited, both=True, only_async=type(saver).__name__.startswith("Async")))


def _awaited(saver: Any, awaited: bool, *, both: bool, only_async: bool) -> bool:
    if both and not only_async:
        return awaited
    if only_async and not awaited and type(saver).__module__.partition(".")[0] != "langgraph_redis_state":
        raise TypeError(f"{type(saver).__name__} can only be awaited; use amigrate")
    return only_async
