"""A map of bounded size, and its lock after a fork."""

from __future__ import annotations

import os

import pytest

from langgraph_redis_state.caching.bounded import BoundedCache
from langgraph_redis_state.storage import chunks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_map_whose_lock_is_held_at_a_fork_serves_the_child() -> None:
    shared: BoundedCache[str, int] = BoundedCache(1000, lambda key, value: 10)
    with shared.lock:
        child = os.fork()
        if child == 0:
            shared.put("a", 1)
            os._exit(0 if shared.get("a") == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_map_keeps_what_is_used_and_forgets_the_rest() -> None:
    kept: BoundedCache[int, int] = BoundedCache(100, lambda key, value: value)
    kept.put(0, 10)
    for n in range(1, 100):
        kept.put(n, 10)
        assert kept.get(0) == 10
    assert sum(kept.get(n) is not None for n in range(1, 90)) <= 10
    kept.put(1000, 60)
    assert kept.get(1000) is None  # more than half of the whole
    assert chunks.RUN_MAX < chunks.CHUNK_MAX


def test_a_map_counts_what_grew_under_one_name() -> None:
    bounded: BoundedCache[int, bytes] = BoundedCache(1000, lambda key, value: len(value))
    for size in (1, 100):
        for key in range(100):
            bounded.put(key, bytes(size))
    kept = [value for key in range(100) if (value := bounded._young.get(key) or bounded._old.get(key))]
    assert sum(map(len, kept)) <= 1000
    assert bounded.get(99) == bytes(100)


def test_what_is_taken_out_of_a_map_is_not_counted_any_more() -> None:
    bounded: BoundedCache[int, bytes] = BoundedCache(1000, lambda key, value: len(value))
    for n in range(100):
        bounded.put(n % 20, bytes(20))
        assert bounded.take(n % 20) == bytes(20)
        assert bounded.take(n % 20) is bounded.get(n % 20) is None
    assert bounded._bytes == 0
