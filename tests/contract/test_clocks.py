"""Clients whose clocks are wrong by up to an hour. The clock of this process is patched where ids and moments are made, so it
plays the other machine (`time.time`, `time.time_ns`, and the last moment that `uuid6` remembers). The server's is real."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from typing import Annotated, Any

import langgraph.checkpoint.base.id as ids_of_langgraph
import pytest
from langgraph.graph import START, StateGraph
from shapes import at, checkpoint, id_of, ids, listed, metadata, put
from soak import in_turn
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ThreadDeletedError
from langgraph_redis_state.storage.keys import ThreadKeys

SHIFTS = [-3600, -1, -0.02, 0.02, 1, 3600]
"""By how many seconds a machine is ahead of the server."""

Machine = Callable[[float], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """From now on this process is a machine whose clock is ahead by so many seconds."""
    now, now_ns = time.time, time.time_ns

    def shift(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now() + seconds)
        monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(seconds * 1e9))
        monkeypatch.setattr(ids_of_langgraph, "_last_v6_timestamp", None)

    return shift


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def graph(saver: Any, remembering: bool) -> Any:
    inner = StateGraph(State).add_sequence([("s1", lambda _: {"log": ["s1"]}), ("s2", lambda _: {"log": ["s2"]})])
    sub = inner.add_edge(START, "s1").compile(checkpointer=True if remembering else None)
    return StateGraph(State).add_node("sub", sub).add_edge(START, "sub").compile(checkpointer=saver)


@pytest.mark.parametrize("seconds", SHIFTS)
async def test_a_new_run_right_after_a_deletion_is_taken_also_where_a_subgraph_overtakes_it(
    either: Any, raw: Any, prefix: str, machine: Machine, seconds: float
) -> None:
    await put(either, at("t"), {"x": 1})
    machine(seconds)
    for _ in range(3):
        await either.adelete_thread("t")
        root = checkpoint({"x": 1})
        sub = await put(either, at("t", "sub:1"), {"x": 2}, parents={"": root["id"]})
        await either.aput_writes(sub, [("x", 3)], "task")
        await either.aput_writes(at("t", "", root["id"]), [("x", 4)], "task")
        made = await either.aput(at("t"), root, metadata(), {"x": 1})
        child = await put(either, made, {"x": 5})
        assert await ids(either, at("t")) == [id_of(child), id_of(made)]
        assert len(await listed(either, at("t", None))) == 3
        assert raw.pttl(ThreadKeys(prefix, b"t").hash) == -1


@pytest.mark.parametrize("seconds", SHIFTS)
async def test_a_late_write_is_refused_whatever_the_clocks_say(either: Any, machine: Machine, seconds: float) -> None:
    machine(seconds)
    old = await put(either, at("t"), {"x": 1})
    await either.adelete_thread("t")
    for other in (seconds, 0, -seconds):
        machine(other)
        with pytest.raises(ThreadDeletedError):
            await put(either, old, {"x": 2})
        with pytest.raises(ThreadDeletedError):
            await put(either, at("t", "sub:1"), {"x": 2}, parents={"": id_of(old)})
        with pytest.raises(ThreadDeletedError):
            await either.aput_writes(old, [("x", 1)], "task")
    assert await listed(either, None) == []


@pytest.mark.parametrize(
    ("seconds", "durability", "remembering"),
    in_turn([-3600, -0.02, 3600], ["sync", "async", "exit"], [False, True], rounds=2),
)
def test_a_graph_with_a_subgraph_runs_right_after_a_deletion(
    saver: RedisSaver, machine: Machine, durability: Any, remembering: bool, seconds: float
) -> None:
    built = graph(saver, remembering)
    built.invoke({"log": ["old"]}, at("t"), durability=durability)
    machine(seconds)
    for n in range(3):
        saver.delete_thread("t")
        assert built.invoke({"log": [f"new {n}"]}, at("t"), durability=durability)["log"] == [
            f"new {n}",
            f"new {n}",
            "s1",
            "s2",
        ]
        assert "old" not in built.get_state(at("t")).values["log"]


@pytest.mark.parametrize("seconds", SHIFTS)
def test_max_age_goes_by_the_clock_of_the_server(url: str, prefix: str, machine: Machine, seconds: float) -> None:
    with RedisSaver(url, prefix=prefix, max_age=600) as saver:
        machine(seconds)
        made = [id_of(saver.put(at("t"), checkpoint({"x": n}), metadata(), {"x": 1})) for n in range(50)]
        assert [id_of(found.config) for found in saver.list(at("t"))] == made[::-1]


@pytest.mark.parametrize("seconds", [-3600, 0, 3600])
def test_what_is_older_than_max_age_goes_also_if_the_client_has_another_clock(
    url: str, prefix: str, machine: Machine, seconds: float
) -> None:
    with RedisSaver(url, prefix=prefix, max_age=0.3) as saver:
        machine(seconds)
        old = {id_of(saver.put(at("t"), checkpoint({"x": n}), metadata(), {"x": 1})) for n in range(7)}
        time.sleep(0.35)  # their age is the condition
        for n in range(2):
            saver.put(at("t"), checkpoint({"x": n}), metadata(), {"x": 1})
        assert not old & {id_of(found.config) for found in saver.list(at("t"))}


@pytest.mark.parametrize("how", ["max_versions", "keep_last", "keep_latest"])
def test_what_was_stored_last_stays_and_so_does_what_langgraph_reads_next(
    url: str, prefix: str, machine: Machine, how: str
) -> None:
    """A machine an hour behind goes on with a thread: its ids are smaller, and the greatest id is the newest to LangGraph."""
    with RedisSaver(url, prefix=prefix, max_versions=2 if how == "max_versions" else None) as saver:
        machine(3600)
        ahead = [id_of(saver.put(at("t"), checkpoint({"x": n}), metadata(), {"x": 1})) for n in range(4)]
        machine(0)
        behind = [id_of(saver.put(at("t"), checkpoint({"x": n}), metadata(), {"x": 1})) for n in range(4)]
        if how != "max_versions":
            saver.prune(["t"], strategy="keep_latest", keep_last=2 if how == "keep_last" else None)
        left = [id_of(found.config) for found in saver.list(at("t"))]
        assert left == ([ahead[-1]] if how == "keep_latest" else [ahead[-1], behind[-1], behind[-2]])
        assert id_of(saver.get_tuple(at("t")).config) == ahead[-1]
