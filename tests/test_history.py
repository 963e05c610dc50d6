"""Looking at the past of a thread: its versions, names for them, and what changed between two."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
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
from langgraph_redis_state.errors import (
    CheckpointCorruptError,
    CheckpointNotFoundError,
    IntegrityKeyError,
    ThreadNotFoundError,
)
from langgraph_redis_state.keys import ThreadKeys

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


# --- history ----------------------------------------------------------------------------------------------------------


def test_history_tells_each_checkpoint_newest_first_as_list_does(saver: RedisSaver) -> None:
    earliest = datetime.now(timezone.utc) - timedelta(seconds=1)
    graph(saver).invoke({"log": ["in"]}, T)
    graph(saver).update_state(T, {"log": ["by hand"]})
    versions, tuples = list(saver.history("t")), list(saver.list(at("t")))
    assert [each.checkpoint_id for each in versions] == [id_of(each.config) for each in tuples]
    assert [each.parent_id for each in versions] == [each.parent_config and id_of(each.parent_config) for each in tuples]
    assert [(each.source, each.step) for each in versions] == [
        (each.metadata["source"], each.metadata["step"]) for each in tuples
    ]
    assert [each.next for each in versions[:4]] == [(), (), ("b",), ("a",)]
    assert [each.number for each in versions] == [5, 4, 3, 2, 1]
    moments = [each.created_at for each in versions]
    assert moments == sorted(moments, reverse=True)
    assert all(earliest < each < datetime.now(timezone.utc) + timedelta(seconds=1) for each in moments)
    assert all(each.created_at.tzinfo is timezone.utc for each in versions)
    assert {each.checkpoint_ns for each in versions} == {""}
    assert {each.tags for each in versions} == {()}


async def test_async_history_is_the_same(asaver: RedisSaver, saver: RedisSaver) -> None:
    chain(saver, 120)
    saver.tag("t", "name", -3)
    assert [each async for each in asaver.ahistory("t")] == list(saver.history("t"))
    assert [each async for each in asaver.ahistory("t", limit=3)] == list(saver.history("t"))[:3]


def test_history_of_nothing_is_empty(saver: RedisSaver) -> None:
    assert list(saver.history("t")) == []
    chain(saver, 2)
    assert list(saver.history("t", checkpoint_ns="other")) == []
    assert list(saver.history("t", limit=0)) == []


@pytest.mark.parametrize("limit", [1, 99, 100, 101, 200, 249, 250, 251, None])
def test_history_has_no_hidden_cap_and_ends_at_the_limit(saver: RedisSaver, limit: Any) -> None:
    made = chain(saver, 250)[::-1]
    saver.tag("t", "early", made[-1])
    found = list(saver.history("t", limit=limit))
    assert [each.checkpoint_id for each in found] == made[:limit]
    assert [each.number for each in found] == list(range(250, 0, -1))[:limit]
    assert [each.checkpoint_id for each in found if each.tags] == (made[-1:] if len(found) == 250 else [])


def test_each_namespace_has_its_history_and_they_share_the_counter(saver: RedisSaver) -> None:
    put(saver, {"x": 1})
    chain(saver, 2, "child:1")
    put(saver, {"x": 2})
    newest = next(saver.history("t", checkpoint_ns="child:1")).checkpoint_id
    saver.tag("t", "inside", newest, checkpoint_ns="child:1")
    assert [each.number for each in saver.history("t")] == [4, 1]
    inside = list(saver.history("t", checkpoint_ns="child:1"))
    assert [each.number for each in inside] == [3, 2]
    assert {each.checkpoint_ns for each in inside} == {"child:1"}
    assert [each.tags for each in inside] == [("inside",), ()]
    assert saver.tags("t") == {"inside": newest}
    assert list(saver.history("t", checkpoint_ns="child")) == []


def test_numbers_are_never_used_twice(saver: RedisSaver) -> None:
    made = chain(saver, 6)
    saver.prune(["t"], keep_last=3)
    assert [each.number for each in saver.history("t")] == [6, 5, 4]
    saver.rollback("t", made[3], mode="truncate")
    put(saver, {"n": "new"}, made[3])
    assert [each.number for each in saver.history("t")] == [7, 4]
    saver.rollback("t", -1)
    assert [each.number for each in saver.history("t")] == [8, 7, 4]
    saver.prune(["t"])
    put(saver, {"n": "newer"})
    assert [each.number for each in saver.history("t")] == [9, 8]


def test_a_checkpoint_put_again_keeps_its_number_and_moment(saver: RedisSaver) -> None:
    made = checkpoint({"x": 1})
    saver.put(at("t"), made, metadata(), made["channel_versions"])
    put(saver, {"x": 2}, made["id"])
    before = list(saver.history("t"))
    saver.put(at("t"), made, metadata(), made["channel_versions"])
    assert list(saver.history("t")) == before


def test_bytes_tell_what_a_step_added_and_what_its_state_is(saver: RedisSaver) -> None:
    words = [f"{n}: {os.urandom(30).hex()}" for n in range(2_000)]
    first = checkpoint({"log": words})
    saver.put(at("t"), first, metadata(), {"log": 1})
    second = checkpoint({"log": [*words, "one more"]}, {"log": 2})
    saver.put(at("t", "", first["id"]), second, metadata(), {"log": 2})
    third = checkpoint({"log": [*words, "one more"], "x": 1}, {"log": 2, "x": 1})
    saver.put(at("t", "", second["id"]), third, metadata(), {"x": 1})
    newest, middle, oldest = saver.history("t")
    assert oldest.logical_bytes > 2_000 * 60
    assert oldest.logical_bytes < middle.logical_bytes < newest.logical_bytes
    assert 2_000 * 30 < oldest.new_bytes < 1.1 * oldest.logical_bytes  # random digits hardly compress
    assert newest.new_bytes < middle.new_bytes < oldest.new_bytes / 5
    assert sum(each.new_bytes for each in (newest, middle, oldest)) == saver.stats("t").stored_bytes


def test_a_version_that_stores_what_was_there_in_less_added_nothing(url: str, prefix: str, saver: RedisSaver) -> None:
    with RedisSaver(url, prefix=prefix, compression="none") as other:
        put(other, {"log": ["word " * 2000]})
    put(saver, {"log": ["word " * 2000]})
    assert next(saver.history("t")).new_bytes == 0
    assert [*saver.verify()] == []


def test_history_reads_no_values(saver: RedisSaver, raw: Any, prefix: str) -> None:
    big = checkpoint({"log": [f"{n}" * 50 for n in range(2_000)]})
    saver.put(at("t"), big, metadata(), big["channel_versions"])
    before = list(saver.history("t"))
    fields = [field for field in raw.hkeys(ThreadKeys(prefix, b"t").hash) if field[:1] == b"D"]
    assert fields
    raw.hdel(ThreadKeys(prefix, b"t").hash, *fields)
    assert list(saver.history("t")) == before


def test_an_interrupted_step_tells_what_runs_next(saver: RedisSaver) -> None:
    graph(saver, interrupt_before=["b"]).invoke({"log": ["in"]}, T)
    assert next(saver.history("t")).next == ("b",)


# --- tags -------------------------------------------------------------------------------------------------------------


async def test_a_tag_names_the_newest_or_any_checkpoint_and_can_be_moved_and_removed(
    saver: RedisSaver, asaver: RedisSaver
) -> None:
    made = chain(saver, 4)
    saver.tag("t", "end")
    saver.tag("t", "first", made[0])
    saver.tag("t", "back", -1)
    await asaver.atag("t", "by tag", "first")
    assert saver.tags("t") == {"back": made[2], "by tag": made[0], "end": made[3], "first": made[0]}
    assert await asaver.atags("t") == saver.tags("t")
    assert [each.tags for each in saver.history("t")] == [("end",), ("back",), (), ("by tag", "first")]
    saver.tag("t", "end", made[1])
    assert saver.untag("t", "first") is True
    assert saver.untag("t", "first") is False
    assert await asaver.auntag("t", "by tag") is True
    assert saver.tags("t") == {"back": made[2], "end": made[1]}


def test_a_tag_stays_where_it_is_when_the_thread_goes_on(saver: RedisSaver) -> None:
    (only,) = chain(saver, 1)
    saver.tag("t", "here")
    put(saver, {}, only)
    assert saver.tags("t") == {"here": only}


def test_there_must_be_something_to_name_and_a_name(saver: RedisSaver) -> None:
    with pytest.raises(ThreadNotFoundError):
        saver.tag("t", "name")
    chain(saver, 2)
    for missing in ("no such id", -2, "1f0a0000-0000-6000-8000-000000000000"):
        with pytest.raises(CheckpointNotFoundError):
            saver.tag("t", "name", missing)
    with pytest.raises(ThreadNotFoundError):
        saver.tag("t", "name", checkpoint_ns="other")
    for bad in ("", "a\0b", "\ud800", 7, None):
        with pytest.raises(ValueError, match="t"):
            saver.tag("t", bad)  # type: ignore[arg-type]
    assert saver.tags("t") == {}
    assert saver.tags("no such thread") == {}
    assert saver.untag("no such thread", "name") is False


@pytest.mark.parametrize("name", ["a b", "v1:{x}*", "ÄÖ \U0001f980", "-1", "S", "T", "n" * 1_000])
def test_any_text_may_be_a_tag(saver: RedisSaver, name: str) -> None:
    made = chain(saver, 3)
    saver.tag("t", name, made[0])
    assert saver.tags("t") == {name: made[0]}
    assert id_of(saver.rollback("t", name, mode="truncate")) == made[0]


def test_tagged_checkpoints_survive_retention_and_prune(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=3) as saver:
        made = chain(saver, 2)
        saver.tag("t", "kept", made[1])
        for n in range(30):
            made.append(put(saver, {"n": n}, made[-1]))
        assert made[1] in {each.checkpoint_id for each in saver.history("t")}
        assert len(list(saver.history("t"))) <= 3 + 1 + 1
        for prune in ({}, {"keep_last": 1}):
            saver.prune(["t"], **prune)
            assert [each.checkpoint_id for each in saver.history("t")] == [made[-1], made[1]]
        assert saver.get_tuple(at("t", "", made[1])).checkpoint["channel_values"] == {"n": 1}
        saver.untag("t", "kept")
        saver.prune(["t"])
        assert [each.checkpoint_id for each in saver.history("t")] == [made[-1]]


def test_a_tag_that_moved_keeps_only_where_it_is_now(saver: RedisSaver) -> None:
    made = chain(saver, 4)
    saver.tag("t", "kept", made[0])
    saver.tag("t", "kept", made[1])
    saver.prune(["t"], keep_last=1)
    assert [each.checkpoint_id for each in saver.history("t")] == [made[3], made[1]]


def test_tags_go_with_their_checkpoint_and_are_copied_with_the_thread(saver: RedisSaver) -> None:
    made = chain(saver, 3)
    saver.tag("t", "a", made[0])
    saver.tag("t", "c", made[2])
    saver.copy_thread("t", "copy")
    assert saver.tags("copy") == {"a": made[0], "c": made[2]}
    saver.rollback("t", "a", mode="truncate")
    assert saver.tags("t") == {"a": made[0]}
    saver.delete_thread("t")
    assert saver.tags("t") == {}
    assert id_of(saver.rollback("copy", "a", mode="truncate")) == made[0]


def test_a_damaged_tag_is_corruption_and_never_another_checkpoint(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = chain(saver, 3)
    saver.tag("t", "name", made[0])
    saver.tag("t", "other", made[1])
    key = ThreadKeys(prefix, b"t").hash
    good, other = raw.hget(key, b"Gname"), raw.hget(key, b"Gother")
    for n in range(len(good)):
        raw.hset(key, b"Gname", good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :])
        with pytest.raises(CheckpointCorruptError):
            saver.tags("t")
    for bad in (b"", b"\1", good[:-1], good + b"x", other):
        raw.hset(key, b"Gname", bad)
        with pytest.raises(CheckpointCorruptError, match="t"):
            saver.rollback("t", "name")
        with pytest.raises(CheckpointCorruptError):
            list(saver.history("t"))
        with pytest.raises(CheckpointCorruptError):
            saver.prune(["t"], keep_last=1)
        assert len(list(saver.list(at("t")))) == 3
    assert saver.untag("t", "name")  # which mends it
    assert saver.tags("t") == {"other": made[1]}
    saver.prune(["t"], keep_last=1)


def test_with_a_key_a_tag_that_somebody_else_wrote_is_refused(url: str, prefix: str, raw: Any) -> None:
    key = ThreadKeys(prefix, b"t").hash
    with RedisSaver(url, prefix=prefix) as plain:
        made = chain(plain, 2)
        plain.tag("t", "name", made[0])
    forged = raw.hget(key, b"Gname")
    with RedisSaver(url, prefix=prefix, integrity_key="a secret of tests", accept_unkeyed=True) as reader:
        assert reader.tags("t") == {"name": made[0]}
        reader.tag("t", "name", made[1])
        assert raw.hget(key, b"Gname") != forged
    with RedisSaver(url, prefix=prefix, integrity_key="a secret of tests") as signed:
        assert signed.tags("t") == {"name": made[1]}
        raw.hset(key, b"Gname", forged)
        with pytest.raises(IntegrityKeyError):
            signed.tags("t")


# --- diff -------------------------------------------------------------------------------------------------------------


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
sys.path.insert(0, sys.argv[3])
from shapes import at, checkpoint, metadata
from langgraph_redis_state import RedisSaver

with RedisSaver(sys.argv[1], prefix=sys.argv[2]) as saver:
    made = checkpoint({"x": {"names": {f"name {n}" for n in range(40)}}, "list": [frozenset("abcdefgh"), "end"]})
    saver.put(at("t"), made, metadata(), made["channel_versions"])
    print(made["id"])
"""


