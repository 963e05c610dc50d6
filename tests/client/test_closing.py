"""Event loops, threads, forks, and closing without a trace."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel

from langgraph_redis_state.client.connection import Connection
from langgraph_redis_state.errors import SaverClosedError


def open_sockets() -> set[str]:
    """Our open sockets. Their inodes, because a descriptor's number is soon used again."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


on_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open sockets in /proc")


def test_there_is_one_client_for_all_threads(connection: Connection) -> None:
    start, found = threading.Barrier(8), []

    def use() -> None:
        start.wait()
        found.append(connection.client())
        assert connection.client().ping()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


@on_linux
def test_each_event_loop_gets_a_client_and_the_last_ones_sockets_are_released(url: str) -> None:
    before = open_sockets()
    connection = Connection(url)
    opened = []

    async def use() -> None:
        client = connection.async_client()
        assert client is connection.async_client()
        assert await asyncio.gather(*(client.ping() for _ in range(5))) == [True] * 5
        opened.append(len(open_sockets() - before))

    for _ in range(5):
        asyncio.run(use())
        gc.collect()  # an unclosed transport or connection would warn here, and warnings are errors
    # While the client of the second loop is used, that of the first is gone; the loop itself has a socket pair.
    assert max(opened) <= min(opened)
    connection.close()
    gc.collect()
    assert open_sockets() <= before


def test_loops_in_threads_do_not_disturb_each_other(connection: Connection) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        async def use() -> None:
            for _ in range(20):
                assert await connection.async_client().ping()

        try:
            for _ in range(3):
                asyncio.run(use())
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@on_linux
async def test_aclose_closes_everything_and_says_so_afterwards(url: str) -> None:
    before = open_sockets()
    connection = Connection(url)
    connection.client().ping()
    await connection.async_client().ping()
    assert not connection.closed
    await connection.aclose()
    await connection.aclose()
    connection.close()
    assert connection.closed
    assert open_sockets() <= before
    with pytest.raises(SaverClosedError, match="closed"):
        connection.client()
    with pytest.raises(SaverClosedError, match="closed"):
        connection.async_client()


@on_linux
async def test_close_inside_the_running_loop_releases_the_sockets(url: str) -> None:
    before = open_sockets()
    connection = Connection(url)
    await connection.async_client().ping()
    connection.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert open_sockets() <= before


@on_linux
def test_close_releases_the_sockets_of_an_idle_loop(url: str) -> None:
    before = open_sockets()
    connection = Connection(url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(_ping(connection))
    connection.close()
    loop.close()
    gc.collect()
    assert open_sockets() <= before


async def _ping(connection: Connection) -> None:
    assert await connection.async_client().ping()


@on_linux
def test_close_releases_the_sockets_of_a_loop_that_runs_in_another_thread(url: str) -> None:
    before = open_sockets()
    connection = Connection(url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(_ping(connection), loop).result()
    connection.close()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    gc.collect()
    assert open_sockets() <= before


@on_linux
def test_a_connection_nobody_closed_leaves_no_socket_and_no_warning(url: str) -> None:
    before = open_sockets()
    connection = Connection(url)
    connection.client().ping()
    asyncio.run(_ping(connection))
    del connection
    gc.collect()
    assert open_sockets() <= before


async def test_close_releases_connections_that_are_in_use(url: str, prefix: str) -> None:
    connection = Connection(url, options={"retry": None})
    client = connection.async_client()
    await client.ping()
    waiting = asyncio.create_task(client.blpop(prefix, timeout=5))
    await asyncio.sleep(0.05)
    assert client.connection_pool._in_use_connections
    connection.close()
    with pytest.raises(redis.ConnectionError):
        await waiting


def test_a_cluster_client_of_a_closed_loop_is_dropped_without_a_warning() -> None:
    connection = Connection("redis+cluster://h")

    async def use() -> None:
        connection.async_client()._initialize = False  # as after its first command

    asyncio.run(use())
    connection.close()
    gc.collect()


def fork_and_wait(child: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads that other tests left
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_and_its_parent_use_their_own_sockets(connection: Connection, prefix: str) -> None:
    def child() -> None:
        for _ in range(20):
            connection.client().incr(prefix)
        asyncio.run(_ping(connection))

    connection.client().set(prefix, 0)
    assert fork_and_wait(child) == 0
    assert connection.client().incr(prefix) == 21


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_the_locks_are_held_does_not_block_the_child(connection: Connection) -> None:
    def child() -> None:
        assert connection.client().ping()
        asyncio.run(_ping(connection))

    with connection._lock, connection._async_lock:
        assert fork_and_wait(child) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_forked_child_leaves_the_async_client_of_its_parent_alone(connection: Connection) -> None:
    client = connection.async_client()
    assert await client.ping()

    def child() -> None:
        assert connection._built_async == {}
        connection.close()
        gc.collect()

    assert fork_and_wait(child) == 0
    assert await asyncio.wait_for(client.ping(), 5)
    await connection.aclose()


def test_redis_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys; from langgraph_redis_state.client.connection import Connection; Connection('redis://h:1/0'); "
        "assert 'redis' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_async_connections_pack_commands_as_redis_py_does(connection: Connection) -> None:
    made = connection.async_client().connection_pool.connection_class()
    plain = redis.asyncio.UnixDomainSocketConnection()
    assert type(made).pack_command is not type(plain).pack_command
    for command in (("CONFIG GET", "a"), ("SET", "é", b"\x00\xff", 12, 1.5), ("EVALSHA", "sha", 1, b"k", b"x" * 20_000, "")):
        assert b"".join(made.pack_command(*command)) == b"".join(plain.pack_command(*command))
    assert await connection.async_client().ping()
    await connection.aclose()
