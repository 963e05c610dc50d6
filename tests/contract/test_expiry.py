"""A thread expires whole, at one moment, or not at all. Waited for on the server's own clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from langgraph.graph import START, MessagesState, StateGraph
from shapes import at, checkpoint, expiries, id_of, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import (
    CheckpointConflictError,
    SerializationError,
    ThreadDeletedError,
    ThreadNotFoundError,
    ThreadTooLargeError,
)
from langgraph_redis_state.storage.keys import BUCKETS, ThreadKeys, bucket_key

T = {"configurable": {"thread_id": "t"}}


class Clock:
    """What the server says of the time threads have left, without touching them."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client, self.prefix = client, prefix

    def left(self, thread: str = "t") -> int:
        """Milliseconds until both keys of a thread expire, at the same moment; -1: never, -2: it is not there."""
        keys = ThreadKeys(self.prefix, thread.encode())
        first, second, now = expiries(self.client, *keys.all[:2])
        if second == -2 != first:  # writes whose checkpoint has not come yet: there is no index
            second = first
        assert first == second
        score = self.client.zscore(keys.all[3], keys.name)
        if first >= 0:  # and the index of the bucket knows that moment
            assert score == first
        elif first == -1:
            assert score is None
        return first - now if first >= 0 else first

    def everything(self) -> list[bytes]:
        return list(self.client.scan_iter(match=f"{self.prefix}:*", count=10_000))


@pytest.fixture
def clock(url: str, prefix: str) -> Iterator[Clock]:
    with redis.Redis.from_url(url) as client:
        yield Clock(client, prefix)


def put(saver: RedisSaver, thread: str = "t", parent: str | None = None, values: Any = None, **configurable: Any) -> str:
    made = checkpoint(values)
    config = at(thread, "", parent, **configurable)
    return id_of(saver.put(config, made, metadata(), made["channel_versions"]))


def wait(until: Callable[[], Any], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def names(infos: Any) -> list[str]:
    return [info.thread_id for info in infos]


async def test_a_thread_expires_whole_and_leaves_nothing_but_what_the_next_write_tidies(
    url: str, prefix: str, clock: Clock
) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=0.6, index_metadata=("user",), refresh_ttl_on_read=False) as saver:
        made = checkpoint({"x": [f"{n}" * 50 for n in range(500)]})
        saver.put({**at("t"), "metadata": {"run_id": "r"}}, made, metadata(user="u"), made["channel_versions"])
        saver.put(at("t", "sub:1"), checkpoint(), metadata(parents={"": made["id"]}), {})
        saver.put_writes(at("t", "", made["id"]), [("x", "y" * 2_000)], "task")
        saver.tag("t", "name")
        assert 300 < clock.left() <= 600
        assert names(saver.find_threads(user="u")) == ["t"]
        wait(lambda: clock.left() == -2)
        assert saver.get_tuple(at("t")) is None
        assert await saver.aget_tuple(at("t", "", made["id"])) is None
        assert list(saver.list(at("t", None))) == []
        assert list(saver.history("t")) == []
        assert saver.tags("t") == {}
        assert names(saver.list_threads()) == []
        assert names(saver.find_threads(user="u")) == []
        assert saver.stats().threads == 0
        assert [key for key in clock.everything() if key != f"{prefix}:layout".encode()] == []
        put(saver)  # and a new run begins at the beginning
        assert [each.number for each in saver.history("t")] == [1]


def test_writes_tidy_up_after_threads_that_expired_in_their_bucket(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("user",)) as saver:
        living = "living"
        bucket = ThreadKeys(prefix, living.encode()).base
        others = [name for name in map(str, range(20_000)) if ThreadKeys(prefix, name.encode()).base == bucket][:12]
        for name in others:
            made = checkpoint({})
            saver.put({**at(name, "", None, ttl=0.1), "metadata": {"run_id": "r"}}, made, metadata(user="u"), {})
        wait(lambda: all(clock.left(name) == -2 for name in others))
        last = put(saver, living)
        for _ in range(8):
            last = put(saver, living, last)
        number = int(bucket.split(b"{")[1][:4], 16)
        members = {
            name: clock.client.zrange(bucket_key(prefix, number, name), 0, -1) for name in ("threads", "expiry", "runs", "m")
        }
        assert members == {"threads": [ThreadKeys(prefix, living.encode()).name], "expiry": [], "runs": [], "m": []}
        assert number < BUCKETS