def test_equal_sets_are_equal_though_two_processes_store_different_bytes(saver: RedisSaver, url: str, prefix: str) -> None:
    made = [
        subprocess.run(
            [sys.executable, "-c", WRITE_A_SET, url, prefix, os.path.dirname(__file__)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
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


# --- stats ------------------------------------------------------------------------------------------------------------


async def test_stats_count_a_thread_and_all(saver: RedisSaver, asaver: RedisSaver, raw: Any, prefix: str) -> None:
    with pytest.raises(ThreadNotFoundError):
        saver.stats("t")
    assert saver.stats().threads == 0
    big = [f"{n}: {os.urandom(20).hex()}" for n in range(1_000)]
    a = put(saver, {"x": big})
    put(saver, {"x": [*big, "more"]}, a)
    saver.put_writes(at("t", "", a), [("x", big), ("y", 1)], "task")
    saver.tag("t", "name")
    stats = saver.stats("t")
    fields = raw.hgetall(ThreadKeys(prefix, b"t").hash)
    counted = {name: content for name, content in fields.items() if name[:1] not in b"STO"}
    assert (stats.threads, stats.checkpoints, stats.writes) == (1, 2, 2)
    assert stats.chunks == sum(name[:1] == b"D" for name in fields)
    assert stats.stored_bytes == sum(len(name) + len(content) for name, content in counted.items())
    assert stats.logical_bytes > 3 * 1_000 * 40
    assert stats.ratio == stats.logical_bytes / stats.stored_bytes > 2
    assert stats.server is None
    saver.copy_thread("t", "u")
    put(saver, {"x": 1}, None)
    both = saver.stats()
    assert (await asaver.astats()).stored_bytes == both.stored_bytes
    assert await asaver.astats("t") == saver.stats("t")
    assert both.threads == 2
    assert both.checkpoints == saver.stats("t").checkpoints + saver.stats("u").checkpoints == 5
    assert both.stored_bytes == saver.stats("t").stored_bytes + saver.stats("u").stored_bytes
    assert both.server["used_memory"] > 0


def test_stats_shrink_with_what_is_removed(saver: RedisSaver) -> None:
    a = put(saver, {"x": [os.urandom(20).hex() for _ in range(1_000)]})
    b = put(saver, {"x": 1}, a)
    full = saver.stats("t")
    saver.prune(["t"])
    left = saver.stats("t")
    assert (left.checkpoints, left.chunks) == (1, 0)
    assert left.stored_bytes < full.stored_bytes / 20
    assert [each.checkpoint_id for each in saver.history("t")] == [b]


def test_stats_say_what_share_was_deduplicated(saver: RedisSaver) -> None:
    words = [os.urandom(20).hex() for _ in range(1_000)]
    a = put(saver, {"x": words})
    put(saver, {"x": words, "y": words}, a)
    assert 0.5 < saver.stats("t").dedup_share < 0.7
