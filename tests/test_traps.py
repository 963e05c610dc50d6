"""Where other savers fell: one behaviour, one test, named after what must hold.

The list is in the design ("Traps others fell into"). Where LangGraph's own InMemorySaver decides what is right, the
test asks it instead of repeating its answer.
"""

from __future__ import annotations

import asyncio
import inspect
import operator
import threading
import uuid
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import redis
import redis.asyncio
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED, _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Interrupt, interrupt
from shapes import SyncSurface, assert_same, at, checkpoint, id_of, ids, listed, metadata, new_id, plain, put
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import (
    CheckpointLostError,
    InvalidConfigError,
    SaverClosedError,
    SerializationError,
    ServerUnavailableError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
)

BIG = [f"{n}: " + "some words that differ " * 8 for n in range(1_500)]
"""About 300 KB in 1,500 elements: several chunks."""


@pytest.fixture
def server_client(url: str) -> Iterator[Any]:
    """A plain client, to look at and to disturb what the saver keeps."""
    with redis.Redis.from_url(url) as client:
        yield client


def keys_of(client: Any, prefix: str) -> list[bytes]:
    return sorted(client.scan_iter(match=f"{prefix}:*", count=10_000))


def data_keys_of(client: Any, prefix: str, thread: str) -> list[bytes]:
    """The hash and the sorted set of a thread (layout v1)."""
    return [key for kind in "ti" for key in client.scan_iter(match=f"{prefix}:{{*}}:{kind}:{thread}", count=10_000)]


# --- which checkpoint, which order ------------------------------------------------------------------------------------


async def test_before_leaves_out_the_named_id_and_everything_newer(either: Any) -> None:
    made = [id_of(await put(either, at("t"), step=n)) for n in range(5)]
    for n, bound in enumerate(made):
        assert await ids(either, at("t"), before=at("t", checkpoint_id=bound)) == made[:n][::-1]


async def test_before_compares_ids_as_strings_and_needs_no_uuid(either: Any) -> None:
    for name in ["b", "a", "c", "B", "aa", "\U00010000", "\uffff"]:
        await put(either, at("t"), id=name)
    assert await ids(either, at("t")) == ["\U00010000", "\uffff", "c", "b", "aa", "a", "B"]
    assert await ids(either, at("t"), before=at("t", checkpoint_id="b")) == ["aa", "a", "B"]


async def test_before_may_name_an_id_that_is_not_stored(either: Any) -> None:
    older = await put(either, at("t"))
    bound = new_id()
    await put(either, at("t"))
    assert await ids(either, at("t"), before=at("t", checkpoint_id=bound)) == [id_of(older)]


async def test_before_without_an_id_bounds_nothing(either: Any) -> None:
    await put(either, at("t"))
    await put(either, at("t"))
    assert len(await ids(either, at("t"), before=at("t"))) == 2


async def test_the_empty_namespace_is_the_root_and_not_any_namespace(either: Any) -> None:
    root = await put(either, at("t"), {"x": "root"})
    child = await put(either, at("t", "child:1"), {"x": "child"})
    assert await ids(either, at("t", "")) == [id_of(root)]
    assert await ids(either, at("t", "child:1")) == [id_of(child)]
    assert (await either.aget_tuple(at("t", ""))).checkpoint["channel_values"] == {"x": "root"}
    assert (await either.aget_tuple(at("t", None))).checkpoint["channel_values"] == {"x": "root"}


async def test_a_namespace_does_not_match_the_ones_it_begins(either: Any) -> None:
    spaces = ["child", "child:1", "child:1|leaf", "child:10", "child|leaf", "child\x01", "chil"]
    made = {ns: id_of(await put(either, at("t", ns))) for ns in spaces}
    for ns in spaces:
        assert await ids(either, at("t", ns)) == [made[ns]]
    assert await ids(either, at("t", "ch")) == []


async def test_without_a_namespace_a_thread_is_listed_newest_first_across_namespaces(either: Any) -> None:
    made = [id_of(await put(either, at("t", ns))) for ns in ["", "b:1", "", "a:1", "b:1", "plain", ""]]
    assert await ids(either, at("t", None)) == made[::-1]
    assert await ids(either, at("t", None), limit=3) == made[:3:-1]
    assert await ids(either, at("t", None), before=at("t", None, made[4])) == made[:4][::-1]


async def test_a_limit_of_zero_gives_nothing(either: Any) -> None:
    await put(either, at("t"))
    assert await ids(either, at("t"), limit=0) == []
    assert await ids(either, None, limit=0) == []


async def test_a_limit_counts_what_passes_the_filter(either: Any) -> None:
    made = [id_of(await put(either, at("t"), step=n, odd=n % 2)) for n in range(6)]
    assert await ids(either, at("t"), filter={"odd": 0}, limit=2) == [made[4], made[2]]
    assert await ids(either, at("t"), filter={"odd": 0}, limit=9) == [made[4], made[2], made[0]]


async def test_list_with_an_id_gives_that_checkpoint_alone(either: Any) -> None:
    made = [await put(either, at("t")) for _ in range(3)]
    assert await ids(either, made[1]) == [id_of(made[1])]
    assert await ids(either, at("t", checkpoint_id=new_id())) == []


async def test_list_without_a_config_walks_every_thread_and_the_latest_active_first(either: Any, server_client: Any) -> None:
    def next_millisecond() -> None:
        began = server_client.time()
        while (now := server_client.time()) and now[0] * 1000 + now[1] // 1000 == began[0] * 1000 + began[1] // 1000:
            pass

    made: dict[str, list[str]] = {}
    for thread in ["a", "b", "c", "a"]:
        made.setdefault(thread, []).insert(0, id_of(await put(either, at(thread))))
        next_millisecond()
    found = await listed(either, None)
    assert [(t.config["configurable"]["thread_id"], id_of(t.config)) for t in found] == [
        (thread, checkpoint_id) for thread in "acb" for checkpoint_id in made[thread]
    ]
    assert await ids(either, None, limit=3) == [*made["a"], *made["c"]]
    assert await ids(either, None, before=at("c", checkpoint_id=made["c"][0])) == [made["a"][1], *made["b"]]


