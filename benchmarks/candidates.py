"""What is compared: savers, and two floors below which no saver of this kind can go.

A candidate opens savers for a URL: a sync one, an async one. A package that is not installed, or a server that was not
given, leaves its candidate out; the report says so. Imports are local for that reason.

The serializer is LangGraph's `JsonPlusSerializer` everywhere but in langgraph-checkpoint-redis, which brings a JSON one of its
own. Compression is LZ4 in this package and in the floor; the others do not compress.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import lz4.block
import ormsgpack
import redis
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

OURS, COLD, MEMORY, SERIALIZE, SET = "this", "this, cache_bytes=0", "InMemorySaver", "floor: serialize", "floor: one SET"


class Candidate:
    """Something that keeps checkpoints."""

    name: ClassVar[str]
    package: ClassVar[str]
    needs: ClassVar[str] = "redis"
    """Where it stores: 'redis', 'modules' (Redis with modules), 'postgres', or '' for none of our servers."""

    def version(self) -> str | None:
        """None when it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def sync(self, url: str) -> contextlib.AbstractContextManager[Any]:
        raise NotImplementedError

    def asynchronous(self, url: str) -> contextlib.AbstractAsyncContextManager[Any]:
        raise NotImplementedError


class Ours(Candidate):
    name, package = OURS, "langgraph-redis-state"
    options: ClassVar[dict[str, Any]] = {}

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        from langgraph_redis_state import RedisSaver

        with RedisSaver(url, **self.options) as saver:
            yield saver

    @contextlib.asynccontextmanager
    async def asynchronous(self, url: str) -> AsyncIterator[Any]:
        from langgraph_redis_state import RedisSaver

        async with RedisSaver(url, **self.options) as saver:
            yield saver


class Cold(Ours):
    """What every call would cost a process that has seen none of the state before."""

    name = COLD
    options: ClassVar[dict[str, Any]] = {"cache_bytes": 0}


class InMemory(Candidate):
    name, package, needs = MEMORY, "langgraph-checkpoint", ""

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        from langgraph.checkpoint.memory import InMemorySaver

        yield InMemorySaver()

    @contextlib.asynccontextmanager
    async def asynchronous(self, url: str) -> AsyncIterator[Any]:
        with self.sync(url) as saver:
            yield saver


class Sqlite(Candidate):
    """A file in a temporary directory, with the settings the package chooses (write-ahead log)."""

    name, package, needs = "sqlite", "langgraph-checkpoint-sqlite", ""

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        from langgraph.checkpoint.sqlite import SqliteSaver

        with tempfile.TemporaryDirectory() as folder, SqliteSaver.from_conn_string(f"{folder}/state.db") as saver:
            saver.folder = folder
            yield saver

    @contextlib.asynccontextmanager
    async def asynchronous(self, url: str) -> AsyncIterator[Any]:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        with tempfile.TemporaryDirectory() as folder:
            async with AsyncSqliteSaver.from_conn_string(f"{folder}/state.db") as saver:
                yield saver


class PlainRedis(Candidate):
    name, package = "plainredis", "langgraph-checkpoint-plainredis"

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        from langgraph_checkpoint_plainredis import RedisSaver

        saver = RedisSaver(url=url, socket_timeout=60)
        yield saver
        saver.close()

    @contextlib.asynccontextmanager
    async def asynchronous(self, url: str) -> AsyncIterator[Any]:
        from langgraph_checkpoint_plainredis import AsyncRedisSaver

        saver = AsyncRedisSaver(url=url, socket_timeout=60)
        yield saver
        await saver.aclose()


class Valkey(Candidate):
    name, package = "ValkeySaver", "langgraph-checkpoint-aws"

    def version(self) -> str | None:
        return super().version() if _installed("valkey") else None

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        from langgraph_checkpoint_aws.checkpoint.valkey import ValkeySaver

        with ValkeySaver.from_conn_string(url, pool_size=100) as saver:
            yield saver

    @contextlib.asynccontextmanager
    async def asynchronous(self, url: str) -> AsyncIterator[Any]:
        from langgraph_checkpoint_aws.checkpoint.valkey import AsyncValkeySaver

        async with AsyncValkeySaver.from_conn_string(url, pool_size=100) as saver:
            yield saver


