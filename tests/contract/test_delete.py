"""`delete_thread` and `delete_for_runs`: what goes, and that late writes do not bring it back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from exercise import BIG
from shapes import SyncSurface, at, checkpoint, id_of, ids, listed, metadata, new_id, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ThreadDeletedError
from langgraph_redis_state.storage.keys import ThreadKeys


def keys_of(client: Any, prefix: str) -> list[bytes]:
    return sorted(client.scan_iter(match=f"{prefix}:*", count=10_000))


def data_keys_of(client: Any, prefix: str, thread: str) -> list[bytes]:
    """The hash and the sorted set of a thread (layout v1)."""
    return [key for key in ThreadKeys(prefix, thread.encode()).all[:2] if client.exists(key)]


async def test_deleting_a_thread_leaves_no_key_but_its_tombstone(either: Any, prefix: str, raw: Any) -> None:
    for n in range(3):
        config = await put(either, at("t"), {"x": [*BIG, n]}, run_id=f"r{n}")
        await either.aput_writes(config, [("x", BIG)], "task")
        await put(either, at("t", f"child:{n}"), {"x": n}, parents={"": id_of(config)})
    await either.adelete_thread("t")
    left = [key for key in keys_of(raw, prefix) if key != f"{prefix}:layout".encode()]
    assert left == [ThreadKeys(prefix, b"t").tombstone]
    assert 590_000 < raw.pttl(left[0]) <= 600_000


UUIDS = ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "52740052-0000-4000-8000-540074000000")
"""With bytes that separate and bound members of an index."""


async def test_runs_with_any_uuid_are_found(saver: RedisSaver, prefix: str, raw: Any) -> None:
    runs, threads, copy = (*UUIDS, UUIDS[1].upper(), "\x7ftext"), [str(UUID(int=n)) for n in range(2)], str(UUID(int=2))
    for thread in threads:
        for run in runs:
            await put(SyncSurface(saver), at(thread), {"x": run}, run_id=run)
    saver.copy_thread(threads[0], copy)
    assert [*saver.verify()] == []
    for n, run in enumerate(runs):
        saver.delete_for_runs([run])
        for thread in (*threads, copy):
            found = [each.checkpoint["channel_values"]["x"] for each in saver.list(at(thread))]
            assert found == [*reversed(runs[n + 1 :])]
        assert [*saver.verify()] == []
    assert not [key for key in keys_of(raw, prefix) if key.endswith(b":runs")]


async def test_a_thread_and_its_run_that_are_uuids_take_one_small_list(saver: RedisSaver, prefix: str, raw: Any) -> None:
    thread = str(UUID(int=1))
    for run in UUIDS:
        await put(SyncSurface(saver), at(thread), {"x": 1}, run_id=run)
    keys = ThreadKeys(prefix, thread.encode())
    packed = [b"\x80" + UUID(run).bytes for run in UUIDS]
    members = {b"R" + run + b"\0" + keys.name for run in packed} | {b"T" + keys.name + b"\0" + run for run in packed}
    assert set(raw.zrange(keys.all[4], 0, -1)) == members
    assert raw.object("encoding", keys.all[4]) in (b"listpack", b"ziplist")


async def test_deleting_all_runs_of_a_thread_leaves_no_data(either: Any, prefix: str, raw: Any) -> None:
    for n in range(3):
        config = await put(either, at("t"), {"x": [*BIG, n]}, run_id="r")
        await either.aput_writes(config, [("x", BIG)], "task")
    await either.adelete_for_runs(["r"])
    assert await either.aget_tuple(at("t")) is None
    assert await listed(either, None) == []
    assert sum(raw.memory_usage(key) for key in data_keys_of(raw, prefix, "t")) < 1_000


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
