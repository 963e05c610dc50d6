"""What people do with a thread's history, on every server there is: see `conftest.TARGETS`. What each method means in detail
is tested in tests/history/; here, that each server does it, for sync and async alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from conversations import remembering
from langgraph.graph import START, StateGraph
from servers import Server
from shapes import at, id_of
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointConflictError, ThreadDeletedError
from langgraph_redis_state.storage.keys import ThreadKeys

Make = Callable[..., RedisSaver]


class Told(TypedDict):
    log: list[str]


class Calls:
    """Calls a method of a saver, or its async twin; listings come as lists."""

    def __init__(self, saver: RedisSaver, twin: bool) -> None:
        self.saver, self.twin = saver, twin

    async def __call__(self, name: str, *args: Any, **options: Any) -> Any:
        result = getattr(self.saver, f"a{name}" if self.twin else name)(*args, **options)
        if inspect.isawaitable(result):
            return await result
        if hasattr(result, "__aiter__"):
            return [each async for each in result]
        return list(result) if hasattr(result, "__next__") else result


@pytest.fixture(params=["sync", "async"])
def calls(request: pytest.FixtureRequest, make: Make) -> Callable[..., Calls]:
    """Makes savers with options, and calls their methods."""
    return lambda **options: Calls(make(**options), request.param == "async")


async def turns(use: Calls, thread: str, *names: str) -> list[str]:
    """One checkpoint for each name, with all names so far; their ids."""
    graph = StateGraph(Told).add_node("say", lambda state: {}).add_edge(START, "say").compile(checkpointer=use.saver)
    made, log = [], list[str]()
    for name in names:
        log = [*log, name]
        config = {"configurable": {"thread_id": thread, "user": name}}
        if use.twin:
            made.append(id_of(await graph.aupdate_state(config, {"log": log}, as_node="say")))
        else:
            made.append(id_of(graph.update_state(config, {"log": log}, as_node="say")))
    return made


async def state(use: Calls, thread: str) -> Any:
    found = await use("get_tuple", at(thread))
    return found.checkpoint["channel_values"]["log"]


async def test_versions_tags_differences_and_both_ways_back(calls: Callable[..., Calls]) -> None:
    use = calls()
    made = await turns(use, "t", "one", "two", "three", "four")
    versions = await use("history", "t")
    assert [(each.number, each.checkpoint_id) for each in versions] == list(zip((4, 3, 2, 1), reversed(made), strict=True))
    await use("tag", "t", "best", made[1])
    assert await use("tags", "t") == {"best": made[1]}
    difference = await use("diff", "t", "best", made[3])
    assert difference["log"].appended == ["three", "four"]
    forked = await use("rollback", "t", "best")
    assert await state(use, "t") == ["one", "two"]
    assert len(await use("history", "t")) == 5
    await use("rollback", "t", made[2], mode="truncate")
    assert await state(use, "t") == ["one", "two", "three"]
    assert await use("get_tuple", forked) is None
    await use("prune", ["t"], keep_last=1)
    assert {each.checkpoint_id for each in await use("history", "t")} == {made[1], made[2]}
    assert await use("untag", "t", "best")


async def test_threads_are_listed_found_by_metadata_counted_and_deleted_for_good(calls: Callable[..., Calls]) -> None:
    use = calls(index_metadata=("user",))
    for n in range(25):
        await turns(use, f"thread:{n}", "u1" if n % 5 == 0 else "u2")
    assert {each.thread_id for each in await use("list_threads")} == {f"thread:{n}" for n in range(25)}
    assert [each.thread_id for each in await use("list_threads", limit=2)] == ["thread:24", "thread:23"]
    found = await use("find_threads", user="u1")
    assert {each.thread_id for each in found} == {f"thread:{n}" for n in range(0, 25, 5)}
    assert (await use("stats")).threads == 25
    assert (await use("stats", "thread:3")).checkpoints == 1
    (late,) = await turns(use, "thread:3", "u2")
    await use("delete_thread", "thread:3")
    with pytest.raises(ThreadDeletedError):
        await use("put_writes", at("thread:3", "", late), [("log", "late")], "task")
    assert "thread:3" not in {each.thread_id for each in await use("list_threads")}


async def test_a_thread_lives_as_long_as_it_was_told(calls: Callable[..., Calls], target: Server, prefix: str) -> None:
    use = calls(ttl=1_000)
    keys = ThreadKeys(prefix, b"t").all[:2]
    await turns(use, "t", "one")
    assert all(990_000 < target.admin.pttl(key) <= 1_000_000 for key in keys)
    await use("set_ttl", "t", 50)
    await turns(use, "t", "two")
    assert all(40_000 < target.admin.pttl(key) <= 50_000 for key in keys)
    await use("persist", "t")
    await turns(use, "t", "three")
    assert [target.admin.pttl(key) for key in keys] == [-1, -1]


async def test_a_second_writer_is_refused_and_a_limit_is_kept(calls: Callable[..., Calls]) -> None:
    use = calls(conflict="raise", max_versions=4)
    made = await turns(use, "t", *"abcdefghij")
    assert len(await use("history", "t")) <= 5
    assert (await state(use, "t"))[-1] == "j"
    found = await use("get_tuple", at("t"))
    with pytest.raises(CheckpointConflictError):
        await use("put", at("t", "", made[-2]), {**found.checkpoint, "id": made[-1] + "x"}, {"source": "loop", "step": 1}, {})


def test_a_fork_takes_back_what_a_subgraph_remembers(make: Make) -> None:
    graph = remembering(make())
    thread = at("t")
    for name in "ab":
        graph.invoke({"turn": name}, thread)
    end = id_of(make().get_tuple(thread).config)
    graph.invoke({"turn": "c"}, thread)
    make().rollback("t", end)
    assert graph.invoke({"turn": "d"}, thread)["told"] == ["a", "b", "d"]