def test_a_living_thread_in_the_indexes_of_expired_ones_is_left_alone(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("user",)) as saver:
        made = checkpoint({})
        saver.put(at("t", "", None, ttl=0.15), made, metadata(user="u"), {})
        saver.put(at("u"), checkpoint({}), metadata(user="u"), {})
        wait(lambda: clock.left("t") == -2)
        saver.put(at("t"), checkpoint({}), metadata(user="v"), {})
        assert sorted(names(saver.list_threads())) == ["t", "u"]
        assert names(saver.find_threads(user="u")) == ["u"]
        assert names(saver.find_threads(user="v")) == ["t"]
        assert clock.left("t") == -1


def test_a_channel_that_never_changes_outlives_the_ttl_of_a_thread_in_use(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1.5, refresh_ttl_on_read=False) as saver:
        system = {"system": "you are helpful " * 2_000}
        made = checkpoint({**system, "n": 0}, {"system": 1, "n": 1})
        saver.put(at("t"), made, metadata(), made["channel_versions"])
        started = time.monotonic()
        while time.monotonic() - started < 2:  # more than its time
            parent, step = made["id"], made["channel_versions"]["n"] + 1
            made = checkpoint({**system, "n": step}, {"system": 1, "n": step})
            saver.put(at("t", "", parent), made, metadata(), {"n": step})
            assert clock.left() > 500
            time.sleep(0.05)
    with RedisSaver(url, prefix=prefix) as other:
        found = list(other.list(at("t")))
        assert len(found) == made["channel_versions"]["n"]
        assert all(each.checkpoint["channel_values"]["system"] == system["system"] for each in found)


def test_a_graph_in_use_keeps_what_it_was_told_first(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, ttl=timedelta(milliseconds=1_200)) as saver:
        built = StateGraph(MessagesState).add_node("a", lambda state: {"messages": [("ai", "yes")]}).add_edge(START, "a")
        graph = built.compile(checkpointer=saver)
        for n in range(6):
            graph.invoke({"messages": [("user", f"{n}")]}, T)
            time.sleep(0.25)
        assert [message.text for message in graph.get_state(T).values["messages"]][::2] == list("012345")
        wait(lambda: clock.left() == -2)
        assert graph.get_state(T).values == {}


@pytest.mark.parametrize("refresh", [True, False])
async def test_reading_counts_as_use_or_not(url: str, prefix: str, clock: Clock, refresh: bool) -> None:
    async with (
        RedisSaver(url, prefix=prefix, ttl=1_500, refresh_ttl_on_read=refresh) as saver,
        RedisSaver(url, prefix=prefix, ttl=1_000) as brief,  # after its writes less than 90 % of 1,500 s remain
    ):
        made = put(brief)
        reads: list[Callable[[], Any]] = [
            lambda: saver.get_tuple(at("t")),
            lambda: saver.get_tuple(at("t", "", made)),
            lambda: list(saver.list(at("t"))),
            lambda: list(saver.history("t")),
        ]
        for read in reads:
            put(brief, "t", made)
            assert clock.left() <= 1_000_000
            assert read()
            assert (clock.left() > 1_400_000) is refresh
        put(brief, "t", made)
        assert await saver.aget_tuple(at("t"))
        assert (clock.left() > 1_400_000) is refresh


def test_a_read_right_after_a_write_writes_nothing(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, ttl=60) as saver:
        put(saver)
        before = clock.client.info("commandstats")["cmdstat_pexpireat"]["calls"]
        for _ in range(5):
            saver.get_tuple(at("t"))
        assert clock.client.info("commandstats")["cmdstat_pexpireat"]["calls"] == before


async def test_a_thread_has_its_own_time_whatever_the_saver_says(url: str, prefix: str, clock: Clock) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=60) as saver, RedisSaver(url, prefix=prefix) as endless:
        made = put(saver)
        saver.set_ttl("t", 1_000)
        assert 990_000 < clock.left() <= 1_000_000
        for each in (saver, endless):
            made = put(each, "t", made)
            each.put_writes(at("t", "", made), [("x", 1)], "task")
            each.get_tuple(at("t"))
            assert 990_000 < clock.left() <= 1_000_000
        await saver.aset_ttl("t", timedelta(hours=1))
        assert 3_500_000 < clock.left() <= 3_600_000
        saver.set_ttl("t", None)  # the saver's again, from now on
        assert 50_000 < clock.left() <= 60_000
        made = put(saver, "t", made)
        assert 50_000 < clock.left() <= 60_000
        await endless.aset_ttl("t", None)
        assert clock.left() == -1


