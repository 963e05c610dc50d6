"""How long threads and the keys of their buckets live, as the server says it, for tests of TTLs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from shapes import at, checkpoint, expiries, id_of, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys

INDEXES = ("threads", "expiry", "runs", "m")


def left(raw: Any, prefix: str, thread: str = "t") -> float | None:
    """Seconds until a thread expires, by both keys and by its bucket; None: never."""
    keys = ThreadKeys(prefix, thread.encode())
    first, second, now = expiries(raw, *keys.all[:2])
    assert first != -2, "there is no such thread"
    assert second in (first, -2)  # writes whose checkpoint has not come have no index
    assert raw.zscore(keys.all[3], keys.name) == (None if first == -1 else first)
    return None if first == -1 else (first - now) / 1000


def gone(raw: Any, prefix: str, thread: str = "t") -> bool:
    """Whether a thread expired: looking at it like this does not count as use."""
    return not raw.exists(*ThreadKeys(prefix, thread.encode()).all[:2])


def bucket(raw: Any, prefix: str, thread: str = "t") -> dict[str, int]:
    """The moment in ms at which each key of the thread's bucket expires; -1: never. Keys that are not there are left out."""
    *moments, _ = expiries(raw, *ThreadKeys(prefix, thread.encode()).all[2:6])
    return {name: moment for name, moment in zip(INDEXES, moments, strict=True) if moment != -2}


def check_bucket(raw: Any, prefix: str, thread: str = "t", slack: int = 86_400_000) -> None:
    """No key of the bucket expires before a thread in it, and if all threads expire, none later than `slack` ms after them."""
    keys = ThreadKeys(prefix, thread.encode())
    threads = [keys.names.thread_of(name).decode() for name in raw.zrange(keys.all[2], 0, -1)]
    of_threads = [expiries(raw, ThreadKeys(prefix, name.encode()).hash)[0] for name in threads]
    for name, moment in bucket(raw, prefix, thread).items():
        if -1 in of_threads:
            assert moment == -1, (name, threads, of_threads)
        elif max(of_threads, default=-2) > 0:
            # a script of Redis 6.2 reads what is left by a clock that goes on meanwhile
            assert max(of_threads) <= moment <= max(of_threads) + slack + 50, (name, moment, of_threads)
    assert len(set(bucket(raw, prefix, thread).values())) <= 1


def neighbours(prefix: str, many: int, of: str = "t") -> list[str]:
    """Threads that are in the same bucket as `of`, which is the first."""
    base = ThreadKeys(prefix, of.encode()).base
    found: Iterator[str] = (name for name in map(str, count()) if ThreadKeys(prefix, name.encode()).base == base)
    return [of, *(next(found) for _ in range(many - 1))]


def put(saver: RedisSaver, thread: str = "t", parent: str | None = None, **configurable: Any) -> str:
    """A checkpoint with a run and a user, so that all indexes of the bucket name the thread."""
    made = checkpoint({"x": 1})
    config = {**at(thread, "", parent, **configurable), "metadata": {"run_id": f"run of {thread}"}}
    return id_of(saver.put(config, made, metadata(user=f"{thread}@example.org"), made["channel_versions"]))


def traces(raw: Any, prefix: str, threads: Sequence[str]) -> list[bytes]:
    """Every key and member under the prefix that names one of these threads."""
    wanted = [ThreadKeys(prefix, name.encode()).name for name in threads]
    found = []
    for key in raw.scan_iter(match=f"{prefix}:*", count=10_000):
        members = raw.zrange(key, 0, -1) if raw.type(key) == b"zset" else []
        found += [text for text in (key, *members) if any(name in text for name in wanted)]
    return found


def wait(until: Callable[[], Any], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
