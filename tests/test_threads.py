"""Threads as a whole: finding them, deleting them for good, and what may be written to one by whom."""

from __future__ import annotations

import asyncio
import logging
import operator
import os
import time
import uuid
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Interrupt, interrupt
from shapes import at, checkpoint, id_of, metadata, new_id, plain
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import (
    CheckpointConflictError,
    CheckpointCorruptError,
    SerializationError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadTooLargeError,
)
from langgraph_redis_state.keys import BUCKETS, ThreadKeys, bucket_key

T = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def delete(saver: RedisSaver, thread: str = "t") -> None:
    saver.delete_thread(thread)


def put(saver: RedisSaver, thread: Any = "t", parent: str | None = None, values: Any = None, **more: Any) -> str:
    made = checkpoint(values)
    return id_of(saver.put(at(thread, "", parent), made, metadata(**more), made["channel_versions"]))


def everything(saver: RedisSaver, thread: str = "t") -> list[Any]:
    return [plain(found) for found in saver.list(at(thread, None))]


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
            assert any(b"t" in member.split(b"\0") or member.endswith((b"\0t", b"t")) for member in index(raw, prefix, name))
        delete(saver)
        assert names(saver.find_threads(user_id="u1")) == ["other"]
        assert index(raw, prefix, "threads") == [b"other"]
        assert index(raw, prefix, "expiry") == [b"other"]
        assert index(raw, prefix, "runs") == []
        assert len(index(raw, prefix, "m")) == 2


def test_pruned_with_delete_is_gone_too(saver: RedisSaver) -> None:
    first = put(saver, "a")
    put(saver, "b")
    saver.prune(["a"], strategy="delete")
    assert names(saver.list_threads()) == ["b"]
    with pytest.raises(ThreadDeletedError):
        put(saver, "a", first)


# --- deletion that stays deleted --------------------------------------------------------------------------------------


async def test_late_writes_of_a_run_do_not_bring_a_deleted_thread_back(saver: RedisSaver, asaver: RedisSaver) -> None:
    first = put(saver)
    late = checkpoint({"x": 1})  # its run has begun, nothing of it has arrived
    delete(saver)
    with pytest.raises(ThreadDeletedError, match="t"):
        saver.put(at("t", "", first), late, metadata(), late["channel_versions"])
    with pytest.raises(ThreadDeletedError):
        await asaver.aput(at("t", "", first), late, metadata(), late["channel_versions"])
    with pytest.raises(ThreadDeletedError):
        saver.put_writes(at("t", "", first), [("x", 1)], "task")
    with pytest.raises(ThreadDeletedError):
        await asaver.aput_writes(at("t", "", late["id"]), [(INTERRUPT, [Interrupt("?", id="i")])], "task")
    with pytest.raises(ThreadDeletedError):
        saver.put(at("t", "sub:1"), checkpoint(), metadata(parents={"": first}), {})
    assert saver.get_tuple(at("t")) is None
    assert everything(saver) == []
    assert names(saver.list_threads()) == []


async def test_a_new_run_on_the_same_id_works_at_once(saver: RedisSaver) -> None:
    first = put(saver)
    delete(saver)
    made = checkpoint({"x": 1})
    saver.put_writes(at("t", "", made["id"]), [("x", 1)], "task")  # writes may overtake their checkpoint
    saver.put(at("t"), made, metadata(), made["channel_versions"])
    put(saver, "t", made["id"])
    saver.put(at("t", "sub:1"), checkpoint(), metadata(parents={"": made["id"]}), {})
    assert len(everything(saver)) == 3
    with pytest.raises(ThreadDeletedError):  # the old run is refused still
        put(saver, "t", first)
    assert len(everything(saver)) == 3


def test_a_copy_onto_a_deleted_id_works_at_once_and_ends_the_tombstone(saver: RedisSaver) -> None:
    put(saver, "source", values={"x": 1})
    first = put(saver, "t")
    with pytest.raises(ThreadExistsError):
        saver.copy_thread("source", "t")
    delete(saver)
    saver.copy_thread("source", "t")
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"x": 1}
    put(saver, "t", first)  # nothing says any more that this is late
    assert len(everything(saver)) == 2


