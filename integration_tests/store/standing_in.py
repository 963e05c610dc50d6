"""`RedisStore` under the names that LangGraph's own store tests import: InMemoryStore, SqliteStore, PostgresStore and their
async twins, with as much of psycopg as the fixtures of those tests touch. The test files themselves are not changed.

A conftest that `suite.py` writes calls `install` before a test file is imported.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import langgraph.store.memory
import redis
from langgraph.store.base.batch import AsyncBatchedBaseStore

from langgraph_redis_state import RedisStore
from langgraph_redis_state.store import items

URL = os.environ.get("LGRS_STORE_URL", "")
SEMANTIC = os.environ.get("LGRS_STORE_SEMANTIC") == "1"


def prefix_for(name: str) -> str:
    """One prefix for each file, a new one for each database in memory."""
    return f"suite:{uuid.uuid4().hex if name in ('', ':memory:') else name.replace('/', '-')}"


class Standing(RedisStore):
    """A store under any of the names, with the attributes that tests look at."""

    MIGRATIONS: Any = ()

    def __init__(self, name: str = "", *, index: Any = None, ttl: Any = None, **options: Any) -> None:
        if SEMANTIC and index is not None:
            fields = index.get("text_fields") or index.get("fields")
            options = {"index": {"dims": index["dims"], "embed": index["embed"], "fields": fields}}
        else:
            options = {}
        super().__init__(URL, prefix=prefix_for(name), ttl=ttl, **options)
        self.ttl_config = self.ttl_config or {}
        self.index_config = index

    @classmethod
    @contextlib.contextmanager
    def from_conn_string(cls, url: str, **options: Any) -> Iterator[Any]:  # type: ignore[override]
        with cls(url, **options) as store:
            yield store

    def start_ttl_sweeper(self) -> None:
        """Nothing is needed: what expired is not returned."""

    def stop_ttl_sweeper(self) -> None:
        """Nothing was started."""

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        yield Cursor(self)


class Cursor:
    """The few statements with which PostgresStore's tests look behind the store."""

    def __init__(self, store: Any) -> None:
        self._store, self._row = store, {}

    def execute(self, statement: str, parameters: Any = ()) -> None:
        if not parameters:
            return
        namespace, key = parameters[-2].split("."), parameters[-1]
        field = items.field_name(tuple(namespace), key)
        kept, _, expires, _ = items.bucket_keys(self._store._engine.settings.prefix, items.bucket_of(namespace))
        with redis.Redis.from_url(URL) as raw:
            if "SET expires_at" in statement:
                raw.zadd(expires, {field: raw.time()[0] * 1000 - 60_000})
            elif "COUNT(*)" in statement:
                self._row = {"n": int(raw.hexists(kept, field))}
            elif "SELECT expires_at" in statement:
                self._row = {"expires_at": raw.zscore(expires, field)}
            else:
                raise NotImplementedError(statement)

    def fetchone(self) -> Any:
        return self._row


class AsyncStanding(AsyncBatchedBaseStore):
    """LangGraph's own queue of operations over a `RedisStore`, as the async stores of the other packages have it."""

    supports_ttl = True
    MIGRATIONS: Any = ()

    def __init__(self, name: str = "", **options: Any) -> None:
        super().__init__()
        self.store = Standing(name, **options)
        self.ttl_config = self.store.ttl_config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["store"], name)

    async def abatch(self, ops: Any) -> Any:
        return await self.store.abatch(ops)

    @classmethod
    @contextlib.asynccontextmanager
    async def from_conn_string(cls, url: str, **options: Any) -> AsyncIterator[Any]:
        made = cls(url, **options)
        try:
            yield made
        finally:
            await made.store.aclose()

    async def setup(self) -> None:
        await self.store.asetup()

    async def sweep_ttl(self) -> int:
        return await self.store.asweep_ttl()

    async def start_ttl_sweeper(self) -> None:
        """Nothing is needed: what expired is not returned."""

    async def stop_ttl_sweeper(self) -> None:
        """Nothing was started."""

    @contextlib.asynccontextmanager
    async def _cursor(self) -> AsyncIterator[Any]:
        yield AsyncCursor(self.store)


class AsyncCursor(Cursor):
    async def execute(self, statement: str, parameters: Any = ()) -> None:  # type: ignore[override]
        super().execute(statement, parameters)

    async def fetchone(self) -> Any:
        return super().fetchone()


class Connection:
    """psycopg, for fixtures that make a database for each test."""

    @classmethod
    @contextlib.contextmanager
    def connect(cls, *_: Any, **__: Any) -> Iterator[Any]:
        yield cls()

    def execute(self, *_: Any) -> None:
        """There is no database to make."""


class AsyncConnection(Connection):
    @classmethod
    async def connect(cls, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        return contextlib.nullcontext(cls())

    async def execute(self, *_: Any) -> None:  # type: ignore[override]
        """There is no database to make."""


def module(name: str, **contents: Any) -> None:
    made = ModuleType(name)
    made.__dict__.update(contents, __path__=[])
    sys.modules[name] = made


def nothing(*_: Any) -> None:
    raise NotImplementedError("an inner function of another package")


def install() -> None:
    langgraph.store.memory.InMemoryStore = Standing  # type: ignore[misc]
    inner = dict.fromkeys(
        ("_escape_glob_literal", "_escape_like_literal", "_namespace_match_pattern", "get_connection"), nothing
    )
    module("langgraph.store.sqlite", SqliteStore=Standing, AsyncSqliteStore=AsyncStanding)
    module("langgraph.store.sqlite.aio", AsyncSqliteStore=AsyncStanding)
    base = {"BaseSqliteStore": Standing, "SqliteIndexConfig": dict, "NS_MATCH_FUNCTION": ""}
    module("langgraph.store.sqlite.base", **base, **inner)
    module("langgraph.store.postgres", PostgresStore=Standing, AsyncPostgresStore=AsyncStanding)
    module("langgraph.store.postgres.base", **inner)
    module("langgraph.checkpoint.postgres", _ainternal=sys.modules["langgraph.store.postgres.base"])
    module("psycopg", Connection=Connection, AsyncConnection=AsyncConnection)
