"""The keys of a thread expire at one moment, and the indexes of its bucket follow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from audit import WAIT, audit, put
from shapes import at, expiries, new_id, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys, bucket_of, run_entry


def left(raw: Any, prefix: str, thread: str) -> int:
    """ms left of a thread; its two keys have the same, to the millisecond."""
    keys = ThreadKeys(prefix, thread.encode())
    first, second, now = expiries(raw, *keys.all[:2])
    assert first == second, "the two keys of the thread expire at different moments"
    score = raw.zscore(keys.all[3], keys.name)
    if first > 0:
        assert score == first, "the bucket's index says another moment"
    return first - now if first > 0 else first


def test_the_two_keys_of_a_thread_expire_at_one_moment_after_every_write(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, ttl=100) as saver, RedisSaver(url, prefix=prefix, ttl=1_000) as longer:
        config = put(saver, at("t"), {"n": 1})
        assert 99_000 < left(raw, prefix, "t") <= 100_000
        longer.put_writes(config, [("w", 1)], "task")
        assert 999_000 < left(raw, prefix, "t") <= 1_000_000
        put(saver, config, {"n": 2})
        assert 99_000 < left(raw, prefix, "t") <= 100_000
        longer.get_tuple(at("t"))
        assert 999_000 < left(raw, prefix, "t") <= 1_000_000
        saver.get_tuple(at("t"))  # enough is left
        assert 999_000 < left(raw, prefix, "t") <= 1_000_000
        saver.copy_thread("t", "copy")
        assert 99_000 < left(raw, prefix, "copy") <= 100_000
        list(longer.list(at("copy")))
        assert 999_000 < left(raw, prefix, "copy") <= 1_000_000
        saver.prune(["t"])
        left(raw, prefix, "t")


def test_an_index_that_was_evicted_comes_back_with_the_expiry_of_its_hash(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1_000) as saver:
        config = put(saver, at("t"), {"n": 1})
        fields = {b"C\0%08d" % n: b"x" for n in range(20_000)}  # so many that writing the index takes milliseconds
        raw.hset(ThreadKeys(prefix, b"t").all[0], mapping=fields)
        raw.delete(ThreadKeys(prefix, b"t").all[1])
        assert saver.get_tuple(config) is not None
        assert raw.zcard(ThreadKeys(prefix, b"t").all[1]) == 20_001
        assert 990_000 < left(raw, prefix, "t") <= 1_000_000


def test_writes_before_the_first_checkpoint_expire_with_it(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, ttl=100) as saver:
        saver.put_writes(at("t", "", new_id()), [("w", 1)], "task")
        assert 99_000 < raw.pttl(ThreadKeys(prefix, b"t").hash) <= 100_000
        put(saver, at("t"), {"n": 1})
        assert 99_000 < left(raw, prefix, "t") <= 100_000


def test_a_thread_in_use_outlives_its_ttl_with_every_channel(url: str, raw: Any, prefix: str) -> None:
    old = [words("old", 400)] * 3
    with RedisSaver(url, prefix=prefix, ttl=1.5) as saver:
        config = put(saver, at("t"), {"old": old, "n": 0})
        begun, n = time.monotonic(), 0
        while time.monotonic() < begun + 2.0:
            time.sleep(0.02)
            n += 1
            config = put(saver, config, {"old": old, "n": n}, ["n"])
            if n % 3 == 0:
                assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"old": old, "n": n}
        assert len(list(saver.list(at("t"), limit=20))) == min(20, n + 1)
        audit(raw, prefix, "t", clean=True)


def same_bucket(thread: str, count: int) -> list[str]:
    bucket = bucket_of(thread.encode())
    found: list[str] = []
    n = 0
    while len(found) < count:
        if bucket_of(f"n{n}".encode()) == bucket:
            found.append(f"n{n}")
        n += 1
    return found


def until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


def test_what_expired_disappears_from_the_indexes_of_its_bucket(url: str, raw: Any, prefix: str) -> None:
    others = same_bucket("t", 4)
    with RedisSaver(url, prefix=prefix, ttl=0.03) as brief, RedisSaver(url, prefix=prefix) as saver:
        for thread in others:
            put(brief, at(thread), {"n": 1}, run_id=f"run of {thread}")
        until(lambda: raw.exists(*(ThreadKeys(prefix, thread.encode()).hash for thread in others)) == 0)
        config = put(saver, at("t"), {"n": 1}, run_id="run of t")
        put(saver, config, {"n": 2}, run_id="run of t")
        keys = ThreadKeys(prefix, b"t")
        assert raw.zrange(keys.all[2], 0, -1) == [keys.name]
        assert raw.zrange(keys.all[3], 0, -1) == []
        run = run_entry(keys.names.run(b"run of t"))
        assert raw.zrange(keys.all[4], 0, -1) == [b"R" + run + b"\0" + keys.name, b"T" + keys.name + b"\0" + run]


def test_a_thread_that_expired_and_came_back_without_ttl_is_not_forgotten(url: str, raw: Any, prefix: str) -> None:
    (other,) = same_bucket("t", 1)
    with RedisSaver(url, prefix=prefix, ttl=0.03) as brief, RedisSaver(url, prefix=prefix) as saver:
        put(brief, at("t"), {"n": 1}, run_id="old run")
        until(lambda: raw.exists(ThreadKeys(prefix, b"t").hash) == 0)
        put(saver, at("t"), {"n": 2}, run_id="new run")
        put(saver, at(other), {"n": 1})
        put(saver, at(other), {"n": 1})
        assert {found.config["configurable"]["thread_id"] for found in saver.list(None)} == {"t", other}
        saver.delete_for_runs(["old run"])
        assert saver.get_tuple(at("t")) is not None
        saver.delete_for_runs(["new run"])
        assert saver.get_tuple(at("t")) is None
