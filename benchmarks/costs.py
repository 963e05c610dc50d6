"""What calls cost: a step of chats of four lengths, the server's part of it, small threads, wide fan-outs, and how costs grow
with size. Sections of `suite.py`, which says how things are measured.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint

from langgraph_redis_state.storage.keys import ThreadKeys

from . import scripts
from .candidates import FLOORS, OURS
from .fan_out import replica
from .measure import Timings, quiet, turns
from .workloads import Thread, chat, counter

LENGTHS = (10, 50, 200, 500)
BLOCK = 10
"""Steps that a candidate makes before it is another's turn: the server's CPU time is read before and after."""
SMALL = (2, 4, 10)
TASKS = (10, 1000, 10_000)
GROWTH = (100, 300, 1000, 3000, 10_000)


def steps(bench: Any) -> dict[str, Any]:
    """put and put_writes of one step of a chat whose messages are there, in blocks by turns; what the main thread of
    each server takes for it; and by its clock what the scripts of this package take, when the same calls come in a row."""
    found: dict[str, Any] = {}
    for length in LENGTHS:
        if length > bench.scale.chat:
            continue
        timings, cpu = Timings(), dict[str, list[float]]()
        with bench.savers() as savers:
            names, states = list(savers), list(chat(length + BLOCK, begin=length - 1))
            for block in range(-1, bench.scale.blocks):
                bench.tick(f"steps of a chat of {length}, block {block + 1}")
                threads = {name: Thread(saver, f"step-{block}") for name, saver in savers.items()}
                for name, saver in savers.items():  # stores all messages but the last ones
                    saver.put(*threads[name].call(states[0]).put)
                quiet()
                measured = timings if block >= 0 else Timings()
                for name in turns(names, block + 2)[-len(names) :]:
                    server, thread, saver = bench.servers.get(name), threads[name], savers[name]
                    calls = [(thread.call(state), thread.config) for state in states[1:]]
                    before = server.main_thread_seconds() if server else 0.0
                    for call, config in calls:
                        measured(name, "put").run(saver.put, *call.put)
                        for writes, task in call.writes:
                            measured(name, "put_writes").run(saver.put_writes, config, writes, task)
                    if server and block >= 0:
                        cpu.setdefault(name, []).append((server.main_thread_seconds() - before) * 1000 / len(calls))
        found[str(length)] = {
            **timings.summary(),
            "step ms": {name: statistics.median(_sums(timings, name)) for name in names},
            "server ms": {name: statistics.median(samples) for name, samples in cpu.items() if name not in FLOORS},
        }
    bench.tick("scripts by the server's clock")
    bench.empty(OURS)
    with bench.candidates[OURS].sync(bench.urls[OURS]) as saver:
        taken = scripts.sampled(saver, bench.servers[OURS].client, 10, "scripts")
    found["scripts us"] = {name: statistics.median(samples) for name, samples in taken.items()}
    return found


def _sums(timings: Timings, name: str) -> list[float]:
    return [a + b for a, b in zip(timings(name, "put").wall, timings(name, "put_writes").wall, strict=True)]


def small_threads(bench: Any) -> dict[str, Any]:
    """Redis memory of a thread of few messages with its whole history, each thread with an id of its own; the mean of 25."""
    memory: dict[str, dict[str, float]] = {}
    with bench.savers(floors=False) as savers:
        for name in bench.redis(savers):
            before = bench.memory(name)
            for length in SMALL:
                bench.tick(f"threads of {length} messages: {name}")
                for number in range(25):
                    thread = Thread(savers[name], str(uuid.UUID(int=number * 100 + length)))
                    thread.play(chat(length, seed=500 + number))
                after = bench.memory(name)
                memory.setdefault(name, {})[str(length)] = (after - before) / 25
                before = after
    return {"memory": memory}


def fan_out(bench: Any) -> dict[str, Any]:
    """Pending writes of many tasks at one checkpoint, 120 bytes each: bytes stored and replicated, and the time of a call."""
    found: dict[str, Any] = {}
    client = bench.servers[OURS].client
    bench.empty(OURS)
    with bench.candidates[OURS].sync(bench.urls[OURS]) as saver, replica(client):
        for tasks in (tasks for tasks in TASKS if tasks <= bench.scale.history):
            bench.tick(f"{tasks} tasks write at one checkpoint")
            thread = str(uuid.uuid4())
            config = saver.put(
                {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}, empty_checkpoint(), {"step": 0}, {}
            )
            key, dice, times = ThreadKeys("lgrs", thread.encode()).hash, random.Random(tasks), list[float]()
            before = saver.stats(thread).stored_bytes, client.info("replication")["master_repl_offset"]
            used = client.memory_usage(key, samples=0)
            quiet()
            for _ in range(tasks):
                value, task = dice.randbytes(60).hex(), str(uuid.UUID(int=dice.getrandbits(128)))
                began = time.perf_counter_ns()
                saver.put_writes(config, [("results", value)], task, "~")
                times.append((time.perf_counter_ns() - began) / 1e6)
            sent = client.info("replication")["master_repl_offset"] - before[1]
            found[str(tasks)] = {
                "stored": (saver.stats(thread).stored_bytes - before[0]) / tasks,
                "replicated": sent / tasks,
                "memory": (client.memory_usage(key, samples=0) - used) / tasks,
                "median_ms": statistics.median(times[-1000:]),
            }
    bench.empty(OURS)
    return found


def cost_growth(bench: Any) -> dict[str, Any]:
    """One thread of a small state that grows: what a put takes there, and delete, prune, copy and verify of it all, in ms."""
    timings: dict[str, dict[str, float]] = {}
    with bench.savers(only=[OURS]) as savers:
        saver = savers[OURS]
        states, numbers, thread, length = counter(2 * GROWTH[-1]), itertools.count(), Thread(saver, "cost"), 0
        for size in (size for size in GROWTH if size <= bench.scale.history):
            bench.tick(f"costs at {size} checkpoints")
            thread.play(itertools.islice(states, size - length))
            puts = Timings()
            quiet()
            for _ in range(30):
                puts(OURS, "put").run(saver.put, *thread.call(next(states)).put)
            length = size + 30
            taken: dict[str, list[float]] = {}

            def timed(what: str, work: Callable[[], Any], taken: dict[str, list[float]] = taken) -> None:
                began = time.perf_counter_ns()
                work()
                taken.setdefault(what, []).append((time.perf_counter_ns() - began) / 1e6)

            for _ in range(3):
                name = f"copy {next(numbers)}"
                timed("copy_thread", lambda name=name: saver.copy_thread(thread.name, name))
                timed("verify", lambda name=name: list(saver.verify(name)))
                timed("prune", lambda name=name, half=size // 2: saver.prune([name], keep_last=half))
                saver.delete_thread(name)
                saver.copy_thread(thread.name, again := f"copy {next(numbers)}")
                timed("delete_thread", lambda again=again: saver.delete_thread(again))
            timings[str(size)] = {
                "put": puts.summary()["put"][OURS]["median_ms"],
                **{what: statistics.median(samples) for what, samples in taken.items()},
            }
    return timings
