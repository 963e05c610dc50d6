"""Ids of threads, namespaces, checkpoints, tasks and runs: any text, and none is taken for another."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from shapes import at, checkpoint, id_of, ids, listed, metadata, new_id, put
from soak import mostly

from langgraph_redis_state.errors import InvalidConfigError

STRANGE = [
    *("a", "A", "aa", " a", "a ", "  a", "\ta", "a\n", "a\r\n", "a\x01", "a\x1f", "a\x7f"),
    *(":", "a:", ":a", "a:b", "a::b", "*", "a*", "?", "[a]", "[a", "(a", "-", "+", "-inf", "+inf", "^a$"),
    *("{}", "{a}", "}{", "{", "{0000}", "|", "a|b", "a|b:c", "\\", "a\\0b", "\\x00", "%00", "'", '"', "`", "$", "#"),
    *("é", "e\u0301", "ÿ", "\xff", "\u0100", "\uffff", "\U0010ffff", "😀", "😀😀", "👩‍👩‍👧", "ﬁ", "ß", "SS", "İ", "i̇"),
    *("None", "null", "0", "00", "1e3", "C", "W", "latest", "layout", "threads", "x" * 1024, "x" * 1023, "é" * 512),
]
DISTINCT = list(dict.fromkeys(STRANGE))


@mostly("async")
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


@mostly("sync")
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


@mostly("sync")
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


@mostly("async")
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
