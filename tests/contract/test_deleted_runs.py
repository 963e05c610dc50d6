"""A thread that was deleted while a run was under way: nothing of that run comes back, whatever comes late, in any order."""

from __future__ import annotations

import asyncio
import operator
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langgraph.graph import START, StateGraph
from shapes import at, checkpoint, expiries, id_of, ids, listed, metadata, new_id, put, words
from soak import in_turn
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import ServerRefusedError, ThreadDeletedError
from langgraph_redis_state.operations import thread_headers
from langgraph_redis_state.operations.thread_headers import LATE_MS, left_over
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.records import Header


async def refused(call: Any) -> None:
    with pytest.raises(ThreadDeletedError, match="deleted at 20"):
        await call


def tombstone(raw: Any, prefix: str) -> set[bytes]:
    return set(raw.zrange(ThreadKeys(prefix, b"t").tombstone, 0, -1))


def keys(raw: Any, prefix: str) -> list[bytes]:
    """The keys of threads that are there."""
    return [key for key in raw.scan_iter(match=f"{prefix}:*", count=10_000) if b":t:" in key or b":i:" in key]


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_the_first_put_of_a_deleted_thread_does_not_bring_it_back_when_it_is_repeated(either: Any) -> None:
    first = checkpoint({"x": 1})
    await either.aput(at("t"), first, metadata(), {"x": 1})
    await either.adelete_thread("t")
    await refused(either.aput(at("t"), first, metadata(), {"x": 1}))
    assert await listed(either, None) == []


async def test_what_builds_on_something_refused_is_refused(either: Any, raw: Any, prefix: str) -> None:
    parent = await put(either, at("t"), {"x": 1})
    await either.adelete_thread("t")
    for n in range(4):
        late = checkpoint({"x": n})
        await refused(either.aput(parent, late, metadata(), {"x": 1}))
        parent = at("t", "", late["id"])
        await refused(either.aput_writes(parent, [("x", 1)], "task"))
        inner = checkpoint({"x": n})
        await refused(either.aput(at("t", "sub:1"), inner, metadata(parents={"": late["id"]}), {"x": 1}))
        await refused(either.aput_writes(at("t", "sub:1", inner["id"]), [("x", 1)], "task"))
        nested = metadata(parents={"": new_id(), "sub:1": inner["id"]})
        await refused(either.aput(at("t", "sub:1|in:2"), checkpoint(), nested, {}))
    assert keys(raw, prefix) == []
    fresh = await put(either, at("t"), {"x": "new"})
    await refused(put(either, parent, {"x": 1}))
    assert await ids(either, at("t")) == [id_of(fresh)]


async def test_a_checkpoint_that_its_subgraph_overtook_before_the_deletion_is_refused(either: Any) -> None:
    root = checkpoint({"x": 1})
    inner = await put(either, at("t", "sub:1"), {"x": 1}, parents={"": root["id"]})
    await either.adelete_thread("t")
    await refused(put(either, inner, {"x": 2}, parents={"": root["id"]}))
    await refused(either.aput(at("t"), root, metadata(), {"x": 1}))
    assert await listed(either, None) == []


async def test_a_checkpoint_that_its_writes_overtook_before_the_deletion_is_refused(either: Any) -> None:
    root = checkpoint({"x": 1})
    await either.aput_writes(at("t", "", root["id"]), [("x", 1)], "task")
    await either.adelete_thread("t")
    await refused(either.aput_writes(at("t", "", root["id"]), [("x", 2)], "another task"))
    await refused(either.aput(at("t"), root, metadata(), {"x": 1}))
    assert await listed(either, None) == []


@pytest.mark.parametrize("key", [0, 1], ids=["hash", "index"])
async def test_a_thread_of_which_the_server_evicted_a_key_stays_deleted_too(
    either: Any, raw: Any, prefix: str, key: int
) -> None:
    old = await put(either, at("t"), {"x": 1})
    inner = await put(either, at("t", "sub:1"), {"x": 1}, parents={"": id_of(old)})
    raw.delete(ThreadKeys(prefix, b"t").all[key])
    await either.adelete_thread("t")
    await refused(put(either, old, {"x": 2}))
    await refused(put(either, inner, {"x": 2}))
    assert keys(raw, prefix) == []


