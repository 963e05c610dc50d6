"""What real servers say when they refuse, provoked, and the error of the package that comes of it. The texts stand word for
word in tests/unit/test_translation.py.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from conftest import IMAGES
from servers import OUTSIDE, Server, single, until

from langgraph_redis_state.client.translation import meaning
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointerError, ServerRefusedError, ServerUnavailableError

RUN = "return redis.call(unpack(ARGV))"


def told(call: Callable[[], Any]) -> tuple[type[CheckpointerError], str]:
    """What an error of the client library means."""
    with pytest.raises(redis.RedisError) as caught:
        call()
    found = meaning(caught.value, True, False)
    assert found is not None
    return found


@pytest.fixture(scope="module", params=IMAGES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with single(request.param, "--save", "", "--rename-command", "HSETNX", "") as (server, _):
        yield server


@contextlib.contextmanager
def set_to(admin: Any, name: str, value: Any, after: Any) -> Iterator[None]:
    admin.config_set(name, value)
    try:
        yield
    finally:
        admin.config_set(name, after)


def test_a_renamed_command_is_not_offered(server: Server) -> None:
    kind, said = told(lambda: server.admin.hsetnx("h", "f", "v"))
    assert kind is ServerRefusedError
    assert "does not offer a command" in said
    assert told(lambda: server.admin.eval(RUN, 0, "HSETNX", "h", "f", "v"))[0] is ServerRefusedError


def test_a_command_that_scripts_may_not_run_is_not_offered(server: Server) -> None:
    kind, said = told(lambda: server.admin.eval(RUN, 0, "SUBSCRIBE", "x"))
    assert kind is ServerRefusedError
    assert "does not offer a command" in said


@pytest.mark.parametrize("command", [("ZADD", "a", "1", "m"), ("HSET", "b", "f", "v")], ids=["command", "key"])
def test_a_right_that_is_missing_in_a_script_is_a_right(server: Server, command: tuple[str, ...]) -> None:
    server.admin.execute_command("ACL", "SETUSER", "u", "reset", "on", ">p", "~a*", "+@all", "-zadd")
    port = server.admin.connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port, username="u", password="p", **OUTSIDE) as client:
        kind, said = told(lambda: client.eval(RUN, 0, *command))
    assert kind is ServerRefusedError
    assert "rights do not suffice" in said


@pytest.mark.parametrize(
    ("option", "value", "after", "said"),
    [
        ("min-replicas-to-write", 1, 0, "lacks replicas"),
        ("maxmemory", 1, 0, "memory is full"),
    ],
)
def test_a_server_that_takes_no_writes_refuses(server: Server, option: str, value: int, after: int, said: str) -> None:
    with set_to(server.admin, option, value, after):
        for call in (
            lambda: server.admin.eval(RUN, 0, "HSET", "h", "f", "v"),
            lambda: server.admin.set("a", "b"),
        ):
            kind, sentence = told(call)
            assert kind is ServerRefusedError
            assert said in sentence


def test_a_key_of_another_type_is_damaged_and_nothing_else(server: Server) -> None:
    server.admin.set("text", "x")
    assert told(lambda: server.admin.eval(RUN, 0, "HGET", "text", "x"))[0] is CheckpointCorruptError
    assert told(lambda: server.admin.eval("local x = nil return x + 1", 0))[0] is CheckpointCorruptError
    assert told(lambda: server.admin.eval("return unpack({}, 1, 100000)", 0))[0] is ServerRefusedError


def test_a_stopped_script_is_a_refusal_and_a_busy_server_is_unavailable(server: Server) -> None:
    server.admin.config_set("lua-time-limit", 50)
    port = server.admin.connection_pool.connection_kwargs["port"]
    found: list[Any] = []

    def endless() -> None:
        with redis.Redis(port=port, retry=None, **OUTSIDE) as client:
            found.append(told(lambda: client.eval("while true do end", 0)))

    running = threading.Thread(target=endless)
    running.start()
    try:
        busy: list[Any] = []

        def is_busy() -> bool:
            try:
                server.admin.get("a")
            except redis.ResponseError as error:
                busy.append(meaning(error, False, False))
                return True
            return False

        until(is_busy, "the server is not busy")
    finally:
        until(server.admin.script_kill, "no script to stop")
        running.join()
    assert busy[0][0] is ServerUnavailableError
    assert found[0][0] is ServerRefusedError
    assert "somebody stopped the script" in found[0][1]