async def test_a_thread_that_persists_is_not_undone_by_a_write(url: str, prefix: str, clock: Clock) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=1) as saver:
        made = put(saver)
        await saver.apersist("t")
        assert clock.left() == -1
        made = put(saver, "t", made)
        made = put(saver, "t", made, None, ttl=0.1)
        saver.put_writes(at("t", "", made), [("x", 1)], "task")
        saver.get_tuple(at("t"))
        list(saver.list(at("t")))
        saver.tag("t", "name")
        saver.prune(["t"], keep_last=1)
        saver.rollback("t", "name")
        assert clock.left() == -1
        saver.copy_thread("t", "copy")
        assert clock.left("copy") == -1
        saver.set_ttl("t", 1)
        assert 0 < clock.left() <= 1_000
        wait(lambda: clock.left() == -2)
        assert saver.get_tuple(at("copy"))


def test_what_lives_and_dies_by_its_own_rule_is_told_from_what_is_not_there(saver: RedisSaver) -> None:
    for call in (lambda: saver.set_ttl("t", 1), lambda: saver.persist("t"), lambda: saver.set_ttl("t", None)):
        with pytest.raises(ThreadNotFoundError):
            call()
    put(saver)
    for bad in (0, -1, "1", float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match=r"set_ttl: thread 't'.*seconds must be a positive number"):
            saver.set_ttl("t", bad)


@pytest.mark.parametrize("ttl", [1.5, timedelta(milliseconds=1_500)])
def test_one_run_may_have_a_time_of_its_own(url: str, prefix: str, clock: Clock, ttl: Any) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1_000) as saver:
        built = StateGraph(MessagesState).add_node("a", lambda state: {"messages": [("ai", "yes")]}).add_edge(START, "a")
        graph = built.compile(checkpointer=saver)
        config = {"configurable": {"thread_id": "t", "ttl": ttl}}
        graph.invoke({"messages": [("user", "short")]}, config)
        assert 0 < clock.left() <= 1_500
        graph.invoke({"messages": [("user", "long")]}, T)
        assert clock.left() > 990_000
        assert len(graph.get_state(T).values["messages"]) == 4
        graph.invoke({"messages": [("user", "short")]}, config)
        wait(lambda: clock.left() == -2)
        assert saver.get_tuple(at("t")) is None


def test_the_time_of_a_run_holds_for_reads_until_a_write_without_one(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1_000) as saver:
        first = put(saver, ttl=60)
        reads: list[Callable[[], Any]] = [
            lambda: saver.get_tuple(at("t")),
            lambda: list(saver.list(at("t"))),
            lambda: list(saver.history("t")),
            lambda: saver.tags("t"),
            lambda: saver.diff("t", first, first),
            lambda: saver.prune(["t"], keep_last=5),
        ]
        for read in reads:
            read()
            assert 0 < clock.left() <= 60_000
        saver.put_writes(at("t", "", first, ttl=60), [("x", 1)], "task")
        saver.copy_thread("t", "copy")
        assert 0 < clock.left() <= 60_000
        assert 0 < clock.left("copy") <= 60_000
        saver.get_tuple(at("copy"))
        assert clock.left("copy") <= 60_000
        saver.put_writes(at("t", "", first), [("x", 2)], "other")
        assert clock.left() > 990_000
        put(saver, "t", first, ttl=60)
        assert clock.left() <= 60_000
        saver.rollback("t", first)
        assert clock.left() > 990_000
        saver.set_ttl("t", 100)
        put(saver, "t", first, ttl=60)
        assert 60_000 < clock.left() <= 100_000  # what was said of the thread goes before what is said of a run


