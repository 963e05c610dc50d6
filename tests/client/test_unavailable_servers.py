"""Servers that are away, full, read-only or refuse: a clear error each, and the saver works again afterwards."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from refusing import every_verb
from shapes import at, checkpoint, metadata, new_id

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import SaverClosedError, ServerRefusedError, ServerUnavailableError

WAIT = 10.0


def put(saver: RedisSaver, config: Any, values: dict[str, Any], **more: Any) -> Any:
    made = checkpoint(values)
    return saver.put(config, made, metadata(**more), made["channel_versions"])


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server of one test, to be reconfigured."""
    with EmbeddedServer.start() as running:
        yield running


def reads_and_writes(saver: RedisSaver, config: Any) -> list[Callable[[], Any]]:
    return [
        *every_verb(saver, config),
        lambda: saver.delete_thread("none"),
        lambda: saver.delete_for_runs(["none"]),
        lambda: saver.prune(["t"]),
        lambda: saver.copy_thread("t", "copy"),
        lambda: list(saver.list(None)),
        lambda: saver.ping(),
    ]


def test_a_server_that_is_not_there_is_unavailable_for_every_verb(tmp_path: pathlib.Path) -> None:
    saver = RedisSaver(f"unix://{tmp_path}/no-socket", redis_options={"retry": None})
    with saver:
        for verb in reads_and_writes(saver, at("t", "", new_id())):
            with pytest.raises(ServerUnavailableError, match="no-socket"):
                verb()


async def test_a_server_that_is_not_there_is_unavailable_async(tmp_path: pathlib.Path) -> None:
    async with RedisSaver(f"unix://{tmp_path}/no-socket", redis_options={"retry": None}) as saver:
        made = checkpoint({"n": 1})
        config = at("t", "", new_id())
        for verb in (
            lambda: saver.aget_tuple(config),
            lambda: saver.aput(config, made, metadata(), {"n": 1}),
            lambda: saver.aput_writes(config, [("n", 1)], "task"),
            lambda: saver.adelete_thread("t"),
            lambda: saver.aping(),
        ):
            with pytest.raises(ServerUnavailableError):
                await verb()


def start(folder: pathlib.Path, *options: str) -> subprocess.Popen[bytes]:
    """A bare redis-server on a socket in `folder`."""
    with EmbeddedServer.start() as other, redis.Redis.from_url(other.url) as client:
        program = shutil.which("redis-server") or client.info("server")["executable"]
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(folder / "s"), "--save", "", "--dir", str(folder), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + WAIT
    with redis.Redis(unix_socket_path=str(folder / "s"), retry=None) as client:
        while True:  # the socket is there before somebody listens
            try:
                client.ping()
                return process
            except redis.ConnectionError:
                assert time.monotonic() < limit
                assert process.poll() is None
                time.sleep(0.005)


@pytest.mark.skipif(sys.platform == "win32", reason="unix sockets")
def test_a_saver_works_again_when_its_server_is_back(tmp_path: pathlib.Path) -> None:
    folder = pathlib.Path(os.path.realpath(tmp_path))
    saver = RedisSaver(f"unix://{folder}/s", redis_options={"retry": None})
    with saver:
        with pytest.raises(ServerUnavailableError):
            saver.get_tuple(at("t"))
        for _ in range(2):
            process = start(folder)
            try:
                assert saver.get_tuple(at("t")) is None
                made = put(saver, at("t"), {"n": 1})
                assert saver.get_tuple(made) is not None
            finally:
                process.kill()
                process.wait()
                (folder / "s").unlink(missing_ok=True)
            for verb in (lambda: saver.get_tuple(at("t")), lambda: put(saver, at("t"), {"n": 1})):
                with pytest.raises(ServerUnavailableError, match="no answer"):
                    verb()