@pytest.mark.parametrize("key", [0, 1, 6], ids=["hash", "index", "tombstone"])
def test_a_key_of_the_wrong_type_does_not_stop_a_deletion(saver: RedisSaver, raw: Any, prefix: str, key: int) -> None:
    made = saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    names = ThreadKeys(prefix, b"t").all
    raw.delete(names[key])
    raw.rpush(names[key], "damage")
    saver.delete_thread("t")
    assert keys(raw, prefix) == []
    with pytest.raises(ThreadDeletedError):
        saver.put(made, checkpoint({"x": 2}), metadata(), {"x": 1})


def test_a_damaged_record_without_its_root_does_not_stop_a_deletion(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = saver.put(at("t", "sub:1"), checkpoint({"x": 1}), metadata(parents={"": new_id()}), {"x": 1})
    raw.hset(ThreadKeys(prefix, b"t").hash, f"Csub:1\0{id_of(made)}", "damage")
    saver.delete_thread("t")
    with pytest.raises(ThreadDeletedError):
        saver.put(made, checkpoint({"x": 2}), metadata(), {"x": 1})


# --- the tombstone ----------------------------------------------------------------------------------------------------


def test_deleting_again_keeps_the_tombstone_and_a_second_run_is_added_to_it(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = []
    for _ in range(2):
        made.append(saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1}))
        saver.tag("t", "someone@example.org", id_of(made[-1]))
        saver.delete_thread("t")
        left = raw.pttl(ThreadKeys(prefix, b"t").tombstone)
        assert 590_000 < left <= 600_000
        saver.delete_thread("t")
        assert raw.pttl(ThreadKeys(prefix, b"t").tombstone) <= left
    assert tombstone(raw, prefix) == {b"deleted", *(f"C\0{id_of(each)}".encode() for each in made)}
    for each in made:
        with pytest.raises(ThreadDeletedError):
            saver.put(each, checkpoint({"x": 2}), metadata(), {"x": 1})


def test_of_two_tombstones_the_longer_time_holds(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, tombstone=1000) as long, RedisSaver(url, prefix=prefix, tombstone=10) as short:
        for saver in (long, short):
            saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
            saver.delete_thread("t")
        assert 990_000 < raw.pttl(ThreadKeys(prefix, b"t").tombstone) <= 1_000_000


def test_a_full_server_deletes_a_thread_and_refuses_what_is_late() -> None:
    with EmbeddedServer.start() as server, RedisSaver(server.url) as saver:
        import redis

        with redis.Redis.from_url(server.url) as raw:
            made = saver.put(at("t"), checkpoint({"x": words("t", 100_000)}), metadata(), {"x": 1})
            other = saver.put(at("u"), checkpoint({"x": 1}), metadata(), {"x": 1})
            raw.delete(ThreadKeys("lgrs", b"t").all[1])  # also where the index must be written again
            raw.config_set("maxmemory", raw.info("memory")["used_memory"] - 500_000)
            with pytest.raises(ServerRefusedError):
                saver.put(other, checkpoint({"x": 2}), metadata(), {"x": 1})
            saver.delete_thread("t")
            raw.config_set("maxmemory", 1)
            with pytest.raises(ThreadDeletedError):
                saver.put(made, checkpoint({"x": 2}), metadata(), {"x": 1})


