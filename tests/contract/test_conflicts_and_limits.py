"""Options `conflict` and `max_thread_bytes`."""

from __future__ import annotations

import logging
import operator
import os
import uuid
from typing import Annotated, Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from shapes import at, checkpoint, id_of, metadata, new_id, plain
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointConflictError, SerializationError, ThreadTooLargeError

T = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def put(saver: RedisSaver, thread: Any = "t", parent: str | None = None, values: Any = None, **more: Any) -> str:
    made = checkpoint(values)
    return id_of(saver.put(at(thread, "", parent), made, metadata(**more), made["channel_versions"]))


def everything(saver: RedisSaver, thread: str = "t") -> list[Any]:
    return [plain(found) for found in saver.list(at(thread, None))]


def names(infos: Any) -> list[str]:
    return [info.thread_id for info in infos]


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
