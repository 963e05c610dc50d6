"""What `BaseStore` promises: get, put, delete, search, list_namespaces, batch; sync and async."""

from __future__ import annotations

import re
import uuid
from datetime import date, datetime, timezone
from typing import Any

import pytest
import redis
from audit import monitored
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, MatchCondition, PutOp, SearchOp

from langgraph_redis_state import (
    AsyncRedisStore,
    CheckpointerError,
    DurabilityError,
    InvalidConfigError,
    RedisSaver,
    RedisStore,
    Replicas,
    SerializationError,
)

ADA = ("users", "ada", "memories")


def names(found: list[Any]) -> list[tuple[tuple[str, ...], str]]:
    return [(item.namespace, item.key) for item in found]


async def test_an_item_is_put_replaced_and_deleted(either: Any) -> None:
    assert await either.get(ADA, "k") is None
    await either.put(ADA, "k", {"n": 1})
    first = await either.get(ADA, "k")
    assert (first.namespace, first.key, first.value) == (ADA, "k", {"n": 1})
    assert first.created_at == first.updated_at
    assert abs((datetime.now(timezone.utc) - first.created_at).total_seconds()) < 60
    await either.put(ADA, "k", {"n": 2})
    second = await either.get(ADA, "k")
    assert second.value == {"n": 2}
    assert second.created_at == first.created_at < second.updated_at
    await either.delete(ADA, "k")
    await either.delete(ADA, "k")
    assert await either.get(ADA, "k") is None
    assert await either.search(ADA) == []
    assert await either.list_namespaces() == []


async def test_values_keep_what_the_serializer_keeps(either: Any) -> None:
    value = {
        "when": datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc),
        "day": date(2026, 1, 2),
        "id": uuid.uuid4(),
        "set": {1, 2},
        "bytes": b"\0\xff",
        "nothing": None,
        "nested": {"list": [1, 2.5, "x", {"deep": True}]},
        "text": "né " * 5_000,
    }
    await either.put(ADA, "k", value)
    assert (await either.get(ADA, "k")).value == value
    await either.put(ADA, "tuple", {"pair": (1, 2)})
    assert (await either.get(ADA, "tuple")).value == {"pair": [1, 2]}


async def test_what_a_caller_changes_later_is_not_stored(either: Any) -> None:
    value = {"list": [1]}
    await either.put(ADA, "k", value)
    value["list"].append(2)
    found = await either.get(ADA, "k")
    found.value["list"].append(3)
    assert (await either.get(ADA, "k")).value == {"list": [1]}


@pytest.mark.parametrize("namespace", [("a.b",), ("a\0b",), ("a", ""), ("a", 1)])
async def test_labels_that_the_contract_refuses_are_refused_before_anything_is_sent(either: Any, namespace: Any) -> None:
    ops: list[Any] = [GetOp(namespace, "k"), PutOp(namespace, "k", {}), PutOp(namespace, "k", None), SearchOp(namespace)]
    ops += [ListNamespacesOp((MatchCondition(kind, namespace),)) for kind in ("prefix", "suffix")]
    for op in ops:
        with pytest.raises(InvalidNamespaceError):
            await either.batch([PutOp(("valid",), "k", {}), op])
    assert await either.get(("valid",), "k") is None


async def test_namespaces_and_keys_never_collide(either: Any) -> None:
    places = [
        *(
            ("a",),
            ("a", "b"),
            ("ab",),
            ("a:b",),
            ("a", ":b"),
            ("a\x01",),
            ("a", "\x01"),
            ("a b",),
            ("a*",),
            ("{a}",),
            ("a", "é"),
        ),
        *(("aé",), ("a\x01b",), ("a\n",), ("a\U0001f600",)),
    ]
    keys = ["", "k", "b", "b\0\0k", "\0", "\0\0k", "k\xff", "k.l", "::", "{b}"]
    for n, namespace in enumerate(places):
        await either.batch([PutOp(namespace, key, {"n": n, "key": key}) for key in keys])
    for n, namespace in enumerate(places):
        results = await either.batch([*(GetOp(namespace, key) for key in keys), SearchOp(namespace, limit=1000)])
        assert [item.value for item in results[:-1]] == [{"n": n, "key": key} for key in keys]
        found = results[-1]
        below = [each for each in places if each[: len(namespace)] == namespace]
        assert sorted(names(found)) == sorted((each, key) for each in below for key in keys)
    assert await either.list_namespaces() == sorted(places)
    await either.delete(("a",), "b\0\0k")
    assert await either.get(("a", "b"), "k") is not None


