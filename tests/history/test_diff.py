"""`diff`: what changed between two checkpoints."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
from decimal import Decimal
from typing import Annotated, Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import START, StateGraph
from shapes import assert_same, at, checkpoint, id_of, metadata
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointNotFoundError

T = {"configurable": {"thread_id": "t"}}


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def graph(saver: Any, **options: Any) -> Any:
    """in -> a -> b"""
    built = StateGraph(State).add_node("a", lambda _: {"log": ["a"]}).add_node("b", lambda _: {"log": ["b"]})
    return built.add_edge(START, "a").add_edge("a", "b").compile(checkpointer=saver, **options)


def put(saver: RedisSaver, values: dict[str, Any] | None = None, parent: str | None = None, ns: str = "", **more: Any) -> str:
    made = checkpoint(values)
    return id_of(saver.put(at("t", ns, parent), made, metadata(**more), made["channel_versions"]))


def chain(saver: RedisSaver, length: int, ns: str = "") -> list[str]:
    made: list[str] = []
    for n in range(length):
        made.append(put(saver, {"n": n}, made[-1] if made else None, ns, step=n))
    return made


def test_diff_tells_what_was_added_removed_and_changed(saver: RedisSaver) -> None:
    a = put(saver, {"same": [1, 2], "old": "x", "changed": 1, "list": ["a", "b"]})
    b = put(saver, {"same": [1, 2], "new": {"y": 1}, "changed": 2, "list": ["a", "b", "c"]}, a)
    found = saver.diff("t", a, b)
    assert {name: each.kind for name, each in found.items()} == {
        "old": "removed",
        "new": "added",
        "changed": "changed",
        "list": "changed",
    }
    assert (found["old"].before, found["old"].after) == ("x", None)
    assert (found["new"].before, found["new"].after) == (None, {"y": 1})
    assert (found["changed"].before, found["changed"].after) == (1, 2)
    assert (found["list"].appended, found["list"].dropped) == (["c"], [])
    back = saver.diff("t", b, a)
    assert (back["old"].kind, back["new"].kind) == ("added", "removed")
    assert (back["list"].appended, back["list"].dropped) == ([], ["c"])
    assert saver.diff("t", a, a) == {}


@pytest.mark.parametrize(
    ("before", "after", "appended", "dropped"),
    [
        ([], [1], [1], []),
        ([1, 2, 3], [2, 3], [], [1]),
        ([1, 2, 3], [1, 3], [], [2]),
        ([1, 3], [1, 2, 3], [2], []),
        ([1, 2, 3], [1, "two", 3], ["two"], [2]),
        ([1, 1, 1], [1, 1], [], [1]),
        ([[1], [2]], [[1], [2], [3]], [[3]], []),
        ([{"a": {1, 2}}], [{"a": {2, 1}}, {"b": 1}], [{"b": 1}], []),
        ([np.arange(3), np.arange(4)], [np.arange(3), np.arange(4), np.arange(5)], [np.arange(5)], []),
        ([float("nan"), 1], [float("nan"), 1, 2], [2], []),
        ([1, 2], [True, 2], [True], [1]),
        ([HumanMessage("a", id="1")], [HumanMessage("a", id="1"), HumanMessage("b", id="2")], [HumanMessage("b", id="2")], []),
    ],
    ids=repr,
)
def test_diff_of_lists_names_the_elements(
    saver: RedisSaver, before: Any, after: Any, appended: list[Any], dropped: list[Any]
) -> None:
    a = put(saver, {"x": before})
    found = saver.diff("t", a, put(saver, {"x": after}, a))["x"]
    assert_same((appended, dropped), (found.appended, found.dropped))
    assert_same((before, after), (found.before, found.after))


def test_diff_of_a_long_list_is_short(saver: RedisSaver) -> None:
    words = [f"word {n} " * 5 for n in range(5_000)]
    a = put(saver, {"x": words})
    b = put(saver, {"x": [*words[1:2_500], "between", *words[2_500:], "end"]}, a)
    found = saver.diff("t", a, b)["x"]
    assert (found.appended[-1], found.dropped[0]) == ("end", words[0])
    assert saver.diff("t", b, put(saver, {"x": [*words[1:2_500], "between", *words[2_500:], "end", "more"]}, b))[
        "x"
    ].appended == ["more"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, True),
        (1, 1.0),
        ("1", 1),
        (np.arange(3), np.arange(4)),
        (np.arange(3), np.array([0, 1, 5])),
        (np.arange(3), np.arange(3.0)),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}),
        ([np.zeros(2)], [np.ones(2)]),
        (None, 0),
        ({1, 2}, {1, 3}),
        ({1}, {True}),
        ({1: "x"}, {True: "x"}),
        ([np.array([1])], [np.array([[1]])]),
        (np.array([1]), np.array([1.0])),
    ],
    ids=repr,
)
def test_values_that_differ_are_changed(saver: RedisSaver, before: Any, after: Any) -> None:
    a = put(saver, {"x": before, "y": 0})
    found = saver.diff("t", a, put(saver, {"x": after, "y": 0}, a))
    assert list(found) == ["x"]
    assert found["x"].kind == "changed"
    assert_same((before, after), (found["x"].before, found["x"].after))


def test_values_that_refuse_to_be_compared_are_compared_as_they_serialize(saver: RedisSaver) -> None:
    a = put(saver, {"x": Decimal("sNaN"), "y": [Decimal("sNaN")]})
    found = saver.diff("t", a, put(saver, {"x": Decimal("NaN"), "y": [Decimal("sNaN")]}, a))
    assert {name: each.kind for name, each in found.items()} == {"x": "changed"}


@pytest.mark.parametrize(
    "value",
    [
        np.arange(100),
        {"nested": [np.arange(3), {"deep": np.zeros((2, 2))}]},
        [float("nan")],
        float("nan"),
        {"b": 1, "a": [HumanMessage("x", id="1")]},
    ],
    ids=repr,
)
def test_values_that_are_equal_are_not_mentioned(saver: RedisSaver, value: Any) -> None:
    a = put(saver, {"x": value})
    b = put(saver, {"x": value}, a)
    assert saver.diff("t", a, b) == {}


def test_equal_values_that_serialize_differently_are_not_mentioned(saver: RedisSaver) -> None:
    a = put(saver, {"x": {"b": [1, np.arange(3)], "a": {1}}, "y": {"k": 1, "l": 2}})
    b = put(saver, {"x": {"a": {1}, "b": [1, np.arange(3)]}, "y": {"l": 2, "k": 1}}, a)
    assert saver.diff("t", a, b) == {}


WRITE_A_SET = """
import sys
from langgraph.checkpoint.base import empty_checkpoint
from langgraph_redis_state import RedisSaver

