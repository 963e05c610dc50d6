"""What a server's address may turn out to be: a node of a Cluster, a sentinel that hangs, a database that is not the first."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from conftest import RIGHTS, Servers
from servers import Server, restricted
from shapes import SyncSurface, at, checkpoint, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.clients import SENTINEL_SECONDS
from langgraph_redis_state.errors import ServerRefusedError

both_surfaces = pytest.mark.parametrize("surface", [SyncSurface, lambda saver: saver], ids=["sync", "async"])


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@both_surfaces
async def test_a_sentinel_that_hangs_costs_one_short_wait(
    surface: Callable[[Any], Any], servers: Servers, silent: str, prefix: str
) -> None:
    scheme, _, rest = servers.sentinel().server.url.partition("://")
    async with RedisSaver(f"{scheme}://{silent},{rest}", prefix=prefix) as saver:
        began = time.monotonic()
        assert await surface(saver).aget_tuple(at("t")) is None
        assert time.monotonic() - began < SENTINEL_SECONDS + 3
        await surface(saver).aput(at("t"), checkpoint(), metadata(), {})


@both_surfaces
@pytest.mark.parametrize("given", ["url", "client"])
async def test_a_node_of_a_cluster_is_no_server_of_its_own(
    surface: Callable[[Any], Any], given: str, servers: Servers, prefix: str
) -> None:
    node = servers.cluster().primaries[0].connection_pool.connection_kwargs
    address = {"host": node["host"], "port": node["port"]}
    async with redis.asyncio.Redis(**address) as async_client:
        with redis.Redis(**address) as client:
            if given == "url":
                saver = RedisSaver(f"redis://{address['host']}:{address['port']}", prefix=prefix)
            else:
                saver = RedisSaver(client=client, async_client=async_client, prefix=prefix)

            async def write_to_threads_of_all_nodes() -> None:
                for n in range(20):
                    await surface(saver).aput(at(f"t{n}"), checkpoint(), metadata(), {})

            async with saver:
                began = time.monotonic()
                with pytest.raises(ServerRefusedError, match=r"node of a Cluster.*redis\+cluster://"):
                    await write_to_threads_of_all_nodes()
                assert time.monotonic() - began < 10


@both_surfaces
async def test_a_database_that_is_not_the_first_needs_one_right_more(
    surface: Callable[[Any], Any], servers: Servers, prefix: str
) -> None:
    plain = servers.single("redis:8.0")

    def saver_of(server: Server) -> RedisSaver:
        return RedisSaver(server.url_for(prefix).removesuffix("/0") + "/3", prefix=prefix)

    async with saver_of(restricted(plain, RIGHTS, "without")) as saver:
        with pytest.raises(ServerRefusedError, match=r"(?i)no ?perm.*select"):
            await surface(saver).aput(at("t"), checkpoint(), metadata(), {})
    async with saver_of(restricted(plain, f"{RIGHTS} +select", "with")) as saver:
        await surface(saver).aput(at("t"), checkpoint(), metadata(), {})
        assert await surface(saver).aget_tuple(at("t")) is not None
    assert not plain.keys(prefix)  # which are those of database 0
