"""Clients that the caller gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
import valkey
import valkey.asyncio

from langgraph_redis_state.client.connection import Connection
from langgraph_redis_state.errors import InvalidConfigError, SaverClosedError

SECRET = "s3cr3t"


def injectable(**settings: Any) -> dict[str, Callable[[], Any]]:
    nodes, async_nodes = [redis.cluster.ClusterNode("h", 7000)], [redis.asyncio.cluster.ClusterNode("h", 7000)]
    return {
        "redis.Redis": lambda: redis.Redis(**settings),
        "redis.RedisCluster": lambda: redis.RedisCluster(startup_nodes=nodes, **settings),
        "redis.Sentinel": lambda: redis.sentinel.Sentinel([("h", 1)]).master_for("service", **settings),
        "redis.asyncio.Redis": lambda: redis.asyncio.Redis(**settings),
        "redis.asyncio.RedisCluster": lambda: redis.asyncio.RedisCluster(startup_nodes=async_nodes, **settings),
        "redis.asyncio.Sentinel": lambda: redis.asyncio.sentinel.Sentinel([("h", 1)]).master_for("service", **settings),
    }


@pytest.mark.usefixtures("no_cluster_server")
@pytest.mark.parametrize("kind", list(injectable()))
async def test_a_client_that_decodes_is_refused_in_one_sentence(kind: str) -> None:
    argument = "async_client" if "asyncio" in kind else "client"
    with pytest.raises(ValueError, match=f"^The saver stores bytes: build the client for {argument}= without") as caught:
        Connection(None, **{argument: injectable(decode_responses=True)[kind]()})
    assert "\n" not in str(caught.value)
    Connection(None, **{argument: injectable()[kind]()}).close()


@pytest.mark.usefixtures("no_cluster_server")
@pytest.mark.parametrize("kind", list(injectable()))
async def test_a_client_of_the_other_kind_is_refused(kind: str) -> None:
    argument, right = ("client", "async_client") if "asyncio" in kind else ("async_client", "client")
    with pytest.raises(TypeError, match=f"pass it as {right}="):
        Connection(None, **{argument: injectable()[kind]()})


def test_valkey_clients_are_told_apart_like_those_of_redis() -> None:
    assert Connection(None, client=valkey.Valkey()).where == "injected client valkey.Valkey(localhost:6379/0)"
    with pytest.raises(ValueError, match="stores bytes"):
        Connection(None, client=valkey.Valkey(decode_responses=True))
    with pytest.raises(ValueError, match="stores bytes"):
        Connection(None, async_client=valkey.asyncio.Valkey(decode_responses=True))
    with pytest.raises(TypeError, match="pass it as async_client="):
        Connection(None, client=valkey.asyncio.Valkey())


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(TypeError, match="takes a client such as"):
        Connection(None, client="redis://localhost")
    with pytest.raises(TypeError, match="master_for"):
        Connection(None, client=redis.Sentinel([("localhost", 1)]))
    with redis.Redis() as client, pytest.raises(TypeError, match="pass the client that made it"):
        Connection(None, client=client.pipeline())
    with pytest.raises(TypeError, match="passed as client="):
        Connection(redis.Redis())  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_cluster_server")
async def test_where_describes_an_injected_client_without_its_password() -> None:
    def where(**clients: Any) -> str:
        return Connection(None, **clients).where

    client = redis.Redis(host="h", port=7000, db=2, password=SECRET)
    assert where(client=client) == "injected client redis.Redis(h:7000/2)"
    assert where(client=redis.Redis(unix_socket_path="/s")) == "injected client redis.Redis(/s/0)"
    assert where(client=injectable()["redis.Sentinel"]()) == "injected client redis.Redis(service/0)"
    assert where(async_client=redis.asyncio.Redis()) == "injected client redis.asyncio.Redis(localhost:6379/0)"
    cluster = injectable(password=SECRET)["redis.asyncio.RedisCluster"]()
    assert where(async_client=cluster) == "injected client redis.asyncio.RedisCluster(h:7000)"


async def test_the_missing_kind_is_built_from_the_url_or_named_in_the_error(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        alone = Connection(None, client=client)
        assert alone.client() is client
        with pytest.raises(InvalidConfigError, match="async_client="):
            alone.async_client()
        both = Connection(url, client=client)
        assert both.client() is client
        assert await both.async_client().ping()
        await both.aclose()
    async with redis.asyncio.Redis.from_url(url) as async_client:
        with pytest.raises(InvalidConfigError, match="client="):
            Connection(None, async_client=async_client).client()


async def test_closing_leaves_injected_clients_open(url: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as async_client:
        with redis.Redis.from_url(url) as client:
            connection = Connection(None, client=client, async_client=async_client)
            assert connection.client().ping()
            assert await connection.async_client().ping()
            taken = client.connection_pool._available_connections[0]
            connection.close()
            await connection.aclose()
            assert taken._sock is not None
            assert async_client.connection_pool._available_connections[0].is_connected
            with pytest.raises(SaverClosedError):
                connection.client()


def test_an_injected_async_client_stays_in_its_loop(url: str) -> None:
    client = redis.asyncio.Redis.from_url(url)

    async def use(connection: Connection) -> Any:
        found = connection.async_client()
        await found.ping()
        return found

    async def first() -> None:
        assert await use(alone) is client
        assert await use(with_url) is client
        await client.aclose()

    async def second() -> None:
        with pytest.raises(SaverClosedError, match="belongs to another event loop; pass url="):
            alone.async_client()
        assert await use(with_url) is not client
        await with_url.aclose()

    alone, with_url = Connection(None, async_client=client), Connection(url, async_client=client)
    asyncio.run(first())
    asyncio.run(second())