async def test_the_latest_is_the_greatest_id_and_not_the_last_put(either: Any) -> None:
    old, new = new_id(), new_id()
    await put(either, at("t"), {"x": "new"}, id=new)
    returned = await put(either, at("t"), {"x": "old"}, id=old)
    assert id_of(returned) == old
    latest = await either.aget_tuple(at("t"))
    assert (id_of(latest.config), latest.checkpoint["channel_values"]) == (new, {"x": "new"})


async def test_putting_an_old_id_again_replaces_it_and_does_not_make_it_the_latest(either: Any) -> None:
    first = await put(either, at("t"), {"x": 1})
    second = await put(either, first, {"x": 2})
    await put(either, at("t"), {"x": 10}, id=id_of(first))
    assert id_of((await either.aget_tuple(at("t"))).config) == id_of(second)
    assert (await either.aget_tuple(first)).checkpoint["channel_values"] == {"x": 10}
    assert await ids(either, at("t")) == [id_of(second), id_of(first)]


async def test_what_is_not_there_is_none_and_an_empty_list(either: Any) -> None:
    await put(either, at("t"))
    assert await either.aget_tuple(at("nobody")) is None
    assert await either.aget_tuple(at("t", "nowhere")) is None
    assert await either.aget_tuple(at("t", checkpoint_id=new_id())) is None
    assert await listed(either, at("nobody")) == []


# --- pending writes ---------------------------------------------------------------------------------------------------


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


# --- ids --------------------------------------------------------------------------------------------------------------

STRANGE = [
    *("a", "A", "aa", " a", "a ", "  a", "\ta", "a\n", "a\r\n", "a\x01", "a\x1f", "a\x7f"),
    *(":", "a:", ":a", "a:b", "a::b", "*", "a*", "?", "[a]", "[a", "(a", "-", "+", "-inf", "+inf", "^a$"),
    *("{}", "{a}", "}{", "{", "{0000}", "|", "a|b", "a|b:c", "\\", "a\\0b", "\\x00", "%00", "'", '"', "`", "$", "#"),
    *("é", "e\u0301", "ÿ", "\xff", "\u0100", "\uffff", "\U0010ffff", "😀", "😀😀", "👩‍👩‍👧", "ﬁ", "ß", "SS", "İ", "i̇"),
    *("None", "null", "0", "00", "1e3", "C", "W", "latest", "layout", "threads", "x" * 1024, "x" * 1023, "é" * 512),
]
DISTINCT = list(dict.fromkeys(STRANGE))


async def test_strange_thread_ids_do_not_collide_and_deleting_one_leaves_its_neighbours(either: Any) -> None:
    for n, thread in enumerate(DISTINCT):
        await either.aput_writes(await put(either, at(thread), {"who": thread}), [("w", n)], "task")
    for victim in ["a", ":", "*", "{}", "😀", "[a", "-", "x" * 1024, "a\x01", "%00"]:
        await either.adelete_thread(victim)
        assert await either.aget_tuple(at(victim)) is None
    left = [t for t in DISTINCT if t not in {"a", ":", "*", "{}", "😀", "[a", "-", "x" * 1024, "a\x01", "%00"}]
    for thread in left:
        found = await either.aget_tuple(at(thread))
        assert found.config["configurable"]["thread_id"] == thread
        assert found.checkpoint["channel_values"] == {"who": thread}
        assert found.pending_writes == [("task", "w", DISTINCT.index(thread))]
        assert len(await ids(either, at(thread))) == 1
    assert sorted(t.config["configurable"]["thread_id"] for t in await listed(either, None)) == sorted(left)


async def test_strange_namespaces_do_not_collide(either: Any) -> None:
    spaces = ["", *DISTINCT]
    for n, ns in enumerate(spaces):
        await either.aput_writes(await put(either, at("t", ns), {"where": ns}), [("w", n)], "task")
    for n, ns in enumerate(spaces):
        found = await either.aget_tuple(at("t", ns))
        assert found.config["configurable"]["checkpoint_ns"] == ns
        assert (found.checkpoint["channel_values"], found.pending_writes) == ({"where": ns}, [("task", "w", n)])
        assert len(await ids(either, at("t", ns))) == 1
    assert len(await ids(either, at("t", None))) == len(spaces)


async def test_strange_checkpoint_ids_do_not_collide_and_sort_as_python_sorts_strings(either: Any) -> None:
    for n, name in enumerate(DISTINCT):
        await either.aput_writes(await put(either, at("t"), {"id": name}, id=name), [("w", n)], "task")
    assert await ids(either, at("t")) == sorted(DISTINCT, reverse=True)
    assert await ids(either, at("t", None)) == sorted(DISTINCT, reverse=True)
    assert id_of((await either.aget_tuple(at("t"))).config) == max(DISTINCT)
    for n, name in enumerate(DISTINCT):
        found = await either.aget_tuple(at("t", "", name))
        assert found.checkpoint["channel_values"] == {"id": name}
        assert found.pending_writes == [("task", "w", n)]
        assert await ids(either, at("t"), before=at("t", "", name)) == sorted(
            (other for other in DISTINCT if other < name), reverse=True
        )


async def test_a_namespace_and_an_id_are_not_glued_together(either: Any) -> None:
    pairs = [("a", "b:c"), ("a:b", "c"), ("a:", "b:c"), ("", "a:b:c"), ("ab", "c"), ("a", "bc"), ("", "abc")]
    for ns, name in pairs:
        await put(either, at("t", ns), {"pair": [ns, name]}, id=name)
    for ns, name in pairs:
        assert (await either.aget_tuple(at("t", ns, name))).checkpoint["channel_values"] == {"pair": [ns, name]}
    assert len(await ids(either, at("t", None))) == len(pairs)


async def test_strange_task_ids_paths_and_channels_do_not_collide(either: Any, memory: InMemorySaver) -> None:
    values = {name: f"channel {name}" for name in DISTINCT}
    config = await put(either, at("t"), values)
    await put(memory, at("t"), values, id=id_of(config))
    for saver in (either, memory):
        for n, name in enumerate(DISTINCT):
            await saver.aput_writes(config, [(name, n), (name, -n)], f"{name}", DISTINCT[-n])
    found = await either.aget_tuple(config)
    assert found.checkpoint["channel_values"] == values
    assert [tuple(write) for write in found.pending_writes] == (await memory.aget_tuple(config)).pending_writes


