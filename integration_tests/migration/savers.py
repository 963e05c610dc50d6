"""Savers of other packages, each empty and of its own, and the servers that they need.

PostgreSQL's programs are looked for on this machine. `LGRS_REDIS_STACK` names a Redis with RedisJSON and RediSearch.
`LGRS_MONGODB` is the URL of a MongoDB; without it SecantusDB is started, a server from the Python index that speaks MongoDB's
protocol, has its storage engine, and finds documents by the same indexes. A saver whose package or server is not there is
skipped, and pytest says so.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from langgraph_redis_state.embedded import EmbeddedServer

KINDS = ["memory", "sqlite", "postgres", "mongodb", "redis-stack", "redis-stack-shallow", "valkey", "plainredis", "own"]


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server that ends with the block."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed on this machine")
    programs = pathlib.Path(found[-1]).parent
    place = pathlib.Path(tempfile.mkdtemp(prefix="lgrs-pg-"))
    user: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(place, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    run: Any = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    data, control = place / "data", [*user, str(programs / "pg_ctl"), "-D", str(place / "data")]
    subprocess.run([*user, str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "lgrs", "--no-sync"], **run)
    options = f"-c listen_addresses= -c unix_socket_directories={place} -c fsync=off"
    try:
        subprocess.run([*control, "-w", "-l", str(place / "log"), "-o", options, "start"], **run)
        yield f"postgresql://lgrs@/postgres?host={place}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **{**run, "check": False})
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def mongodb() -> Iterator[str]:
    """The URL of a server that speaks MongoDB's protocol."""
    if "LGRS_MONGODB" in os.environ:
        yield os.environ["LGRS_MONGODB"]
        return
    secantus = pytest.importorskip("secantus")
    with tempfile.TemporaryDirectory(prefix="lgrs-mongodb-") as place, secantus.SecantusDBServer(storage_path=place) as server:
        yield server.uri


@contextlib.contextmanager
def opened(kind: str, servers: Any) -> Iterator[Any]:
    """An empty saver."""
    with contextlib.ExitStack() as stack:
        yield _open(kind, servers, stack)


def _open(kind: str, servers: Any, stack: contextlib.ExitStack) -> Any:
    if kind == "memory":
        from langgraph.checkpoint.memory import InMemorySaver

        return InMemorySaver()
    if kind == "own":
        from langgraph_redis_state import RedisSaver

        return stack.enter_context(RedisSaver(servers.embedded, prefix=f"own-{uuid.uuid4().hex[:8]}"))
    if kind == "sqlite":
        sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
        return stack.enter_context(sqlite.SqliteSaver.from_conn_string(":memory:"))
    if kind == "postgres":
        saver_class = pytest.importorskip("langgraph.checkpoint.postgres").PostgresSaver
        return _open_postgres(saver_class, servers.postgres, stack)
    if kind == "mongodb":
        saver_class = pytest.importorskip("langgraph.checkpoint.mongodb").MongoDBSaver
        name = f"d{uuid.uuid4().hex[:8]}"
        mongo = stack.enter_context(saver_class.from_conn_string(servers.mongodb, db_name=name))
        stack.callback(mongo.client.drop_database, name)
        return mongo
    if kind.startswith("redis-stack"):
        module = pytest.importorskip("langgraph.checkpoint.redis")
        saver_class = module.ShallowRedisSaver if kind.endswith("shallow") else module.RedisSaver
        name = f"c{uuid.uuid4().hex[:8]}"
        options = {"checkpoint_prefix": name, "checkpoint_write_prefix": f"w{name}"}
        saver = stack.enter_context(saver_class.from_conn_string(servers.redis_stack, **options))
        saver.setup()
        return saver
    if kind == "valkey":
        aws = pytest.importorskip("langgraph_checkpoint_aws")
        server = stack.enter_context(EmbeddedServer.start())  # its keys have no prefix
        import valkey

        client = stack.enter_context(contextlib.closing(valkey.Valkey.from_url(server.url)))
        return aws.ValkeySaver(client)
    assert kind == "plainredis"
    plain = pytest.importorskip("langgraph_checkpoint_plainredis")
    import redis

    client = stack.enter_context(contextlib.closing(redis.Redis.from_url(servers.embedded)))
    return plain.RedisSaver(client, prefix=f"plain-{uuid.uuid4().hex[:8]}")


def _open_postgres(saver_class: Any, url: str, stack: contextlib.ExitStack) -> Any:
    import psycopg

    name = f"d{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    saver = stack.enter_context(saver_class.from_conn_string(url.replace("/postgres?", f"/{name}?")))
    saver.setup()
    return saver


class Servers:
    """Servers, each started when first asked for."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack, self._urls = stack, dict[str, str]()

    @property
    def embedded(self) -> str:
        if "embedded" not in self._urls:
            self._urls["embedded"] = self._stack.enter_context(EmbeddedServer.start()).url
        return self._urls["embedded"]

    @property
    def postgres(self) -> str:
        if "postgres" not in self._urls:
            self._urls["postgres"] = self._stack.enter_context(postgres())
        return self._urls["postgres"]

    @property
    def mongodb(self) -> str:
        if "mongodb" not in self._urls:
            self._urls["mongodb"] = self._stack.enter_context(mongodb())
        return self._urls["mongodb"]

    @property
    def redis_stack(self) -> str:
        if "LGRS_REDIS_STACK" not in os.environ:
            pytest.skip("LGRS_REDIS_STACK does not name a Redis with RedisJSON and RediSearch")
        return os.environ["LGRS_REDIS_STACK"]