@pytest.mark.parametrize("none", [0, None])
def test_without_a_tombstone_a_late_write_is_taken(url: str, prefix: str, none: Any) -> None:
    with RedisSaver(url, prefix=prefix, tombstone=none) as saver:
        first = put(saver)
        delete(saver)
        put(saver, "t", first)
        assert len(everything(saver)) == 1


def test_a_tombstone_passes_and_is_not_made_for_nothing(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, tombstone=timedelta(milliseconds=150)) as saver:
        delete(saver)
        assert list(raw.scan_iter(match=f"{prefix}:*", count=10_000)) == []
        first = put(saver)
        delete(saver)
        with pytest.raises(ThreadDeletedError):
            put(saver, "t", first)
        (tombstone,) = raw.scan_iter(match=f"{prefix}:*x:t", count=10_000)
        while raw.exists(tombstone):
            pass
        put(saver, "t", first)


def test_a_thread_deleted_while_a_node_of_a_subgraph_runs_stays_deleted(saver: RedisSaver, raw: Any, prefix: str) -> None:
    def inner(state: State) -> Any:
        saver.delete_thread("t")
        return {"log": ["inner"]}

    sub = StateGraph(State).add_sequence([("s1", lambda _: {"log": ["s1"]}), ("inner", inner), ("s3", lambda _: {})])
    built = StateGraph(State).add_node("sub", sub.add_edge(START, "s1").compile()).add_node("end", lambda _: {})
    graph = built.add_edge(START, "sub").add_edge("sub", "end").compile(checkpointer=saver)
    with pytest.raises(ThreadDeletedError):
        graph.invoke({"log": ["in"]}, T)
    assert everything(saver) == []
    assert names(saver.list_threads()) == []
    left = [key for key in raw.scan_iter(match=f"{prefix}:*", count=10_000) if b":t:" in key or b":i:" in key]
    assert all(0 < raw.pttl(key) <= 600_000 for key in left)  # writes of the last step may be there until the tombstone goes


async def test_the_same_with_ainvoke_and_then_a_new_run(asaver: RedisSaver) -> None:
    deleting = [True]

    async def inner(state: State) -> Any:
        if deleting:
            await asaver.adelete_thread("t")
        return {"log": ["inner"]}

    sub = StateGraph(State).add_sequence([("s1", inner), ("s2", lambda _: {"log": ["s2"]})]).add_edge(START, "s1")
    built = StateGraph(State).add_node("sub", sub.compile()).add_edge(START, "sub")
    graph = built.compile(checkpointer=asaver)
    with pytest.raises(ThreadDeletedError):
        await graph.ainvoke({"log": ["in"]}, T)
    assert await asaver.aget_tuple(at("t")) is None
    deleting.clear()
    assert (await graph.ainvoke({"log": ["new"]}, T))["log"][-1] == "s2"
    assert (await graph.aget_state(T)).values["log"][0] == "new"


def test_a_new_run_does_not_expire_with_the_tombstone_whatever_overtakes_what(saver: RedisSaver, raw: Any, prefix: str) -> None:
    key = ThreadKeys(prefix, b"t").hash
    put(saver)
    delete(saver)
    time.sleep(0.002)
    ahead, first, second, third = (checkpoint({"x": n}) for n in range(4))

    def put_root(made: Any, parent: Any = None) -> None:
        saver.put(at("t", "", parent and parent["id"]), made, metadata(), made["channel_versions"])

    def put_sub(ns: str, root: Any) -> None:
        made = checkpoint({"y": 1})
        saver.put(at("t", ns), made, metadata(parents={"": root["id"]}), made["channel_versions"])

    put_sub("sub:0", ahead)
    assert raw.pttl(key) > 0  # if nothing else comes it was a late echo
    put_root(first)
    assert raw.pttl(key) == -1
    put_sub("sub:1", second)  # overtakes its parent
    put_root(second, first)
    put_sub("sub:2", third)
    assert raw.pttl(key) == -1
    saver.persist("t")
    delete(saver)
    saver.put_writes(at("t", "", new_id()), [("x", 1)], "task")
    saver.persist("t")
    saver.put_writes(at("t", "", new_id()), [("x", 1)], "task")
    put_sub("sub:3", checkpoint())
    assert raw.pttl(key) == -1  # persist is not undone
    delete(saver)
    time.sleep(0.002)
    first, second = checkpoint({"x": 1}), checkpoint({"x": 2})
    put_root(second, first)
    put_root(first)
    assert raw.pttl(key) == -1


