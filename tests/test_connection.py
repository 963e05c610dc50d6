"""Where the server is: URLs, options, injected clients, event loops, threads, forks, and closing without a trace."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
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
from redis.backoff import ConstantBackoff

from langgraph_redis_state.client.connection import Connection
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import InvalidConfigError, SaverClosedError

SECRET = "s3cr3t"


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    opened = Connection(url)
    yield opened
    opened.close()


@pytest.fixture
def no_cluster_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync cluster client asks the server when it is made; here it does not."""
    monkeypatch.setattr(redis.cluster.NodesManager, "initialize", lambda self, *args, **kwargs: None)
    monkeypatch.setattr(redis.cluster, "CommandsParser", lambda client: None)


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


def settings_of(client: Any) -> dict[str, Any]:
    settings: dict[str, Any] = client.connection_pool.connection_kwargs
    return settings


# --- URLs


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ("redis://localhost", "redis://localhost:6379/0"),
        (f"redis://ann:{SECRET}@db.example:7000/3", "redis://ann:***@db.example:7000/3"),
        (f"redis://:{SECRET}@[::1]:7000?db=2", "redis://:***@[::1]:7000/2"),
        (f"rediss://ann:{SECRET}%40%2F@db.example", "rediss://ann:***@db.example:6379/0"),
        (f"unix://ann:{SECRET}@/run/a%20b.sock?db=4", "unix://ann:***@/run/a b.sock?db=4"),
        (f"unix:///run/redis.sock?password={SECRET}", "unix:///run/redis.sock?db=0"),
        (f"redis+cluster://ann:{SECRET}@a,[::1]:7001,c:7002/0", "redis+cluster://ann:***@a:6379,[::1]:7001,c:7002"),
        (f"rediss+cluster://:{SECRET}@a:7000", "rediss+cluster://:***@a:7000"),
        (f"redis+sentinel://:{SECRET}@a,b:26380/mymaster/2", "redis+sentinel://:***@a:26379,b:26380/mymaster/2"),
        ("rediss+sentinel://a/my%20master", "rediss+sentinel://a:26379/my master/0"),
    ],
)
def test_where_names_the_server_and_never_the_password(given: str, where: str) -> None:
    connection = Connection(given)
    assert connection.where == where
    assert SECRET not in repr(connection._target)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("localhost:6379", "allowed are: redis://"),
        (f"http://:{SECRET}@host", "allowed are: redis://"),
        (f"ann:{SECRET}@host", "allowed are: redis://"),
        (f"redis://:{SECRET}@", "needs a host"),
        (f"redis://:{SECRET}@::1", "needs a host"),
        (f"redis://:{SECRET}@[::1", "cannot be parsed"),
        (f"redis://:{SECRET}@host:port", "1 to 65535"),
        (f"redis://:{SECRET}@host:0", "1 to 65535"),
        (f"redis://:{SECRET}@host:65536", "1 to 65535"),
        (f"redis://:{SECRET}@host/zero", "number as database"),
        (f"redis://:{SECRET}@host/-1", "number as database"),
        (f"redis://:{SECRET}@host/1/2", "nothing after the hosts"),
        (f"redis://:12/{SECRET}@host", "percent-encoded"),
        (f"redis://ann:12/{SECRET}@host", "percent-encoded"),
        (f"redis://:{SECRET}#{SECRET}@host", "fragment"),
        (f"unix://tmp/redis.sock?password={SECRET}", "three slashes"),
        ("unix://", "three slashes"),
        (f"redis+cluster://:{SECRET}@a,,b", "needs a host"),
        (f"redis+cluster://:{SECRET}@a/1", "only database 0"),
        (f"redis+sentinel://:{SECRET}@a:26379", "names the service"),
        (f"redis+sentinel://:{SECRET}@/service", "needs a host"),
        (f"redis+sentinel://:{SECRET}@a/service/x", "number as database"),
    ],
)
def test_a_wrong_url_says_what_is_allowed_and_never_the_password(given: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint) as caught:
        Connection(given)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "redis://" in str(caught.value) or "redis+" in str(caught.value) or "unix://" in str(caught.value)


def test_neither_url_nor_client_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="url="):
        Connection(None)


async def test_user_password_and_database_reach_both_clients() -> None:
    connection = Connection("rediss://ann:p%40ss@db.example:7000/3")
    for client in (connection.client(), connection.async_client()):
        settings = settings_of(client)
        assert client.connection_pool.connection_class.__name__ == "SSLConnection"
        assert [settings[name] for name in ("host", "port", "db", "username", "password")] == [
            "db.example",
            7000,
            3,
            "ann",
            "p@ss",
        ]
    await connection.aclose()