def test_the_tombstone_of_a_long_thread_is_small_and_soon_made(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    names = ThreadKeys(prefix, b"t")
    for _ in range(12):
        raw.zadd(names.all[1], {f"C\0{new_id()}": 0 for _ in range(1000)})
    began = time.perf_counter()
    saver.delete_thread("t")
    assert time.perf_counter() - began < 0.5
    assert raw.zcard(names.tombstone) == 12_002
    assert raw.memory_usage(names.tombstone, samples=0) < 2_000_000
    with pytest.raises(ThreadDeletedError):
        saver.put(made, checkpoint({"x": 2}), metadata(), {"x": 1})


# --- real runs --------------------------------------------------------------------------------------------------------


class State(TypedDict):
    log: Annotated[list[str], operator.add]


@pytest.mark.parametrize(
    ("durability", "where", "awaited", "remembering"),
    in_turn(["sync", "async", "exit"], ["root", "inner"], [False, True], [False, True], rounds=2),
)
async def test_nothing_of_a_run_stays_whose_thread_is_deleted_while_a_node_runs(
    url: str, prefix: str, raw: Any, durability: Any, remembering: bool, where: str, awaited: bool, monkeypatch: Any
) -> None:
    secret = words("the old run", 20)
    async with RedisSaver(url, prefix=prefix, compression="none") as asaver:
        with RedisSaver(url, prefix=prefix, compression="none") as saver:
            asked, deleted = threading.Event(), threading.Event()
            old = [True]

            def node(name: str) -> Callable[[State], Any]:
                def step(state: State) -> Any:
                    if old and name == where:
                        asked.set()
                        assert deleted.wait(30)
                    return {"log": [secret if old else "new"]}

                return step

            inner = StateGraph(State).add_sequence([("s1", node("s1")), ("s2", node("inner")), ("s3", node("s3"))])
            sub = inner.add_edge(START, "s1").compile(checkpointer=True if remembering else None)
            outer = StateGraph(State).add_sequence([("root", node("root")), ("sub", sub), ("end", node("end"))])
            built = outer.add_edge(START, "root").compile(checkpointer=asaver if awaited else saver)

            async def invoke(text: str) -> Any:
                if awaited:
                    return await built.ainvoke({"log": [text]}, at("t"), durability=durability)
                return await asyncio.to_thread(built.invoke, {"log": [text]}, at("t"), durability=durability)

            old.clear()
            await invoke("first")  # with "exit" nothing is stored before the end, so there is something to delete
            old.append(True)
            run = asyncio.create_task(invoke(secret))
            assert await asyncio.to_thread(asked.wait, 30)
            await asaver.adelete_thread("t")
            deleted.set()
            with pytest.raises(ThreadDeletedError):
                await run
            # a subgraph may have overtaken a root checkpoint that the run then never tried to put: that goes with the tombstone
            assert await asaver.aget_tuple(at("t")) is None
            left = {key: raw.pttl(key) for key in keys(raw, prefix)}
            assert all(0 < ms <= 600_000 or ms == -2 for ms in left.values()), left  # -2: gone meanwhile, with what refused it
            old.clear()
            result = (await invoke("new"))["log"]
            monkeypatch.setattr(thread_headers, "LATE_MS", 0)
            await asaver.aprune(["t"])
            assert [each async for each in asaver.averify()] == []
            assert raw.pttl(ThreadKeys(prefix, b"t").hash) == -1
            if not remembering or durability == "sync":
                assert secret not in result
                assert secret.encode() not in b"".join(raw.hvals(ThreadKeys(prefix, b"t").hash))


# --- what overtook, and waits for what does not come ------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["alone", "after a new run began"])
async def test_what_overtook_a_checkpoint_goes_when_that_is_refused(either: Any, raw: Any, prefix: str, again: bool) -> None:
    old = await put(either, at("t"), {"x": 1})
    await either.adelete_thread("t")
    root = checkpoint({"x": 1})
    for ns in ("sub:1", "sub:1|in:2", "remembering"):
        inner = await put(either, at("t", ns), {"x": words(ns, 100)}, parents={"": root["id"]})
        await either.aput_writes(inner, [("x", words("w", 300))], "task")
    await either.aput_writes(at("t", "", root["id"]), [("x", words("early", 300))], "task")
    assert all(raw.pttl(key) > 0 for key in keys(raw, prefix))
    fresh = await put(either, at("t"), {"x": "new"}) if again else None
    await refused(either.aput(old, root, metadata(), {"x": 1}))
    assert await ids(either, at("t", None)) == ([id_of(fresh)] if fresh else [])
    if fresh is None:
        assert keys(raw, prefix) == []
    else:
        fields = raw.hkeys(ThreadKeys(prefix, b"t").hash)
        assert sorted(name[:1] for name in fields) == [b"C", b"S"]


def test_a_checkpoint_that_its_writes_overtook_expires_with_them(saver: RedisSaver, raw: Any, prefix: str) -> None:
    saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    saver.delete_thread("t")
    inner = checkpoint({"x": 1})
    saver.put_writes(at("t", "sub:1", inner["id"]), [("x", 1)], "task")
    saver.put(at("t", "sub:1"), inner, metadata(parents={"": new_id()}), {"x": 1})
    *moments, _ = expiries(raw, *ThreadKeys(prefix, b"t").all[:2])
    assert moments[0] == moments[1] > 0
    assert list(saver.verify()) == []


@pytest.fixture(params=["checkpoint", "writes"])
def left(request: pytest.FixtureRequest, saver: RedisSaver) -> tuple[str, str]:
    """A thread with something whose root checkpoint, or whose checkpoint, never comes, and then a new run of three."""
    saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    saver.delete_thread("t")
    never = new_id()
    if request.param == "checkpoint":
        config = saver.put(at("t", "sub:1"), checkpoint({"x": words("w", 300)}), metadata(parents={"": never}), {"x": 1})
        saver.put_writes(config, [("x", words("w", 300))], "task")
        what = f"checkpoint {id_of(config)!r} of namespace 'sub:1'"
    else:
        saver.put_writes(at("t", "", never), [("x", words("w", 300))], "task")
        what = f"pending writes of checkpoint {never!r} of namespace ''"
    time.sleep(0.002)  # so that the stamps, in ms, tell which came first
    parent = at("t")
    for n in range(3):
        parent = saver.put(parent, checkpoint({"x": n}), metadata(), {"x": 1})
    return id_of(parent), what


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was stored before the newest root checkpoint has waited long enough."""
    monkeypatch.setattr(thread_headers, "LATE_MS", 0)


def lone(raw: Any, prefix: str) -> bool:
    """Whether nothing but the new run's last checkpoint is there."""
    return sorted({name[:1] for name in raw.hkeys(ThreadKeys(prefix, b"t").hash)} - {b"Z"}) == [b"C", b"S"]


def test_what_may_be_on_its_way_stays(saver: RedisSaver, raw: Any, prefix: str, left: tuple[str, str]) -> None:
    before = len(raw.hkeys(ThreadKeys(prefix, b"t").hash))
    saver.prune(["t"])
    assert len(raw.hkeys(ThreadKeys(prefix, b"t").hash)) == before - 2
    assert list(saver.verify("t")) == []
    assert list(saver.repair("t")) == []


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("keep_last", [None, 1])
@pytest.mark.parametrize("times", [1, 2])
def test_prune_removes_what_waits_for_nothing(
    saver: RedisSaver, raw: Any, prefix: str, left: tuple[str, str], keep_last: Any, times: int, monkeypatch: Any
) -> None:
    if times == 2:  # also where nothing else is to be removed
        with monkeypatch.context() as patched:
            patched.setattr(thread_headers, "LATE_MS", 600_000)
            saver.prune(["t"], strategy="keep_latest", keep_last=keep_last)
        assert not lone(raw, prefix)
    saver.prune(["t"], strategy="keep_latest", keep_last=keep_last)
    assert lone(raw, prefix)
    assert list(saver.verify("t")) == []


@pytest.mark.usefixtures("late")
def test_retention_removes_what_waits_for_nothing(url: str, prefix: str, raw: Any, left: tuple[str, str]) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=1) as saver:
        saver.put(at("t", "", left[0]), checkpoint({"x": 4}), metadata(), {"x": 1})
        assert lone(raw, prefix)
        assert list(saver.verify("t")) == []