async def test_threads_used_again_after_a_deletion_live_on(url: str, prefix: str, raw: Any) -> None:
    def step(state: State) -> Any:
        return {"log": ["x" * 1_000]}

    sub = StateGraph(State).add_node("inner", step).add_edge(START, "inner").compile()
    built = StateGraph(State).add_node("before", step).add_node("sub", sub).add_edge(START, "before").add_edge("before", "sub")
    async with RedisSaver(url, prefix=prefix) as saver:
        graph = built.compile(checkpointer=saver)
        for n in range(8):
            config = {"configurable": {"thread_id": f"t{n}"}}
            await graph.ainvoke({"log": ["a"]}, config)
            await saver.adelete_thread(f"t{n}")
            await graph.ainvoke({"log": ["b"]}, config)
            assert raw.pttl(ThreadKeys(prefix, f"t{n}".encode()).hash) == -1


def test_an_answer_to_a_deleted_thread_is_a_new_run(saver: RedisSaver) -> None:
    built = StateGraph(State).add_node("ask", lambda _: {"log": [interrupt("?")]}).add_edge(START, "ask")
    graph = built.compile(checkpointer=saver)
    graph.invoke({"log": ["in"]}, T)
    delete(saver)
    assert graph.get_state(T).values == {}
    assert graph.invoke({"log": ["in"]}, T)["__interrupt__"]
    assert graph.invoke(Command(resume="yes"), T) == {"log": ["in", "yes"]}


# --- conflict ---------------------------------------------------------------------------------------------------------


async def test_two_workers_cannot_fork_a_thread_unseen(url: str, prefix: str) -> None:
    async with RedisSaver(url, prefix=prefix, conflict="raise") as saver:
        first = put(saver)
        second = put(saver, "t", first)
        before, size = everything(saver), saver.stats("t")
        for parent in (first, None, new_id()):
            with pytest.raises(CheckpointConflictError, match=second):
                put(saver, "t", parent, {"x": ["y" * 500] * 50})
            made = checkpoint({"x": 1})
            with pytest.raises(CheckpointConflictError):
                await saver.aput(at("t", "", parent), made, metadata(), made["channel_versions"])
        assert everything(saver) == before
        assert saver.stats("t") == size
        put(saver, "t", second)
        saver.put(at("t", "sub:1"), checkpoint(), metadata(parents={"": second}), {})  # another namespace, its own newest


def test_the_same_put_again_is_not_a_conflict(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, conflict="raise") as saver:
        first = put(saver)
        second = checkpoint({"x": 1})
        for _ in range(2):
            saver.put(at("t", "", first), second, metadata(), second["channel_versions"])
        put(saver, "t", second["id"])
        saver.put(at("t", "", first), second, metadata(), second["channel_versions"])  # a retry that came late
        assert len(everything(saver)) == 3


def test_by_default_two_workers_fork_as_langgraph_does(saver: RedisSaver) -> None:
    first = put(saver)
    put(saver, "t", first)
    put(saver, "t", first)
    assert len(everything(saver)) == 3


def test_a_graph_runs_under_conflict_raise(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, conflict="raise") as saver:
        sub = StateGraph(State).add_node("ask", lambda _: {"log": [interrupt("?")]}).add_edge(START, "ask").compile()
        built = StateGraph(State).add_node("a", lambda _: {"log": ["a"]}).add_node("sub", sub).add_edge(START, "a")
        graph = built.add_edge("a", "sub").compile(checkpointer=saver)
        graph.invoke({"log": ["in"]}, T)
        first = saver.get_tuple(T)
        assert graph.invoke(Command(resume="yes"), T)["log"][-1] == "yes"
        graph.update_state(T, {"log": ["by hand"]})
        graph.invoke({"log": ["more"]}, T)
        graph.invoke(Command(resume="yes"), T)
        with pytest.raises(CheckpointConflictError):
            graph.update_state(first.config, {"log": ["on an old checkpoint"]}, as_node="a")
        saver.rollback("t", id_of(first.config))  # going back is not a conflict
        assert graph.invoke(None, T)["__interrupt__"]
        assert graph.invoke(Command(resume="no"), T)["log"][-1] == "no"


