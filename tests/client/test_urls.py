"""Where the server is: URLs and options."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.backoff import ConstantBackoff

from langgraph_redis_state.client.connection import Connection
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import InvalidConfigError

SECRET = "s3cr3t"


def settings_of(client: Any) -> dict[str, Any]:
    settings: dict[str, Any] = client.connection_pool.connection_kwargs
    return settings


# --- URLs -------------------------------------------------------------------------------------------------------------


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
        (f"redis://:{SECRET}@[::1", "IPv6 address stands in brackets"),
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


# --- options ----------------------------------------------------------------------------------------------------------


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
    # "info" is how the embedded server learns that it is ready; Valkey 9 asks itself for its configuration when it starts
    assert {name.removeprefix("cmdstat_") for name in used} <= {"ping", "info", "config|get"}


async def test_resp3_asks_for_no_maintenance_notices() -> None:
    with EmbeddedServer.start() as server:
        connection = Connection(server.url, options={"protocol": 3})
        connection.client().ping()
        await connection.async_client().ping()
        used = set(connection.client().info("commandstats"))
        await connection.aclose()
        assert {name.removeprefix("cmdstat_") for name in used} <= {"ping", "info", "hello", "config|get"}
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
