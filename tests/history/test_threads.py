"""`list_threads` and `find_threads`."""

from __future__ import annotations

import asyncio
import operator
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from langgraph.graph import START, StateGraph
from shapes import at, checkpoint, id_of, metadata
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointCorruptError, ThreadDeletedError
from langgraph_redis_state.storage.keys import BUCKETS, ThreadKeys, bucket_key, bucket_of


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def delete(saver: RedisSaver, thread: str = "t") -> None:
    saver.delete_thread(thread)


def put(saver: RedisSaver, thread: Any = "t", parent: str | None = None, values: Any = None, **more: Any) -> str:
    made = checkpoint(values)
    return id_of(saver.put(at(thread, "", parent), made, metadata(**more), made["channel_versions"]))


def names(infos: Any) -> list[str]:
    return [info.thread_id for info in infos]


def index(raw: Any, prefix: str, name: str) -> list[bytes]:
    """Every member of the indexes of that name, of all buckets."""
    with raw.pipeline(transaction=False) as pipeline:
        for bucket in range(BUCKETS):
            pipeline.zrange(bucket_key(prefix, bucket, name), 0, -1)
        return [member for members in pipeline.execute() for member in members]


# --- list_threads -----------------------------------------------------------------------------------------------------


async def test_threads_are_listed_by_their_last_activity(saver: RedisSaver, asaver: RedisSaver) -> None:
    earliest = datetime.now(timezone.utc) - timedelta(seconds=1)
    assert list(saver.list_threads()) == []
    first = put(saver, "a")
    for thread in ("b", "c", "ä 1:{x}", "prefix/1", "prefix/2"):
        put(saver, thread)
        await asyncio.sleep(0.002)  # one activity, one millisecond
    saver.put_writes(at("b", "", put(saver, "b")), [("x", 1)], "task")
    await asyncio.sleep(0.002)
    saver.put_writes(at("a", "", first), [("x", 1)], "task")
    expected = ["a", "b", "prefix/2", "prefix/1", "ä 1:{x}", "c"]
    assert names(saver.list_threads()) == expected
    assert names(saver.list_threads(newest_first=False)) == expected[::-1]
    assert names(saver.list_threads(limit=2)) == expected[:2]
    assert names(saver.list_threads(limit=0)) == []
    assert names(saver.list_threads(newest_first=False, limit=2)) == expected[:-3:-1]
    assert names(saver.list_threads(prefix="prefix/")) == ["prefix/2", "prefix/1"]
    assert names(saver.list_threads(prefix="prefix/", limit=1)) == ["prefix/2"]
    assert names(saver.list_threads(prefix="no")) == []
    assert [each async for each in asaver.alist_threads()] == list(saver.list_threads())
    told = next(saver.list_threads())
    assert earliest < told.last_activity < datetime.now(timezone.utc) + timedelta(seconds=1)
    stats = saver.stats("a")
    assert (told.checkpoints, told.stored_bytes, told.logical_bytes) == (1, stats.stored_bytes, stats.logical_bytes)


def test_reading_deleting_and_other_prefixes_do_not_count_as_activity(saver: RedisSaver, url: str, prefix: str) -> None:
    made = put(saver, "a")
    put(saver, "b")
    put(saver, "c")
    saver.get_tuple(at("a"))
    list(saver.list(at("a")))
    saver.delete_thread("b")
    with RedisSaver(url, prefix=f"{prefix}x") as other:
        put(other, "d")
        assert names(other.list_threads()) == ["d"]
    assert sorted(names(saver.list_threads())) == ["a", "c"]
    saver.copy_thread("a", "e")
    assert sorted(names(saver.list_threads())) == ["a", "c", "e"]
    assert saver.get_tuple(at("e", "", made)) is not None


def test_more_threads_than_a_page_are_streamed_without_scanning_for_keys(saver: RedisSaver, raw: Any) -> None:
    for n in range(450):
        put(saver, f"thread {n}")
    before = raw.info("commandstats")
    assert sorted(names(saver.list_threads())) == sorted(f"thread {n}" for n in range(450))
    assert names(saver.list_threads(limit=300)) == names(saver.list_threads())[:300]
    after = raw.info("commandstats")
    for command in ("keys", "scan", "hgetall", "hscan"):
        key = f"cmdstat_{command}"
        assert after.get(key, {}).get("calls", 0) == before.get(key, {}).get("calls", 0)
    reader = saver.list_threads()
    assert next(reader).thread_id.startswith("thread ")
    reader.close()


# --- find_threads -----------------------------------------------------------------------------------------------------


