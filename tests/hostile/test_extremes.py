"""Ids that look like something else, late writes, and extremes of size."""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from audit import audit, keys_of, put
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import INTERRUPT
from shapes import assert_same, at, checkpoint, id_of, metadata, new_id, plain, words
from soak import times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.driver import run
from langgraph_redis_state.effects import Call, Compute
from langgraph_redis_state.errors import ThreadDeletedError
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
        reply = run(only(effect), saver._connection)


def only(effect: Any) -> Any:
    """An operation of one effect."""
    return (yield effect)


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


@pytest.mark.longer
def test_a_thousand_writes_by_as_many_tasks(saver: RedisSaver, raw: Any, prefix: str) -> None:
    many = times(1_000, 3_000)
    config = put(saver, at("t"), {"n": 1})
    chosen = random.Random(1)
    values = [chosen.randbytes(100) for _ in range(many)]
    for n, value in enumerate(values):
        saver.put_writes(config, [("w", value)], f"task {n:04}")
    for n in range(0, many, 250):  # a task that runs again changes nothing
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
    reply = run(only(effect), saver._connection)
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