async def test_a_search_gives_namespaces_in_order_and_in_each_the_newest_first(either: Any) -> None:
    for key in ("x", "y", "z"):
        await either.put(("u", "b"), key, {})
        await either.put(("u", "a", "deep"), key, {})
    await either.put(("u", "b"), "y", {"again": 1})
    b, a = ("u", "b"), ("u", "a", "deep")
    assert names(await either.search(b)) == [(b, "y"), (b, "z"), (b, "x")]
    whole = [(a, "z"), (a, "y"), (a, "x"), (b, "y"), (b, "z"), (b, "x")]
    for prefix in (("u",), ()):
        assert names(await either.search(prefix)) == whole
        pages = [names(await either.search(prefix, limit=2, offset=offset)) for offset in range(0, 8, 2)]
        assert [each for page in pages for each in page] == whole
        assert names(await either.search(prefix, filter={"again": None}, limit=2, offset=3)) == [whole[4], whole[5]]
    assert names(await either.search(("u", "a"), limit=2)) == whole[:2]
    assert await either.search(("u", "a"), limit=0) == []


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcdef"),
    ({"kind": "note"}, "ac"),
    ({"kind": {"$eq": "note"}}, "ac"),
    ({"kind": {"$ne": "note"}}, "bdef"),
    ({"n": {"$gt": 2}}, "cd"),
    ({"n": {"$gte": 2, "$lt": 4}}, "bc"),
    ({"n": {"$lte": 1.5}}, "a"),
    ({"n": {"$lt": float("inf")}}, "abcd"),
    ({"n": {"$lt": 10**400}}, "abcd"),
    ({"n": float("nan")}, ""),
    ({"n": {"$gt": 1}, "kind": "note"}, "c"),
    ({"user": {"name": "ada"}}, "ef"),
    ({"user": {"name": "ada", "age": {"$gte": 36}}}, "e"),
    ({"user": {"tags": ["x", "y"]}}, "f"),
    ({"user": {"tags": ("x", {"$ne": "z"})}}, "f"),
    ({"user": None}, "abcd"),
    ({"on": {"$gte": "2026-02"}}, "ef"),
    ({"flag": True}, "a"),
    ({"flag": False}, "b"),
]
VALUES: dict[str, dict[str, Any]] = {
    "a": {"kind": "note", "n": 1, "flag": True},
    "b": {"kind": "task", "n": 2, "flag": False},
    "c": {"kind": "note", "n": 3},
    "d": {"n": "4"},
    "e": {"user": {"name": "ada", "age": 36}, "on": "2026-02-01"},
    "f": {"user": {"name": "ada", "tags": ["x", "y"]}, "on": "2026-03-01"},
}


async def test_a_filter_selects_as_the_contract_says(either: Any) -> None:
    await either.batch([PutOp(ADA, key, value) for key, value in VALUES.items()])
    for wanted, keys in FILTERS:
        found = await either.search(("users",), filter=wanted)
        assert "".join(sorted(item.key for item in found)) == keys, wanted
    for wanted in ({"n": {"$near": 1}}, {"n": {"$gt": 1, "x": 2}}, {"a": {"b": {"$in": []}}}, ["n"]):
        with pytest.raises(ValueError, match="filter"):
            await either.search(ADA, filter=wanted)


