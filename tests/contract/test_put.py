"""`put`: values that are not written again, versions, and what changes while it is being stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from exercise import BIG
from langgraph.checkpoint.memory import InMemorySaver
from shapes import assert_same, at, checkpoint, id_of, listed, metadata, new_id, plain, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import SerializationError

# --- versions and values that are not written again -------------------------------------------------------------------


async def test_a_copy_put_under_the_grandparent_keeps_its_own_values(either: Any) -> None:
    """`update_state(as_node="__copy__")` names the copied checkpoint's parent and says that nothing is new."""
    for big in (False, True):
        thread = f"big {big}"
        values = [{"x": [*BIG, n] if big else n, "same": BIG} for n in range(3)]
        grand, parent, child = at(thread), None, None
        chain = []
        for n, value in enumerate(values):
            made = checkpoint(value, {"x": n + 1, "same": 1})
            new = {"x": n + 1, "same": 1} if n == 0 else {"x": n + 1}
            grand = await either.aput(grand, made, metadata(step=n), new)
            chain.append(grand)
        _, parent, child = chain
        copied = (await either.aget_tuple(child)).checkpoint | {"id": new_id()}
        copy = await either.aput(parent, copied, metadata(source="fork"), {})
        found = await either.aget_tuple(copy)
        assert found.checkpoint["channel_values"] == values[2]
        assert id_of(found.parent_config) == id_of(parent)
        # and a copy of the copy, and a child of that
        again = await either.aput(parent, found.checkpoint | {"id": new_id()}, metadata(source="fork"), {})
        more = checkpoint({"x": "next", "same": BIG}, {"x": 4, "same": 1})
        last = await either.aput(again, more, metadata(), {"x": 4})
        assert (await either.aget_tuple(again)).checkpoint["channel_values"] == values[2]
        assert (await either.aget_tuple(last)).checkpoint["channel_values"] == {"x": "next", "same": BIG}


async def test_two_branches_that_give_a_channel_the_same_version_keep_their_own_values(either: Any) -> None:
    first = either.get_next_version(None, None)
    second = either.get_next_version(first, None)
    root = await either.aput(at("t"), checkpoint({"x": "root"}, {"x": first}), metadata(), {"x": first})
    branches = [
        await either.aput(root, checkpoint({"x": [name, *BIG]}, {"x": second}), metadata(), {"x": second})
        for name in ("left", "right")
    ]
    for name, config in zip(("left", "right"), branches, strict=True):
        assert (await either.aget_tuple(config)).checkpoint["channel_values"]["x"][0] == name
        made = checkpoint({"x": [name, *BIG], "y": 1}, {"x": second, "y": first})
        child = await either.aput(config, made, metadata(), {"y": first})
        assert (await either.aget_tuple(child)).checkpoint["channel_values"]["x"][0] == name


async def test_a_channel_that_became_empty_is_gone_and_its_version_stays(either: Any) -> None:
    parent = await either.aput(at("t"), checkpoint({"x": 1, "y": 1}), metadata(), {"x": 1, "y": 1})
    child = await either.aput(parent, checkpoint({"y": 1}, {"x": 2, "y": 1}), metadata(), {"x": 2})
    found = (await either.aget_tuple(child)).checkpoint
    assert (found["channel_values"], found["channel_versions"]) == ({"y": 1}, {"x": 2, "y": 1})
    assert (await either.aget_tuple(parent)).checkpoint["channel_values"] == {"x": 1, "y": 1}


async def test_none_is_a_value_and_not_an_absent_channel(either: Any) -> None:
    config = await put(either, at("t"), {"x": None, "y": []})
    assert (await either.aget_tuple(config)).checkpoint["channel_values"] == {"x": None, "y": []}


async def test_a_parent_that_is_gone_does_not_take_its_childs_values_along(either: Any) -> None:
    parent = await put(either, at("t"), {"x": BIG}, run_id="r1")
    child = await either.aput(parent, checkpoint({"x": BIG, "y": 1}), metadata(run_id="r2"), {"y": 1})
    await either.adelete_for_runs(["r1"])
    found = await either.aget_tuple(child)
    assert found.checkpoint["channel_values"] == {"x": BIG, "y": 1}
    assert id_of(found.parent_config) == id_of(parent)
    # nothing to carry over from: what is not new must be stored again
    grandchild = await either.aput(parent, checkpoint({"x": BIG, "y": 2}), metadata(), {"y": 2})
    assert (await either.aget_tuple(grandchild)).checkpoint["channel_values"] == {"x": BIG, "y": 2}


