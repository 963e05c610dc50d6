"""The short way of a script through redis-py: what becomes of the connection, and who may still watch."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client import direct
from langgraph_redis_state.client.direct import given_back, taken

ONE = b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
"""SHA-1 of `return 1`."""


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """The sync client of a saver, with one connection, which is idle."""
    with RedisSaver(url, redis_options={"max_connections": 1, "timeout": 0.01}) as saver:
        saver.client.script_load("return 1")
        yield saver.client


def idle(client: Any) -> list[Any]:
    return [each for each in client.connection_pool.pool.queue if each is not None]


def test_a_script_is_answered_on_the_idle_connection_which_is_idle_again(client: Any) -> None:
    (before,) = idle(client)
    assert client.evalsha(ONE, b"0") == 1
    assert idle(client) == [before]


def test_redis_py_takes_its_own_way_for_everything_else(client: Any) -> None:
    assert isinstance(client, redis.Redis)
    assert client.get("nothing") is None
    assert client.pipeline(transaction=False).evalsha(ONE, 0).execute() == [1]


def test_a_connection_that_the_server_closed_is_opened_again(client: Any, raw: Any) -> None:
    (connection,) = idle(client)
    raw.client_kill_filter(_id=client.client_id())
    assert client.evalsha(ONE, b"0") == 1
    assert idle(client) == [connection]


def test_a_connection_with_unread_data_is_not_used_as_it_is(client: Any) -> None:
    (connection,) = idle(client)
    connection.send_command("ECHO", "of another call")
    while not connection.can_read(timeout=1):
        pass
    assert client.evalsha(ONE, b"0") == 1


def test_an_error_of_the_server_leaves_the_connection_as_it_was(client: Any) -> None:
    (connection,) = idle(client)
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha(b"0" * 40, b"0")
    assert idle(client) == [connection]
    assert client.evalsha(ONE, b"0") == 1


def test_a_packet_gives_each_command_its_reply_and_errors_stay_in_their_place(client: Any) -> None:
    (connection,) = idle(client)
    commands = [(b"PING", b"first"), (b"NO_SUCH_COMMAND",), (b"EVALSHA", ONE, b"0"), (b"PING", b"last")]
    short, usual = client.packet(commands), direct.by_pipeline(client, commands)
    assert [short[0], *short[2:]] == [b"first", 1, b"last"] == [usual[0], *usual[2:]]
    assert type(short[1]) is type(usual[1]) is redis.exceptions.ResponseError
    assert str(short[1]).startswith("unknown command")
    assert idle(client) == [connection]


def test_a_packet_that_loses_its_connection_is_sent_again(client: Any, raw: Any) -> None:
    number = client.client_id()
    taking = client.connection_pool.pool.queue[-1]
    read, killed = taking.read_response, []

    def killing(*arguments: Any, **options: Any) -> Any:
        if not killed:
            killed.append(raw.client_kill_filter(_id=number))
            raise redis.exceptions.ConnectionError("closed")
        return read(*arguments, **options)

    taking.read_response = killing
    try:
        assert client.packet([(b"PING", b"first"), (b"PING", b"last")]) == [b"first", b"last"]
    finally:
        del taking.read_response
    assert killed == [1]


def test_a_call_that_is_interrupted_closes_its_connection(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (connection,) = idle(client)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(connection._parser, "read_response", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.evalsha(ONE, b"0")
    monkeypatch.undo()
    assert connection._sock is None
    assert client.evalsha(ONE, b"0") == 1  # and not the reply to the call before


def test_a_lost_connection_is_retried_as_often_as_redis_py_does(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (connection,) = idle(client)
    tried: list[int] = []

    def lost(*_: Any, **__: Any) -> None:
        tried.append(1)
        raise redis.exceptions.ConnectionError("lost")

    monkeypatch.setattr(connection, "read_response", lost)
    monkeypatch.setattr(connection.retry, "_backoff", SimpleNamespace(reset=lambda: None, compute=lambda _: 0))
    with pytest.raises(redis.exceptions.ConnectionError, match="lost"):
        client.evalsha(ONE, b"0")
    short = len(tried)
    with pytest.raises(redis.exceptions.ConnectionError, match="lost"):
        client.get("anything")
    assert short == len(tried) - short > 1


def test_if_no_connection_is_idle_the_pool_waits_and_then_says_so(client: Any) -> None:
    connection = taken(client.connection_pool)
    with pytest.raises(redis.exceptions.ConnectionError, match="No connection available"):
        client.evalsha(ONE, b"0")
    given_back(client.connection_pool, connection)
    assert client.evalsha(ONE, b"0") == 1


def test_a_connection_of_another_process_is_not_used(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, (connection,) = client.connection_pool, idle(client)
    monkeypatch.setattr(pool, "pid", pool.pid + 1)
    monkeypatch.setattr(connection, "pid", pool.pid)
    assert client.evalsha(ONE, b"0") == 1
    assert connection not in idle(client)


def test_who_watches_commands_sees_scripts(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    for watched in (client, redis.Redis):
        execute = watched.execute_command

        def told(*arguments: Any, execute: Any = execute, **options: Any) -> Any:
            seen.append(arguments[-3])
            return execute(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(watched, "execute_command", told)
            assert client.evalsha(ONE, b"0") == 1
    assert seen == ["EVALSHA", "EVALSHA"]
    with monkeypatch.context() as patch:
        patch.setattr(client, "execute_command", lambda *_: None)
        patch.setattr(direct, "by_pipeline", lambda *_: seen.clear() or [])
        assert client.packet([(b"PING",)]) == []
    assert not seen


def test_where_redis_py_collects_metrics_scripts_are_among_them(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    collecting = [False]
    monkeypatch.setattr(direct, "_metrics", lambda: lambda: collecting[0])
    made = direct.direct_client.__wrapped__(redis.Redis).from_pool(client.connection_pool)
    taking: list[int] = []
    monkeypatch.setattr(client.connection_pool, "get_connection", lambda: taking.append(1) or taken(client.connection_pool))
    assert made.evalsha(ONE, b"0") == 1
    assert not taking
    collecting[0] = True
    assert made.evalsha(ONE, b"0") == 1
    assert taking
    made.connection_pool = None  # so that it does not close what another client uses