async def test_threads_are_found_by_the_metadata_the_saver_was_told_to_index(url: str, prefix: str) -> None:
    async with RedisSaver(url, prefix=prefix, index_metadata=("user_id", "tenant")) as saver:
        put(saver, "a", user_id="u1", tenant="x")
        put(saver, "b", user_id="u1", tenant="y")
        put(saver, "c", user_id="u2", tenant="x", other=1)
        put(saver, "d")
        assert sorted(names(saver.find_threads(user_id="u1"))) == ["a", "b"]
        assert names(saver.find_threads(user_id="u1", tenant="y")) == ["b"]
        assert names(saver.find_threads(user_id="u2", tenant="y")) == []
        assert names(saver.find_threads(user_id="u")) == []
        assert [each.thread_id async for each in saver.afind_threads(tenant="x", user_id="u2")] == ["c"]
        assert next(saver.find_threads(user_id="u2")).checkpoints == 1
        for unknown in ({"other": 1}, {"user_id": "u1", "other": 1}, {}):
            with pytest.raises(ValueError, match="index"):
                list(saver.find_threads(**unknown))
            with pytest.raises(ValueError, match="index"):
                assert [each async for each in saver.afind_threads(**unknown)]


def test_the_last_active_is_found_first(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user_id"]) as saver:
        made = {}
        for thread in "abc":
            made[thread] = put(saver, thread, user_id="u1")
        put(saver, "a", made["a"], user_id="u1")
        found = list(saver.find_threads(user_id="u1"))
        assert [each.last_activity for each in found] == sorted((each.last_activity for each in found), reverse=True)
        assert found == [each for each in saver.list_threads() if each.thread_id in made]


def test_a_value_that_changes_moves_the_thread(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("user_id", "tenant")) as saver:
        first = put(saver, user_id="u1", tenant="x")
        second = put(saver, "t", first, user_id="u2", tenant="x")
        assert names(saver.find_threads(user_id="u1")) == []
        assert names(saver.find_threads(user_id="u2")) == ["t"]
        assert names(saver.find_threads(tenant="x")) == ["t"]
        put(saver, "t", second)  # a step that says nothing leaves the thread where it is
        assert names(saver.find_threads(user_id="u2", tenant="x")) == ["t"]
        assert len(index(raw, prefix, "m")) == 4


def test_a_copy_is_found_as_its_source_and_a_thread_that_went_back_as_it_was_then(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("user_id", "tenant")) as saver:
        first = put(saver, "t", None, user_id="u1", tenant="x")
        put(saver, "t", first, user_id="u2")
        saver.copy_thread("t", "copy")
        assert sorted(names(saver.find_threads(user_id="u2", tenant="x"))) == ["copy", "t"]
        saver.rollback("t", first)
        assert names(saver.find_threads(user_id="u1")) == ["t"]
        put(saver, "t", first, user_id="u3")
        saver.rollback("t", first, mode="truncate")
        assert names(saver.find_threads(user_id="u1", tenant="x")) == ["t"]
        assert names(saver.find_threads(user_id="u2")) == ["copy"]
        assert names(saver.find_threads(user_id="u3")) == []
        assert list(saver.verify()) == []
        assert len(index(raw, prefix, "m")) == 8
        for thread in ("t", "copy"):
            saver.delete_thread(thread)
        assert index(raw, prefix, "m") == []


@pytest.mark.parametrize("mode", ["truncate", "fork"])
def test_where_the_target_says_nothing_the_last_before_it_that_did_counts(url: str, prefix: str, mode: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("user", "mood")) as saver:
        made: list[str] = []
        for told in ({"user": "ann"}, *({} for _ in range(120)), {"user": "bob", "mood": "good"}):
            made.append(put(saver, "t", made[-1] if made else None, **told))
        saver.rollback("t", made[-2], mode=mode)
        assert names(saver.find_threads(user="ann")) == ["t"]
        assert names(saver.find_threads(user="bob")) == []
        assert names(saver.find_threads(mood="good")) == []


def test_one_is_not_true_and_not_its_text(url: str, prefix: str) -> None:
    values: list[Any] = [1, True, "1", "True", 1.0, 0, False, ""]
    with RedisSaver(url, prefix=prefix, index_metadata=("key",)) as saver:
        for n, value in enumerate(values):
            put(saver, f"{n}", key=value)
        for n, value in enumerate(values):
            assert names(saver.find_threads(key=value)) == [f"{n}"], value


def test_strange_values_and_threads_are_kept_apart(url: str, prefix: str) -> None:
    pairs = [("a b", "t:1"), ("a", "b t:1"), ("a:b", "*"), ("ä\U0001f980", "[x]"), ("str:1", "{y}"), ("x" * 2_000, " ")]
    with RedisSaver(url, prefix=prefix, index_metadata=("key", "ke")) as saver:
        for value, thread in pairs:
            put(saver, thread, key=value)
        for value, thread in pairs:
            assert names(saver.find_threads(key=value)) == [thread]
            assert names(saver.find_threads(ke=value)) == []


def test_values_that_cannot_be_indexed_are_left_out_and_stored(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("key",)) as saver:
        for n, value in enumerate([None, {"x": 1}, [1]]):
            put(saver, f"{n}", key=value)
            assert saver.get_tuple(at(f"{n}")).metadata["key"] == value
    assert index(raw, prefix, "m") == []


def test_a_graph_indexes_what_its_config_says(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("user_id",)) as saver:
        built = StateGraph(State).add_node("a", lambda _: {"log": ["a"]}).add_edge(START, "a")
        config = {"configurable": {"thread_id": "t", "user_id": "u1"}}
        built.compile(checkpointer=saver).invoke({"log": []}, config)
        assert names(saver.find_threads(user_id="u1")) == ["t"]


def test_a_key_that_is_indexed_later_finds_threads_from_their_next_write_on(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as plain_saver:
        first = put(plain_saver, "a", user_id="u1")
        put(plain_saver, "b", user_id="u1")
        with pytest.raises(ValueError, match="user_id"):
            list(plain_saver.find_threads(user_id="u1"))
    with RedisSaver(url, prefix=prefix, index_metadata=("user_id",)) as saver:
        assert names(saver.find_threads(user_id="u1")) == []
        put(saver, "a", first, user_id="u1")
        assert names(saver.find_threads(user_id="u1")) == ["a"]


def test_what_is_no_id_in_an_index_is_an_error_that_names_it(url: str, prefix: str, raw: Any) -> None:
    raw.zadd(bucket_key(prefix, 7, "m"), {b"Vuser_id\0str:u1\0\xfe": 0})
    raw.zadd(bucket_key(prefix, 7, "runs"), {b"Rr1\0\xfe": 0})
    with RedisSaver(url, prefix=prefix, index_metadata=("user_id",)) as saver:
        with pytest.raises(CheckpointCorruptError, match=r"user_id='u1'.*b'\\xfe'"):
            list(saver.find_threads(user_id="u1"))
        with pytest.raises(CheckpointCorruptError, match=r"run 'r1'.*b'\\xfe'"):
            saver.delete_for_runs(["r1"])


@pytest.mark.parametrize("bad", ["user_id", ("",), (1,), ("a\0b",)])
def test_keys_to_index_are_checked_at_construction(bad: Any) -> None:
    with pytest.raises(ValueError, match="index_metadata"):
        RedisSaver(index_metadata=bad)


def test_deleting_a_thread_takes_it_out_of_every_index(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=("user_id", "tenant"), ttl=60) as saver:
        config = {**at("t"), "metadata": {"run_id": "r1"}}
        made = checkpoint({})
        saver.put(config, made, metadata(user_id="u1", tenant="x"), {})
        put(saver, "other", user_id="u1")
        for name in ("threads", "expiry", "runs", "m"):
            thread = ThreadKeys(prefix, b"t").name
            assert any(thread in (member, *member[1:].split(b"\0")) for member in index(raw, prefix, name))
        delete(saver)
        assert names(saver.find_threads(user_id="u1")) == ["other"]
        other = ThreadKeys(prefix, b"other").name
        assert index(raw, prefix, "threads") == [other]
        assert index(raw, prefix, "expiry") == [other]
        assert index(raw, prefix, "runs") == []
        assert len(index(raw, prefix, "m")) == 2


def test_pruned_with_delete_is_gone_too(saver: RedisSaver) -> None:
    first = put(saver, "a")
    put(saver, "b")
    saver.prune(["a"], strategy="delete")
    assert names(saver.list_threads()) == ["b"]
    with pytest.raises(ThreadDeletedError):
        put(saver, "a", first)


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_limit_gives_the_first_of_all_wherever_they_are(saver: RedisSaver, raw: Any, prefix: str, newest_first: bool) -> None:
    crowded = [name for name in (f"t{n}" for n in range(40_000)) if bucket_of(name.encode()) == 7][:12]
    threads = [*crowded, *(f"other {n}" for n in range(12))]
    for n, name in enumerate(threads):
        put(saver, name)
        keys = ThreadKeys(prefix, name.encode())
        raw.zadd(keys.all[2], {name: 1000 * (n * 7 % 24) + (n > 12)})
    gone = ThreadKeys(prefix, crowded[3].encode())
    raw.delete(*gone.all[:2])  # expired
    expected = names(saver.list_threads(newest_first=newest_first))
    assert len(expected) == 23
    for limit in (1, 12, 40):
        raw.zadd(gone.all[2], {gone.name: 1e12 if newest_first else 0})  # the first that is read
        assert names(saver.list_threads(limit=limit, newest_first=newest_first)) == expected[:limit]


def test_a_limit_does_not_read_all_threads(saver: RedisSaver, raw: Any, prefix: str) -> None:
    put(saver, "a")
    raw.zadd(ThreadKeys(prefix, b"a").all[2], {f"thread {n:06}": n for n in range(20_000)})
    before = raw.info("stats")["total_net_output_bytes"]
    assert names(saver.list_threads(limit=1)) == ["a"]
    assert raw.info("stats")["total_net_output_bytes"] - before < 60_000
