"""`stats`: counts of a thread, and of all."""

from __future__ import annotations

import os
from typing import Any

import pytest
from shapes import at, checkpoint, id_of, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ThreadNotFoundError
from langgraph_redis_state.storage.keys import ThreadKeys


def put(saver: RedisSaver, values: dict[str, Any] | None = None, parent: str | None = None, ns: str = "", **more: Any) -> str:
    made = checkpoint(values)
    return id_of(saver.put(at("t", ns, parent), made, metadata(**more), made["channel_versions"]))


async def test_stats_count_a_thread_and_all(saver: RedisSaver, asaver: RedisSaver, raw: Any, prefix: str) -> None:
    with pytest.raises(ThreadNotFoundError):
        saver.stats("t")
    assert saver.stats().threads == 0
    big = [f"{n}: {os.urandom(20).hex()}" for n in range(1_000)]
    a = put(saver, {"x": big})
    put(saver, {"x": [*big, "more"]}, a)
    saver.put_writes(at("t", "", a), [("x", big), ("y", 1)], "task")
    saver.tag("t", "name")
    stats = saver.stats("t")
    fields = raw.hgetall(ThreadKeys(prefix, b"t").hash)
    counted = {name: content for name, content in fields.items() if name[:1] not in b"STO"}
    assert (stats.threads, stats.checkpoints, stats.writes) == (1, 2, 2)
    assert stats.chunks == sum(name[:1] == b"D" for name in fields)
    assert stats.stored_bytes == sum(len(name) + len(content) for name, content in counted.items())
    assert stats.logical_bytes > 3 * 1_000 * 40
    assert stats.ratio == stats.logical_bytes / stats.stored_bytes > 2
    assert stats.server is None
    saver.copy_thread("t", "u")
    put(saver, {"x": 1}, None)
    both = saver.stats()
    assert (await asaver.astats()).stored_bytes == both.stored_bytes
    assert await asaver.astats("t") == saver.stats("t")
    assert both.threads == 2
    assert both.checkpoints == saver.stats("t").checkpoints + saver.stats("u").checkpoints == 5
    assert both.stored_bytes == saver.stats("t").stored_bytes + saver.stats("u").stored_bytes
    assert both.server["used_memory"] > 0


def test_stats_shrink_with_what_is_removed(saver: RedisSaver) -> None:
    a = put(saver, {"x": [os.urandom(20).hex() for _ in range(1_000)]})
    b = put(saver, {"x": 1}, a)
    full = saver.stats("t")
    saver.prune(["t"])
    left = saver.stats("t")
    assert (left.checkpoints, left.chunks) == (1, 0)
    assert left.stored_bytes < full.stored_bytes / 20
    assert [each.checkpoint_id for each in saver.history("t")] == [b]


def test_stats_say_what_share_was_deduplicated(saver: RedisSaver) -> None:
    words = [os.urandom(20).hex() for _ in range(1_000)]
    a = put(saver, {"x": words})
    put(saver, {"x": words, "y": words}, a)
    assert 0.5 < saver.stats("t").dedup_share < 0.7