@pytest.mark.usefixtures("late")
def test_verify_finds_what_waits_for_nothing_and_repair_removes_it(
    saver: RedisSaver, raw: Any, prefix: str, left: tuple[str, str]
) -> None:
    found = list(saver.verify())
    assert [(each.kind, each.where, each.repairable) for each in found] == [("orphan", left[1], True)]
    assert "does not come any more" in found[0].problem
    assert left[1] in [each.where for each in saver.repair()]
    assert list(saver.verify()) == []
    assert len(list(saver.list(at("t", None)))) == 3


def test_what_belongs_to_something_in_the_tombstone_is_found_at_once(saver: RedisSaver, raw: Any, prefix: str) -> None:
    """It is named there when it was refused; the process that was refused may have died before it removed what overtook."""
    saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    saver.delete_thread("t")
    never = new_id()
    for ns in ("sub:1", "remembering"):
        saver.put(at("t", ns), checkpoint({"x": 1}), metadata(parents={"": never}), {"x": 1})
    saver.put_writes(at("t", "sub:2", never), [("x", 1)], "task")
    fresh = saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    assert list(saver.verify()) == []
    keys = ThreadKeys(prefix, b"t")
    raw.zadd(keys.tombstone, {keys.names.field(f"C{ns}\0{never}".encode()): 0 for ns in ("", "sub:2")})
    assert [each.kind for each in saver.verify()] == ["orphan"] * 3
    saver.prune(["t"])
    assert [id_of(each.config) for each in saver.list(at("t", None))] == [id_of(fresh)]
    assert lone(raw, prefix)


