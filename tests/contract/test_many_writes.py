"""Pending writes of many tasks: what a call costs does not grow, and nothing else differs from a few."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from audit import audit
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from shapes import at, checkpoint, id_of, metadata
from soak import times

from langgraph_redis_state import RedisSaver, embedded
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointerError, FormatError
from langgraph_redis_state.storage.keys import ThreadKeys, segment_of
from langgraph_redis_state.storage.thread_fields import CHAINED, NAMES

MANY = 3 * NAMES
"""Tasks, so that there are a list, a directory, and segments that begin with names."""


def text(n: int) -> str:
    return random.Random(n).randbytes(60).hex()


def start(saver: RedisSaver, thread: str = "t") -> Any:
    made = checkpoint({"x": 1})
    return saver.put(at(thread), made, metadata(), {"x": 1})


def fan_out(saver: Any, config: Any, tasks: int, begin: int = 0) -> None:
    for n in range(begin, begin + tasks):
        saver.put_writes(config, [("x", text(n)), ("y", n)], f"task {n:05}", f"~{n % 7}")


def fields(raw: Any, prefix: str, thread: str = "t") -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = raw.hgetall(ThreadKeys(prefix, thread.encode()).hash)
    return {name: content for name, content in found.items() if name[:1] == b"W"}


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def replicated() -> Iterator[Any]:
    """A primary that has a replica."""
    program, running = embedded._find_program(), []
    try:
        with tempfile.TemporaryDirectory() as directory:
            ports: list[int] = []
            for n in range(2):
                options = ["--dir", directory, "--save", "", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"]
                options += ["--replicaof", "127.0.0.1", str(ports[0])] if n else []
                ports.append(free_port())
                line = [program, "--port", str(ports[n]), *options]
                running.append(subprocess.Popen(line, stdout=subprocess.DEVNULL))
            with redis.Redis(port=ports[0]) as primary:
                wait_for(lambda: primary.info("replication")["connected_slaves"] and primary.wait(1, 100))
                yield primary
    finally:
        for each in running:
            each.terminate()
            each.wait()


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def wait_for(met: Any) -> None:
    for _ in range(1000):
        try:
            if met():
                return
        except redis.RedisError:
            pass
        time.sleep(0.01)
    raise AssertionError("the replica did not come")


@pytest.mark.longer
def test_the_bytes_that_are_replicated_are_at_most_three_times_those_that_are_stored(replicated: Any) -> None:
    port = replicated.connection_pool.connection_kwargs["port"]
    with RedisSaver(f"redis://127.0.0.1:{port}/0") as saver:
        for tasks in (10, times(150, 1000, 10_000)):
            config = start(saver, f"{tasks} tasks")
            keys = ThreadKeys("lgrs", f"{tasks} tasks".encode())
            stored, sent = saver.stats(f"{tasks} tasks").stored_bytes, replicated.info("replication")["master_repl_offset"]
            memory = replicated.memory_usage(keys.hash, samples=0)
            for n in range(tasks):
                saver.put_writes(config, [("results", text(n))], f"{n:08}-0000-4000-8000-000000000000", "~")
            sent = replicated.info("replication")["master_repl_offset"] - sent
            assert sent <= 3 * (saver.stats(f"{tasks} tasks").stored_bytes - stored), tasks
            assert replicated.memory_usage(keys.hash, samples=0) - memory <= 400 * tasks


@pytest.mark.longer
def test_a_call_takes_the_same_commands_however_many_writes_there_are(saver: RedisSaver, raw: Any) -> None:
    def cost() -> tuple[int, int]:
        before = raw.info("commandstats"), raw.info("stats")["total_net_input_bytes"]
        saver.put_writes(config, [("x", text(n))], f"task {n:05}")
        after = raw.info("commandstats"), raw.info("stats")["total_net_input_bytes"]
        calls = [sum(each["calls"] for name, each in stats.items() if "info" not in name) for stats, _ in (before, after)]
        return calls[1] - calls[0], after[1] - before[1]

    config = start(saver)
    costs = []
    for n in (10, times(100, 1000, 10_000)):
        fan_out(saver, config, n)
        costs.append(cost())
    assert costs[0][0] == costs[1][0]
    assert abs(costs[0][1] - costs[1][1]) < 30  # digits of counts


# --- what it means ----------------------------------------------------------------------------------------------------


async def test_many_tasks_give_what_the_saver_of_langgraph_gives(either: Any, memory: InMemorySaver) -> None:
    made = checkpoint({"x": 1})
    for saver in (either, memory):
        config = await saver.aput(at("t"), made, metadata(), {"x": 1})
        for n in range(MANY):
            await saver.aput_writes(config, [("x", n), ("y", [n]), ("x", -n)], f"task {n % 37}", f"~{n % 5}")
        for n in (0, 3, MANY - 1):
            special = [(INTERRUPT, n), ("y", "late"), (ERROR, n), ("z", n), ("z", n + 1)]
            await saver.aput_writes(config, special, f"task {n % 37}", f"~{n % 5}")
            await saver.aput_writes(config, [(RESUME, 0), (RESUME, n)], f"task {n % 37}", f"~{n % 5}")
    found, expected = [(await saver.aget_tuple(config)).pending_writes for saver in (either, memory)]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert list(dict.fromkeys(task for task, _, _ in found))[:4] == ["task 0", "task 10", "task 15", "task 20"]  # by path


def test_a_repeated_call_changes_nothing(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = start(saver)
    fan_out(saver, config, MANY)
    before = fields(raw, prefix)
    fan_out(saver, config, MANY)
    assert fields(raw, prefix) == before
    assert audit(raw, prefix, "t")["writes"] == 2 * MANY


def test_two_tasks_may_have_one_name(saver: RedisSaver, raw: Any, prefix: str) -> None:
    seen: dict[str, str] = {}
    pair: tuple[str, str] | None = None
    for n in range(100_000):
        task = f"{n}"
        name = hashlib.sha1(bytes([len(task)]) + task.encode()).hexdigest()[:6]
        if name in seen:
            pair = seen[name], task
            break
        seen[name] = task
    assert pair
    config = start(saver)
    fan_out(saver, config, 10)
    for task in (*pair, *pair):
        saver.put_writes(config, [("x", task), (RESUME, task)], task)
    written = [(task, value) for task, _, value in saver.get_tuple(config).pending_writes if task in pair]
    assert sorted(written) == sorted(2 * [(task, task) for task in pair])
    assert not list(saver.verify("t"))


def test_a_few_writes_stand_in_one_field(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = start(saver)
    fan_out(saver, config, 4)
    assert len(fields(raw, prefix)) == 1
    fan_out(saver, config, MANY)
    kinds = [content[0] for name, content in fields(raw, prefix).items() if segment_of(name)]
    assert kinds.count(CHAINED) == 2
    assert len(kinds) == MANY - 4


def test_every_verb_keeps_many_writes_or_removes_them_wholly(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = start(saver)
    fan_out(saver, config, MANY)
    early = at("t", "", f"{id_of(config)[:-1]}~")
    fan_out(saver, early, MANY)
    written = saver.get_tuple(config).pending_writes
    saver.copy_thread("t", "copy")
    assert saver.get_tuple(at("copy")).pending_writes == written
    assert [found.pending_writes for found in saver.list(at("copy", None))] == [written]
    made = checkpoint({"x": 2})
    child = saver.put(config, made, metadata(), {"x": 2})
    fan_out(saver, child, MANY)
    assert not list(saver.verify())
    audit(raw, prefix, "t")
    saver.prune(["t"])
    assert audit(raw, prefix, "t")["writes"] == 4 * MANY  # the child's, and those whose checkpoint may still come
    assert len(saver.get_tuple(at("t")).pending_writes) == 2 * MANY
    saver.delete_thread("copy")
    assert raw.exists(*ThreadKeys(prefix, b"copy").all[:2]) == 0
    assert not list(saver.verify())


def test_a_truncation_leaves_of_many_writes_those_that_stay(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = start(saver)
    fan_out(saver, config, MANY)
    saver.put_writes(config, [(INTERRUPT, "go on?")], "asks")
    saver.put_writes(config, [(RESUME, "yes")], "asks")
    saver.put_writes(config, [("x", "answered")], "asks")
    fan_out(saver, config, 5, MANY)
    saver.put(config, checkpoint({"x": 2}), metadata(), {"x": 2})
    saver.rollback("t", to=id_of(config), mode="truncate")
    writes = saver.get_tuple(at("t")).pending_writes
    assert len(writes) == 2 * MANY + 1
    assert {task for task, _, _ in writes if task > "task 00047"} == set()
    assert audit(raw, prefix, "t")["writes"] == len(writes)
    fan_out(saver, config, MANY, 2 * MANY)
    assert len(saver.get_tuple(at("t")).pending_writes) == 4 * MANY + 1
    assert not list(saver.verify())


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.longer
def test_no_write_is_lost_without_an_error(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = start(saver)
    fan_out(saver, config, MANY)
    key = ThreadKeys(prefix, b"t").hash
    for name, content in sorted(fields(raw, prefix).items())[:: times(7, 1)]:
        raw.hdel(key, name)
        if segment_of(name) != b"":
            with pytest.raises(CheckpointCorruptError):
                saver.get_tuple(config)
            with pytest.raises(CheckpointerError):
                saver.copy_thread("t", "copy")
        assert {found.kind for found in saver.verify("t")} >= {"damaged"}
        raw.hset(key, name, content)
    assert not list(saver.verify("t"))


def test_a_flipped_bit_of_a_directory_or_a_segment_is_found(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = start(saver)
    fan_out(saver, config, MANY)
    key, truth = ThreadKeys(prefix, b"t").hash, saver.get_tuple(config)
    for name, content in fields(raw, prefix).items():
        if segment_of(name) == b"" or content[0] == CHAINED:
            for n in (0, 1, 3, *range(4, min(4 + 6 * NAMES, len(content)), 19)):
                raw.hset(key, name, content[:n] + bytes([content[n] ^ 1 << n % 8]) + content[n + 1 :])
                try:
                    assert saver.get_tuple(config) == truth  # the number of a segment alone is read by verify only
                    assert 0 < n < 4
                    assert segment_of(name)
                except (CheckpointCorruptError, FormatError):
                    pass
                assert {found.kind for found in saver.verify("t")} >= {"damaged"}, (name, n)
        raw.hset(key, name, content)


@pytest.mark.parametrize("lost", ["the list", "the directory", "a segment", "a segment with names"])
def test_a_repair_keeps_the_writes_that_are_there(saver: RedisSaver, raw: Any, prefix: str, lost: str) -> None:
    config = start(saver)
    fan_out(saver, config, MANY)
    key, all_of_them = ThreadKeys(prefix, b"t").hash, fields(raw, prefix)
    kinds = {
        "the list": lambda name, _: segment_of(name) is None,
        "the directory": lambda name, _: segment_of(name) == b"",
        "a segment": lambda name, content: segment_of(name) and content[0] == 1,
        "a segment with names": lambda _, content: content[0] == CHAINED,
    }
    raw.hdel(key, next(name for name, content in all_of_them.items() if kinds[lost](name, content)))
    assert not [each for each in saver.repair("t") if each.kind == "damaged"]
    assert {each.kind for each in saver.repair("t", drop_unreadable=True)} >= {"damaged"}
    assert not list(saver.verify("t"))
    assert len(fields(raw, prefix)) == 1
    left = {"the list": 8, "the directory": 0}.get(lost, 2)
    assert len(saver.get_tuple(config).pending_writes) == 2 * MANY - left
    audit(raw, prefix, "t")


def test_one_damaged_write_of_many_is_dropped_alone(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = start(saver)
    fan_out(saver, config, MANY)
    name, content = next((name, content) for name, content in fields(raw, prefix).items() if segment_of(name))
    raw.hset(ThreadKeys(prefix, b"t").hash, name, content[:-1] + bytes([content[-1] ^ 1]))
    assert [found.kind for found in saver.verify("t")] == ["damaged"]
    list(saver.repair("t", drop_unreadable=True))
    assert len(saver.get_tuple(config).pending_writes) == 2 * MANY - 1
    assert not list(saver.verify("t"))


async def test_tasks_that_write_at_once_lose_nothing(asaver: RedisSaver) -> None:
    config = await asaver.aput(at("t"), checkpoint({"x": 1}), metadata(), {"x": 1})
    await asyncio.gather(*(asaver.aput_writes(config, [("x", n)], f"task {n}") for n in range(MANY)))
    found = await asaver.aget_tuple(config)
    assert found is not None
    assert sorted(value for _, _, value in found.pending_writes or ()) == list(range(MANY))
