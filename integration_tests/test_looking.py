"""Savers that only read, on every server there is, and with users who may only read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import LOOKING_RIGHTS, Servers
from servers import restricted
from shapes import SyncSurface, at, id_of, put

from langgraph_redis_state import InvalidConfigError, RedisSaver, ServerRefusedError


async def written(saver: RedisSaver) -> Any:
    first = await put(SyncSurface(saver), at("t"), {"x": 1, "big": "y" * 3000})
    config = await put(SyncSurface(saver), first, {"x": 2, "big": "y" * 4000})
    saver.put_writes(config, [("x", 3)], "task")
    saver.tag("t", "there", id_of(first))
    return config


async def look(saver: RedisSaver, config: Any) -> None:
    for tup in (saver.get_tuple(at("t")), await saver.aget_tuple(at("t"))):
        assert tup is not None
        assert tup.checkpoint["channel_values"] == {"x": 2, "big": "y" * 4000}
    assert len(list(saver.list(at("t")))) == len([tup async for tup in saver.alist(at("t"))]) == 2
    assert [head.checkpoint_id for head in saver.heads(["t"])] == [id_of(config)]
    assert [write.value for write in saver.writes("t")] == [3]
    assert [version.tags for version in saver.history("t")] == [(), ("there",)]
    assert saver.diff("t", "there", id_of(config)).keys() == {"x", "big"}
    assert [info.thread_id for info in saver.list_threads()] == ["t"]
    assert list(saver.verify("t")) == []


async def test_a_saver_that_only_reads_sees_all_and_writes_nothing(make: Callable[..., RedisSaver]) -> None:
    config = await written(make(ttl=3600))
    saver = make(ttl=3600, read_only=True)
    await look(saver, config)
    with pytest.raises(InvalidConfigError, match="read_only"):
        saver.delete_thread("t")
    lacking = saver.rights()  # from Redis 7.0 on its scripts may run no command that writes
    assert (lacking["look"], lacking["verify"]) == ({}, {})


async def test_a_user_who_may_only_read_keys_can_look_and_nothing_else(servers: Servers, prefix: str) -> None:
    server = servers.single("redis:8.0")
    with RedisSaver(server.url_for(prefix), prefix=prefix, redis_options=server.options) as whole:
        config = await written(whole)
    limited = restricted(server, LOOKING_RIGHTS, "looking")
    with RedisSaver(limited.url_for(prefix), prefix=prefix, redis_options=limited.options, read_only=True) as saver:
        await look(saver, config)
    with RedisSaver(limited.url_for(prefix), prefix=prefix, redis_options=limited.options) as saver:
        with pytest.raises(ServerRefusedError):
            saver.get_tuple(at("t"))
        with pytest.raises(ServerRefusedError):
            saver.delete_thread("t")