async def test_a_task_id_and_an_index_are_not_glued_together(either: Any) -> None:
    config = await put(either, at("t"))
    tasks = ["t", "t1", "t10", "t:1", "t1:0", "1", "10"]
    for task in tasks:
        await either.aput_writes(config, [("x", [task, n]) for n in range(12)], task)
    found = (await either.aget_tuple(config)).pending_writes
    assert found == [(task, "x", [task, n]) for task in sorted(tasks) for n in range(12)]


async def test_strange_run_ids_delete_their_own_checkpoints_and_nothing_else(either: Any) -> None:
    for n, run in enumerate(DISTINCT):
        await put(either, at(f"thread {n % 3}"), run_id=run)
    victims = ["a", "*", ":", "[a", "{}", "😀", "x" * 1023, "-"]
    await either.adelete_for_runs(victims)
    left = {found.metadata["run_id"] for found in await listed(either, None)}
    assert left == set(DISTINCT) - set(victims)


@pytest.mark.parametrize("thread", [7, 0, -1, uuid.UUID("12345678123456781234567812345678")], ids=repr)
async def test_a_thread_id_that_is_an_int_or_a_uuid_is_stored_as_its_text(either: Any, thread: Any) -> None:
    config = await put(either, at(thread), {"x": 1})
    await either.aput_writes(at(thread, "", id_of(config)), [("x", 2)], "task")
    for name in (thread, str(thread)):
        found = await either.aget_tuple(at(name))
        assert (found.checkpoint["channel_values"], found.pending_writes) == ({"x": 1}, [("task", "x", 2)])
        assert len(await ids(either, at(name))) == 1
    await either.adelete_thread(thread)
    assert await either.aget_tuple(at(str(thread))) is None


@pytest.mark.parametrize("thread", [None, 1.5, b"bytes", True, ["t"], ("t",), object()], ids=lambda v: type(v).__name__)
async def test_a_thread_id_of_another_type_is_refused(either: Any, thread: Any) -> None:
    with pytest.raises(InvalidConfigError, match="thread_id"):
        await either.aput(at(thread), checkpoint(), metadata(), {})
    with pytest.raises(InvalidConfigError, match="thread_id"):
        await either.aget_tuple(at(thread))
    with pytest.raises(InvalidConfigError, match="thread_id"):
        await either.aput_writes(at(thread, "", new_id()), [("x", 1)], "task")
    with pytest.raises(InvalidConfigError, match="thread_id"):
        await listed(either, at(thread))


@pytest.mark.parametrize("config", [{"configurable": {}}, {"configurable": {"checkpoint_ns": ""}}, {}], ids=repr)
async def test_a_config_without_a_thread_id_is_refused(either: Any, config: Any) -> None:
    with pytest.raises(InvalidConfigError, match="thread_id"):
        await either.aget_tuple(config)
    with pytest.raises(InvalidConfigError, match="thread_id"):
        await either.aput(config, checkpoint(), metadata(), {})
    with pytest.raises(InvalidConfigError, match="thread_id"):
        await either.aput_writes(config, [("x", 1)], "task")
    with pytest.raises(InvalidConfigError, match="thread_id"):
        await listed(either, config)


@pytest.mark.parametrize("bad", ["a\0b", "\0", "a\ud800", "\udfffa"], ids=ascii)
async def test_a_nul_or_a_lone_surrogate_in_an_id_is_refused_and_nothing_is_written(either: Any, bad: str) -> None:
    for config, made in [
        (at(bad), checkpoint()),
        (at("t", bad), checkpoint()),
        (at("t", "", bad), checkpoint()),
        (at("t"), checkpoint(id=bad)),
    ]:
        with pytest.raises(InvalidConfigError):
            await either.aput(config, made, metadata(), {})
    for config in [at(bad), at("t", bad), at("t", "", bad)]:
        with pytest.raises(InvalidConfigError):
            await either.aget_tuple(config)
        with pytest.raises(InvalidConfigError):
            await listed(either, config)
    for config, task in [(at("t", "", bad), "task"), (at("t", bad, new_id()), "task"), (at("t", "", new_id()), bad)]:
        with pytest.raises(InvalidConfigError):
            await either.aput_writes(config, [("x", 1)], task)
    with pytest.raises(InvalidConfigError):
        await either.adelete_thread(bad)
    assert await listed(either, None) == []


# --- metadata and filters ---------------------------------------------------------------------------------------------


async def test_metadata_takes_in_what_the_config_carries(either: Any, memory: InMemorySaver) -> None:
    made = checkpoint({"x": 1})
    config = {
        "configurable": {
            **at("t")["configurable"],
            "run_id": "from configurable",
            "user": "u1",
            "age": 7,
            "share": 0.5,
            "yes": True,
            "nothing": None,
            "nested": {"left": "out"},
            "__hidden": "x",
            "langgraph_step": 3,
            "nul": "a\0b",
        },
        "metadata": {"run_id": "from metadata", "user": "not this", "assistant": "a1", "step": 99, "list": [1]},
        "tags": ["x"],
    }
    told = metadata(step=3, text="with \0 in it", deep={"a": [1, {"b": None}]})
    for saver in (either, memory):
        await saver.aput(config, made, told, {"x": 1})
    expected = (await memory.aget_tuple(at("t"))).metadata
    assert (expected["run_id"], expected["step"], expected["user"]) == ("from metadata", 3, "not this")
    assert_same(expected, (await either.aget_tuple(at("t"))).metadata)
    assert await ids(either, at("t"), filter={"assistant": "a1", "age": 7}) == [made["id"]]
    await either.adelete_for_runs(["from metadata"])
    assert await either.aget_tuple(at("t")) is None


RECORDS: list[dict[str, Any]] = [
    {"k": None},
    {"k": 1},
    {"k": True},
    {"k": 1.0},
    {"k": 0},
    {"k": False},
    {"k": ""},
    {"k": "1"},
    {"k": []},
    {"k": {}},
    {"k": {"a": 1}},
    {"k": {"a": 1, "b": {"c": [1, 2]}}},
    {"k": {"b": {"c": [1, 2]}, "a": 1}},
    {"k": {"a": None}},
    {"k": [1, 2]},
    {"k": float("nan")},
    {"K": 1},
    {"k.a": 1},
    {'k"]': 1, "": 2, "é 😀": "ü", "*": "*"},
    {},
]
FILTERS: list[dict[str, Any]] = [
    *({"k": record["k"]} for record in RECORDS if "k" in record),
    *({"k.a": 1}, {"K": 1}, {'k"]': 1}, {"": 2}, {"é 😀": "ü"}, {"*": "*"}, {"*": "anything"}, {"absent": None}),
    *({}, {"k": 1, "K": 1}, {"k": {"a": 1}, "source": "loop"}, {"source": "loop"}, {"source": "input"}, {"step": 0}),
    *({"parents": {}}, {"parents": {"": "x"}}, {"parents": None}, {"k": (1, 2)}, {"k": {"a": True}}),
]