def write(saver):
    values = {"x": {"names": {f"name {n}" for n in range(40)}}, "list": [frozenset("abcdefgh"), "end"]}
    made = {**empty_checkpoint(), "channel_values": values, "channel_versions": {"x": 1, "list": 1}}
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    saver.put(config, made, {"source": "loop", "step": 0, "parents": {}}, made["channel_versions"])
    return made["id"]
"""
IN_A_PROCESS = """
with RedisSaver(sys.argv[1], prefix=sys.argv[2]) as saver:
    print(write(saver))
"""


def test_equal_sets_are_equal_though_two_processes_store_different_bytes(saver: RedisSaver, url: str, prefix: str) -> None:
    there = subprocess.run(
        [sys.executable, "-c", WRITE_A_SET + IN_A_PROCESS, url, prefix],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    here: dict[str, Any] = {}
    exec(WRITE_A_SET, here)
    made = [there.stdout.strip(), here["write"](saver)]
    names = [list(saver.get_tuple(at("t", "", each)).checkpoint["channel_values"]["x"]["names"]) for each in made]
    assert sorted(names[0]) == sorted(names[1])
    sizes = {version.checkpoint_id: version.new_bytes for version in saver.history("t")}
    assert sizes[made[1]] > 100  # nothing large was shared, so these are other bytes
    assert saver.diff("t", *made) == {}


async def test_diff_takes_ids_tags_and_steps_and_namespaces(saver: RedisSaver, asaver: RedisSaver) -> None:
    made = chain(saver, 4)
    saver.tag("t", "start", made[0])
    expected = saver.diff("t", made[0], made[2])
    assert (expected["n"].before, expected["n"].after) == (0, 2)
    assert saver.diff("t", "start", -1) == expected
    assert saver.diff("t", -3, made[2]) == expected
    assert await asaver.adiff("t", "start", -1) == expected
    inside = chain(saver, 2, "sub")
    assert saver.diff("t", inside[0], -0 - 1, checkpoint_ns="sub") == {}
    assert saver.diff("t", inside[0], inside[1], checkpoint_ns="sub")["n"].after == 1
    for missing in ("nothing", "", -9):
        with pytest.raises(CheckpointNotFoundError, match=r"^diff: thread 't'"):
            saver.diff("t", made[0], missing)
    saver.tag("t", "inside", inside[0], checkpoint_ns="sub")
    assert saver.diff("t", "inside", inside[1], checkpoint_ns="sub")["n"].after == 1
    for call in (lambda: saver.diff("t", "inside", made[0]), lambda: saver.rollback("t", "inside")):
        with pytest.raises(CheckpointNotFoundError, match="the tag 'inside' is for a checkpoint of the namespace 'sub'"):
            call()
    with pytest.raises(CheckpointNotFoundError):
        saver.diff("no thread", made[0], made[1])


def test_diff_between_runs_of_a_graph(saver: RedisSaver) -> None:
    graph(saver).invoke({"log": ["in"]}, T)
    end = next(saver.history("t")).checkpoint_id
    graph(saver).invoke({"log": ["again"]}, T)
    found = saver.diff("t", end, next(saver.history("t")).checkpoint_id)
    assert list(found) == ["log"]
    assert (found["log"].appended, found["log"].dropped) == (["again", "a", "b"], [])


def test_diff_says_of_delta_channels_what_their_snapshots_say(saver: RedisSaver) -> None:
    a = put(saver, {"log": _DeltaSnapshot([1, 2]), "x": 1})
    b = put(saver, {"x": 2}, a)
    c = put(saver, {"log": _DeltaSnapshot([1, 2, 3]), "x": 2}, b)
    assert list(saver.diff("t", a, b)) == ["x"]
    assert saver.diff("t", b, c) == {}
    found = saver.diff("t", a, c)["log"]
    assert (found.before, found.after, found.appended, found.dropped) == ([1, 2], [1, 2, 3], [3], [])
