"""`verify` finds and `repair` mends what happens to a thread under keys, its names hidden or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from shapes import at, plain
from soak import in_turn
from whole import build, kind_of, told

from langgraph_redis_state import RedisSaver

KEY, NAMES = bytes(range(32)), bytes(range(64, 96))
SAVERS = {
    "encrypted": {"encryption_key": KEY},
    "names hidden": {"encryption_key": KEY, "name_key": NAMES},
    "a key for each thread": {"encryption_key": lambda thread: thread.encode().ljust(32, b".")},
}

Damage = Callable[[Any, Any, Callable[[bytes], list[bytes]]], Any]
"""Given a client, the keys of a thread, and what gives the stored names of its fields of a kind."""

MENDED: dict[str, Damage] = {
    "the index is gone": lambda raw, keys, of: raw.delete(keys.all[1]),
    "an entry of the index is gone": lambda raw, keys, of: raw.zrem(keys.all[1], of(b"C")[0]),
    "a strange entry in the index": lambda raw, keys, of: raw.zadd(keys.all[1], {b"Zoo": 0}),
    "the bucket forgot the thread": lambda raw, keys, of: raw.zrem(keys.all[2], keys.name),
    "the bucket forgot a run": lambda raw, keys, of: raw.zrem(keys.all[4], *raw.zrange(keys.all[4], 0, 0)),
    "the counts are gone": lambda raw, keys, of: raw.hdel(keys.hash, b"S"),
    "the index expires": lambda raw, keys, of: raw.pexpire(keys.all[1], 900_000),
}
DROPPED: dict[str, Damage] = {
    "a chunk is damaged": lambda raw, keys, of: spoil(raw, keys, of(b"D")[0]),
    "a page is gone": lambda raw, keys, of: raw.hdel(keys.hash, of(b"P")[0]),
    "a checkpoint is damaged": lambda raw, keys, of: spoil(raw, keys, of(b"C")[0]),
    "a delta history is damaged": lambda raw, keys, of: spoil(raw, keys, of(b"H")[0]),
    "a tag is damaged": lambda raw, keys, of: spoil(raw, keys, of(b"G")[0]),
    "a segment is damaged": lambda raw, keys, of: spoil(raw, keys, of(b"W segment")[-1]),
    "the directory is gone": lambda raw, keys, of: raw.hdel(keys.hash, of(b"W directory")[0]),
}


def spoil(raw: Any, keys: Any, name: bytes) -> None:
    content = raw.hget(keys.hash, name)
    raw.hset(keys.hash, name, content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(("kind", "name"), in_turn(SAVERS, [*MENDED, *DROPPED]))
def test_a_damage_is_found_and_mended(url: str, prefix: str, raw: Any, kind: str, name: str) -> None:
    with RedisSaver(url, prefix=prefix, cache_bytes=0, **SAVERS[kind]) as saver:
        build(saver, tasks=17)
        keys, truth = saver._engine.address("t").keys, told(saver)

        def of(wanted: bytes) -> list[bytes]:
            return sorted(each for each in raw.hkeys(keys.hash) if kind_of(keys.names.field_of(each)) == wanted)

        {**MENDED, **DROPPED}[name](raw, keys, of)
        findings = list(saver.verify("t"))
        assert findings
        assert {each.thread_id for each in findings} <= {"t", None}
        done = list(saver.repair("t"))
        if name in MENDED:
            assert done
            assert not list(saver.verify("t"))
            assert told(saver) == truth
            return
        assert list(saver.verify("t"))
        assert list(saver.repair("t", drop_unreadable=True))
        left = list(saver.verify("t"))
        assert not [each for each in left if each.kind != "lost"]  # DeltaChannels that nothing can rebuild
        expected = {each["config"]: each for each in truth[3]}
        for found in map(plain, saver.list(at("t", None))):
            whole = expected[found["config"]]
            assert {**found, "writes": None} == {**whole, "writes": None}
            assert all(write in whole["writes"] for write in found["writes"])
