"""Deletion that stays deleted: late writes of a run are refused while the tombstone lives."""

from __future__ import annotations

import operator
import time
from datetime import timedelta
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Interrupt, interrupt
from shapes import at, checkpoint, id_of, metadata, new_id, plain
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ThreadDeletedError, ThreadExistsError
from langgraph_redis_state.storage.keys import ThreadKeys

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
        tombstone = ThreadKeys(prefix, b"t").tombstone
        assert raw.exists(tombstone)
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
