"""A server that answers and says no: a replica, a wrong password, a missing right, full memory."""

from __future__ import annotations

import os
from typing import Any

import pytest
from calls import BIG, Open, every_method
from conftest import IMAGES, RIGHTS, Servers
from servers import Server, single
from shapes import at, id_of, ids, listed, new_id, plain, put

from langgraph_redis_state.errors import ServerRefusedError, ThreadDeletedError
from langgraph_redis_state.storage.keys import ThreadKeys


async def test_a_replica_is_read_and_refuses_to_be_written(servers: Servers, open_on: Open) -> None:
    watched = servers.sentinel()
    primary = await open_on(watched.server.url)
    config = await put(primary, at("t"), {"x": BIG}, run_id="r")
    await primary.aput_writes(config, [("x", [*BIG, 1])], "task")
    await put(primary, at("t", "child:1"), {"x": 1}, run_id="r")
    written = [plain(found) for found in await listed(primary, at("t", None))]
    for url in watched.replicas:
        watched.server.admin.wait(2, 5_000)
        saver = await open_on(url)
        assert plain(await saver.aget_tuple(at("t"))) == written[1]
        assert [plain(found) for found in await listed(saver, at("t", None))] == written
        assert len(await listed(saver, None)) == 2
        assert (await saver.aget_delta_channel_history(config=config, channels=["x"]))["x"] == {"writes": []}
        for name in ("put", "put_writes", "delete_thread", "delete_for_runs", "copy_thread", "prune"):
            if name != "prune":  # finds nothing to remove, so it refuses nothing
                with pytest.raises(ServerRefusedError, match="replica"):
                    await every_method(saver)[name]()
        assert [plain(found) for found in await listed(saver, at("t", None))] == written


async def test_a_replica_is_read_also_when_the_time_to_live_would_be_renewed(
    servers: Servers, open_on: Open, prefix: str
) -> None:
    watched = servers.sentinel()
    primary = await open_on(watched.server.url, ttl=100)
    await put(primary, at("t"), {"x": 1})
    expected = plain(await primary.aget_tuple(at("t")))
    for key in ThreadKeys(prefix, b"t").all[:2]:
        watched.server.admin.pexpire(key, 50_000)
    watched.server.admin.wait(2, 5_000)
    for url in watched.replicas:
        saver = await open_on(url, ttl=100)
        assert plain(await saver.aget_tuple(at("t"))) == expected
        assert [plain(found) for found in await listed(saver, at("t"))] == [expected]


@pytest.mark.parametrize("topology", ["redis:6.2", "redis:8.0", "valkey/valkey:8.1", "sentinel", "cluster"])
async def test_a_wrong_password_is_a_refusal(servers: Servers, open_on: Open, prefix: str, topology: str) -> None:
    server = servers.target(f"{topology}-resp2")
    for node in (*server.primaries, *server.replicas):
        node.execute_command("ACL", "SETUSER", prefix, "on", ">right", "~*", "+@all")
    scheme, _, hosts = server.url.partition("://")
    right = await open_on(f"{scheme}://{prefix}:right@{hosts}")
    await put(right, at("t"), {"x": 1})
    for login in (f"{prefix}:wrong", f"nobody-{prefix}:right", ":wrong"):
        if login == ":wrong" and server.admin.acl_getuser("default")["flags"].count("nopass"):
            continue  # the default user takes any password
        saver = await open_on(f"{scheme}://{login}@{hosts}")
        for name in ("get_tuple", "list(None)", "put"):
            with pytest.raises(ServerRefusedError, match="password") as refused:
                await every_method(saver)[name]()
            assert "wrong" not in str(refused.value).replace("WRONGPASS", "")


@pytest.mark.parametrize("image", IMAGES)
async def test_a_missing_right_is_a_refusal(servers: Servers, open_on: Open, prefix: str, image: str) -> None:
    server = servers.single(image)
    user = ("ACL", "SETUSER", prefix, "reset", "on", ">pass", *RIGHTS.replace("prefix", prefix).split())
    url = server.url.replace("://", f"://{prefix}:pass@")
    server.admin.execute_command(*user)
    saver = await open_on(url)
    config = await put(saver, at("t"), {"x": 1})
    for missing in ("-hset", "-zadd", "-hmget", "-time", "-evalsha -eval"):
        server.admin.execute_command(*user, *missing.split())
        with pytest.raises(ServerRefusedError, match="rights"):
            await put(saver, config, {"x": 2})
    server.admin.execute_command(*user, "resetkeys", "~other:*")
    with pytest.raises(ServerRefusedError, match="rights"):
        await put(saver, config, {"x": 2})
    with pytest.raises(ServerRefusedError, match="rights"):
        await saver.aget_tuple(config)
    server.admin.execute_command(*user)
    assert await ids(saver, at("t")) == [id_of(config)]


def contents(server: Server, prefix: str) -> dict[bytes, Any]:
    """All that is stored under a prefix, without times."""
    found: dict[bytes, Any] = {}
    for key in server.keys(prefix):
        kind = server.admin.type(key)
        if kind == b"hash":
            found[key] = server.admin.hgetall(key)
        elif kind == b"zset":
            found[key] = list(server.admin.zrange(key, 0, -1))
        else:
            found[key] = server.admin.get(key)
    return found


@pytest.mark.parametrize("image", IMAGES)
async def test_a_full_server_refuses_to_be_written_and_can_be_emptied(image: str, open_on: Open, prefix: str) -> None:
    with single(image, "--save", "", "--maxmemory-policy", "noeviction") as (server, _):
        saver = await open_on(server.url)
        threads = [f"thread {n}" for n in range(4)]
        for thread in threads:
            config = at(thread)
            for n in range(4):
                config = await put(saver, config, {"x": os.urandom(1_000_000)}, run_id=f"{thread} {n}")
        await saver.aput_writes(config, [("x", 1)], "task")
        before = contents(server, prefix)

        def fill() -> None:
            server.admin.config_set("maxmemory", server.admin.info("memory")["used_memory"] - 500_000)

        fill()
        for write in (
            lambda: put(saver, config, {"x": 1}),
            lambda: put(saver, config, {"x": os.urandom(1_000_000)}),
            lambda: put(saver, config, {"x": os.urandom(6_000_000)}),
            lambda: put(saver, at("new"), {"x": 1}, run_id="new run"),
            lambda: saver.aput_writes(config, [("y", 1)], "another task"),
            lambda: saver.aput_writes(at("new", "", new_id()), [("y", 1)], "another task"),
            lambda: saver.acopy_thread("thread 0", "copy"),
        ):
            with pytest.raises(ServerRefusedError, match="memory is full"):
                await write()
            assert contents(server, prefix) == before
        assert len(await listed(saver, None)) == 16

        await saver.aprune(["thread 0"])
        assert len(await ids(saver, at("thread 0"))) == 1
        fill()
        await saver.adelete_for_runs(["thread 1 0", "thread 1 1"])
        assert len(await ids(saver, at("thread 1"))) == 2
        fill()
        late = (await saver.aget_tuple(at("thread 2"))).config
        await saver.adelete_thread("thread 2")
        assert await saver.aget_tuple(at("thread 2")) is None
        fill()
        await saver.aprune(["thread 1"], strategy="delete")
        assert await saver.aget_tuple(at("thread 1")) is None

        server.admin.config_set("maxmemory", 0)
        child = await put(saver, config, {"x": BIG})
        assert (await saver.aget_tuple(at("thread 3"))).config == child
        with pytest.raises(ThreadDeletedError):  # the tombstone was written, full as it was
            await put(saver, late, {"x": 1})