async def test_channel_versions_come_back_as_they_were_given(either: Any) -> None:
    versions = {
        "canonical": "00000000000000000000000000000001",
        "canonical, large": "9" * 32,
        "zero": "0" * 32,
        "31 digits": "0" * 30 + "1",
        "33 digits": "0" * 32 + "1",
        "in memory": "00000000000000000000000000000002.0.4711",
        "text": "v1",
        "digit": "1",
        "signed": "+" + "0" * 30 + "1",
        "spaced": " " * 31 + "1",
        "arabic": "٠" * 31 + "١",
        "int": 1,
        "big int": 2**63,
        "float": 1.0,
        "zero int": 0,
    }
    made = checkpoint(dict.fromkeys(versions, "x"), versions) | {"versions_seen": {"node": dict(versions)}}
    config = await either.aput(at("t"), made, metadata(), dict(versions))
    found = (await either.aget_tuple(config)).checkpoint
    assert_same(versions, {name: found["channel_versions"][name] for name in versions})
    assert_same(versions, {name: found["versions_seen"]["node"][name] for name in versions})
    assert found["channel_values"] == dict.fromkeys(versions, "x")


def test_versions_begin_at_one_and_continue_in_their_own_form(saver: RedisSaver, memory: InMemorySaver) -> None:
    assert saver.get_next_version(None, None) == "0" * 31 + "1"
    assert saver.get_next_version("0" * 31 + "9", None) == "0" * 30 + "10"
    assert saver.get_next_version("0" + "9" * 31, None) == "1" + "0" * 31
    assert_same(8, saver.get_next_version(7, None))
    assert_same(2.5, saver.get_next_version(1.5, None))
    theirs = [memory.get_next_version(None, None)]
    for _ in range(12):
        theirs.append(saver.get_next_version(theirs[-1], None))
    assert theirs == sorted(set(theirs))
    assert memory.get_next_version(theirs[-1], None) > theirs[-1]


# --- what the serializer refuses --------------------------------------------------------------------------------------


class Unknown:
    """Nothing the default serializer knows."""


async def test_a_value_the_serializer_refuses_names_its_channel_and_writes_nothing(either: Any) -> None:
    parent = await put(either, at("t"), {"fine": 1})
    with pytest.raises(SerializationError, match="the_bad_one"):
        await put(either, parent, {"fine": 2, "the_bad_one": Unknown()})
    with pytest.raises(SerializationError, match="the_bad_one"):
        await put(either, parent, {"fine": BIG, "the_bad_one": [*BIG, Unknown()]})
    with pytest.raises(SerializationError):
        await put(either, parent, {"fine": 2}, odd=Unknown())
    with pytest.raises(SerializationError, match="the_bad_one"):
        await either.aput_writes(parent, [("fine", 1), ("the_bad_one", {"deep": [Unknown()]})], "task")
    (found,) = await listed(either, None)
    assert (found.checkpoint["channel_values"], found.pending_writes) == ({"fine": 1}, [])


async def test_what_changes_while_it_is_being_put_is_stored_as_it_was(asaver: RedisSaver) -> None:
    for size in (1, 20_000):
        values = {"list": ["x" * 100 for _ in range(size)], "map": {"a": {"b": 1}}}
        made, told, new = checkpoint(values), metadata(run={"n": 1}), {"list": 1, "map": 1}
        writes = [("w", {"deep": ["before"] * size})]
        place = at(f"t{size}")
        tasks = [
            asyncio.create_task(asaver.aput(place, made, told, new)),
            asyncio.create_task(asaver.aput_writes(at(f"t{size}", "", made["id"]), writes, "task")),
        ]
        await asyncio.sleep(0)  # both have run to the first thing they wait for
        values["list"].append("late")
        values["list"][0] = "late"
        values["map"]["a"]["b"] = "late"
        made["channel_values"]["late"] = made["channel_versions"]["late"] = new["late"] = 1
        told["run"]["n"] = told["late"] = 2
        writes[0][1]["deep"][0] = "late"
        writes.append(("late", 1))
        await asyncio.gather(*tasks)
        found = await asaver.aget_tuple(at(f"t{size}"))
        assert found.checkpoint["channel_values"] == {"list": ["x" * 100] * size, "map": {"a": {"b": 1}}}
        assert found.metadata == metadata(run={"n": 1})
        assert found.pending_writes == [("task", "w", {"deep": ["before"] * size})]


async def test_what_was_read_may_be_changed_without_changing_what_is_stored(either: Any) -> None:
    config = await put(either, at("t"), {"x": [1], "big": list(BIG)}, deep={"a": 1})
    await either.aput_writes(config, [("w", [1])], "task")
    expected = plain(await either.aget_tuple(config))
    found = await either.aget_tuple(config)
    found.checkpoint["channel_values"]["x"].append("mine")
    found.checkpoint["channel_values"]["big"].clear()
    found.checkpoint["channel_versions"]["x"] = 99
    found.checkpoint["versions_seen"]["mine"] = {}
    found.metadata["deep"]["a"] = "mine"
    found.pending_writes[0][2].append("mine")
    assert plain(await either.aget_tuple(config)) == expected
    assert [plain(t) for t in await listed(either, at("t"))] == [expected]


async def test_put_leaves_its_arguments_as_they_were(either: Any) -> None:
    config, made, told, new = at("t"), checkpoint({"x": 1}), metadata(), {"x": 1}
    before = (at("t"), checkpoint({"x": 1}, id=made["id"]), metadata(), {"x": 1})
    await either.aput(config, made, told, new)
    assert (config, made, told, new) == before
