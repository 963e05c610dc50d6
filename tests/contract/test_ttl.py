"""TTL: a thread expires as a whole, and use renews it."""

from __future__ import annotations

from typing import Any

import pytest
from exercise import BIG
from shapes import SyncSurface, at, ids, listed, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys


def keys_of(client: Any, prefix: str) -> list[bytes]:
    return sorted(client.scan_iter(match=f"{prefix}:*", count=10_000))


def data_keys_of(client: Any, prefix: str, thread: str) -> list[bytes]:
    """The hash and the sorted set of a thread (layout v1)."""
    return [key for key in ThreadKeys(prefix, thread.encode()).all[:2] if client.exists(key)]


@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_a_write_renews_the_whole_thread_so_that_no_old_part_expires_under_it(
    url: str, prefix: str, raw: Any, surface: str
) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=100) as opened:
        saver: Any = opened if surface == "async" else SyncSurface(opened)
        first = await put(saver, at("t"), {"old": BIG})
        for renew in (
            lambda: put(saver, first, {"new": 1}),
            lambda: saver.aput_writes(first, [("x", 1)], "task"),
            lambda: put(saver, at("t", "child:1"), {"x": 1}),
        ):
            keys = data_keys_of(raw, prefix, "t")
            assert len(keys) == 2
            for key in keys:
                raw.pexpire(key, 5_000)
            await renew()
            left = [raw.pttl(key) for key in keys]
            assert all(90_000 < ms <= 100_000 for ms in left), left
            assert abs(left[0] - left[1]) < 500
        assert (await saver.aget_tuple(first)).checkpoint["channel_values"] == {"old": BIG}


@pytest.mark.parametrize("surface", ["sync", "async"])
@pytest.mark.parametrize("refresh", [True, False])
async def test_reading_renews_a_thread_unless_told_not_to(url: str, prefix: str, raw: Any, refresh: bool, surface: str) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=100, refresh_ttl_on_read=refresh) as opened:
        saver: Any = opened if surface == "async" else SyncSurface(opened)
        await put(saver, at("t"), {"x": 1})
        keys = data_keys_of(raw, prefix, "t")
        for key in keys:
            raw.pexpire(key, 50_000)
        await saver.aget_tuple(at("t"))
        left = [raw.pttl(key) for key in keys]
        assert [ms > 50_000 for ms in left] == [refresh] * 2


async def test_a_thread_that_expired_is_simply_not_there(url: str, prefix: str, raw: Any) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=100) as saver:
        old = await put(saver, at("t"), {"x": 1}, run_id="r")
        await put(saver, at("other"), {"x": 2})
        for key in data_keys_of(raw, prefix, "t"):
            raw.pexpireat(key, 1)
        assert await saver.aget_tuple(at("t")) is None
        assert [t.checkpoint["channel_values"] for t in await listed(saver, None)] == [{"x": 2}]
        await saver.adelete_for_runs(["r"])
        await put(saver, at("t"), {"x": 3})
        assert await ids(saver, old) == []
        assert (await saver.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": 3}


async def test_without_a_ttl_nothing_expires(either: Any, prefix: str, raw: Any) -> None:
    config = await put(either, at("t"), {"x": BIG})
    await either.aput_writes(config, [("x", 1)], "task")
    await either.aget_tuple(config)
    assert [raw.pttl(key) for key in keys_of(raw, prefix)] == [-1] * len(keys_of(raw, prefix))
