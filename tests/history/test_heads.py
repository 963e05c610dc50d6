"""heads and writes: where threads stand, and what tasks have stored, sync and async."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
import redis
from langgraph.graph import START, StateGraph
from langgraph.types import Send, interrupt
from shapes import SyncSurface, at, id_of, put

from langgraph_redis_state import (
    CheckpointCorruptError,
    CheckpointLostError,
    CheckpointNotFoundError,
    Head,
    RedisSaver,
    StoredWrite,
    ThreadNotFoundError,
)
from langgraph_redis_state.storage.keys import ThreadKeys


async def heads_of(saver: RedisSaver, threads: list[str], way: str) -> list[Head]:
    return [head async for head in saver.aheads(threads)] if way == "async" else list(saver.heads(threads))


async def writes_of(saver: RedisSaver, way: str, *arguments: Any, **named: Any) -> list[StoredWrite]:
    return list(await saver.awrites(*arguments, **named) if way == "async" else saver.writes(*arguments, **named))


WAYS = pytest.mark.parametrize("way", ["sync", "async"])


@WAYS
async def test_heads_gives_the_newest_root_checkpoint_of_each_thread_in_the_order_asked_for(
    saver: RedisSaver, way: str
) -> None:
    surface = SyncSurface(saver)
    first = await put(surface, at("a"), {"x": 1})
    newest = await put(surface, first, {"x": 2, "big": "y" * 500})
    await put(surface, at("a", ns="sub:1"), {"x": 3})
    saver.put_writes(newest, [("x", 3), ("big", "z" * 5000)], "task", "~__pregel_pull, node")
    await put(surface, at("b"), {"x": 4})
    found = await heads_of(saver, ["b", "none", "a"], way)
    assert [head.thread_id for head in found] == ["b", "a"]
    head = found[1]
    assert (head.checkpoint_id, head.parent_id) == (id_of(newest), id_of(first))
    assert head.checkpoint["channel_values"] == {"x": 2, "big": None}, "what stands in chunks is left out"
    assert head.checkpoint["channel_versions"].keys() == {"x", "big"}
    assert [(write.task_path, write.channel, write.value) for write in head.writes] == [
        ("~__pregel_pull, node", "x", 3),
        ("~__pregel_pull, node", "big", None),
    ]
    assert head.created_at <= head.writes[0].stored_at


@WAYS
async def test_writes_gives_whole_values_of_a_checkpoint_named_by_id_tag_or_steps(saver: RedisSaver, way: str) -> None:
    first = await put(SyncSurface(saver), at("t"), {"x": 1})
    await put(SyncSurface(saver), first, {"x": 2})
    saver.put_writes(first, [("big", "z" * 5000)], "task")
    saver.tag("t", "first", id_of(first))
    assert await writes_of(saver, way, "t") == []
    for name in (id_of(first), "first", -1):
        (write,) = await writes_of(saver, way, "t", name)
        assert (write.task_id, write.channel, write.value, write.index) == ("task", "big", "z" * 5000, 0)
        assert write.logical_bytes > 5000
    with pytest.raises(CheckpointNotFoundError):
        await writes_of(saver, way, "t", "nothing")
    with pytest.raises(ThreadNotFoundError):
        await writes_of(saver, way, "none")


async def test_a_thread_that_cannot_be_read_does_not_hide_the_others(saver: RedisSaver, prefix: str, raw: redis.Redis) -> None:
    for thread in ("damaged", "unindexed", "fine"):
        config = await put(SyncSurface(saver), at(thread), {"x": 1})
        if thread == "damaged":
            keys, field = ThreadKeys(prefix, b"damaged"), b"C\0" + id_of(config).encode()
            record = raw.hget(keys.hash, field)
            raw.hset(keys.hash, field, record[:-1] + bytes([record[-1] ^ 1]))
    raw.delete(ThreadKeys(prefix, b"unindexed").all[1])
    found = list(saver.heads(["damaged", "unindexed", "fine"]))
    assert [type(head.problem) for head in found] == [CheckpointCorruptError, CheckpointLostError, type(None)]
    assert not raw.exists(ThreadKeys(prefix, b"unindexed").all[1]), "looking rebuilds nothing"


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def test_paths_and_order_are_those_of_a_graph(saver: RedisSaver) -> None:
    def ask(state: State) -> State:
        interrupt("why?")
        raise AssertionError

    builder = StateGraph(State).add_node("fan", lambda state: {"log": ["fan"]}).add_node("ask", ask)
    builder.add_node("work", lambda state: {"log": [state["log"][0]]}).add_edge(START, "fan").add_edge("fan", "ask")
    builder.add_conditional_edges("fan", lambda state: [Send("work", {"log": ["b"]}), Send("work", {"log": ["a"]})], ["work"])
    builder.compile(checkpointer=saver).invoke({"log": []}, at("t"))
    paths = [(write.task_path[:26], write.channel) for write in saver.writes("t")]
    assert paths == [
        ("~__pregel_pull, ask", "__interrupt__"),
        ("~__pregel_push, 0000000000", "log"),
        ("~__pregel_push, 0000000001", "log"),
    ]


@WAYS
async def test_history_of_all_namespaces_says_which_step_called_a_subgraph_and_which_run(saver: RedisSaver, way: str) -> None:
    surface = SyncSurface(saver)
    root = await put(surface, at("t"), {"x": 1}, run_id="run")
    inner: Any = {"configurable": {**at("t", ns="sub:1")["configurable"], "checkpoint_map": {"": id_of(root)}}}
    await put(surface, inner, {"x": 2})
    read = saver.ahistory("t", checkpoint_ns=None) if way == "async" else None
    found = list(saver.history("t", checkpoint_ns=None)) if read is None else [version async for version in read]
    assert [(version.checkpoint_ns, version.run_id) for version in found] == [("sub:1", None), ("", "run")]
    assert [version.checkpoint_ns for version in saver.history("t")] == [""]