async def test_filters_choose_what_the_in_memory_saver_chooses(either: Any, memory: InMemorySaver) -> None:
    for record in RECORDS:
        made = checkpoint()
        for saver in (either, memory):
            await saver.aput(at("t"), made, metadata(**record), {})
    for chosen in FILTERS:
        expected = await ids(memory, at("t"), filter=chosen)
        assert await ids(either, at("t"), filter=chosen) == expected, chosen
        assert await ids(either, at("t"), filter=chosen, limit=1) == expected[:1], chosen
        assert await ids(either, None, filter=chosen) == expected, chosen


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


# --- deleting, copying, pruning ---------------------------------------------------------------------------------------


async def test_deleting_a_thread_leaves_no_key_but_its_tombstone(either: Any, prefix: str, server_client: Any) -> None:
    for n in range(3):
        config = await put(either, at("t"), {"x": [*BIG, n]}, run_id=f"r{n}")
        await either.aput_writes(config, [("x", BIG)], "task")
        await put(either, at("t", f"child:{n}"), {"x": n}, parents={"": id_of(config)})
    await either.adelete_thread("t")
    left = [key for key in keys_of(server_client, prefix) if key != f"{prefix}:layout".encode()]
    assert [key.split(b"}:", 1)[1] for key in left] == [b"x:t"]
    assert 590_000 < server_client.pttl(left[0]) <= 600_000


async def test_deleting_all_runs_of_a_thread_leaves_no_data(either: Any, prefix: str, server_client: Any) -> None:
    for n in range(3):
        config = await put(either, at("t"), {"x": [*BIG, n]}, run_id="r")
        await either.aput_writes(config, [("x", BIG)], "task")
    await either.adelete_for_runs(["r"])
    assert await either.aget_tuple(at("t")) is None
    assert await listed(either, None) == []
    assert sum(server_client.memory_usage(key) for key in data_keys_of(server_client, prefix, "t")) < 1_000


async def test_deleting_runs_reaches_every_thread_and_namespace_and_leaves_other_runs(either: Any) -> None:
    for run in ("gone", "kept"):
        for place in [at("a"), at("a", "child:1"), at("b")]:
            await either.aput_writes(await put(either, place, {"x": run}, run_id=run), [("w", run)], "task")
    await either.adelete_for_runs(["gone", "unknown"])
    found = await listed(either, None)
    assert [(t.checkpoint["channel_values"], t.pending_writes) for t in found] == [({"x": "kept"}, [("task", "w", "kept")])] * 3


async def test_deleting_what_is_not_there_is_not_an_error(either: Any) -> None:
    await either.adelete_thread("nobody")
    await either.adelete_for_runs(["no run"])
    await either.aprune(["nobody"], strategy="keep_latest")
    await either.aprune(["nobody"], strategy="delete")


async def test_an_empty_list_of_threads_or_runs_touches_nothing(either: Any) -> None:
    made = [id_of(await put(either, at("t"), run_id="r")) for _ in range(2)]
    await either.aprune([])
    await either.aprune([], strategy="keep_latest")
    await either.aprune([], strategy="delete")
    await either.adelete_for_runs([])
    assert await ids(either, at("t")) == made[::-1]


async def test_pruning_keeps_the_newest_of_each_namespace_with_its_writes(either: Any) -> None:
    newest = {}
    for thread in ("pruned", "untouched"):
        for ns in ("", "child:1", "child:2", "plain"):
            config = at(thread, ns)
            for n in range(3):
                config = await put(either, config, {"x": [*BIG, ns, n]})
                await either.aput_writes(config, [(INTERRUPT, [Interrupt(value=n, id="i")])], "task")
            newest[thread, ns] = id_of(config)
    await either.aprune(["pruned"])
    await either.aprune(["pruned"], strategy="keep_latest")
    for ns in ("", "child:1", "child:2", "plain"):
        (found,) = await listed(either, at("pruned", ns))
        assert id_of(found.config) == newest["pruned", ns]
        assert found.checkpoint["channel_values"] == {"x": [*BIG, ns, 2]}
        assert found.pending_writes == [("task", INTERRUPT, [Interrupt(value=2, id="i")])]
        assert len(await ids(either, at("untouched", ns))) == 3


async def test_pruning_keeps_what_a_delta_channel_is_rebuilt_from(either: Any) -> None:
    """`counters_since_delta_snapshot` says how many steps ago the last snapshot was; the writes since then stay."""
    config, version, made = at("t"), None, []
    for n in range(8):
        version = either.get_next_version(version, None)
        since = (n - 3, n - 3) if n > 3 else (0, 0)
        value = {"log": _DeltaSnapshot(["s"])} if n == 3 else {}
        counters = {"counters_since_delta_snapshot": {"log": since}} if n > 3 else {}
        config = await either.aput(config, checkpoint(value, {"log": version}), metadata(**counters), {"log": version})
        await either.aput_writes(config, [("log", [n])], f"task {n}")
        made.append(id_of(config))
    expected = await either.aget_delta_channel_history(config=config, channels=["log"])
    assert expected["log"]["seed"] == _DeltaSnapshot(["s"])
    assert [value for _, _, value in expected["log"]["writes"]] == [[3], [4], [5], [6]]
    await either.aprune(["t"])
    assert await ids(either, at("t")) == made[:-2:-1]
    assert await either.aget_delta_channel_history(config=config, channels=["log"]) == expected


async def test_pruning_with_an_unknown_strategy_names_the_known_ones_and_removes_nothing(either: Any) -> None:
    await put(either, at("t"))
    await put(either, at("t"))
    with pytest.raises(ValueError, match=r"(?s)keep_latest.*delete|delete.*keep_latest"):
        await either.aprune(["t"], strategy="everything")
    with pytest.raises(ValueError, match="keep_latest"):
        await either.aprune([], strategy="")
    assert len(await ids(either, at("t"))) == 2