@pytest.mark.usefixtures("no_cluster_server")
async def test_a_cluster_url_names_every_node_to_both_clients() -> None:
    connection = Connection("rediss+cluster://ann:p%40ss@a:7000,[::1]:7001", options={"max_connections": 7})
    client, async_client = connection.client(), connection.async_client()
    assert {(node.host, node.port) for node in client.nodes_manager.startup_nodes.values()} == {
        ("a", 7000),
        ("::1", 7001),
    }
    assert {(node.host, node.port) for node in async_client.nodes_manager.startup_nodes.values()} == {
        ("a", 7000),
        ("::1", 7001),
    }
    for settings in (client.nodes_manager.connection_kwargs, async_client.connection_kwargs):
        assert (settings["username"], settings["password"], settings["max_connections"]) == ("ann", "p@ss", 7)
        assert settings["connection_class"].__name__ == "SSLConnection"
    node = client.nodes_manager.create_redis_node("a", 7000, **client.nodes_manager.connection_kwargs)
    assert isinstance(node.connection_pool, redis.BlockingConnectionPool)
    assert node.connection_pool.timeout == 20.0
    await connection.aclose()


@pytest.mark.parametrize("scheme", ["redis+sentinel", "rediss+sentinel"])
async def test_a_sentinel_url_asks_the_sentinels_for_the_master(scheme: str) -> None:
    connection = Connection(
        f"{scheme}://ann:p%40ss@a,b:26380/mymaster/2",
        options={"sentinel_kwargs": {"password": "other"}, "max_connections": 7},
    )
    for client in (connection.client(), connection.async_client()):
        pool = client.connection_pool
        assert (pool.service_name, pool.is_master, pool.max_connections, pool.timeout) == ("mymaster", True, 7, 20.0)
        assert ("SSL" in pool.connection_class.__name__) is (scheme == "rediss+sentinel")
        settings = settings_of(client)
        assert (settings["username"], settings["password"], settings["db"]) == ("ann", "p@ss", 2)
        sentinels = [settings_of(sentinel) for sentinel in pool.sentinel_manager.sentinels]
        assert [(s["host"], s["port"], s["password"]) for s in sentinels] == [
            ("a", 26379, "other"),
            ("b", 26380, "other"),
        ]
    await connection.aclose()


# --- options


async def test_defaults_suit_a_server_application(connection: Connection) -> None:
    tcp = Connection("redis://localhost")
    for client in (tcp.client(), tcp.async_client()):
        pool, settings = client.connection_pool, settings_of(client)
        assert (pool.max_connections, pool.timeout) == (50, 20.0)
        assert any("Blocking" in kind.__name__ for kind in type(pool).__mro__)
        assert (settings["socket_timeout"], settings["socket_connect_timeout"]) == (10.0, 5.0)
        assert (settings["socket_keepalive"], settings["health_check_interval"]) == (True, 30)
        assert settings["retry"]._retries == 3
    assert "socket_keepalive" not in settings_of(connection.client())
    await tcp.aclose()


async def test_options_override_defaults_and_the_url_overrides_options() -> None:
    connection = Connection(
        "redis://localhost/?socket_timeout=3.5&max_connections=9",
        options={"socket_timeout": 1, "health_check_interval": 0, "timeout": None, "retry_on_timeout": True},
    )
    for client in (connection.client(), connection.async_client()):
        settings = settings_of(client)
        assert (settings["socket_timeout"], settings["health_check_interval"]) == (3.5, 0)
        assert (client.connection_pool.max_connections, client.connection_pool.timeout) == (9, None)
        assert settings["retry_on_timeout"] is True
    await connection.aclose()


@pytest.mark.parametrize("kind", [redis.retry.Retry, redis.asyncio.retry.Retry])
async def test_a_retry_of_either_kind_serves_both_clients(url: str, kind: Any) -> None:
    connection = Connection(url, options={"retry": kind(ConstantBackoff(0), 1)})
    assert isinstance(settings_of(connection.client())["retry"], redis.retry.Retry)
    assert isinstance(settings_of(connection.async_client())["retry"], redis.asyncio.retry.Retry)
    assert connection.client().ping()
    assert await connection.async_client().ping()
    await connection.aclose()