class ModulesRedis(Candidate):
    name, package, needs = "checkpoint-redis", "langgraph-checkpoint-redis", "modules"

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        from langgraph.checkpoint.redis import RedisSaver

        with RedisSaver.from_conn_string(url) as saver:
            saver.setup()
            yield saver

    @contextlib.asynccontextmanager
    async def asynchronous(self, url: str) -> AsyncIterator[Any]:
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver

        async with AsyncRedisSaver.from_conn_string(url, connection_args={"max_connections": 1000}) as saver:
            yield saver


class Postgres(Candidate):
    """One connection for all callers, as the package makes it of a URL. With a pool its lock lets one in at a time, too."""

    name, package, needs = "postgres", "langgraph-checkpoint-postgres", "postgres"

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        from langgraph.checkpoint.postgres import PostgresSaver

        with PostgresSaver.from_conn_string(url) as saver:
            saver.setup()
            yield saver

    @contextlib.asynccontextmanager
    async def asynchronous(self, url: str) -> AsyncIterator[Any]:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            await saver.setup()
            yield saver


class _Floor(BaseCheckpointSaver[str]):
    """Serializes what is new in a checkpoint (its changed channels, versions, metadata), as any saver must, and keeps it
    in this process or in one Redis string. It keeps no history and finds nothing: it is a measure, not a saver."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self._kept: dict[str, bytes] = {}

    def get_next_version(self, current: Any, channel: None = None) -> Any:
        return f"{1 if current is None else int(current) + 1:032d}"

    def _store(self, key: str, serialized: list[Any]) -> None:
        plain = ormsgpack.packb(serialized)
        if self._client is None:
            self._kept[key] = plain
        else:
            self._client.set(key, lz4.block.compress(plain))

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        values = checkpoint["channel_values"]
        rest = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        serialized: list[Any] = [self.serde.dumps_typed([rest, metadata])]
        serialized += [(name, *self.serde.dumps_typed(values[name])) for name in new_versions if name in values]
        self._store(config["configurable"]["thread_id"], serialized)
        return config

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self._store(task_id, [(channel, *self.serde.dumps_typed(value)) for channel, value in writes])

    def get_tuple(self, config: Any) -> Any:
        if self._client is None:
            plain = self._kept[config["configurable"]["thread_id"]]
        else:
            plain = lz4.block.decompress(self._client.get(config["configurable"]["thread_id"]))
        rest, *channels = ormsgpack.unpackb(plain)
        checkpoint, metadata = self.serde.loads_typed(tuple(rest))
        checkpoint["channel_values"] = {name: self.serde.loads_typed((type_, blob)) for name, type_, blob in channels}
        return CheckpointTuple(config, checkpoint, metadata, None, [])


class SerializeFloor(Candidate):
    name, package, needs = SERIALIZE, "langgraph-checkpoint", ""

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        yield _Floor(None)


class SetFloor(Candidate):
    name, package = SET, "redis"

    @contextlib.contextmanager
    def sync(self, url: str) -> Iterator[Any]:
        client = redis.Redis.from_url(url)
        yield _Floor(client)
        client.close()


FLOORS = (SERIALIZE, SET)
ALL: tuple[type[Candidate], ...] = (
    Ours,
    Cold,
    InMemory,
    SerializeFloor,
    SetFloor,
    Sqlite,
    PlainRedis,
    Valkey,
    ModulesRedis,
    Postgres,
)


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def versions() -> dict[str, str]:
    """Everything whose version decides about the numbers."""
    import platform

    found = {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"}
    for package in (
        *("langgraph", "langgraph-checkpoint", "langchain-core", "ormsgpack", "redis", "hiredis", "valkey", "lz4", "msgspec"),
        "xxhash",
    ):
        if _installed(package):
            found[package] = version(package)
    return found
