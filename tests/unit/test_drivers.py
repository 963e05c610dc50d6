"""What a driver does with answers that are not its own: a client library that mixes up connections must not mix up threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from shapes import at, id_of, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.address import Address
from langgraph_redis_state.client.workarounds import releasing_once
from langgraph_redis_state.effects import Call
from langgraph_redis_state.errors import ServerUnavailableError
from langgraph_redis_state.scripts.commands import GET

FIRST = ["EVALSHA"] if int(redis.__version__.split(".")[0]) < 6 else []
"""What a pool of redis-py wanted to know."""


@pytest.fixture
def paused(url: str) -> Iterator[Any]:
    """Stops the server from answering for a moment, so that two commands are sent before the first is answered."""
    with redis.Redis.from_url(url) as client:
        yield lambda: client.execute_command("CLIENT", "PAUSE", 300)


def asking_for(prefix: str, thread: str, checkpoint: str) -> Call:
    target = Address(prefix, thread, "", checkpoint)
    return Call(GET, target.keys.all, [target.keys.name, -1, b"", checkpoint.encode()], "")


async def two(saver: RedisSaver) -> tuple[str, str]:
    """An older and a newer checkpoint of one thread: their checksums cannot tell whose answer it is."""
    older = await put(saver, at("t"), {"x": "older"})
    newer = await put(saver, older, {"x": "newer"})
    assert (await saver.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": "newer"}
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"x": "newer"}
    return id_of(older), id_of(newer)


async def test_the_answer_to_another_call_is_an_error_and_the_next_call_is_right(
    asaver: RedisSaver, prefix: str, paused: Any
) -> None:
    older, _ = await two(asaver)
    call = asking_for(prefix, "t", older)
    pool = asaver.client.connection_pool
    connection = pool.get_connection(*FIRST)
    paused()
    connection.send_command("EVALSHA", call.script.sha, *call.arguments)
    pool.release(connection)  # with an answer on its way to it
    with pytest.raises(ServerUnavailableError, match="the answer to another call"):
        asaver.get_tuple(at("t"))
    for _ in range(3):
        assert asaver.get_tuple(at("t")).checkpoint["channel_values"] == {"x": "newer"}


async def test_the_same_awaited(asaver: RedisSaver, prefix: str, paused: Any) -> None:
    older, _ = await two(asaver)
    call = asking_for(prefix, "t", older)
    pool = asaver._connection.async_client().connection_pool
    connection = await pool.get_connection(*FIRST)
    paused()
    await connection.send_command("EVALSHA", call.script.sha, *call.arguments)
    await pool.release(connection)
    with pytest.raises(ServerUnavailableError, match="the answer to another call"):
        await asaver.aget_tuple(at("t"))
    for _ in range(3):
        assert (await asaver.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": "newer"}


def test_every_call_has_a_token_of_its_own(prefix: str) -> None:
    tokens = {asking_for(prefix, "t", "x").token for _ in range(1000)}
    assert len(tokens) == 1000


# --- connections that another thread closes -----------------------------------------------------------------------------


def close_while_looked_at(connection: Any) -> None:
    """The next time that the pool asks whether this idle connection is ready, another thread closes it in between."""
    look = connection._parser.can_read

    def look_too_late(*args: Any, **options: Any) -> Any:
        connection._parser.can_read = look
        connection._parser._sock = None  # the first that happens to a connection that is closed
        try:
            return look(*args, **options)
        finally:
            connection.disconnect()

    connection._parser.can_read = look_too_late


def test_a_connection_that_another_thread_closes_while_it_is_taken_is_a_typed_error(url: str, prefix: str) -> None:
    with redis.Redis.from_url(url) as client, RedisSaver(client=client, prefix=prefix) as saver:
        saver.get_tuple(at("t"))
        (idle,) = client.connection_pool._available_connections
        close_while_looked_at(idle)
        with contextlib.suppress(ServerUnavailableError):  # some versions of redis-py connect again
            saver.get_tuple(at("t"))
        assert saver.get_tuple(at("t")) is None


def test_the_pools_of_cluster_nodes_say_it_as_the_cluster_client_expects(url: str) -> None:
    kind = releasing_once(redis.BlockingConnectionPool)
    pool = kind(connection_class=redis.UnixDomainSocketConnection, path=url.removeprefix("unix://").partition("?")[0])
    connection = pool.get_connection(*FIRST)
    connection.connect()
    pool.release(connection)
    close_while_looked_at(connection)
    with contextlib.suppress(redis.ConnectionError):
        pool.release(pool.get_connection(*FIRST))
    again = pool.get_connection(*FIRST)
    again.send_command("PING")
    assert again.read_response() == b"PONG"
    pool.release(again)
    pool.disconnect()