@pytest.mark.parametrize(
    ("given", "options", "hint"),
    [
        ("redis://h", {"socket_time_out": 3}, "'socket_time_out' with a redis:// URL; allowed are: .*socket_timeout"),
        ("redis://h?socket_time_out=3", {}, "'socket_time_out'"),
        ("redis://h", {"ssl_ca_certs": "x"}, "'ssl_ca_certs'"),
        ("unix:///s", {"socket_keepalive": True}, "'socket_keepalive' with a unix://"),
        ("redis://h", {"host": "other", "db": 3}, "'db', 'host'"),
        ("redis://h", {"sentinel_kwargs": {}}, "'sentinel_kwargs'"),
        ("redis+cluster://h", {"read_from_replicas": True}, "'read_from_replicas'"),
        ("redis://h?socket_timeout=soon", {}, "socket_timeout"),
        ("redis://h", {"protocol": 7}, "protocol must be"),
        ("redis://h", {"max_connections": 0}, "at least 1"),
        ("redis://h", {"max_connections": "9"}, "at least 1"),
        ("redis://h", {"socket_timeout": "3"}, "socket_timeout must be a number of seconds"),
        ("redis://h", {"socket_timeout": 0}, "socket_timeout must be a number of seconds"),
        ("redis://h", {"socket_connect_timeout": -1}, "socket_connect_timeout must be a number of seconds"),
        ("redis://h", {"retry": 3}, "retry is a redis.retry.Retry"),
        ("redis://h?retry=3", {}, "retry is a redis.retry.Retry"),
        ("redis+sentinel://h/s", {"sentinel_kwargs": None}, "sentinel_kwargs maps names"),
        ("rediss://h", {"ssl_ca_certs": 0}, "ssl_ca_certs: there is no 0"),
        ("rediss://h", {"ssl_ca_certs": "/nope.pem"}, "ssl_ca_certs: there is no '/nope.pem'"),
        ("redis://h", {"timeout": -1}, "number of seconds"),
    ],
)
def test_a_wrong_option_is_refused_at_construction(given: str, options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Connection(given, options=options)


def test_options_without_a_url_are_refused(url: str) -> None:
    with redis.Redis.from_url(url) as client, pytest.raises(ValueError, match="built from a URL"):
        Connection(None, client=client, options={"socket_timeout": 3})


@pytest.mark.parametrize("given", ["redis://h", "unix:///s", "redis+cluster://h", "redis+sentinel://h/s"])
def test_decoded_responses_are_refused_as_an_option(given: str) -> None:
    with pytest.raises(ValueError, match=r"^The saver stores bytes: drop the option decode_responses=True\.$"):
        Connection(given, options={"decode_responses": True})
    with pytest.raises(ValueError, match="stores bytes"):
        Connection(f"{given}?decode_responses=True")
    Connection(f"{given}?decode_responses=False", options={"decode_responses": False})


@pytest.mark.parametrize("protocol", [2, 3])
async def test_either_protocol_works_and_gives_bytes(url: str, prefix: str, protocol: int) -> None:
    connection = Connection(url, options={"protocol": protocol})
    connection.client().set(prefix, b"\xff")
    assert connection.client().get(prefix) == b"\xff"
    assert await connection.async_client().get(prefix) == b"\xff"
    await connection.aclose()


async def test_a_new_connection_sends_nothing_but_what_it_was_asked_for() -> None:
    with EmbeddedServer.start() as server:
        connection = Connection(server.url)
        connection.client().ping()
        await connection.async_client().ping()
        used = set(connection.client().info("commandstats"))
        await connection.aclose()
    # "info" is how the embedded server learns that it is ready
    assert {name.removeprefix("cmdstat_") for name in used} <= {"ping", "info"}


async def test_resp3_asks_for_no_maintenance_notices() -> None:
    with EmbeddedServer.start() as server:
        connection = Connection(server.url, options={"protocol": 3})
        connection.client().ping()
        await connection.async_client().ping()
        used = set(connection.client().info("commandstats"))
        await connection.aclose()
        assert {name.removeprefix("cmdstat_") for name in used} <= {"ping", "info", "hello"}
    if hasattr(redis.ConnectionPool, "maint_notifications_enabled"):
        tcp = Connection("redis://localhost", options={"protocol": 3})
        for client in (tcp.client(), tcp.async_client()):  # redis-py 7.0 has it in the sync pool only
            enabled = getattr(client.connection_pool, "maint_notifications_enabled", bool)
            assert not enabled()
        await tcp.aclose()


def test_a_full_pool_waits_and_then_fails_in_time(url: str) -> None:
    connection = Connection(url, options={"max_connections": 1, "timeout": 1})
    pool = connection.client().connection_pool
    taken = pool.get_connection("PING") if redis.VERSION < (5, 3) else pool.get_connection()
    threading.Timer(0.05, pool.release, [taken]).start()
    assert connection.client().ping()
    taken = pool.get_connection("PING") if redis.VERSION < (5, 3) else pool.get_connection()
    before = time.monotonic()
    with pytest.raises(redis.ConnectionError, match="No connection available"):
        connection.client().ping()
    assert 0.9 < time.monotonic() - before < 5
    pool.release(taken)
    connection.close()


async def test_a_full_async_pool_waits(url: str) -> None:
    connection = Connection(url, options={"max_connections": 2, "timeout": 5})
    client = connection.async_client()
    assert await asyncio.gather(*(client.ping() for _ in range(50))) == [True] * 50
    assert len(client.connection_pool._available_connections) <= 2
    await connection.aclose()


# --- injected clients


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


# --- loops, threads, forks, closing


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