async def test_a_copy_is_complete_and_independent_of_its_source(either: Any) -> None:
    config = at("source")
    for n in range(4):
        config = await put(either, config, {"x": [*BIG, n], "small": n}, run_id=f"r{n}", step=n)
        await either.aput_writes(config, [("x", [*BIG, "w"]), (INTERRUPT, "?")], "task", "~path")
        await put(either, at("source", f"child:{n}"), {"x": BIG}, parents={"": id_of(config)})
    source = [plain(found) for found in await listed(either, at("source", None))]
    await either.acopy_thread("source", "target")

    def moved(told: Any) -> Any:
        place = {name: told[name] and ("target", *told[name][1:]) for name in ("config", "parent")}
        return told | place

    assert [plain(found) for found in await listed(either, at("target", None))] == [moved(told) for told in source]
    await either.adelete_thread("source")
    assert [plain(found) for found in await listed(either, at("target", None))] == [moved(told) for told in source]
    latest = await either.aget_tuple(at("target"))
    child = await either.aput(latest.config, checkpoint({"x": [*BIG, 3], "small": 9}), metadata(), {"small": 2})
    assert (await either.aget_tuple(child)).checkpoint["channel_values"] == {"x": [*BIG, 3], "small": 9}


async def test_copying_refuses_a_missing_source_and_a_taken_target(either: Any) -> None:
    await put(either, at("a"), {"x": "a"})
    await put(either, at("b"), {"x": "b"})
    with pytest.raises(ThreadNotFoundError):
        await either.acopy_thread("nobody", "new")
    with pytest.raises(ThreadExistsError):
        await either.acopy_thread("a", "b")
    assert await either.aget_tuple(at("new")) is None
    assert (await either.aget_tuple(at("b"))).checkpoint["channel_values"] == {"x": "b"}
    await either.adelete_thread("b")
    await either.acopy_thread("a", "b")
    assert (await either.aget_tuple(at("b"))).checkpoint["channel_values"] == {"x": "a"}


async def test_copying_a_thread_onto_itself_is_refused_and_harms_nothing(either: Any) -> None:
    config = await put(either, at("t"), {"x": BIG})
    with pytest.raises((ThreadExistsError, ValueError)):
        await either.acopy_thread("t", "t")
    assert (await either.aget_tuple(config)).checkpoint["channel_values"] == {"x": BIG}


@pytest.mark.parametrize("how", ["delete_thread", "prune"])
async def test_late_writes_of_a_run_that_began_before_the_deletion_are_refused(either: Any, how: str) -> None:
    old = await put(either, at("t"), {"x": 1})
    late = checkpoint({"x": 2})
    await (either.adelete_thread("t") if how == "delete_thread" else either.aprune(["t"], strategy="delete"))
    with pytest.raises(ThreadDeletedError):
        await either.aput(old, late, metadata(), {"x": 2})
    with pytest.raises(ThreadDeletedError):
        await put(either, at("t", "child:1"), parents={"": id_of(old)})
    with pytest.raises(ThreadDeletedError):
        await either.aput_writes(old, [("x", 1)], "task")
    with pytest.raises(ThreadDeletedError):
        await either.aput_writes(at("t", "", late["id"]), [("x", 1)], "task")  # its put was refused
    with pytest.raises(ThreadDeletedError):
        await either.aput_writes(at("t", "child:1", late["id"], checkpoint_map={"": id_of(old)}), [("x", 1)], "task")
    assert await either.aget_tuple(at("t")) is None
    assert await listed(either, None) == []


@pytest.mark.parametrize("how", ["parent", "parents", "writes"])
async def test_a_run_that_began_less_than_a_millisecond_before_the_deletion_is_refused_too(either: Any, how: str) -> None:
    late = {
        "parent": lambda old: put(either, old, {"x": 2}),
        "parents": lambda old: put(either, at("t", "child:1"), parents={"": id_of(old)}),
        "writes": lambda old: either.aput_writes(old, [("x", 1)], "task"),
    }
    for _ in range(30):
        old = await put(either, at("t"), {"x": 1})
        await either.adelete_thread("t")
        with pytest.raises(ThreadDeletedError):
            await late[how](old)
        assert await either.aget_tuple(at("t")) is None


async def test_a_new_run_may_write_right_after_the_deletion(either: Any) -> None:
    old = await put(either, at("t"), {"x": 1})
    for n in range(20):
        await either.adelete_thread("t")
        made = checkpoint({"x": n})
        await either.aput_writes(at("t", "", made["id"]), [("x", "early")], "task")
        new = await either.aput(at("t"), made, metadata(), {"x": 1})
        child = await put(either, new, {"x": n}, parents={})
        sub = await put(either, at("t", "child:1"), {"x": "sub"}, parents={"": id_of(new)})
        await either.aput_writes(sub, [("x", 1)], "task")
        assert (await either.aget_tuple(new)).pending_writes == [("task", "x", "early")]
        assert await ids(either, at("t")) == [id_of(child), id_of(new)]
    with pytest.raises(ThreadDeletedError):
        await put(either, old)


async def test_deleting_one_thread_refuses_nothing_in_another(either: Any) -> None:
    await put(either, at("a"))
    other = await put(either, at("b"), {"x": 1})
    await either.adelete_thread("a")
    await put(either, other, {"x": 2})
    await either.aput_writes(other, [("x", 1)], "task")
    # A parent that never was, in a thread never deleted, is nobody's deletion.
    await put(either, at("c", "", new_id()), {"x": 3})
    assert (await either.aget_tuple(at("c"))).checkpoint["channel_values"] == {"x": 3}


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


# --- event loops, threads, processes ----------------------------------------------------------------------------------


def test_one_saver_serves_several_event_loops_one_after_the_other(url: str, prefix: str) -> None:
    saver = RedisSaver(url, prefix=prefix)

    async def use(n: int) -> int:
        await put(saver, at("t"), {"x": n})
        return (await saver.aget_tuple(at("t"))).checkpoint["channel_values"]["x"]

    assert [asyncio.run(use(n)) for n in range(3)] == [0, 1, 2]
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"x": 2}
    saver.close()


