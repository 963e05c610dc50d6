"""This checkout beside another one: `python -m benchmarks.beside OTHER_CHECKOUT` prints a table; 1 if it is slower.

One embedded server, and one process for each checkout, which imports the package from there. The processes take turns: in
every round each runs the same calls of every group, while the other one waits, and who begins alternates. A row compares the
medians, and the lower quartiles, which other work on the machine disturbs less: slower code is slower in both. A row above the
limit is measured in more rounds before it counts.

Only public names of the package are used, so that the other checkout may have its modules in other places.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import langgraph_redis_state
from langgraph_redis_state import EmbeddedServer, RedisSaver, RedisStatePersistence

from .measure import quiet
from .workloads import Thread, agent, chat

ROOT = Path(__file__).parent.parent
WORKER = """
import sys, langgraph_redis_state
sys.path.insert(0, sys.argv[1])
from benchmarks.beside import Worker
Worker(*sys.argv[2:])
"""
"""Run in the other checkout: the package from there, this module from here."""

CALLS, TASKS, LONG = 20, 64, 500

Samples = dict[str, list[float]]
"""Milliseconds by row."""


class Worker:
    """One checkout in a process of its own: runs the group that each line of its input names, and prints the samples."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url
        self.saver = RedisSaver(url, prefix=name)
        self.cold = RedisSaver(url, prefix=name, cache_bytes=0)
        self.states = RedisStatePersistence(url, namespace=name)
        self.threads = (f"{name}-{n:06}" for n in itertools.count())
        self.built = {length: self.build(length) for length in (10, 100, LONG)}
        self.samples: Samples = {}
        print(json.dumps({"package": langgraph_redis_state.__file__, "stored": stored_bytes(self.saver, name)}), flush=True)
        quiet()
        for line in sys.stdin:
            self.samples = {}
            GROUPS[line.strip()](self)
            print(json.dumps(self.samples), flush=True)

    def build(self, length: int) -> Thread:
        """A chat with a checkpoint for each message."""
        thread = Thread(self.saver, f"{self.name}-chat-{length}")
        thread.play(chat(length))
        return thread

    def time(self, row: str, work: Callable[..., Any], *arguments: Any) -> None:
        began = time.perf_counter_ns()
        work(*arguments)
        self.samples.setdefault(row, []).append((time.perf_counter_ns() - began) / 1e6)

    def put(self, length: int) -> None:
        thread = Thread(self.saver, next(self.threads))
        for n, state in enumerate(chat(length + CALLS, begin=length - 1)):
            call = thread.call(state)
            if n == 0:  # stores all messages
                self.saver.put(*call.put)
                continue
            self.time(f"put, {length} messages", self.saver.put, *call.put)
            ((writes, task),) = call.writes
            self.time(f"put_writes, {length} messages", self.saver.put_writes, thread.config, writes, task)
        self.saver.delete_thread(thread.name)

    def get(self) -> None:
        for length in (10, LONG):
            config = self.built[length].latest
            for _ in range(CALLS):
                self.time(f"get_tuple, {length} messages", self.saver.get_tuple, config)
        config = self.built[LONG].latest
        for _ in range(CALLS // 2):
            self.time(f"get_tuple, {LONG} messages, nothing cached", self.cold.get_tuple, config)

    def list(self) -> None:
        for _ in range(3):
            self.time("list of 100 checkpoints", lambda: list(self.saver.list(self.built[100].latest)))

    def tasks(self) -> None:
        async def all_tasks() -> float:
            async with RedisSaver(self.url, prefix=self.name) as saver:

                async def one(name: str) -> None:
                    thread = Thread(saver, name)
                    for state in chat(5):
                        call = thread.call(state)
                        await saver.aput(*call.put)
                        for writes, task in call.writes:
                            await saver.aput_writes(thread.config, writes, task)
                        await saver.aget_tuple(thread.latest)

                await one(next(self.threads))
                names = [next(self.threads) for _ in range(TASKS)]
                began = time.perf_counter_ns()
                await asyncio.gather(*map(one, names))
                return (time.perf_counter_ns() - began) / 1e6 / (15 * TASKS)

        self.samples[f"a call of {TASKS} tasks at once"] = [asyncio.run(all_tasks()) for _ in range(2)]

    def remove(self) -> None:
        source, of = self.built[LONG].name, f"of {LONG} checkpoints"
        for _ in range(2):
            name = next(self.threads)
            self.time(f"copy_thread {of}", self.saver.copy_thread, source, name)
            self.time(f"prune {of}", self.saver.prune, [name])
            self.saver.delete_thread(name)
            name = next(self.threads)
            self.saver.copy_thread(source, name)
            self.time(f"delete_thread {of}", self.saver.delete_thread, name)

    def state(self) -> None:
        name = next(self.threads)
        for state in itertools.islice(agent(CALLS), CALLS):
            self.time("save of a state", self.states.save_with_metadata, state.values, name)
            self.time("load of a state", self.states.load_with_metadata, name)
        self.states.delete_state(name)


GROUPS: dict[str, Callable[[Worker], None]] = {
    **{f"put {length}": partial(Worker.put, length=length) for length in (10, 50, 200, 500)},
    "get": Worker.get,
    "list": Worker.list,
    "tasks": Worker.tasks,
    "remove": Worker.remove,
    "state": Worker.state,
}


def stored_bytes(saver: Any, prefix: str) -> int:
    """Bytes of names, fields and contents of every thread. Times and numbers have the same width in both checkouts."""
    total = 0
    for key in saver.client.scan_iter(match=f"{prefix}:*:t:*", count=1000):
        total += len(key) + sum(len(name) + len(content) for name, content in saver.client.hgetall(key).items())
    return total


class Side:
    """One checkout, seen from here."""

    def __init__(self, name: str, checkout: Path, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(ROOT), name, url],
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        began = self._answer()
        package, self.stored = Path(began["package"]), began["stored"]
        if checkout not in package.parents:
            raise SystemExit(f"{name}: the package was imported from {package}, which is not in {checkout}")
        self.samples: Samples = {}

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended early; its error stands above")
        return json.loads(line)

    def run(self, group: str) -> list[str]:
        """Runs a group once; its rows."""
        assert self._process.stdin is not None
        print(group, file=self._process.stdin, flush=True)
        new: Samples = self._answer()
        for row, samples in new.items():
            self.samples.setdefault(row, []).extend(samples)
        return list(new)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def measure(new: Side, old: Side, groups: Iterable[str], rounds: int) -> dict[str, str]:
    """Some rounds of some groups; the group of each row."""
    groups, rows = list(groups), dict[str, str]()
    for n in range(rounds):
        for group in groups:
            for side in (new, old) if n % 2 else (old, new):
                rows |= dict.fromkeys(side.run(group), group)
    return rows


def compare(new: Side, old: Side, limit: float) -> Iterator[tuple[str, bool, list[str]]]:
    """Each row, whether it is slower than allowed, and its cells."""
    for row, samples in new.samples.items():
        now, before = statistics.quantiles(samples), statistics.quantiles(old.samples[row])
        low, middle = now[0] / before[0], now[1] / before[1]
        slower = min(low, middle) > limit
        cells = [row, f"{before[1]:.3f}", f"{now[1]:.3f}", f"{middle:.3f}", f"{low:.3f}", f"{len(samples)}"]
        yield row, slower, [*cells, "**slower**" if slower else ""]


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, help="a checkout of the code to compare with")
    parser.add_argument("--limit", type=float, default=3, help="percent by which a row may be slower (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of everything (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="times that rows above it are repeated (default %(default)s)")
    options = parser.parse_args(None if arguments is None else list(arguments))
    limit = 1 + options.limit / 100
    with EmbeddedServer.start() as server:
        new, old = Side("new", ROOT, server.url), Side("old", options.other.resolve(), server.url)
        measure(new, old, GROUPS, 1)  # warms up
        new.samples, old.samples = {}, {}
        rows = measure(new, old, GROUPS, options.rounds)
        for _ in range(options.repeats):
            slow = {rows[row] for row, slower, _ in compare(new, old, limit) if slower}
            measure(new, old, slow, options.rounds)
        new.close()
        old.close()
    print(f"| call | {options.other.name}, ms | here, ms | ratio | of lower quartiles | samples | |\n|{' --- |' * 7}")
    compared = list(compare(new, old, limit))
    for _, _, cells in compared:
        print(f"| {' | '.join(cells)} |")
    print(f"| bytes stored | {old.stored:,} | {new.stored:,} | {new.stored / old.stored:.4f} | | | |")
    return int(new.stored != old.stored or any(slower for _, slower, _ in compared))


if __name__ == "__main__":
    sys.exit(main())