def test_a_run_without_a_time_does_not_die_with_an_earlier_one_that_had_one(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        first = put(saver, ttl=60)
        saver.get_tuple(at("t"))
        assert 0 < clock.left() <= 60_000
        put(saver, "t", first)
        assert clock.left() == -1
        put(saver, "t", first, ttl=60)
        with RedisSaver(url, prefix=prefix, ttl=1_000) as other:
            put(other, "t", first)
        assert clock.left() > 990_000
        put(saver, "t", first)  # the saver that writes last decides
        assert clock.left() == -1


def test_tidying_up_is_no_use_of_a_thread(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, ttl=1_000) as saver:
        parent = None
        for _ in range(6):
            parent = put(saver, "t", parent)
        with RedisSaver(url, prefix=prefix, ttl=10) as other:
            put(other, "t", parent)
        saver.prune(["t"], keep_last=3)
        saver.prune(["t"], keep_last=3)  # nothing to remove
        saver.prune(["t"])
        saver.delete_for_runs(["none"])
        assert 0 < clock.left() <= 10_000
        saver.get_tuple(at("t"))
        assert clock.left() > 990_000


def test_the_time_of_a_run_is_refused_if_it_is_none(saver: RedisSaver) -> None:
    for bad in (-1, 0, "x", True):
        with pytest.raises(ValueError, match="ttl"):
            put(saver, "t", None, None, ttl=bad)
    assert names(saver.list_threads()) == []


def test_nothing_is_left_without_a_time_after_a_call_that_failed(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(
        url, prefix=prefix, ttl=2, conflict="raise", max_thread_bytes=50_000, compression="none", tombstone=2
    ) as saver:

        def fails(error: type[Exception], call: Callable[[], Any]) -> None:
            with pytest.raises(error):
                call()

        first = put(saver)
        fails(SerializationError, lambda: put(saver, "t", first, {"x": lambda: None}))
        fails(SerializationError, lambda: saver.put_writes(at("t", "", first), [("x", lambda: None)], "task"))
        fails(CheckpointConflictError, lambda: put(saver, "t", None, {"x": 1}))
        fails(ThreadTooLargeError, lambda: put(saver, "t", first, {"x": "x" * 60_000}))
        fails(ThreadTooLargeError, lambda: saver.put_writes(at("new", "", first), [("x", "x" * 60_000)], "task"))
        saver.delete_thread("t")
        fails(ThreadDeletedError, lambda: put(saver, "t", first))
        fails(ThreadDeletedError, lambda: saver.put_writes(at("t", "", first), [("x", 1)], "task"))
        saver.put_writes(at("alone", "", first), [("x", 1)], "task")  # its checkpoint never comes
        saver.put_writes(at("t", "", checkpoint()["id"]), [("x", 1)], "task")
        assert clock.left("alone") > 0
        assert clock.left("t") > 0
        source = put(saver, "source")
        saver.copy_thread("source", "copy")
        assert clock.left("copy") > 0
        assert source
        wait(lambda: not any(kind in key for key in clock.everything() for kind in (b":t:", b":i:", b":x:", b":u:")))


async def test_nothing_is_left_without_a_time_after_a_call_that_was_cancelled(url: str, prefix: str, clock: Clock) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=0.5) as saver:
        big = checkpoint({"x": [f"{n}" * 60 for n in range(20_000)]})
        done = 0
        for n in range(12):
            task = asyncio.create_task(saver.aput(at(f"t{n}"), big, metadata(), big["channel_versions"]))
            await asyncio.sleep(0.002 * n)
            task.cancel()
            done += not isinstance((await asyncio.gather(task, return_exceptions=True))[0], BaseException)
        assert done < 12
        for n in range(12):
            assert clock.left(f"t{n}") != -1
        data = [key for key in clock.everything() if any(kind in key for kind in (b":t:", b":i:", b":u:"))]
        assert all(clock.client.pttl(key) != -1 for key in data)
        wait(lambda: all(clock.left(f"t{n}") == -2 for n in range(12)))


def test_writes_alone_after_a_deletion_go_with_the_tombstone(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, tombstone=1) as saver:
        put(saver)
        saver.delete_thread("t")
        saver.put_writes(at("t", "", checkpoint()["id"]), [("x", 1)], "task")
        assert 0 < clock.left() <= 1_000
        wait(lambda: clock.left() == -2)
        saver.put_writes(at("u", "", checkpoint()["id"]), [("x", 1)], "task")
        assert clock.left("u") == -1


def test_a_new_run_after_a_deletion_does_not_inherit_the_tombstones_time(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        put(saver)
        saver.delete_thread("t")
        made = checkpoint({"x": 1})
        saver.put_writes(at("t", "", made["id"]), [("x", 1)], "task")
        assert clock.left() > 0
        saver.put(at("t"), made, metadata(), made["channel_versions"])
        assert clock.left() == -1


def test_minutes_as_another_package_writes_them(url: str, prefix: str, clock: Clock) -> None:
    with RedisSaver(url, prefix=prefix, ttl={"default_ttl": 2, "refresh_on_read": False}) as saver:
        put(saver)
        assert 119_000 < clock.left() <= 120_000