def test_a_wrong_password_is_refused_and_the_right_one_works(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin:
        saver = RedisSaver(own_server.url, redis_options={"retry": None})
        with saver:
            config = put(saver, at("t"), {"n": 1})
            admin.config_set("requirepass", "right")
            saver.client.connection_pool.disconnect()
            for verb in reads_and_writes(saver, config):
                # a server that hangs up on a command it will not read may be heard as a connection that was reset
                with pytest.raises((ServerRefusedError, ServerUnavailableError)):
                    verb()
            wrong = own_server.url.replace("unix://", "unix://:wrong@")
            with RedisSaver(wrong) as other, pytest.raises(ServerRefusedError, match="password") as caught:
                other.get_tuple(config)
            assert "wrong@" not in str(caught.value)
            with RedisSaver(own_server.url.replace("unix://", "unix://:right@")) as other:
                assert other.get_tuple(config) is not None
            admin.config_set("requirepass", "")
            assert saver.get_tuple(config) is not None
            put(saver, config, {"n": 2})


def test_a_missing_password_is_named_whatever_the_length_of_the_command(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url) as saver:
        config = put(saver, at("t"), {"n": 1})
        admin.config_set("requirepass", "right")
        saver.client.connection_pool.disconnect()
        for verb in reads_and_writes(saver, config):
            with pytest.raises(ServerRefusedError, match="password"):
                verb()


def test_a_user_without_the_right_is_refused(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url) as saver:
        config = put(saver, at("t"), {"n": 1})
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+evalsha", "+eval", "+time")
        with RedisSaver(own_server.url.replace("unix://", "unix://reader:pw@")) as limited:
            assert limited.get_tuple(config) is not None
            with pytest.raises(ServerRefusedError):
                put(limited, config, {"n": 2})
            assert len(list(limited.list(at("t")))) == 1
            admin.execute_command("ACL", "SETUSER", "reader", "+@all")
            put(limited, config, {"n": 2})


def test_a_read_only_replica_reads_and_refuses_to_write(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url, ttl=3600) as saver:
        config = put(saver, at("t"), {"n": 1})
        saver.put_writes(config, [("w", 1)], "task")
        put(saver, at("gone", ttl=0.02), {"n": 1})
        limit = time.monotonic() + WAIT
        while saver.get_tuple(at("gone")) is not None:
            assert time.monotonic() < limit
            time.sleep(0.05)  # a read counts as use
        admin.config_set("replica-serve-stale-data", "yes")
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert [info.thread_id for info in saver.list_threads()] == ["t"]  # though a replica does not let it tidy up
        assert saver.get_tuple(config).pending_writes == [("task", "w", 1)]
        assert len(list(saver.list(at("t")))) == 1
        for verb in (
            lambda: put(saver, config, {"n": 2}),
            lambda: saver.put_writes(config, [("w", 2)], "other"),
            lambda: saver.delete_thread("t"),
            lambda: saver.copy_thread("t", "copy"),
        ):
            with pytest.raises(ServerRefusedError, match="read-only replica"):
                verb()
        admin.execute_command("REPLICAOF", "NO", "ONE")
        put(saver, config, {"n": 2})
        saver.put_writes(config, [("w", 2)], "other")
        assert len(list(saver.list(at("t")))) == 2


def test_a_full_server_refuses_writes_and_still_reads_and_deletes(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url, ttl=3600) as saver:
        config = put(saver, at("t"), {"n": 1}, run_id="r")
        last = put(saver, config, {"n": 2}, run_id="r2")
        other = put(saver, at("other"), {"n": 1})
        third = put(saver, at("third"), {"n": 1}, run_id="r3")
        with RedisSaver(own_server.url, ttl=36_000) as longer:
            admin.config_set("maxmemory", "1")
            before = admin.dbsize()
            for verb in (
                lambda: put(saver, last, {"n": 3}),
                lambda: put(saver, at("new"), {"n": 3}),
                lambda: saver.put_writes(last, [("w", 1)], "task"),
                lambda: saver.copy_thread("t", "copy"),
                lambda: put(saver, last, {"big": os.urandom(5_000_000)}),
            ):
                with pytest.raises(ServerRefusedError, match="memory is full"):
                    verb()
            assert admin.dbsize() == before
            assert saver.get_tuple(last).checkpoint["channel_values"] == {"n": 2}
            assert longer.get_tuple(last) is not None  # its TTL is due for a refresh, which takes memory
            assert len(list(longer.list(at("other")))) == 1
            saver.prune(["t"])
            saver.delete_for_runs(["r3"])
            saver.delete_thread("other")
            assert saver.get_tuple(config) is None
            assert saver.get_tuple(other) is None
            assert saver.get_tuple(third) is None
            admin.config_set("maxmemory", "0")
        put(saver, last, {"n": 3})
        saver.put_writes(last, [("w", 1)], "task")
        assert saver.get_tuple(last).pending_writes == [("task", "w", 1)]


def test_a_server_without_enough_replicas_refuses_and_then_works(own_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url, redis_options={"retry": None}) as saver:
        config = put(saver, at("t"), {"n": 1})
        admin.config_set("min-replicas-to-write", "1")
        with pytest.raises(ServerRefusedError, match="NOREPLICAS"):
            put(saver, config, {"n": 2})
        assert saver.get_tuple(config) is not None
        admin.config_set("min-replicas-to-write", "0")
        put(saver, config, {"n": 2})


def test_a_server_that_stops_answering_is_unavailable_in_time(own_server: EmbeddedServer) -> None:
    options = {"retry": None, "socket_timeout": 0.1}
    with redis.Redis.from_url(own_server.url) as admin, RedisSaver(own_server.url, redis_options=options) as saver:
        config = put(saver, at("t"), {"n": 1})
        admin.execute_command("CLIENT", "PAUSE", "1000", "ALL")
        begun = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="no answer"):
            saver.get_tuple(config)
        assert time.monotonic() - begun < 1
        admin.ping()  # waits until the pause is over
        assert saver.get_tuple(config).checkpoint["channel_values"] == {"n": 1}
        put(saver, config, {"n": 2})


def test_a_closed_saver_says_so_whatever_is_asked(url: str, prefix: str) -> None:
    saver = RedisSaver(url, prefix=prefix)
    config = put(saver, at("t"), {"n": 1})
    saver.close()
    for verb in reads_and_writes(saver, config):
        with pytest.raises(SaverClosedError, match="closed"):
            verb()