async def test_a_search_goes_on_over_many_pages(either: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langgraph_redis_state.store.operations.PAGE_ITEMS", 7)
    monkeypatch.setattr("langgraph_redis_state.store.operations.PAGE_BYTES", 700)
    monkeypatch.setattr("langgraph_redis_state.store.operations.READ_ITEMS", 3)
    places = [("u", f"{n % 5}") for n in range(60)]
    await either.batch([PutOp(place, f"{n:02}", {"n": n}) for n, place in enumerate(places)])
    whole = names(await either.search(("u",), limit=100))
    assert len(whole) == 60
    assert whole == sorted(whole)  # one batch has one time
    for offset in (0, 5, 59, 60):
        assert names(await either.search(("u",), limit=13, offset=offset)) == whole[offset : offset + 13]
        assert (
            names(await either.search(("u", "3"), limit=9, offset=offset))
            == [each for each in whole if each[0] == ("u", "3")][offset : offset + 9]
        )
    wanted = {"n": {"$gte": 0}}
    assert names(await either.search(("u",), filter=wanted, limit=60)) == whole
    found = await either.search(("u",), filter={"n": {"$gt": 29}}, limit=4, offset=20)
    assert names(found) == [each for each in whole if int(each[1]) > 29][20:24]


def test_a_filtered_search_deserializes_no_more_than_it_looks_at(make: Any) -> None:
    class Counting(JsonPlusSerializer):
        loads = 0

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            self.loads += 1
            return super().loads_typed(data)

    serde = Counting()
    memories = make(serde=serde)
    memories.batch([PutOp(ADA, f"{n:02}", {"odd": bool(n % 2)}) for n in range(30)])  # one batch has one time
    for offset, limit in ((0, 1), (0, 3), (4, 1), (3, 2), (14, 1), (14, 5), (0, 15), (15, 1)):
        serde.loads = 0
        found = memories.search(ADA, filter={"odd": True}, offset=offset, limit=limit)
        assert [int(item.key) for item in found] == list(range(1, 30, 2))[offset : offset + limit]
        assert serde.loads == min(2 * (offset + limit), 30), (offset, limit)


SPACES = [
    *(("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "d", "i"), ("a", "b", "f"), ("a", "c", "f"), ("b", "a", "f")),
    *(("users", "123"), ("users", "456", "settings"), ("admin", "users", "789"), ("users",)),
]
LISTINGS: list[tuple[dict[str, Any], list[tuple[str, ...]]]] = [
    ({}, sorted(SPACES)),
    ({"prefix": ("a", "b")}, SPACES[:4]),
    ({"suffix": ("f",)}, [("a", "b", "f"), ("a", "c", "f"), ("b", "a", "f")]),
    ({"prefix": ("a",), "suffix": ("f",)}, [("a", "b", "f"), ("a", "c", "f")]),
    ({"prefix": ("a", "*", "f")}, [("a", "b", "f"), ("a", "c", "f")]),
    ({"prefix": ("*", "users")}, [("admin", "users", "789")]),
    ({"suffix": ("*", "settings")}, [("users", "456", "settings")]),
    ({"prefix": ("users",)}, [("users",), ("users", "123"), ("users", "456", "settings")]),
    ({"prefix": ("user",)}, []),
    ({"max_depth": 1}, [("a",), ("admin",), ("b",), ("users",)]),
    ({"prefix": ("a", "b"), "max_depth": 3}, [("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f")]),
    ({"prefix": ("a", "b", "d"), "max_depth": 1}, [("a",)]),
    ({"suffix": ("f",), "max_depth": 2}, [("a", "b"), ("a", "c"), ("b", "a")]),
    ({"limit": 3, "offset": 2}, sorted(SPACES)[2:5]),
    ({"limit": 0}, []),
]


async def test_namespaces_are_listed_in_order(either: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await either.batch([PutOp(space, f"k{n}", {}) for space in SPACES for n in range(3)])
    for most in (500, 2):  # in one page, and in many
        monkeypatch.setattr("langgraph_redis_state.store.operations.PAGE_SPACES", most)
        for asked, expected in LISTINGS:
            assert await either.list_namespaces(**asked) == expected, asked


async def test_a_batch_reads_before_it_writes_and_the_last_write_counts(either: Any) -> None:
    await either.put(ADA, "k", {"n": 0})
    ops = [
        PutOp(ADA, "k", {"n": 1}),
        GetOp(ADA, "k"),
        PutOp(("elsewhere",), "x", {"n": 5}),
        PutOp(ADA, "k", {"n": 2}),
        SearchOp(("elsewhere",)),
        PutOp(ADA, "gone", {"n": 3}),
        PutOp(ADA, "gone", None),
        ListNamespacesOp(),
        GetOp(("elsewhere",), "x"),
    ]
    results = await either.batch(iter(ops))
    assert results[1].value == {"n": 0}
    assert [results[at] for at in (0, 2, 3, 4, 5, 6, 7, 8)] == [None, None, None, [], None, None, [ADA], None]
    assert (await either.get(ADA, "k")).value == {"n": 2}
    assert await either.get(ADA, "gone") is None
    assert (await either.get(("elsewhere",), "x")).value == {"n": 5}
    assert await either.batch([]) == []


async def test_a_batch_that_cannot_be_done_writes_nothing(either: Any) -> None:
    good = PutOp(ADA, "good", {})
    bad: list[tuple[Any, type[Exception]]] = [
        (PutOp(ADA, "k", {"f": lambda: 0}), SerializationError),
        (PutOp(ADA, "k", ["no mapping"]), ValueError),  # type: ignore[arg-type]
        (PutOp(ADA, "k", {}, ttl=-1), ValueError),
        (PutOp(ADA, "k\ud800", {}), InvalidConfigError),
        (SearchOp(ADA, limit=-1), ValueError),
        (ListNamespacesOp((MatchCondition("middle", ("a",)),)), ValueError),  # type: ignore[arg-type]
        ("put", ValueError),
    ]
    for op, kind in bad:
        with pytest.raises(kind):
            await either.batch([good, op])
    assert await either.get(ADA, "good") is None


def test_a_batch_is_one_round_trip(memories: RedisStore, url: str) -> None:
    ops = [PutOp(("u", f"{n}"), "k", {"n": n}) for n in range(40)] + [GetOp(("u", f"{n}"), "k") for n in range(40)]
    memories.batch(ops)
    memories.search(("u",))
    memories.get(ADA, "k")
    memories.list_namespaces(prefix=ADA)  # the server knows all scripts from here on
    with monitored(url) as sent:
        assert [item.value["n"] for item in memories.batch(ops)[40:]] == list(range(40))  # type: ignore[union-attr]
    assert set(sent) == {"PING", "EVALSHA"}
    assert sent.count("PING") == 2  # one frame
    assert sent.count("EVALSHA") <= 16
    with monitored(url) as sent:
        memories.put(ADA, "k", {})
        memories.get(ADA, "k")
        memories.search(ADA)
        memories.delete(ADA, "k")
        memories.list_namespaces(prefix=ADA)
    assert sent == ["EVALSHA"] * 5
    with monitored(url) as sent:
        assert len(memories.search(("u",), limit=50)) == 40
    assert sent.count("PING") == 2


def test_a_large_batch_is_cut(memories: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langgraph_redis_state.store.operations.SCRIPT_ITEMS", 3)
    memories.batch([PutOp(ADA, f"{n}", {"n": n}) for n in range(10)])
    memories.batch([PutOp(ADA, f"{n}", None if n % 2 else {"n": -n}) for n in range(10)])
    assert sorted(item.value["n"] for item in memories.search(ADA)) == [-8, -6, -4, -2, 0]
    ops = [PutOp(ADA, f"{n}", {"n": 100}) for n in range(10)] + [GetOp(ADA, f"{n}") for n in range(10)]
    found = memories.batch(ops)[10:]
    assert [item and item.value["n"] for item in found] == [-n if n % 2 == 0 else None for n in range(10)]  # type: ignore[union-attr]
    assert {item.value["n"] for item in memories.search(ADA)} == {100}


def test_a_write_that_waits_for_replicas_says_that_there_are_none(make: Any) -> None:
    store = make(durability=Replicas(1, timeout=0.01))
    calls = [
        lambda: store.put(ADA, "k", {}),
        lambda: store.batch([PutOp(("u", f"{n}"), "k", {}) for n in range(3)]),
        lambda: store.delete(ADA, "never there"),
    ]
    for call in calls:
        with pytest.raises(DurabilityError, match="the write exists on the primary"):
            call()
    assert store.get(ADA, "k") is not None  # reads do not wait


def test_the_debug_log_says_what_a_batch_took(memories: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
    memories.setup()
    memories.put(ADA, "k", {})
    memories.search(("users",))
    with caplog.at_level("DEBUG", "langgraph_redis_state"):
        memories.search(("users",), limit=1)
        memories.get(ADA, "k")
    assert re.match(r"batch \(search below \('users',\).*\): .* ms, 1 round trips, [0-9]+ bytes sent", caplog.messages[0])
    assert re.match(r"batch \(item 'k' of namespace .*\): .* ms, 1 round trips", caplog.messages[1])


def test_a_server_that_forgot_the_scripts_is_told_them_again(memories: RedisStore, raw: Any) -> None:
    ops = [PutOp(("u", f"{n}"), "k", {"n": n}) for n in range(40)]
    memories.batch(ops)
    raw.script_flush()
    memories.batch(ops)
    raw.script_flush()
    assert len(memories.search(("u",), limit=50)) == 40


async def test_names_and_options_of_other_stores(url: str, prefix: str) -> None:
    with RedisStore.from_conn_string(url, prefix=prefix) as store:
        assert store.setup() is None
        assert store.supports_ttl
        assert prefix in repr(store)
        store.put(ADA, "k", {}, index=["x"])
        assert store.search(ADA, query="anything")[0].key == "k"
    async with AsyncRedisStore.from_conn_string(url, prefix=prefix) as astore:
        await astore.setup()
        assert (await astore.asearch(ADA))[0].score is None
    with RedisStore(redis_url=url, prefix=prefix) as other:
        assert other.get(ADA, "k") is not None
    with pytest.raises(TypeError, match="saver="):
        RedisStore(redis_url=url, saver=RedisSaver(url))
    with RedisStore(redis.Redis.from_url(url), prefix=prefix) as given:  # type: ignore[arg-type]
        assert given.get(ADA, "k") is not None
    with pytest.raises(ValueError, match="the saver's"):
        RedisStore(saver=RedisSaver(url, prefix=prefix), prefix=prefix)
    for name in ("store_prefix", "vector_prefix", "cluster_mode"):
        with pytest.raises(TypeError, match="migration"):
            RedisStore(url, **{name: None})
    for options in ({"max_versions": 3}, {"tombstone": 1}):
        with pytest.raises(TypeError, match="is for threads"):
            RedisStore(url, **options)  # type: ignore[arg-type]
    for ttl in ({"default": 1}, 5, {"default_ttl": -1}, {"sweep_interval_minutes": 0}):
        with pytest.raises(ValueError, match="ttl"):
            RedisStore(url, ttl=ttl)  # type: ignore[arg-type]
    with pytest.raises(CheckpointerError):
        store.get(ADA, "k")


async def test_two_prefixes_never_see_each_other(make: Any, prefix: str) -> None:
    one, other = make(), make(prefix=f"{prefix}:other")
    one.put(ADA, "k", {})
    assert other.get(ADA, "k") is None
    assert other.search(()) == other.list_namespaces() == []


def test_read_only_looks_and_does_not_touch(memories: RedisStore, make: Any, raw: Any, prefix: str) -> None:
    memories.put(ADA, "k", {"n": 1}, ttl=1)
    looking = make(read_only=True)
    assert looking.get(ADA, "k").value == looking.search(("users",))[0].value == {"n": 1}
    assert looking.list_namespaces() == [ADA]
    for write in (lambda: looking.put(ADA, "k", {}), looking.sweep_ttl, looking.repair):
        with pytest.raises(InvalidConfigError, match="read_only"):
            write()
