"""`put_writes`: which of two writes holds, and in which order they come back."""

from __future__ import annotations

import inspect
from typing import Any

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED
from langgraph.types import Interrupt
from shapes import at, checkpoint, id_of, ids, listed, metadata, put

from langgraph_redis_state import RedisSaver


async def test_put_leaves_the_writes_of_its_checkpoint_alone(either: Any) -> None:
    made = checkpoint({"x": 1})
    config = await either.aput(at("t"), made, metadata(), {"x": 1})
    await either.aput_writes(config, [(INTERRUPT, [Interrupt(value="go on?", id="i")])], "task", "~path")
    await either.aput(at("t"), made, metadata(step=1), {"x": 1})
    await put(either, config, {"x": 2})
    found = await either.aget_tuple(config)
    assert found.metadata["step"] == 1
    assert found.pending_writes == [("task", INTERRUPT, [Interrupt(value="go on?", id="i")])]


async def test_writes_may_arrive_before_their_checkpoint(either: Any) -> None:
    made = checkpoint({"x": 1})
    await either.aput_writes(at("t", "", made["id"]), [("x", "early")], "task")
    assert await either.aget_tuple(at("t")) is None
    assert await ids(either, at("t")) == []
    config = await either.aput(at("t"), made, metadata(), {"x": 1})
    assert (await either.aget_tuple(config)).pending_writes == [("task", "x", "early")]
    assert [t.pending_writes for t in await listed(either, at("t"))] == [[("task", "x", "early")]]


def test_both_put_writes_have_the_parameter_langgraph_looks_for(saver: RedisSaver) -> None:
    for found in (saver, saver.with_allowlist([("somewhere", "Something")])):
        assert "task_path" in inspect.signature(found.put_writes).parameters  # as langgraph/pregel looks for it
        assert "task_path" in inspect.signature(found.aput_writes).parameters


async def test_the_first_of_two_ordinary_writes_wins_and_the_last_of_two_special_ones(either: Any) -> None:
    config = await put(either, at("t"))
    special = [ERROR, SCHEDULED, INTERRUPT, RESUME]
    assert set(special) == set(WRITES_IDX_MAP)
    await either.aput_writes(config, [("x", 1), ("y", 1), *((name, 1) for name in special)], "task")
    await either.aput_writes(config, [("x", 2), ("y", 2), ("z", 2), *((name, 2) for name in special)], "task")
    # "z" stands third, where the first batch had a special write: those have places of their own.
    found = {channel: value for _, channel, value in (await either.aget_tuple(config)).pending_writes}
    assert found == {"x": 1, "y": 1, "z": 2} | dict.fromkeys(special, 2)


async def test_who_wins_is_decided_for_each_write_of_a_batch(either: Any, memory: InMemorySaver) -> None:
    batches = [
        [("x", "first")],
        [(INTERRUPT, "first"), ("y", "first at 1")],
        [("x", "late"), ("y", "late"), (INTERRUPT, "last"), ("z", "first at 3")],
        [(INTERRUPT, "very last"), (INTERRUPT, "the very last")],
    ]
    config = await put(either, at("t"))
    for saver in (memory, either):
        for batch in batches:
            await saver.aput_writes(config, batch, "task")
    await memory.aput(at("t"), checkpoint(id=id_of(config)), metadata(), {})
    expected = (await memory.aget_tuple(config)).pending_writes
    assert [tuple(write) for write in (await either.aget_tuple(config)).pending_writes] == expected
    assert ("task", INTERRUPT, "the very last") in expected


async def test_writes_come_in_the_order_of_path_then_task_then_index_as_a_number(either: Any, memory: InMemorySaver) -> None:
    config = await put(either, at("t"))
    await put(memory, at("t"), id=id_of(config))
    twelve = [("x", n) for n in range(12)]
    for saver in (either, memory):
        await saver.aput_writes(config, twelve, "task-b", "~__pregel_pull, b")
        await saver.aput_writes(config, [*twelve[:3], (ERROR, "e"), (RESUME, "r")], "task-a", "~__pregel_pull, b")
        await saver.aput_writes(config, [("x", "path a")], "task-z", "~__pregel_pull, a")
        await saver.aput_writes(config, [("x", "no path")], "task-zz")
        await saver.aput_writes(config, [("x", "capital")], "task-0", "~__PREGEL")
    found = [tuple(write) for write in (await either.aget_tuple(config)).pending_writes]
    assert found == (await memory.aget_tuple(config)).pending_writes
    assert [value for task, _, value in found if task == "task-b"] == list(range(12))
    assert [value for task, _, value in found][:3] == ["no path", "capital", "path a"]
    assert [[tuple(w) for w in t.pending_writes] for t in await listed(either, at("t"))] == [found]


async def test_the_same_task_id_in_another_checkpoint_or_namespace_is_another_task(either: Any) -> None:
    places = [await put(either, at("t")), await put(either, at("t")), await put(either, at("t", "child:1"))]
    for n, config in enumerate(places):
        await either.aput_writes(config, [("x", n)], "task")
    for n, config in enumerate(places):
        assert (await either.aget_tuple(config)).pending_writes == [("task", "x", n)]


async def test_a_write_may_be_none_or_empty(either: Any) -> None:
    config = await put(either, at("t"))
    await either.aput_writes(config, [("a", None), ("b", b""), ("c", ""), ("d", [])], "task")
    assert [value for _, _, value in (await either.aget_tuple(config)).pending_writes] == [None, b"", "", []]


async def test_no_writes_at_all_is_not_an_error(either: Any) -> None:
    config = await put(either, at("t"))
    await either.aput_writes(config, [], "task")
    assert (await either.aget_tuple(config)).pending_writes == []
