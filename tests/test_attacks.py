"""Races, crashes, collisions and extremes: what somebody would try who wants to lose or mix up a state."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME, _DeltaSnapshot
from shapes import assert_same, at, checkpoint, id_of, metadata, new_id, plain
from soak import times
from test_storage import audit, keys_of, put, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.driver import _call
from langgraph_redis_state.effects import Call, Compute
from langgraph_redis_state.errors import (
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    ThreadBusyError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from langgraph_redis_state.operations.copying import copy_thread
from langgraph_redis_state.operations.delta_channels import delta_history
from langgraph_redis_state.operations.reading import list_page
from langgraph_redis_state.storage.keys import ThreadKeys, bucket_of


def stepwise(saver: RedisSaver, operation: Any) -> Iterator[Any]:
    """Runs an operation, stopping before each effect: what happens elsewhere in between is up to the caller."""
    reply: Any = None
    while True:
        try:
            effect = operation.send(reply)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, Compute):
            reply = effect.work()
            continue
        yield effect
        reply = _call(saver.client, effect) if isinstance(effect, Call) else _read(saver, effect)


def _read(saver: RedisSaver, effect: Any) -> list[Any]:
    return [saver.client.execute_command(*command) for command in effect.commands]


# --- chains that never end, ancestors that vanish ---------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_chain_of_parents_that_closes_on_itself_ends(saver: RedisSaver, length: int) -> None:
    ids = [new_id() for _ in range(length)]
    for n, id in enumerate(ids):
        put(saver, at("t", "", ids[n - 1]), {"n": n}, id=id)
        saver.put_writes(at("t", "", id), [("log", n)], "task")
    walk = stepwise(saver, delta_history(saver._engine, saver.serde, at("t", "", ids[-1]), ["absent"]))
    with contextlib.suppress(CheckpointCorruptError):
        for effects, _ in enumerate(walk):
            assert effects < 20, "a walk without end"
    saver.prune(["t"])
    assert id_of(saver.get_tuple(at("t")).config) == max(ids)


def test_an_ancestor_that_goes_away_during_the_walk_is_lost(saver: RedisSaver) -> None:
    config = put(saver, at("t"), {"log": _DeltaSnapshot([0])})
    for n in range(1, 250):
        saver.put_writes(config, [("log", [n])], "task")
        config = put(saver, config, {}, versions={"log": n + 1}, counters_since_delta_snapshot={"log": (n, n)})
    walk = delta_history(saver._engine, saver.serde, config, ["log"])
    steps = stepwise(saver, walk)
    next(steps)
    next(steps)
    newer = [found.config for found in saver.list(at("t"), limit=50)]
    saver.delete_thread("t")
    with pytest.raises(CheckpointLostError):
        list(steps)
    assert len(newer) == 50


# --- races ------------------------------------------------------------------------------------------------------------


def test_writers_pruners_copiers_and_deleters_at_once_leave_a_sound_thread(
    saver: RedisSaver, raw: Any, url: str, prefix: str
) -> None:
    saver.get_tuple(at("t"))
    errors: list[BaseException] = []
    stop = threading.Event()
    shared = [words(n, 200) for n in range(30)]

    def write(number: int) -> None:
        with RedisSaver(url, prefix=prefix) as mine:
            config: Any = at("t")
            for n in range(40):
                try:
                    config = put(mine, config, {"shared": shared[: 26 + n % 4], "own": words((number, n), 200), "n": n})
                    mine.put_writes(config, [("w", words((number, n, 1), 250)), (RESUME, n)], f"task {number}")
                    found = mine.get_tuple(config)
                    if found is not None:
                        assert found.checkpoint["channel_values"]["own"] == words((number, n), 200)
                        assert found.checkpoint["channel_values"]["shared"] == shared[: 26 + n % 4]
                except ThreadDeletedError:
                    config = at("t")

    def disturb(number: int) -> None:
        with RedisSaver(url, prefix=prefix) as mine:
            n = 0
            while not stop.is_set():
                n += 1
                with contextlib.suppress(ThreadBusyError, ThreadNotFoundError, ThreadExistsError):
                    if number == 0:
                        mine.prune(["t"])
                    elif number == 1:
                        mine.copy_thread("t", f"copy {n}")
                    elif n % 10 == 0:
                        mine.delete_thread("t")
                    else:
                        list(mine.list(at("t", None)))

    def guarded(work: Any, number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    writers = [threading.Thread(target=guarded, args=(write, n)) for n in range(3)]
    others = [threading.Thread(target=guarded, args=(disturb, n)) for n in range(3)]
    for thread in writers + others:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    assert errors == []
    put(saver, at("t"), {"n": "last"})
    audit(raw, prefix, "t")
    saver.copy_thread("t", "copy at last")  # those before may all have met a writer, or a thread that held but writes
    copies = [name[2:] for name in keys_of(raw, prefix) if name.startswith("t:copy")]
    assert "copy at last" in copies
    for copy in copies:
        audit(raw, prefix, copy)
        found = list(saver.list(at(copy, None)))  # each is verified
        assert found or copy != "copy at last"
    for key in raw.scan_iter(match=f"{prefix}:*:u:*", count=10_000):
        assert raw.pttl(key) > 0  # staging of copies that did not come about
    saver.prune(["t"])
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"n": "last"}
    put(saver, at("t"), {"n": "later"})
    saver.prune(["t"])
    audit(raw, prefix, "t", clean=True)


def _grow_in_child(url: str, prefix: str, number: int) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        config: Any = at("t")
        for n in range(30):
            config = put(saver, config, {"who": number, "n": n, "text": words((number, n), 150)})
            saver.put_writes(config, [("w", n)], f"task {number}")


def test_processes_that_write_one_thread_lose_nothing(saver: RedisSaver, raw: Any, url: str, prefix: str) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_grow_in_child, args=(url, prefix, number)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    found = list(saver.list(at("t")))
    assert len(found) == 60
    for number in range(2):
        mine = [each for each in found if each.checkpoint["channel_values"]["who"] == number]
        assert [each.checkpoint["channel_values"]["n"] for each in mine] == list(range(30))[::-1]
        assert all(each.pending_writes[0][2] == each.checkpoint["channel_values"]["n"] for each in mine)
    audit(raw, prefix, "t", clean=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_its_parents_saver(saver: RedisSaver) -> None:
    config = put(saver, at("t"), {"big": words(1, 500), "n": 0})
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            put(saver, config, {"big": words(1, 500), "n": 1}, ["n"])
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"big": words(1, 500), "n": 1}


def test_a_thread_made_anew_during_a_copy_does_not_get_into_it(url: str, raw: Any, prefix: str) -> None:
    """Deleted and made again in the same shape, its counts are the same as before."""
    with RedisSaver(url, prefix=prefix, compression="none") as saver:

        def make(mark: str) -> None:
            config: Any = at("t")
            for _ in range(600):
                config = put(saver, config, {"mark": mark})

        make("old")
        copying = stepwise(saver, copy_thread(saver._engine, "t", "copy"))
        scans = 0
        for effect in copying:
            if "HSCAN" in str(effect):
                scans += 1
                if scans == 2:
                    saver.delete_thread("t")
                    raw.delete(ThreadKeys(prefix, b"t").all[6])
                    make("new")
        assert scans >= 2
        copied = list(saver.list(at("copy")))
        assert len({found.checkpoint["channel_values"]["mark"] for found in copied}) == 1
        assert len(copied) == 600
        audit(raw, prefix, "copy", clean=True)


async def test_a_put_cancelled_anywhere_is_there_or_not_and_the_saver_goes_on(
    asaver: RedisSaver, raw: Any, prefix: str
) -> None:
    big = random.Random(5).randbytes(5_000_000)
    for values in ({"n": 1, "text": words(1, 400)}, {"big": big}):
        config: Any = at("t")
        done = False
        delay = 0
        while not done:
            made = checkpoint(values)
            task = asyncio.ensure_future(asaver.aput(config, made, metadata(), made["channel_versions"]))
            for _ in range(delay):
                await asyncio.sleep(0)
                if task.done():
                    break
            task.cancel()
            done = False
            with contextlib.suppress(asyncio.CancelledError):
                await task
                done = True
            found = await asaver.aget_tuple(at("t", "", made["id"]))
            if done:
                assert found is not None
            if found is not None:
                assert found.checkpoint["channel_values"] == values
            assert await asaver.aget_tuple(at("none")) is None
            delay += 1 if delay < 20 else 7 + delay // 50
            assert delay < 100_000  # passes of the loop, of which a worker thread leaves time for many
        audit(raw, prefix, "t")


async def test_many_cancelled_reads_do_not_mix_up_replies(asaver: RedisSaver) -> None:
    for n in range(10):
        made = checkpoint({"n": n})
        await asaver.aput(at(f"t{n}"), made, metadata(), {"n": 1})
    chosen = random.Random(3)

    async def read(n: int) -> None:
        found = await asaver.aget_tuple(at(f"t{n}"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"n": n}

    for _ in range(60):
        tasks = [asyncio.ensure_future(read(n)) for n in range(10)]
        for _ in range(chosen.randrange(12)):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results[::2])
        assert results[1::2] == [None] * 5


async def test_a_value_taken_over_is_what_it_was_even_if_the_server_lost_it(asaver: RedisSaver, raw: Any, prefix: str) -> None:
    big = [words(n, 100) for n in range(20)]
    made = checkpoint({"big": big})
    config = await asaver.aput(at("t"), made, metadata(), {"big": 1})
    raw.delete(*ThreadKeys(prefix, b"t").all[:2])
    child = checkpoint({"big": big})
    task = asyncio.ensure_future(asaver.aput(config, child, metadata(), {}))
    await asyncio.sleep(0)
    before = list(big)
    big.append("changed while aput was under way")
    with contextlib.suppress(CheckpointerError):
        await task
        assert (await asaver.aget_tuple(at("t"))).checkpoint["channel_values"]["big"] == before


# --- the same id, other bytes -----------------------------------------------------------------------------------------


def test_an_id_put_twice_keeps_the_later_bytes_and_children_keep_theirs(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as one, RedisSaver(url, prefix=prefix) as two:
        id = new_id()
        first = put(one, at("t"), {"text": words("first", 300)}, id=id)
        child = put(one, first, {"text": words("first", 300), "n": 1}, ["n"])
        put(two, at("t"), {"text": words("second", 300)}, id=id)
        assert one.get_tuple(first).checkpoint["channel_values"] == {"text": words("second", 300)}
        assert two.get_tuple(child).checkpoint["channel_values"] == {"text": words("first", 300), "n": 1}
        audit(raw, prefix, "t")
        grandchild = put(two, first, {"text": words("second", 300), "n": 2}, ["n"])
        assert one.get_tuple(grandchild).checkpoint["channel_values"]["text"] == words("second", 300)
        one.delete_for_runs(["none"])
        audit(raw, prefix, "t")


def test_a_parent_that_never_existed_is_kept_as_a_name(saver: RedisSaver, memory: InMemorySaver) -> None:
    for each in (saver, memory):
        made = checkpoint({"n": 1}, id="b")
        each.put(at("t", "", "never there"), made, metadata(), {"n": 1})
    assert_same(plain(memory.get_tuple(at("t"))), plain(saver.get_tuple(at("t"))))
    assert saver.get_tuple(saver.get_tuple(at("t")).parent_config) is None


# --- tombstones -------------------------------------------------------------------------------------------------------


def next_millisecond(raw: Any) -> None:
    """Ids and deletions carry milliseconds: what happens in the same one has no order."""
    begun = raw.time()
    while (now := raw.time())[0] * 1000 + now[1] // 1000 <= begun[0] * 1000 + begun[1] // 1000 + 1:
        pass


def test_a_tombstone_refuses_what_is_late_and_lets_the_new_in(saver: RedisSaver, raw: Any, prefix: str) -> None:
    old = put(saver, at("t"), {"n": 1})
    inner = put(saver, at("t", "sub:1"), {"n": 1}, parents={"": id_of(old)})
    next_millisecond(raw)
    saver.delete_thread("t")
    for late in (
        lambda: put(saver, old, {"n": 2}),
        lambda: put(saver, inner, {"n": 2}, parents={"": id_of(old)}),
        lambda: put(saver, at("t", "sub:2"), {"n": 2}, parents={"": id_of(old)}),
        lambda: saver.put_writes(old, [("n", 1)], "task"),
        lambda: saver.put_writes(inner, [("n", 1)], "task"),
    ):
        with pytest.raises(ThreadDeletedError, match="deleted"):
            late()
        assert list(saver.list(at("t", None))) == []
    fresh = put(saver, at("t"), {"n": 3})
    put(saver, fresh, {"n": 4})
    put(saver, at("t", "sub:3"), {"n": 5}, parents={"": id_of(fresh)})
    saver.put_writes(fresh, [("n", 1)], "task")
    with pytest.raises(ThreadDeletedError):
        put(saver, old, {"n": 2})
    audit(raw, prefix, "t", clean=True)
    assert all(raw.pttl(key) == -1 for key in ThreadKeys(prefix, b"t").all[:2])
    saver.delete_thread("t")
    source = put(saver, at("source"), {"n": 9})  # a copy onto the id clears the tombstone
    saver.copy_thread("source", "t")
    put(saver, at("t", "", id_of(source)), {"n": 10})
    assert len(list(saver.list(at("t")))) == 2


# --- ids that look like something else --------------------------------------------------------------------------------

STRANGE = [
    "A",
    "C",
    "W",
    "D",
    "S",
    "\x01",
    "\xff",
    "\U0010ffff",
    "i",
    "a:i",
    "x:t",
    "t",
    "t:t",
    "{0000}",
    "%s",
    "[",
    "(",
    "-",
    "+",
]


def test_ids_that_look_like_separators_keys_or_bounds_do_not_collide(
    saver: RedisSaver, memory: InMemorySaver, raw: Any, prefix: str
) -> None:
    for thread in ("t", "x:t", "t:i"):
        for ns in STRANGE:
            for n, id in enumerate((*STRANGE[:8], "[a", "(a")):
                for each in (saver, memory):
                    made = checkpoint({"at": [thread, ns, id]}, {"at": n}, id=id)
                    each.put(at(thread, ns), made, metadata(), {"at": n})
                    each.put_writes(at(thread, ns, id), [("w", [ns, id])], id, ns)
    for thread in ("t", "x:t", "t:i"):
        for ns in STRANGE:
            expected = [plain(found) for found in memory.list(at(thread, ns))]
            assert [plain(found) for found in saver.list(at(thread, ns))] == expected
            assert_same(plain(memory.get_tuple(at(thread, ns))), plain(saver.get_tuple(at(thread, ns))))
            page = [plain(found) for found in saver.list(at(thread, ns), before=at(thread, "", "\x01"), limit=1)]
            assert page == [plain(found) for found in memory.list(at(thread, ns), before=at(thread, "", "\x01"), limit=1)]
        found = [plain(each)["config"][1:] for each in saver.list(at(thread, None))]
        assert found == sorted(found, key=lambda place: (place[1], place[0]), reverse=True)
        assert len(found) == len(STRANGE) * 10
        audit(raw, prefix, thread, clean=True)
    saver.delete_thread("t")
    assert len(list(saver.list(at("x:t", None)))) == len(list(saver.list(at("t:i", None)))) == len(STRANGE) * 10


def test_thread_ids_that_look_like_keys_do_not_touch_their_neighbours(saver: RedisSaver, raw: Any, prefix: str) -> None:
    bucket = bucket_of(b"t")
    names = [
        "t",
        "i:t",
        "t:t",
        "x:t",
        "threads",
        "expiry",
        "u:t:op",
        f"{{{bucket:04x}}}:t:t",
        "m",
        "runs",
        "layout",
        "t\r\n",
        "*",
    ]
    for n, name in enumerate(names):
        config = put(saver, at(name), {"n": n}, run_id=f"{name}\x01{n}")
        saver.put_writes(config, [("w", n)], "task")
    assert {found.config["configurable"]["thread_id"] for found in saver.list(None)} == set(names)
    for n, name in enumerate(names):
        found = saver.get_tuple(at(name))
        assert found.checkpoint["channel_values"] == {"n": n}
        assert found.pending_writes == [("task", "w", n)]
        if n % 2:
            saver.delete_thread(name)
        else:
            saver.delete_for_runs([f"{name}\x01{n}"])
        for later, other in enumerate(names[n + 1 :], n + 1):
            assert saver.get_tuple(at(other)).checkpoint["channel_values"] == {"n": later}
    assert not {name for name in keys_of(raw, prefix) if name.startswith(("t:", "i:", "runs", "threads"))}


# --- extremes ---------------------------------------------------------------------------------------------------------


def test_three_thousand_writes_by_as_many_tasks(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = put(saver, at("t"), {"n": 1})
    chosen = random.Random(1)
    values = [chosen.randbytes(100) for _ in range(3_000)]
    for n, value in enumerate(values):
        saver.put_writes(config, [("w", value)], f"task {n:04}")
    for n in range(0, 3_000, 500):  # a task that runs again changes nothing
        saver.put_writes(config, [("w", b"again"), (INTERRUPT, n)], f"task {n:04}")
    found = [value for _, channel, value in saver.get_tuple(config).pending_writes if channel == "w"]
    assert found == values
    audit(raw, prefix, "t", clean=True)


@pytest.mark.longer
def test_a_checkpoint_with_thousands_of_chunks(saver: RedisSaver, raw: Any, prefix: str) -> None:
    many = times(12_000, 50_000, 50_000)
    values = {f"channel {n}": f"{n:06}" * 17 for n in range(many)}
    config = put(saver, at("t"), values)
    child = put(saver, config, {**values, "more": 1}, ["more"])
    found = saver.get_tuple(child)
    assert found.checkpoint["channel_values"] == {**values, "more": 1}
    told = audit(raw, prefix, "t", clean=True)
    assert told["chunks"] == many


def test_large_metadata_and_a_large_pending_write(saver: RedisSaver, raw: Any, prefix: str) -> None:
    big = random.Random(2).randbytes(5_000_000)
    config = put(saver, at("t"), {"n": 1}, big=big)
    saver.put_writes(config, [("w", big[::-1]), ("v", big)], "task")
    found = saver.get_tuple(config)
    assert found.metadata["big"] == big
    assert [value for _, _, value in found.pending_writes] == [big[::-1], big]
    assert len(list(saver.list(at("t"), filter={"step": 0}))) == 1
    audit(raw, prefix, "t", clean=True)


def test_a_page_of_checkpoints_with_large_writes_is_cut_by_bytes(saver: RedisSaver) -> None:
    from langgraph_redis_state.operations.reading import PAGE_BYTES
    from langgraph_redis_state.scripts.commands import LIST

    config: Any = at("t")
    for n in range(20):
        config = put(saver, config, {"n": n})
        saver.put_writes(config, [("w", random.Random(n).randbytes(1_000_000))], "task")
    operation = list_page(saver._engine, saver.serde, _target(saver, "t"), "", (b"", None), 100, None)
    (effect,) = [each for each in stepwise(saver, operation) if isinstance(each, Call) and each.script is LIST]
    reply = _call(saver.client, effect)
    assert sum(len(chunk) for chunk in reply[3][1::2]) < 2 * PAGE_BYTES
    assert len(list(saver.list(at("t")))) == 20


def _target(saver: RedisSaver, thread: str) -> Any:
    from langgraph_redis_state.address import Address

    return Address(saver._engine.settings.prefix, thread, "", None)


def test_a_damaged_old_checkpoint_does_not_stop_a_graph_that_keeps_the_newest(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=3) as saver:
        oldest = put(saver, at("t"), {"n": 0})
        config = put(saver, oldest, {"n": 1})
        keys = ThreadKeys(prefix, b"t")
        name = b"C\0" + id_of(oldest).encode()
        content = raw.hget(keys.hash, name)
        raw.hset(keys.hash, name, content[:-1] + bytes([content[-1] ^ 1]))
        for n in range(2, 8):
            config = put(saver, config, {"n": n})
        assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"n": 7}


def test_a_child_is_stored_though_a_pending_write_of_its_parent_is_damaged(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as writer, RedisSaver(url, prefix=prefix) as fresh:
        config = put(writer, at("t"), {"a": words(1, 300), "b": words(2, 300)})
        writer.put_writes(config, [("w", 1)], "task")
        name = b"W\0" + id_of(config).encode()
        keys = ThreadKeys(prefix, b"t")
        content = raw.hget(keys.hash, name)
        raw.hset(keys.hash, name, content[:-1] + bytes([content[-1] ^ 1]))
        made = checkpoint({"a": words(1, 300)}, {"a": 1, "b": 1})  # "b" is only in the parent's record
        child = fresh.put(config, made, metadata(), {})
        assert fresh.get_tuple(child).checkpoint["channel_values"] == {"a": words(1, 300), "b": words(2, 300)}


def test_savers_that_were_dropped_leave_nothing_in_memory(url: str, prefix: str) -> None:
    def use() -> weakref.ref[Any]:
        with RedisSaver(url, prefix=prefix) as saver:
            put(saver, at("t"), {"n": words(1, 300)})
            return weakref.ref(saver._engine.manifests)

    kept = [use() for _ in range(3)]
    gc.collect()
    assert [each() for each in kept] == [None] * 3


def test_the_clock_of_a_test_is_not_the_clock_of_the_server(saver: RedisSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    id_before = new_id()
    next_millisecond(saver.client)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    config = put(saver, at("t"), {"n": 1}, id=id_before)
    saver.delete_thread("t")
    with pytest.raises(ThreadDeletedError):
        put(saver, config, {"n": 2})