def test_a_child_below_its_parent_is_told(saver: RedisSaver, caplog: Any) -> None:
    older = new_id()
    parent = put(saver)
    made = checkpoint({"x": 1}, id=older)
    with caplog.at_level(logging.WARNING, logger="langgraph_redis_state"):
        saver.put(at("t", "", parent), made, metadata(), made["channel_versions"])
    assert "clock" in caplog.text


def test_a_child_below_its_parent_is_refused_under_conflict_raise(url: str, prefix: str) -> None:
    older = new_id()
    with RedisSaver(url, prefix=prefix, conflict="raise") as strict:
        parent = put(strict, "u")
        below = checkpoint({"x": 2}, id=older)
        with pytest.raises(CheckpointConflictError):
            strict.put(at("u", "", parent), below, metadata(), below["channel_versions"])


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_a_thread_does_not_grow_beyond_its_limit(url: str, prefix: str) -> None:
    async with RedisSaver(url, prefix=prefix, max_thread_bytes=20_000, compression="none") as saver:
        first = put(saver, values={"x": "small"})
        before, size = everything(saver), saver.stats("t")
        big = checkpoint({"x": "x" * 30_000})
        for attempt in range(2):
            with pytest.raises(ThreadTooLargeError, match="max_thread_bytes"):
                saver.put(at("t", "", first), big, metadata(), big["channel_versions"])
            with pytest.raises(ThreadTooLargeError):
                await saver.aput_writes(at("t", "", first), [("x", "y" * 30_000)], f"task {attempt}")
        assert everything(saver) == before
        assert saver.stats("t") == size
        newest = put(saver, "t", first, {"x": "small too"})
        assert saver.get_tuple(at("t")).checkpoint["id"] == newest
        with pytest.raises(ThreadTooLargeError):
            put(saver, "other", None, {"x": "x" * 30_000})
        assert names(saver.list_threads()) == ["t"]


def test_a_thread_of_more_than_64_megabytes_is_told_in_the_log(saver: RedisSaver, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, logger="langgraph_redis_state"):
        first = put(saver, "t", None, {"x": os.urandom(60_000_000)})
        assert caplog.text == ""
        put(saver, "t", first, {"x": os.urandom(10_000_000)})
    assert "thread 't'" in caplog.text
    assert "bytes" in caplog.text
    saver.delete_thread("t")


def test_room_made_by_pruning_can_be_used(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_thread_bytes=20_000, compression="none") as saver:
        first = put(saver, values={"x": "x" * 15_000})
        second = put(saver, "t", first, {"x": "small"})
        with pytest.raises(ThreadTooLargeError):
            put(saver, "t", second, {"x": "y" * 15_000})
        saver.prune(["t"])
        put(saver, "t", second, {"x": "y" * 15_000})


def test_limits_and_modes_are_checked_at_construction() -> None:
    for option in ("max_thread_bytes", "max_versions"):
        for bad in (0, -1, 1.5, True, "1"):
            with pytest.raises(ValueError, match=option):
                RedisSaver(**{option: bad})
    for option in ("ttl", "tombstone", "max_age"):
        for bad in (-1, "x", float("inf"), True):
            with pytest.raises(ValueError, match=option):
                RedisSaver(**{option: bad})
    with pytest.raises(ValueError, match="conflict"):
        RedisSaver(conflict="fork")


def test_a_value_that_cannot_be_serialized_makes_no_thread(saver: RedisSaver) -> None:
    with pytest.raises(SerializationError):
        put(saver, "t", None, {"x": lambda: None})
    with pytest.raises(SerializationError):
        saver.put_writes(at("t", "", str(uuid.uuid4())), [("x", lambda: None)], "task")
    assert names(saver.list_threads()) == []