def test_one_saver_serves_threads_with_and_without_loops_at_the_same_time(url: str, prefix: str) -> None:
    failures: list[BaseException] = []
    with RedisSaver(url, prefix=prefix) as saver:
        start = threading.Barrier(6)

        async def use(surface: Any, thread: str) -> None:
            config = at(thread)
            for n in range(25):
                config = await put(surface, config, {"x": [thread, n]})
                await surface.aput_writes(config, [("x", n)], "task")
                found = await surface.aget_tuple(at(thread))
                assert found.checkpoint["channel_values"] == {"x": [thread, n]}
            assert len(await ids(surface, at(thread))) == 25

        def body(n: int) -> None:
            try:
                start.wait()
                asyncio.run(use(saver if n % 2 else SyncSurface(saver), f"thread {n}"))
            except BaseException as failure:  # noqa: BLE001 - handed to the test's own thread
                failures.append(failure)

        threads = [threading.Thread(target=body, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(list(saver.list(None))) == 150


async def test_many_tasks_of_one_loop_share_a_saver(asaver: RedisSaver) -> None:
    async def use(n: int) -> None:
        for step in range(3):
            await put(asaver, at(f"t{n}"), {"x": [n, step]})

    await asyncio.gather(*(use(n) for n in range(40)))
    assert {len(await ids(asaver, at(f"t{n}"))) for n in range(40)} == {3}


async def test_sync_and_async_methods_of_one_saver_see_the_same(saver: RedisSaver) -> None:
    config = saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    await saver.aput_writes(config, [("x", 2)], "task")
    assert plain(saver.get_tuple(config)) == plain(await saver.aget_tuple(config))
    assert (await saver.aget_tuple(config)).pending_writes == [("task", "x", 2)]
    await saver.aclose()


def test_a_saver_is_made_without_a_loop_and_without_a_server() -> None:
    RedisSaver("redis://127.0.0.1:1/0").close()


def test_a_closed_saver_says_so(url: str, prefix: str) -> None:
    saver = RedisSaver(url, prefix=prefix)
    saver.put(at("t"), checkpoint(), metadata(), {})
    saver.close()
    saver.close()
    for call in (
        lambda: saver.get_tuple(at("t")),
        lambda: saver.put(at("t"), checkpoint(), metadata(), {}),
        lambda: list(saver.list(None)),
        saver.ping,
        lambda: asyncio.run(saver.aget_tuple(at("t"))),
    ):
        with pytest.raises(SaverClosedError, match="closed"):
            call()


def test_an_injected_async_client_is_refused_in_another_loop(url: str, prefix: str) -> None:
    async def make() -> tuple[RedisSaver, Any]:
        client = redis.asyncio.Redis.from_url(url)
        saver = RedisSaver(async_client=client, prefix=prefix)
        await put(saver, at("t"), {"x": 1})
        assert (await saver.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": 1}
        await client.aclose()
        return saver, client

    saver, _ = asyncio.run(make())
    with pytest.raises(SaverClosedError, match="loop"):
        asyncio.run(saver.aget_tuple(at("t")))


# --- clients and servers ----------------------------------------------------------------------------------------------


async def scenario(saver: Any) -> None:
    """A little of everything, whatever the client's settings."""
    config = at("t")
    for n in range(3):
        config = await put(saver, config, {"x": [*BIG, n], "bytes": b"\xff\x00\xfe", "text": "é😀"}, step=n, run_id=f"r{n}")
        await saver.aput_writes(config, [("x", b"\x80"), (INTERRUPT, "?")], "task", "~path")
    await put(saver, at("t", "child:1"), {"x": 1})
    found = await saver.aget_tuple(at("t"))
    assert found.checkpoint["channel_values"] == {"x": [*BIG, 2], "bytes": b"\xff\x00\xfe", "text": "é😀"}
    assert found.pending_writes == [("task", INTERRUPT, "?"), ("task", "x", b"\x80")]
    assert len(await ids(saver, at("t", None), limit=2, filter={"source": "loop"})) == 2
    history = await saver.aget_delta_channel_history(config=config, channels=["x"])
    assert history["x"]["seed"] == [*BIG, 1]
    assert history["x"]["writes"] == [("task", "x", b"\x80")]
    await saver.acopy_thread("t", "copy")
    await saver.adelete_for_runs(["r0"])
    await saver.aprune(["t"])
    assert [len(await ids(saver, at(thread, None))) for thread in ("t", "copy")] == [2, 4 - 1]
    await saver.adelete_thread("t")
    assert await saver.aget_tuple(at("t")) is None
    assert await saver.aget_tuple(at("nobody")) is None


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_both_protocols_of_the_server_give_the_same(url: str, prefix: str, protocol: int, surface: str) -> None:
    async with RedisSaver(url, prefix=prefix, redis_options={"protocol": protocol}) as saver:
        await scenario(saver if surface == "async" else SyncSurface(saver))


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_that_decodes_works_or_is_refused_in_one_sentence(url: str, prefix: str, protocol: int) -> None:
    with redis.Redis.from_url(url, decode_responses=True, protocol=protocol) as client:
        try:
            saver = RedisSaver(client=client, prefix=prefix)
        except (ValueError, TypeError) as refusal:
            assert "decode_responses" in str(refusal)  # noqa: PT017 - either outcome is right, but none in between
        else:
            await scenario(SyncSurface(saver))
            saver.close()
    async with redis.asyncio.Redis.from_url(url, decode_responses=True, protocol=protocol) as aclient:
        try:
            saver = RedisSaver(async_client=aclient, prefix=f"{prefix}-a")
        except (ValueError, TypeError) as refusal:
            assert "decode_responses" in str(refusal)  # noqa: PT017
        else:
            await scenario(saver)
            await saver.aclose()


@pytest.mark.parametrize("decode", [{"redis_options": {"decode_responses": True}}, {"query": "decode_responses=True"}])
def test_decoding_asked_for_in_options_works_or_is_refused(url: str, prefix: str, decode: dict[str, Any]) -> None:
    query = decode.pop("query", None)
    address = url if query is None else f"{url}{'&' if '?' in url else '?'}{query}"
    try:
        saver = RedisSaver(address, prefix=prefix, **decode)
    except (ValueError, TypeError) as refusal:
        assert "decode_responses" in str(refusal)  # noqa: PT017
    else:
        with saver:
            asyncio.run(scenario(SyncSurface(saver)))


async def test_a_server_that_forgot_its_scripts_is_told_them_again(either: Any, server_client: Any) -> None:
    await put(either, at("t"), {"x": 1})
    server_client.script_flush()
    assert (await either.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": 1}
    server_client.script_flush()
    await put(either, at("t"), {"x": 2})
    server_client.script_flush()
    assert len(await ids(either, at("t"))) == 2
    server_client.script_flush()
    await either.adelete_thread("t")
    assert await either.aget_tuple(at("t")) is None


NOWHERE = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_a_server_that_does_not_answer_is_an_error_and_never_an_empty_thread(surface: str) -> None:
    def calls(saver: Any) -> list[Any]:
        return [
            saver.aget_tuple(at("t")),
            listed(saver, at("t")),
            listed(saver, None),
            put(saver, at("t")),
            saver.aput_writes(at("t", "", new_id()), [("x", 1)], "task"),
            saver.adelete_thread("t"),
            saver.adelete_for_runs(["r"]),
            saver.acopy_thread("a", "b"),
            saver.aprune(["t"]),
            saver.aget_delta_channel_history(config=at("t"), channels=["x"]),
        ]

    async with RedisSaver(NOWHERE) as saver:
        if surface == "async":
            running = calls(saver)
        else:
            running = [asyncio.to_thread(asyncio.run, call) for call in calls(SyncSurface(saver))]
        answers = await asyncio.gather(*running, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ServerUnavailableError] * 10


def test_a_graph_does_not_start_over_when_the_server_does_not_answer() -> None:
    ran: list[str] = []
    with RedisSaver(NOWHERE) as saver:
        graph = counting_graph(ran).compile(checkpointer=saver)
        with pytest.raises(ConnectionError):
            graph.invoke({"n": 0}, at("t", None))
        with pytest.raises(ConnectionError):
            graph.get_state(at("t", None))
    assert ran == []


async def test_a_thread_whose_data_vanished_under_its_index_is_lost_and_not_new(
    either: Any, prefix: str, server_client: Any
) -> None:
    await put(either, at("t"), {"x": 1})
    assert server_client.delete(*server_client.scan_iter(match=f"{prefix}:{{*}}:t:t", count=10_000)) == 1
    with pytest.raises(CheckpointLostError, match="t"):
        await either.aget_tuple(at("t"))
    with pytest.raises(CheckpointLostError):
        await listed(either, at("t"))
    await put(either, at("t"), {"x": "a new run"})
    assert [t.checkpoint["channel_values"] for t in await listed(either, at("t"))] == [{"x": "a new run"}]


async def test_a_thread_whose_index_vanished_is_found_again(either: Any, prefix: str, server_client: Any) -> None:
    made = [await put(either, at("t", ns), {"x": ns}) for ns in ("", "child:1", "")]
    await either.aput_writes(made[2], [("x", 1)], "task")
    expected = [plain(found) for found in await listed(either, at("t", None))]
    assert server_client.delete(*server_client.scan_iter(match=f"{prefix}:{{*}}:i:t", count=10_000)) == 1
    assert plain(await either.aget_tuple(at("t"))) == expected[0]
    assert [plain(found) for found in await listed(either, at("t", None))] == expected


# --- time to live -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", ["sync", "async"])
async def test_a_write_renews_the_whole_thread_so_that_no_old_part_expires_under_it(
    url: str, prefix: str, server_client: Any, surface: str
) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=100) as opened:
        saver: Any = opened if surface == "async" else SyncSurface(opened)
        first = await put(saver, at("t"), {"old": BIG})
        for renew in (
            lambda: put(saver, first, {"new": 1}),
            lambda: saver.aput_writes(first, [("x", 1)], "task"),
            lambda: put(saver, at("t", "child:1"), {"x": 1}),
        ):
            keys = data_keys_of(server_client, prefix, "t")
            assert len(keys) == 2
            for key in keys:
                server_client.pexpire(key, 5_000)
            await renew()
            left = [server_client.pttl(key) for key in keys]
            assert all(90_000 < ms <= 100_000 for ms in left), left
            assert abs(left[0] - left[1]) < 500
        assert (await saver.aget_tuple(first)).checkpoint["channel_values"] == {"old": BIG}


@pytest.mark.parametrize("surface", ["sync", "async"])
@pytest.mark.parametrize("refresh", [True, False])
async def test_reading_renews_a_thread_unless_told_not_to(
    url: str, prefix: str, server_client: Any, refresh: bool, surface: str
) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=100, refresh_ttl_on_read=refresh) as opened:
        saver: Any = opened if surface == "async" else SyncSurface(opened)
        await put(saver, at("t"), {"x": 1})
        keys = data_keys_of(server_client, prefix, "t")
        for key in keys:
            server_client.pexpire(key, 50_000)
        await saver.aget_tuple(at("t"))
        left = [server_client.pttl(key) for key in keys]
        assert [ms > 50_000 for ms in left] == [refresh] * 2


async def test_a_thread_that_expired_is_simply_not_there(url: str, prefix: str, server_client: Any) -> None:
    async with RedisSaver(url, prefix=prefix, ttl=100) as saver:
        old = await put(saver, at("t"), {"x": 1}, run_id="r")
        await put(saver, at("other"), {"x": 2})
        for key in data_keys_of(server_client, prefix, "t"):
            server_client.pexpireat(key, 1)
        assert await saver.aget_tuple(at("t")) is None
        assert [t.checkpoint["channel_values"] for t in await listed(saver, None)] == [{"x": 2}]
        await saver.adelete_for_runs(["r"])
        await put(saver, at("t"), {"x": 3})
        assert await ids(saver, old) == []
        assert (await saver.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": 3}


async def test_without_a_ttl_nothing_expires(either: Any, prefix: str, server_client: Any) -> None:
    config = await put(either, at("t"), {"x": BIG})
    await either.aput_writes(config, [("x", 1)], "task")
    await either.aget_tuple(config)
    assert [server_client.pttl(key) for key in keys_of(server_client, prefix)] == [-1] * len(keys_of(server_client, prefix))


# --- large numbers ----------------------------------------------------------------------------------------------------


async def test_more_channels_and_writes_than_lua_can_unpack(asaver: RedisSaver) -> None:
    names = [f"channel {n}" for n in range(8_200)]
    values = {name: [n, "x" * 100] for n, name in enumerate(names)}
    config = await put(asaver, at("t"), values)
    await asaver.aput_writes(config, [(name, n) for n, name in enumerate(names)], "task")
    found = await asaver.aget_tuple(config)
    assert found.checkpoint["channel_values"] == values
    assert found.pending_writes == [("task", name, n) for n, name in enumerate(names)]
    child = await asaver.aput(config, checkpoint(values | {"more": 1}), metadata(), {"more": 1})
    await asaver.acopy_thread("t", "copy")
    await asaver.aprune(["t"])
    assert (await asaver.aget_tuple(at("t"))).checkpoint["channel_values"] == values | {"more": 1}
    assert await ids(asaver, at("t")) == [id_of(child)]
    assert len((await asaver.aget_tuple(at("copy", "", id_of(config)))).pending_writes) == 8_200
    await asaver.adelete_thread("copy")
    assert await asaver.aget_tuple(at("copy")) is None


async def test_more_threads_and_runs_than_a_page(asaver: RedisSaver) -> None:
    for n in range(1_100):
        await put(asaver, at(f"t{n}"), run_id="one run" if n % 2 else f"run {n}")
    assert len(await ids(asaver, None)) == 1_100
    await asaver.adelete_for_runs(["one run"])
    assert {t.config["configurable"]["thread_id"] for t in await listed(asaver, None)} == {f"t{n}" for n in range(0, 1_100, 2)}
    await asaver.aprune([f"t{n}" for n in range(1_100)], strategy="delete")
    assert await ids(asaver, None) == []


# --- through real graphs ----------------------------------------------------------------------------------------------


class Count(TypedDict):
    n: int
    log: Annotated[list[str], operator.add]


def counting_graph(ran: list[str] | None = None) -> Any:
    def step(name: str) -> Any:
        def body(state: Count) -> dict[str, Any]:
            if ran is not None:
                ran.append(name)
            return {"n": state["n"] + 1, "log": [name]}

        return body

    builder = StateGraph(Count)
    for name in ("a", "b", "c"):
        builder.add_node(name, step(name))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    builder.add_edge("c", END)
    return builder


def after(graph: Any, config: Any, *nodes: str) -> Any:
    """The config of the checkpoint that waits for these nodes, oldest first if several do."""
    return next(found for found in graph.get_state_history(config) if found.next == nodes).config


def test_update_state_on_an_old_checkpoint_forks_from_there(saver: RedisSaver) -> None:
    graph = counting_graph().compile(checkpointer=saver)
    thread = at("t", None)
    assert graph.invoke({"n": 0, "log": []}, thread) == {"n": 3, "log": ["a", "b", "c"]}
    before_b = after(graph, thread, "b")
    fork = graph.update_state(before_b, {"n": 100, "log": ["by hand"]}, as_node="a")
    assert graph.get_state(fork).values == {"n": 100, "log": ["a", "by hand"]}
    assert graph.invoke(None, fork) == {"n": 102, "log": ["a", "by hand", "b", "c"]}
    assert graph.get_state(before_b).values == {"n": 1, "log": ["a"]}
    assert graph.get_state(thread).values == {"n": 102, "log": ["a", "by hand", "b", "c"]}


def test_copying_an_old_checkpoint_keeps_its_state_and_runs_on_from_it(saver: RedisSaver) -> None:
    graph = counting_graph().compile(checkpointer=saver)
    thread = at("t", None)
    graph.invoke({"n": 0, "log": []}, thread)
    for nodes, values in {("c",): {"n": 2, "log": ["a", "b"]}, ("b",): {"n": 1, "log": ["a"]}}.items():
        copy = graph.update_state(after(graph, thread, *nodes), None, as_node="__copy__")
        found = graph.get_state(copy)
        assert (found.values, found.next, found.metadata["source"]) == (values, nodes, "fork")
        assert graph.get_state(thread).config["configurable"]["checkpoint_id"] == id_of(copy)
        assert graph.invoke(None, copy)["log"] == ["a", "b", "c"]


async def test_forks_of_forks_keep_every_branch(asaver: RedisSaver) -> None:
    graph = counting_graph().compile(checkpointer=asaver)
    thread = at("t", None)
    await graph.ainvoke({"n": 0, "log": []}, thread)
    history = [found async for found in graph.aget_state_history(thread)]
    config = next(found.config for found in history if found.next == ("b",))
    branches, expected = [config], ["a"]
    for n in range(5):
        copy = await graph.aupdate_state(config, None, as_node="__copy__")
        config = await graph.aupdate_state(copy, {"n": n, "log": [f"fork {n}"]}, as_node="a")
        expected = [*expected, f"fork {n}"]
        branches.append(config)
        assert (await graph.aget_state(copy)).values["log"] == expected[:-1]
        assert (await graph.aget_state(config)).values == {"n": n, "log": expected}
    for n, branch in enumerate(branches):
        assert (await graph.aget_state(branch)).values["log"] == expected[: n + 1]
        assert (await graph.ainvoke(None, branch))["log"] == [*expected[: n + 1], "b", "c"]


def test_an_interrupt_survives_pruning_and_another_process_answers_it(url: str, prefix: str) -> None:
    def build(saver: Any) -> Any:
        def ask(state: Count) -> dict[str, Any]:
            return {"log": [f"{interrupt('how many?')}"]}

        builder = counting_graph()
        builder.add_node("ask", ask)
        builder.add_edge("c", "ask")
        return builder.compile(checkpointer=saver)

    with RedisSaver(url, prefix=prefix) as one:
        paused = build(one).invoke({"n": 0, "log": []}, at("t", None))
        assert [asked.value for asked in paused["__interrupt__"]] == ["how many?"]
        one.prune(["t"])
    with RedisSaver(url, prefix=prefix) as two:
        graph = build(two)
        assert [asked.value for asked in graph.get_state(at("t", None)).interrupts] == ["how many?"]
        assert graph.invoke(Command(resume=3), at("t", None))["log"] == ["a", "b", "c", "3"]


async def test_connections_that_the_server_closes_are_replaced_and_nobody_notices(either: Any, url: str) -> None:
    config = await put(either, at("t"), {"x": 0})
    with redis.Redis.from_url(url) as admin:
        for n in range(1, 6):
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            config = await put(either, config, {"x": n})
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert (await either.aget_tuple(at("t"))).checkpoint["channel_values"] == {"x": n}
