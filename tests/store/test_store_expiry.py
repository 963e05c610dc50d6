"""Items that expire: TTLs in minutes, refreshed by reads; what expired is gone for every reader, and memory becomes free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from keeping import Make
from langgraph.store.base import GetOp, SearchOp

from langgraph_redis_state import RedisStore
from langgraph_redis_state.store import items

HERE = ("users", "ada")


@pytest.fixture
def left(raw: Any, prefix: str) -> Callable[[str], float | None]:
    """How many ms an item has left; None: it never expires."""

    def tell(key: str) -> float | None:
        moment = raw.zscore(items.bucket_keys(prefix, items.bucket_of(HERE))[2], items.field_name(HERE, key))
        seconds, micros = raw.time()
        return None if moment is None else moment - seconds * 1000 - micros / 1000

    return tell


def test_ttls_are_those_of_the_put_or_of_the_store(make: Make, left: Any) -> None:
    store = make(ttl={"default_ttl": 10})
    store.put(HERE, "default", {})
    store.put(HERE, "own", {}, ttl=0.5)
    store.put(HERE, "never", {}, ttl=None)
    assert 590_000 < left("default") <= 600_000
    assert 25_000 < left("own") <= 30_000
    assert left("never") is None
    store.put(HERE, "own", {}, ttl=None)  # the last write decides
    assert left("own") is None
    make().put(HERE, "default", {})
    assert left("default") is None


async def test_what_expired_is_gone_for_every_reader(either: Any, expire: Any, raw: Any, prefix: str) -> None:
    for key in ("stays", "goes"):
        await either.put(HERE, key, {}, ttl=1)
    await either.put(("users", "bob"), "goes", {}, ttl=1)
    first = await either.get(HERE, "goes")
    expire(HERE, "goes")
    expire(("users", "bob"), "goes")
    assert await either.get(HERE, "goes") is None
    for prefix_ in ((), ("users",), HERE):
        assert [item.key for item in await either.search(prefix_, filter={"x": None})] == ["stays"]
        assert [item.key for item in await either.search(prefix_, limit=1)] == ["stays"]
    assert await either.list_namespaces() == [HERE]
    await either.put(HERE, "goes", {"new": 1})
    again = await either.get(HERE, "goes")
    assert again.created_at == again.updated_at > first.created_at  # another item
    assert await either.sweep_ttl() == 1
    assert await either.sweep_ttl() == 0


@pytest.mark.parametrize("way", ["get", "search", "filter"])
def test_a_read_refreshes_what_it_returns_when_a_tenth_of_the_ttl_is_over(make: Make, expire: Any, left: Any, way: str) -> None:
    store = make(ttl={"default_ttl": 1})
    read: dict[str, Callable[..., Any]] = {
        "get": lambda **options: store.get(HERE, "a", **options),
        "search": lambda **options: store.search(HERE, limit=1, **options),
        "filter": lambda **options: store.search(("users",), filter={"n": 1}, **options),
    }
    store.put(HERE, "b", {"n": 2})
    store.put(HERE, "a", {"n": 1})
    for key in "ab":
        expire(HERE, key, 30_000)
    assert read[way](refresh_ttl=False)
    assert left("a") <= 30_000
    assert read[way]()
    assert left("a") > 55_000
    assert left("b") <= 30_000
    expire(HERE, "a", 57_000)
    assert read[way](refresh_ttl=True)
    assert left("a") <= 57_000


def test_a_store_may_leave_ttls_alone_when_it_reads(make: Make, expire: Any, left: Any) -> None:
    store = make(ttl={"default_ttl": 1, "refresh_on_read": False})
    store.put(HERE, "a", {})
    expire(HERE, "a", 10_000)
    assert store.get(HERE, "a")
    assert store.search(HERE)
    assert store.batch([GetOp(HERE, "a", refresh_ttl=False), SearchOp(HERE, refresh_ttl=False)])
    assert left("a") <= 10_000
    assert store.get(HERE, "a", refresh_ttl=True)
    assert left("a") > 50_000


def test_a_moment_of_expiry_that_was_lost_is_set_anew_by_a_read(memories: RedisStore, raw: Any, prefix: str, left: Any) -> None:
    memories.put(HERE, "a", {}, ttl=1)
    raw.delete(items.bucket_keys(prefix, items.bucket_of(HERE))[2])
    assert memories.get(HERE, "a")
    assert left("a") > 50_000


def test_each_write_removes_some_that_expired(memories: RedisStore, expire: Any, raw: Any, prefix: str) -> None:
    kept, order, expires, _ = items.bucket_keys(prefix, items.bucket_of(HERE))
    for n in range(30):
        memories.put(HERE, f"{n}", {}, ttl=1)
    memories.put(HERE, "stays", {})
    for n in range(30):
        expire(HERE, f"{n}")
    memories.put(HERE, "stays", {})
    assert (raw.hlen(kept), raw.zcard(order), raw.zcard(expires)) == (11, 11, 10)
    memories.delete(HERE, "stays")
    assert raw.exists(kept, order, expires) == 0


def test_writes_sweep_buckets_in_which_nobody_writes(make: Make, expire: Any, raw: Any, prefix: str) -> None:
    store = make(ttl={"sweep_interval_minutes": 0.001})
    store.put(HERE, "a", {}, ttl=1)
    expire(HERE, "a")
    elsewhere = next(("other", f"{n}") for n in range(100) if items.bucket_of(("other", f"{n}")) != items.bucket_of(HERE))
    for n in range(200):
        store.put(elsewhere, f"{n}", {})
        if not raw.exists(*items.bucket_keys(prefix, items.bucket_of(HERE))):
            break
    else:
        pytest.fail("the item that expired is still there")


def test_a_bucket_whose_items_all_expire_frees_its_memory_by_itself(memories: RedisStore, raw: Any, prefix: str) -> None:
    keys = items.bucket_keys(prefix, items.bucket_of(HERE))[:3]
    memories.put(HERE, "a", {}, ttl=1)
    day = 24 * 3600 * 1000
    assert all(day < raw.pttl(key) <= day + 60_000 for key in keys)
    memories.put(HERE, "b", {})
    assert [raw.pttl(key) for key in keys] == [-1] * 3
    memories.delete(HERE, "b")

    assert all(day < raw.pttl(key) <= day + 60_000 for key in keys)
    memories.put(HERE, "a", {}, ttl=60 * 24 * 10)
    assert all(10 * day < raw.pttl(key) for key in keys)
