"""`history`: the versions of a thread."""

from __future__ import annotations

import operator
import os
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

from langgraph.graph import START, StateGraph
from shapes import at, checkpoint, id_of, metadata
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys

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


def test_history_has_no_hidden_cap_and_ends_at_the_limit(saver: RedisSaver) -> None:
    made = chain(saver, 250)[::-1]
    saver.tag("t", "early", made[-1])
    for limit in (1, 99, 100, 101, 200, 249, 250, 251, None):
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