# --- what is no left-over ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("late")
def test_what_a_subgraph_remembers_stays_when_its_root_checkpoint_is_gone(url: str, prefix: str) -> None:
    """Retention removed that, or with durability="exit" it was never stored."""
    with RedisSaver(url, prefix=prefix, max_versions=1) as saver:
        kept = saver.put(at("t", "memory"), checkpoint({"x": 1}), metadata(parents={"": new_id()}), {"x": 1})
        time.sleep(0.002)  # the condition: it is older by the stamps
        parent = at("t")
        for n in range(4):
            parent = saver.put(parent, checkpoint({"x": n}), metadata(), {"x": 1})
        saver.prune(["t"])
        assert saver.get_tuple(at("t", "memory")).config == kept
        assert list(saver.verify()) == []


@pytest.mark.usefixtures("late")
def test_what_is_tagged_and_what_something_descends_from_stays(saver: RedisSaver) -> None:
    tagged = saver.put(at("t", "sub:1"), checkpoint({"x": 1}), metadata(parents={"": new_id()}), {"x": 1})
    base = saver.put(at("t", "sub:2"), checkpoint({"x": 1}), metadata(parents={"": new_id()}), {"x": 1})
    time.sleep(0.002)  # the condition: they are older by the stamps
    root = saver.put(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    saver.tag("t", "mine", id_of(tagged), checkpoint_ns="sub:1")
    child = saver.put(base, checkpoint({"x": 2}), metadata(parents={"": id_of(root)}), {"x": 1})
    assert list(saver.verify()) == []
    saver.prune(["t"])
    left = {id_of(each.config) for each in saver.list(at("t", None))}
    assert left >= {id_of(each) for each in (tagged, root, child)}


@pytest.mark.usefixtures("late")
def test_prune_leaves_no_call_of_a_subgraph_whose_root_checkpoint_it_removed(saver: RedisSaver) -> None:
    parent = at("t")
    for n in range(3):
        parent = saver.put(parent, checkpoint({"x": n}), metadata(), {"x": 1})
        saver.put(at("t", f"sub:{n}"), checkpoint({"x": n}), metadata(parents={"": id_of(parent)}), {"x": 1})
        time.sleep(0.002)  # the condition: older by the stamps
    saver.prune(["t"])
    assert [each.config["configurable"]["checkpoint_ns"] for each in saver.list(at("t", None))] == ["sub:2", ""]
    assert list(saver.verify()) == []


async def test_a_refusal_is_told_also_if_the_thread_cannot_be_looked_at(either: Any, raw: Any, prefix: str) -> None:
    old = await put(either, at("t"), {"x": 1})
    await either.adelete_thread("t")
    await put(either, at("t"), {"x": "new"})
    raw.hset(ThreadKeys(prefix, b"t").hash, "Cghost\0x", "damage")
    raw.zadd(ThreadKeys(prefix, b"t").all[1], {"Cghost\0x": 0, "Ax\0ghost": 0})
    await refused(put(either, old, {"x": 2}))


def test_writes_of_an_absent_parent_are_left_over_and_its_child_is_not() -> None:
    headers = {("", "b"): Header(parent="a", created_at=3 * LATE_MS)}
    assert left_over(headers, {("", "a"): 0}, set(), []) == {("", "a")}
