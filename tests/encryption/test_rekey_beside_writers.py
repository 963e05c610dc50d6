"""rekey beside others who write to the thread, over what scripts keep, and over what stands in indexes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from audit import grow
from shapes import at, expiries, id_of, new_id, plain, words
from whole import KINDS, build, kind_of
from whole import told as everything

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.driver import run
from langgraph_redis_state.errors import ThreadBusyError, ThreadDeletedError
from langgraph_redis_state.operations import copying

OLD, NEW, NAMES = bytes(range(32)), bytes(range(1, 33)), bytes(range(64, 96))
CHANGES: dict[str, dict[str, Any]] = {
    "another key": {"encryption_key": [NEW, OLD]},
    "turned off": {"encryption_key": OLD, "decrypt_only": True},
    "names hidden": {"encryption_key": [NEW, OLD], "name_key": NAMES},
    "fresh": {"encryption_key": [NEW, OLD], "freshness": True},
}
changes = pytest.mark.parametrize("to", CHANGES)


def before(to: str) -> dict[str, Any]:
    return {"encryption_key": OLD, **{name: CHANGES[to][name] for name in ("name_key", "freshness") if name in CHANGES[to]}}


def after(to: str) -> dict[str, Any]:
    given = {**CHANGES[to]}
    given.pop("encryption_key")
    return given if given.pop("decrypt_only", False) else {"encryption_key": NEW, **given}


def longer(found: Any, **values: Any) -> tuple[Any, ...]:
    """A child of a checkpoint in which these channels are new."""
    made = {**found.checkpoint, "id": new_id()}
    made["channel_values"] = {**made["channel_values"], **values}
    versions = dict.fromkeys(values, 99)
    made["channel_versions"] = {**made["channel_versions"], **versions}
    return found.config, made, found.metadata, versions


@changes
@pytest.mark.parametrize("keeps", ["the values", "versions alone"])
def test_a_process_that_read_the_thread_before_continues_it(url: str, prefix: str, to: str, keeps: str) -> None:
    with RedisSaver(url, prefix=prefix, **before(to)) as saver:
        grow(saver, "t", 3, 1)
    options = CHANGES[to]
    with RedisSaver(url, prefix=prefix, **options) as writer, RedisSaver(url, prefix=prefix, **options) as other:
        found = writer.get_tuple(at("t"))
        messages = found.checkpoint["channel_values"]["messages"]
        writer.put_writes(found.config, [("n", words(7, 90))], "task x")
        assert other.rekey(["t"]) == 1
        config, made, metadata, versions = longer(found, n=77)
        if keeps == "versions alone":  # its value stands with the parent only
            del made["channel_values"]["messages"]
        writer.put_writes(found.config, [("n", words(8, 90))], "task y")
        config = writer.put(config, made, metadata, versions)
        writer.put_writes(config, [("n", words(8, 90))], "task z")
    with RedisSaver(url, prefix=prefix, cache_bytes=0, **CHANGES[to]) as saver:
        newest = saver.get_tuple(at("t"))
        assert newest.checkpoint["channel_values"] == {"messages": messages, "n": 77}
        assert len(saver.get_tuple(found.config).pending_writes) == 4
        assert not list(saver.verify())
        saver.rekey()
    with RedisSaver(url, prefix=prefix, cache_bytes=0, **after(to)) as saver:
        assert plain(saver.get_tuple(at("t"))) == plain(newest)
        assert not list(saver.verify())


def stepwise(saver: RedisSaver, between: Callable[[int], None]) -> int:
    """Performs rekey of thread "t" and something else between any two of its effects."""

    def one(effect: Any) -> Generator[Any, Any, Any]:
        return (yield effect)

    operation, reply, step = copying.rekey(saver._engine, ["t"], None), None, 0
    while True:
        try:
            effect = operation.send(reply)
        except StopIteration as stop:
            result: int = stop.value
            return result
        reply = run(one(effect), saver._connection)
        step += 1
        between(step)


@changes
def test_what_is_written_between_any_two_steps_is_kept(url: str, prefix: str, to: str) -> None:
    with RedisSaver(url, prefix=prefix, **before(to)) as saver:
        first = grow(saver, "t", 2, 1)[-1]
    with RedisSaver(url, prefix=prefix, **CHANGES[to]) as writer, RedisSaver(url, prefix=prefix, **CHANGES[to]) as saver:

        def between(step: int) -> None:
            if step < 40 and step % 3 == 0:
                writer.put_writes(first, [("n", step)], f"task {step}")
            if step == 20:
                grow(writer, "t", 1, 5, first)
            written.append(step)

        written: list[int] = []
        assert stepwise(saver, between) == 1
        assert len(written) > 40
        expected = everything(writer, "t")
        assert saver.rekey() == 0
    with RedisSaver(url, prefix=prefix, cache_bytes=0, **after(to)) as saver:
        assert everything(saver, "t") == expected
        assert len(saver.get_tuple(first).pending_writes) == 2 + 13
        assert not list(saver.verify())


def test_a_thread_that_always_changes_is_left_as_it_was(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        first = grow(saver, "t", 2, 1)[-1]
    with RedisSaver(url, prefix=prefix, encryption_key=[NEW, OLD]) as saver:
        with pytest.raises(ThreadBusyError, match=r"thread 't'.*it is as it was, 0 threads before it were written anew"):
            stepwise(saver, lambda step: saver.put_writes(first, [("n", step)], f"task {step}"))
        assert not list(saver.verify("t"))


@pytest.mark.parametrize("when", [2, 5, 8])
def test_a_thread_that_is_deleted_meanwhile_stays_deleted(url: str, prefix: str, raw: Any, when: int) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        config = grow(saver, "t", 2, 1)[-1]
    with RedisSaver(url, prefix=prefix, encryption_key=[NEW, OLD]) as saver:
        stepwise(saver, lambda step: saver.delete_thread("t") if step == when else None)
        assert saver.get_tuple(at("t")) is None
        with pytest.raises(ThreadDeletedError):
            saver.put_writes(config, [("n", 1)], "task")
        assert list(saver.list_threads()) == []


@changes
def test_what_scripts_and_indexes_keep_is_as_before(url: str, prefix: str, raw: Any, to: str) -> None:
    index = {"index_metadata": ["user"]}
    with RedisSaver(url, prefix=prefix, ttl=5_000, **before(to), **index) as saver:
        build(saver)
        grown = grow(saver, "u", 5, 1)
        made = saver.get_tuple(grown[-1])
        saver.put(grown[-1], {**made.checkpoint, "id": new_id()}, {**made.metadata, "user": "ada", "run_id": "run x"}, {})
        grow(saver, "deleted", 1, 1)
        late = saver.get_tuple(at("deleted")).config
        saver.delete_thread("deleted")
        keys = {thread: saver._engine.address(thread).keys for thread in "tu"}
        assert {kind_of(keys["t"].names.field_of(name)) for name in raw.hkeys(keys["t"].hash)} >= KINDS
        truth = {thread: everything(saver, thread) for thread in "tu"}
        moments = {thread: expiries(raw, *each.all[:2])[:2] for thread, each in keys.items()}
        kept = {key: raw.zrange(key, 0, -1, withscores=True) for each in keys.values() for key in each.all[1:6]}
        settings, activity = raw.hget(keys["t"].hash, "T"), [each.last_activity for each in saver.list_threads()]
    with RedisSaver(url, prefix=prefix, ttl=50, **CHANGES[to], **index) as saver:
        assert saver.rekey() == 2
    with RedisSaver(url, prefix=prefix, ttl="keep", cache_bytes=0, **after(to), **index) as saver:
        for thread, each in keys.items():  # a script of Redis 6.2 reads what is left by a clock that goes on meanwhile
            first, second, _ = expiries(raw, *each.all[:2])
            assert first == second == pytest.approx(moments[thread][0], abs=5)
        for key, members in kept.items():
            now = raw.zrange(key, 0, -1, withscores=True)
            assert [member for member, _ in now] == [member for member, _ in members]
            assert [score for _, score in now] == pytest.approx([score for _, score in members], abs=5)
        assert raw.hget(keys["t"].hash, "T") == settings
        assert [each.last_activity for each in saver.list_threads()] == activity
        assert {thread: everything(saver, thread) for thread in "tu"} == truth
        assert [each.thread_id for each in saver.find_threads(user="ada")] == ["u"]
        with pytest.raises(ThreadDeletedError):
            saver.put_writes(late, [("n", 1)], "late")
        assert not list(saver.verify())
        saver.delete_for_runs(["run x"])
        assert id_of(saver.get_tuple(at("u")).config) == id_of(grown[-1])
