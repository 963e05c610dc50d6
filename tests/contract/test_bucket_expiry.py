"""What a bucket says of its threads (ids, runs, metadata) goes with them, and never before them."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lifetimes import bucket, check_bucket, gone, left, neighbours, put, traces, wait
from shapes import at, checkpoint, metadata
from soak import times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.effects import Script
from langgraph_redis_state.operations import buckets, engine
from langgraph_redis_state.scripts import commands
from langgraph_redis_state.storage.keys import BUCKETS, ThreadKeys, bucket_of

DAY = 86_400_000


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> int:
    """The keys of a bucket go so many ms after its last thread, instead of a day."""
    text, short = "local SLACK = 86400000\n", 200
    for script in {each for each in vars(commands).values() if isinstance(each, Script) and text in each.source}:
        source = script.source.replace(text, f"local SLACK = {short}\n")
        monkeypatch.setitem(script.__dict__, "source", source)
        monkeypatch.setitem(script.__dict__, "sha", hashlib.sha1(source.encode()).hexdigest())
    return short


def of_prefix(raw: Any, prefix: str) -> list[bytes]:
    return [key for key in raw.scan_iter(match=f"{prefix}:*", count=10_000) if key != f"{prefix}:layout".encode()]


def test_nothing_is_left_of_threads_that_expired_though_nobody_writes_or_looks(
    url: str, prefix: str, raw: Any, slack: int
) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"], tombstone=1) as saver:
        names = ["ada", "grace", *neighbours(prefix, 3, "alan")]
        for name in names:
            put(saver, name, ttl=1)
        put(saver, "deleted", ttl=1)
        saver.delete_thread("deleted")
        assert len(traces(raw, prefix, names)) > len(names) * 4
        wait(lambda: not of_prefix(raw, prefix))


def test_the_keys_of_a_bucket_go_a_day_after_its_last_thread_and_not_each_put_moves_that(
    url: str, prefix: str, raw: Any
) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"], ttl=1_000) as saver:
        first, second, third = neighbours(prefix, 3)
        made = put(saver, first)
        moments = bucket(raw, prefix)
        assert set(moments) == {"threads", "expiry", "runs", "m"}
        assert 1_000_000 + DAY - 20_000 < moments["m"] - int(raw.time()[0]) * 1000 <= 1_000_000 + DAY + 1_000
        for name in (first, second):
            made = put(saver, name, made if name == first else None)
            saver.get_tuple(at(name))
            assert bucket(raw, prefix) == moments
        saver.set_ttl(first, 10 * DAY / 1000)
        later = bucket(raw, prefix)["m"]
        assert later - moments["m"] > 9 * DAY
        put(saver, third, ttl=20 * DAY / 1000)
        assert bucket(raw, prefix)["m"] - later > 9 * DAY
        saver.delete_thread(third)  # sooner again: it is bound to the last thread that is left
        assert bucket(raw, prefix)["m"] == pytest.approx(later, abs=2_000)


def test_an_index_that_a_later_put_makes_goes_with_the_others(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"], ttl=1_000) as saver:
        saver.put(at("t"), checkpoint(), metadata(), {})
        assert set(bucket(raw, prefix)) == {"threads", "expiry"}
        put(saver)
        assert set(bucket(raw, prefix)) == {"threads", "expiry", "runs", "m"}
        check_bucket(raw, prefix)


def test_one_thread_that_stays_keeps_the_keys_of_its_bucket(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        first, second = neighbours(prefix, 2)
        put(saver, first, ttl=100)
        put(saver, second)
        assert set(bucket(raw, prefix).values()) == {-1}
        saver.delete_thread(second)  # and those that are left go by themselves again
        assert set(bucket(raw, prefix).values()) != {-1}
        check_bucket(raw, prefix)


OPERATIONS: dict[str, Callable[[RedisSaver, str, str], Any]] = {
    "put": lambda saver, thread, id: put(saver, thread, id),
    "run": lambda saver, thread, id: put(saver, thread, id, ttl=50),
    "put_writes": lambda saver, thread, id: saver.put_writes(at(thread, "", id), [("x", 1)], uuid.uuid4().hex),
    "fork": lambda saver, thread, id: saver.rollback(thread, id),
    "truncate": lambda saver, thread, id: saver.rollback(thread, id, mode="truncate"),
    "tag": lambda saver, thread, id: saver.tag(thread, "name", id),
    "longer": lambda saver, thread, id: saver.set_ttl(thread, 10 * DAY / 1000),
    "shorter": lambda saver, thread, id: saver.set_ttl(thread, 30),
    "saver's": lambda saver, thread, id: saver.set_ttl(thread, None),
    "persist": lambda saver, thread, id: saver.persist(thread),
    "apply": lambda saver, thread, id: saver.apply_ttl([thread]),
    "get": lambda saver, thread, id: saver.get_tuple(at(thread)),
    "list": lambda saver, thread, id: list(saver.list(at(thread))),
    "prune": lambda saver, thread, id: saver.prune([thread], keep_last=1),
    "delete": lambda saver, thread, id: saver.delete_thread(thread),
    "list_threads": lambda saver, thread, id: list(saver.list_threads()),
    "repair": lambda saver, thread, id: list(saver.repair(thread)),
    "index lost": lambda saver, thread, id: saver.client.unlink(ThreadKeys(prefix_of(saver), thread.encode()).all[1]),
}
WHO: dict[str, dict[str, Any]] = {
    "short": {"ttl": 100},
    "long": {"ttl": 10_000},
    "endless": {},
    "still": {"ttl": 500, "refresh_ttl_on_read": False},
}


def prefix_of(saver: RedisSaver) -> str:
    return repr(saver).split("prefix=")[1].strip("')")


@pytest.mark.longer
@pytest.mark.parametrize("call", OPERATIONS)
def test_after_every_call_a_bucket_lives_as_long_as_its_threads(url: str, prefix: str, raw: Any, call: str) -> None:
    """By a saver with a longer TTL, a shorter one and none, on a thread whose metadata entry is to be written again."""
    with RedisSaver(url, prefix=prefix) as first:
        for who in ("long", "short", "endless"):
            for seconds in (3 * DAY / 1000, 1_000)[: times(1, 2, 2) if call not in ("put", "run") else 2]:
                thread = uuid.uuid4().hex
                id = put(first, thread, ttl=200)
                put(first, thread, id, ttl=200)
                with RedisSaver(url, prefix=prefix, ttl=seconds / 2) as other:
                    other.put_writes(at(thread, "", id), [("x", 1)], "task")
                options = {**WHO[who], **({"ttl": seconds} if who != "endless" else {})}
                with RedisSaver(url, prefix=prefix, index_metadata=["user"], **options) as saver:
                    OPERATIONS[call](saver, thread, id)
                    check_bucket(raw, prefix, thread)
                    saver.get_tuple(at(thread))
                    check_bucket(raw, prefix, thread)


@settings(max_examples=times(6, 40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(st.tuples(st.sampled_from(sorted(WHO)), st.sampled_from(sorted(OPERATIONS)), st.integers(0, 3)), max_size=14)
)
def test_in_any_order_a_bucket_lives_as_long_as_its_threads_and_then_nothing_is_left(
    url: str, raw: Any, slack: int, calls: list[tuple[str, str, int]]
) -> None:
    prefix = f"t-{uuid.uuid4().hex[:12]}"
    threads = [*neighbours(prefix, 3, "ada"), "grace"]
    savers = {
        name: RedisSaver(url, prefix=prefix, index_metadata=["user"], tombstone=0.1, **told) for name, told in WHO.items()
    }
    try:
        for who, call, n in calls:
            saver, thread = savers[who], threads[n]
            head = saver.get_tuple(at(thread))
            id = head.config["configurable"]["checkpoint_id"] if head else put(saver, thread)
            OPERATIONS[call](saver, thread, id)
            check_bucket(raw, prefix, thread, slack)
        living = {name for name in threads if not gone(raw, prefix, name)}
        assert {info.thread_id for info in savers["still"].list_threads()} == living
        assert {
            info.thread_id for name in living for info in savers["still"].find_threads(user=f"{name}@example.org")
        } == living
        for saver in savers.values():
            assert [each for each in saver.verify() if each.kind == "bucket"] == []
        for name in living:
            savers["long"].set_ttl(name, 0.02)
        wait(lambda: not of_prefix(raw, prefix))
    finally:
        for saver in savers.values():
            saver.close()


def test_a_copy_keeps_its_bucket_and_an_expired_target_leaves_nothing(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"], ttl=100) as saver, RedisSaver(url, prefix=prefix) as endless:
        source, copy, other = neighbours(prefix, 3)
        put(saver, source)
        saver.copy_thread(source, copy)
        check_bucket(raw, prefix)
        assert set(bucket(raw, prefix).values()) != {-1}
        endless.copy_thread(source, other)
        check_bucket(raw, prefix)
        assert set(bucket(raw, prefix).values()) == {-1}


# --- where a bucket stays, because another thread of it does ---


def test_a_saver_that_writes_forgets_what_expired_in_buckets_that_nobody_writes_to(
    url: str, prefix: str, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        kept, *expired = neighbours(prefix, 6)
        elsewhere = next(name for name in map(str, range(BUCKETS)) if bucket_of(name.encode()) != bucket_of(kept.encode()))
        put(saver, kept)
        for name in expired:
            put(saver, name, ttl=0.05)
        wait(lambda: all(gone(raw, prefix, name) for name in expired))
    emails = [f"{name}@" for name in expired]
    with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        parent = put(saver, elsewhere)
        assert traces(raw, prefix, emails)  # a put is one script, as ever
    for module in (engine, buckets):
        monkeypatch.setattr(module, "SWEEP_SECONDS", 1e-6)
    with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        for _ in range(BUCKETS // buckets.SWEEP_SCRIPTS):
            parent = put(saver, elsewhere, parent)
        assert traces(raw, prefix, emails) == []
        assert {info.thread_id for info in saver.list_threads()} == {kept, elsewhere}
        assert [info.thread_id for info in saver.find_threads(user=f"{kept}@example.org")] == [kept]
        assert list(saver.verify()) == []


async def test_a_sweep_is_bounded_and_goes_on_where_it_stopped(
    url: str, prefix: str, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (engine, buckets):
        monkeypatch.setattr(module, "SWEEP_SECONDS", 1e-6)
    monkeypatch.setattr(buckets, "SWEEP_THREADS", 2)
    monkeypatch.setattr("random.randrange", lambda _: bucket_of(b"t"))
    async with RedisSaver(url, prefix=prefix, index_metadata=["user"], refresh_ttl_on_read=False) as saver:
        names = neighbours(prefix, 40)
    for module in (engine, buckets):
        monkeypatch.setattr(module, "SWEEP_SECONDS", 1_000.0)
    async with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        for name in names[1:]:
            put(saver, name, ttl=1)
        wait(lambda: all(gone(raw, prefix, name) for name in names[1:]))
    there = raw.zcard(ThreadKeys(prefix, b"t").all[2])
    assert there > 30
    for module in (engine, buckets):
        monkeypatch.setattr(module, "SWEEP_SECONDS", 1e-6)
    async with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        elsewhere = next(name for name in map(str, range(BUCKETS)) if bucket_of(name.encode()) != bucket_of(b"t"))
        made = checkpoint()
        sizes = []
        for _ in range(4):
            await saver.aput(at(elsewhere), made, metadata(), {})
            sizes.append(there - raw.zcard(ThreadKeys(prefix, b"t").all[2]))
    assert sizes == [16, 32, there, there]


def test_a_sweep_that_fails_does_not_fail_the_put(
    url: str, prefix: str, raw: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (engine, buckets):
        monkeypatch.setattr(module, "SWEEP_SECONDS", 1e-6)
    monkeypatch.setattr("random.randrange", lambda _: bucket_of(b"t"))
    elsewhere = next(name for name in map(str, range(BUCKETS)) if bucket_of(name.encode()) != bucket_of(b"t"))
    raw.set(ThreadKeys(prefix, b"t").all[3], "not an index")
    with RedisSaver(url, prefix=prefix) as saver, caplog.at_level(logging.WARNING, logger="langgraph_redis_state"):
        assert put(saver, elsewhere)
        assert saver.get_tuple(at(elsewhere)) is not None
    assert "tidying bucket" in caplog.text


# --- verify and repair ---


def test_verify_finds_a_bucket_key_that_goes_before_a_thread_and_repair_mends_it(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"], ttl=1_000) as saver, RedisSaver(url, prefix=prefix) as endless:
        expiring, endless_thread = "ada", next(n for n in map(str, range(99)) if bucket_of(n.encode()) != bucket_of(b"ada"))
        put(saver, expiring)
        put(endless, endless_thread)
        assert list(saver.verify()) == []
        for name in (expiring, endless_thread):
            key = ThreadKeys(prefix, name.encode()).all[4]
            assert raw.pexpire(key, 500_000)
            found = list(saver.verify())
            assert [(each.kind, each.thread_id, each.repairable) for each in found] == [("bucket", name, True)]
            assert "before" in found[0].problem or "a key of the bucket" in found[0].problem
            assert [(each.kind, each.thread_id) for each in saver.repair()] == [("bucket", name)]
            assert list(saver.verify()) == []
            check_bucket(raw, prefix, name)
        assert left(raw, prefix, expiring) is not None


def test_an_index_that_a_read_makes_anew_goes_with_the_others(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1_000) as saver:
        put(saver)
        keys = ThreadKeys(prefix, b"t").all
        raw.unlink(keys[1], keys[3])  # evicted
        assert saver.get_tuple(at("t")) is not None
        assert bucket(raw, prefix)["expiry"] > 0
        check_bucket(raw, prefix)
