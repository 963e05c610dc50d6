"""What is measured, section by section. Each section returns plain data; `report.py` writes it down, `targets.py` judges it.

Latencies: every candidate makes the same calls, in turns (`measure.turns`). Redis memory: the sum of
`MEMORY USAGE` over all keys of a server that holds nothing else, every element looked at. Not so for RedisJSON, which keeps
equal strings once and counts them often: there it is what the server's `used_memory`, without client buffers, grew by.
Traffic: counted by a proxy between client and server.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import gc
import itertools
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys

from . import costs
from .candidates import ALL, FLOORS, MEMORY, OURS, Candidate
from .graphs import chat_graph, delta_graph, fan_out_graph
from .measure import Timing, Timings, longest_stall, quiet, turns
from .servers import Postgres, Proxy, Server
from .targets import ALONE, READY, REBUILT, UNCOLLECTED
from .workloads import Prose, State, Thread, agent, chat, counter, deep_agent, document, message, window

Results = dict[str, Any]
PAGE = 20
"""Checkpoints in what is called a list page here."""


@dataclass
class Scale:
    """How much of everything: the full run, and one for the impatient."""

    chat: int = 500
    threads_of_ten: int = 60
    long_chat: int = 2000
    long_chat_steps: int = 21
    reads: int = 40
    pages: int = 15
    histories: int = 5
    steps: int = 60
    documents: int = 100
    history: int = 10_000
    long_history: int = 12_000
    rounds: int = 5
    runs: int = 15
    imports: int = 9
    stalls: int = 5
    blocks: int = 5
    seconds: float = 15.0
    """A candidate that needs longer for a long workload is stopped; the report says where."""
    megabytes: int = 400
    """Likewise, in the server's memory."""


QUICK = Scale(
    threads_of_ten=15, reads=10, pages=2, histories=1, steps=20, documents=12, history=2000, long_history=2400, rounds=2,
    runs=4, imports=3, stalls=2, blocks=2, seconds=1.0, megabytes=150, long_chat=1000, long_chat_steps=11,
)  # fmt: skip


@dataclass
class Bench:
    """The candidates of a run, each with its server."""

    scale: Scale
    candidates: dict[str, Candidate]
    servers: dict[str, Server]
    urls: dict[str, str]
    tick: Callable[[str], None]
    postgres: Postgres | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    _before: dict[str, int] = field(default_factory=dict)

    @contextlib.contextmanager
    def savers(self, *, floors: bool = True, only: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Every candidate's saver on an emptied server."""
        with contextlib.ExitStack() as stack:
            opened = {}
            for name, candidate in self.candidates.items():
                if (name in FLOORS and not floors) or (only is not None and name not in only):
                    continue
                self.empty(name)
                opened[name] = stack.enter_context(candidate.sync(self.urls[name]))
                if candidate.needs:
                    self.warm(name, opened[name])
            yield opened

    def warm(self, name: str, saver: Any) -> None:
        """Connections, scripts and indexes are made; memory counts from here."""
        thread = Thread(saver, "warm")
        thread.play(chat(3))
        saver.get_tuple(thread.latest)
        if name not in FLOORS:
            list(saver.list(thread.latest, limit=2))
        if name in self.servers:
            self._before[name] = 0
            self._before[name] = self.memory(name)

    def memory(self, name: str) -> int:
        """What a candidate keeps in its server, in bytes."""
        server = self.servers[name]
        if self.candidates[name].needs == "modules":
            return server.used_bytes() - self._before[name]
        return server.key_bytes() - self._before[name]

    @contextlib.asynccontextmanager
    async def async_savers(self) -> AsyncIterator[dict[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            opened = {}
            for name, candidate in self.candidates.items():
                if name not in FLOORS:
                    self.empty(name)
                    opened[name] = await stack.enter_async_context(candidate.asynchronous(self.urls[name]))
            yield opened

    def empty(self, name: str) -> None:
        if name in self.servers:
            self.servers[name].client.flushall()
        elif self.postgres is not None and self.candidates[name].needs == "postgres":
            self.postgres.empty()

    def server_version(self, name: str) -> str:
        if name in self.servers:
            return self.servers[name].version()
        postgres = self.candidates[name].needs == "postgres" and self.postgres
        return postgres.version() if postgres else ""

    def redis(self, opened: dict[str, Any]) -> list[str]:
        """The candidates that keep state in Redis."""
        return [name for name in opened if name in self.servers and name not in FLOORS]


@contextlib.contextmanager
def bench(
    scale: Scale, tick: Callable[[str], None], program: str, modules_url: str | None, postgres_url: str | None
) -> Iterator[Bench]:
    """A private server for each Redis candidate, and the servers that were given."""
    with contextlib.ExitStack() as stack:
        made = Bench(scale, {}, {}, {}, tick)
        for kind in ALL:
            candidate = kind()
            if candidate.version() is None:
                made.left_out[candidate.name] = f"{candidate.package} is not installed"
                continue
            if candidate.needs == "redis":
                server = stack.enter_context(Server.private(program))
            elif candidate.needs == "modules":
                if modules_url is None:
                    made.left_out[candidate.name] = "no server with RedisJSON and RediSearch was given (--modules-url)"
                    continue
                server = stack.enter_context(Server.given(modules_url))
            elif candidate.needs == "postgres":
                if postgres_url is None:
                    made.left_out[candidate.name] = "no PostgreSQL server was given (--postgres-url)"
                    continue
                made.postgres = stack.enter_context(Postgres.given(postgres_url))
            if candidate.needs in ("redis", "modules"):
                made.servers[candidate.name] = server
                made.urls[candidate.name] = server.url
            else:
                made.urls[candidate.name] = made.postgres.url if candidate.needs and made.postgres else ""
            made.candidates[candidate.name] = candidate
        yield made


# --- (a) chat: latency, memory, reads, traffic ---


def _step(timings: Timings, name: str, saver: Any, thread: Thread, state: State) -> None:
    """One measured step of a thread."""
    call = thread.call(state)
    timings(name, "put").run(saver.put, *call.put)
    for subgraph, inner in call.subgraphs:
        nested = subgraph.call(inner)
        timings(name, "put in a subgraph").run(saver.put, *nested.put)
        for writes, task in nested.writes:
            saver.put_writes(subgraph.config, writes, task)
    for writes, task in call.writes:
        timings(name, "put_writes").run(saver.put_writes, thread.config, writes, task)


def short_chats(bench: Bench) -> Results:
    """(a) chats of 10 messages: the put and the writes of the tenth, and reading it."""
    timings = Timings()
    with bench.savers() as savers:
        quiet()
        for number in range(bench.scale.threads_of_ten + 3):
            bench.tick(f"chat of 10, thread {number}")
            measured = timings if number >= 3 else Timings()  # connections and scripts are warm from then on
            threads = {name: Thread(saver, f"ten-{number}") for name, saver in savers.items()}
            for at, state in enumerate(chat(10, seed=100 + number)):
                for name in turns(list(savers), 1) if at else savers:
                    _step(measured if at >= 8 else Timings(), name, savers[name], threads[name], state)
            for name in turns(list(savers), 4)[-2 * len(savers) :]:
                measured(name, "get_tuple").run(savers[name].get_tuple, threads[name].latest)
    return timings.summary()


def long_chat(bench: Bench) -> Results:
    """(a) one chat of 500 with its full history: writes, memory, and latency at 100 on the way, then reads and traffic."""
    scale, timings = bench.scale, Timings()
    marks = [mark for mark in (10, 20, 50, 100, 200, 500) if mark <= scale.chat]
    memory: dict[str, dict[int, int]] = {}
    result: Results = {}
    with bench.savers() as savers:
        names = list(savers)
        threads = {name: Thread(saver, "long") for name, saver in savers.items()}
        quiet()
        for number, state in enumerate(chat(scale.chat), 1):
            if number % 20 == 0:
                bench.tick(f"chat of {scale.chat}, message {number}")
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                _step(timings, name, savers[name], threads[name], state)
            if number in marks:
                for name in bench.redis(savers):
                    memory.setdefault(name, {})[number] = bench.memory(name)
            if number == 100:
                at_100 = Timings()
                for turn in range(-2, scale.reads):
                    for name in names:
                        measured = at_100 if turn >= 0 else Timings()
                        measured(name, "get_tuple").run(savers[name].get_tuple, threads[name].latest)
                result["at 100"] = {**timings.summary(last=30), **at_100.summary()}
        result["put at 500"] = timings.summary(last=50)
        result["memory"] = memory
        result["key memory"] = {name: bench.servers[name].key_bytes() for name in bench.redis(savers)}

        reads = Timings()
        savers_only = [name for name in names if name not in FLOORS]
        ids = [7 * turn % scale.chat for turn in range(scale.reads + 2)]
        for turn in range(-2, scale.reads):
            measured = reads if turn >= 0 else Timings()
            bench.tick(f"reading a chat of {scale.chat}")
            for name in names:
                measured(name, "get_tuple latest").run(savers[name].get_tuple, threads[name].latest)
            for name in savers_only:
                measured(name, "get_tuple by id").run(savers[name].get_tuple, threads[name].at(ids[turn]))
        graphs = {name: chat_graph().compile(checkpointer=savers[name]) for name in savers_only}
        for turn in range(scale.pages):
            bench.tick(f"pages and history of a chat of {scale.chat}")
            for name in turns(savers_only, turn + 1)[-len(savers_only) :]:
                reads(name, "list page").run(lambda n=name: list(savers[n].list(threads[n].latest, limit=PAGE)))
                if turn < scale.histories:
                    reads(name, "get_state_history of 100").run(
                        lambda n=name: list(graphs[n].get_state_history(threads[n].latest, limit=100))
                    )
        result["reads"] = reads.summary()

        result["traffic"] = {}
        for name in savers_only:
            if bench.candidates[name].needs:
                bench.tick(f"traffic of {name}")
                further = list(chat(scale.chat + 4))[scale.chat :]
                for call, traffic in _traffic(bench, name, threads[name], further, history=True).items():
                    result["traffic"].setdefault(call, {})[name] = traffic
    return result


def _traffic(bench: Bench, name: str, thread: Thread, steps: Sequence[State], *, history: bool = False) -> Results:
    """Bytes and round trips of one call of each kind, in a process that has written the steps before the last."""
    proxy = Proxy(bench.urls[name])
    counted: Results = {}

    def count(call: str, work: Callable[..., Any], *arguments: Any) -> None:
        proxy.reset()
        work(*arguments)
        time.sleep(0.01)
        counted[call] = vars(proxy.traffic)

    with bench.candidates[name].sync(proxy.url) as saver:
        thread.via(saver)
        saver.get_tuple(thread.latest)
        for state in steps:  # the last one counts: by then all is warm
            call = thread.call(state)
            count("put", saver.put, *call.put)
            for subgraph, inner in call.subgraphs:
                count("put in a subgraph", saver.put, *subgraph.call(inner).put)
            for writes, task in call.writes:
                count("put_writes", saver.put_writes, thread.config, writes, task)
        count("get_tuple", saver.get_tuple, thread.latest)
        if history:
            graph = chat_graph().compile(checkpointer=saver)
            count("list page", lambda: list(saver.list(thread.latest, limit=PAGE)))
            count("get_state_history of 100", lambda: list(graph.get_state_history(thread.latest, limit=100)))
    proxy.close()
    return counted


def very_long_chat(bench: Bench) -> Results:
    """(a) a chat that begins with 1,978 messages: latency at 2,000, without the history before."""
    timings, length = Timings(), bench.scale.long_chat
    with bench.savers() as savers:
        threads = {name: Thread(saver, "very-long") for name, saver in savers.items()}
        quiet()
        for number, state in enumerate(chat(length, begin=length - bench.scale.long_chat_steps - 1)):
            bench.tick(f"chat of {length}")
            for name in savers:
                _step(timings if number > 1 else Timings(), name, savers[name], threads[name], state)
                if number > 1:
                    timings(name, "get_tuple").run(savers[name].get_tuple, threads[name].latest)
    return {"length": length, **timings.summary()}


# --- growth ---


def _grow(bench: Bench, name: str, saver: Any, steps: Iterator[State], marks: Sequence[int]) -> dict[int, int]:
    """Bytes in Redis at each mark, as far as the limits of the scale allow."""
    bench.warm(name, saver)
    thread, points = Thread(saver, "growing"), {}
    began = time.monotonic()
    for number, state in enumerate(steps, 1):
        thread.play(iter([state]))
        if number in marks:
            bench.tick(f"growth of {name}: {number}")
            points[number] = bench.memory(name)
        if number % 50 == 0 and name != OURS:
            if time.monotonic() - began > bench.scale.seconds:
                break
            if bench.servers[name].used_bytes() > bench.scale.megabytes * 1_000_000:
                break
    return points


def growth(bench: Bench) -> Results:
    """Redis memory against the length of the history: a chat, and a state of constant size."""
    scale = bench.scale
    chats: dict[str, dict[int, int]] = {}
    constant: dict[str, dict[int, int]] = {}
    for name, candidate in bench.candidates.items():
        if name not in bench.servers or name in FLOORS:
            continue
        marks = [mark for mark in (100, 200, 300, 500, 700, 1000, 1500, 2000) if mark <= scale.long_chat]
        bench.empty(name)
        with candidate.sync(bench.urls[name]) as saver:
            chats[name] = _grow(bench, name, saver, chat(scale.long_chat), marks)
        bench.empty(name)
        marks = [mark for mark in (10, 30, 100, 300, 1000, 3000, 10_000) if mark <= scale.history]
        with candidate.sync(bench.urls[name]) as saver:
            constant[name] = _grow(bench, name, saver, counter(scale.history), marks)
        bench.empty(name)
    return {"chat": chats, "constant": constant}


def long_history(bench: Bench) -> Results:
    """A thread of 12,000 checkpoints: putting there against a thread of 100, and how long one command blocks the server."""
    scale, timings = bench.scale, Timings()
    with bench.savers(only=[OURS]) as savers:
        saver = savers[OURS]
        short, long = Thread(saver, "short"), Thread(saver, "long")
        steps = counter(scale.long_history)
        for number in range(scale.history):
            if number % 1000 == 0:
                bench.tick(f"history of {scale.history}: {number}")
            long.play(iter([next(steps)]))
        short.play(counter(100))
        quiet()
        others = counter(10_000)
        next(others)
        for _ in range(60):
            for name, thread, state in (("short", short, next(others)), ("long", long, next(steps))):
                call = thread.call(state)
                timings(OURS, name).run(saver.put, *call.put)
        bench.tick(f"history of {scale.long_history}")
        long.play(steps)
        wide = Thread(saver, "wide")
        for number, state in enumerate(window(scale.long_history)):
            if number % 1000 == 0:
                bench.tick(f"window of {scale.long_history}: {number}")
            wide.play(iter([state]))
        blocked = {"a small state": _longest(bench, saver, long), "a window of 50 messages": _longest(bench, saver, wide)}
    table = {call: each[OURS] for call, each in timings.summary().items()}
    return {"checkpoints": scale.long_history, "history": scale.history, "put": table, "longest command ms": blocked}


def _longest(bench: Bench, saver: Any, thread: Thread) -> dict[str, float]:
    """The longest time, in ms, that one command holds the server in what is done to a thread, which is put back after each."""
    server, count, name = bench.servers[OURS], len(thread.ids), thread.name
    keys = ThreadKeys("lgrs", name.encode()).all[:2]

    def rebuild() -> None:
        assert server.client.delete(keys[1])
        assert saver.get_tuple(thread.latest) is not None
        assert server.client.exists(keys[1])

    works: dict[str, Callable[[], Any]] = {
        "copy_thread": lambda: saver.copy_thread(name, f"copy of {name}"),
        "list page of 100": lambda: list(saver.list(thread.latest, limit=100)),
        "history of 1,000": lambda: list(saver.history(name, limit=1000)),
        "retention: keep the newest 10": lambda: saver.prune([name], keep_last=10),
        "retention: keep a sixth": lambda: saver.prune([name], keep_last=count // 6),
        "retention: keep a third": lambda: saver.prune([name], keep_last=count // 3),
        "retention: drop the oldest 100": lambda: saver.prune([name], keep_last=count - 100),
        "rollback by truncate, to a third": lambda: saver.rollback(name, thread.ids[count // 3], mode="truncate"),
        REBUILT: rebuild,
        "delete_thread": lambda: saver.delete_thread(name),
    }
    longest = {}
    for key in keys:
        server.client.copy(key, b"kept:" + key)
    for what, work in works.items():
        bench.tick(f"scripts on {count} checkpoints: {what}")
        for key in keys:
            server.client.copy(b"kept:" + key, key, replace=True)
        with server.scripts() as busy:
            work()
        longest[what] = max(max(each) for each in busy.values())
    return longest


# --- (b) to (e) ---


def states(bench: Bench) -> Results:
    """(b) to (e): latency and Redis memory of states that are not chats."""
    scale = bench.scale
    workloads = {
        "agent": (agent, scale.steps),
        "deep agent": (deep_agent, scale.steps),
        "document": (document, scale.documents),
        "window": (window, 2 * scale.steps),
    }
    result: Results = {}
    for workload, (make, total) in workloads.items():
        timings, stopped, first = Timings(), {}, {}
        steps = make(total + 4)
        with bench.savers(floors=False) as savers:
            threads = {name: Thread(saver, workload) for name, saver in savers.items()}
            spent = dict.fromkeys(savers, 0.0)
            quiet()
            for count, state in enumerate(itertools.islice(steps, total), 1):
                bench.tick(f"{workload}: step {count}")
                for name in turns(list(savers), count)[-len(savers) :]:
                    if name in stopped:
                        continue
                    began = time.monotonic()
                    _step(timings, name, savers[name], threads[name], state)
                    if count > 5 and (workload != "document" or count % 3 == 0):
                        timings(name, "get_tuple").run(savers[name].get_tuple, threads[name].latest)
                    spent[name] += time.monotonic() - began
                    if name in bench.servers and name != OURS:
                        full = bench.servers[name].used_bytes() > 1.5e6 * scale.megabytes
                        if full or spent[name] > 2 * scale.seconds:
                            stopped[name] = count
                if count == 1:
                    first = {OURS: bench.memory(OURS)}
            memory = {name: bench.memory(name) for name in bench.redis(savers)}
            key_memory = {name: bench.servers[name].key_bytes() for name in memory}
            parts = _parts(bench.servers[OURS], workload)
            further, traffic = list(steps), {}
            for name in savers:
                if bench.candidates[name].needs:
                    bench.tick(f"{workload}: traffic of {name}")
                    for call, counted in _traffic(bench, name, threads[name], further).items():
                        traffic.setdefault(call, {})[name] = counted
        result[workload] = {
            "steps": total,
            "stopped": stopped,
            "memory": memory,
            "first memory": first,
            "key memory": key_memory,
            "memory each": {name: bytes_ / stopped.get(name, total) for name, bytes_ in memory.items()},
            "parts": parts,
            "traffic": traffic,
            **timings.summary(),
        }
    return result


def _parts(server: Server, thread: str) -> dict[str, dict[str, int]]:
    """What a thread of this package takes, by what it is: how many, and the bytes of names and contents."""
    hash_key, index_key = ThreadKeys("lgrs", thread.encode()).all[:2]
    kinds = {b"C": "records", b"W": "pending writes", b"D": "chunks", b"P": "pages of references"}
    parts: dict[str, dict[str, int]] = {}
    for name, content in server.client.hscan_iter(hash_key, count=1000):
        part = parts.setdefault(kinds.get(name[:1], "counts"), {"count": 0, "bytes": 0})
        part["count"] += 1
        part["bytes"] += len(name) + len(content)
    used = server.client.memory_usage(hash_key, samples=0)
    parts["the server's own for the hash"] = {"count": 1, "bytes": used - sum(part["bytes"] for part in parts.values())}
    parts["index"] = {"count": 1, "bytes": server.client.memory_usage(index_key, samples=0)}
    return parts


def pending_write(bench: Bench) -> Results:
    """What one pending write of 120 serialized bytes takes in Redis, in a thread with one write for each checkpoint."""
    prose, count = Prose(29), 100
    sizes: dict[str, float] = {}
    plain = 0
    with bench.savers(floors=False) as savers:
        for name in bench.redis(savers):
            bench.tick(f"pending writes of {name}")
            saver, thread = savers[name], Thread(savers[name], "pending")
            written = []
            for state in counter(count):
                call = thread.call(state)
                saver.put(*call.put)
                written.append(thread.config)
            before = bench.servers[name].key_bytes()
            for config in written:
                value = prose.words(60)[:118]  # msgpack adds two bytes
                plain = len(saver.serde.dumps_typed(value)[1])
                saver.put_writes(config, [("notes", value)], prose.uuid())
            sizes[name] = (bench.servers[name].key_bytes() - before) / count
    return {"serialized": plain, "bytes": sizes}


# --- (f), (g): LangGraph's own loop, and many threads at once ---


def graph_runs(bench: Bench) -> Results:
    """(f) whole runs through `invoke` and `ainvoke`: an answer in a chat, and a fan-out of 20 subgraphs."""
    inputs: dict[str, Callable[[], Any]] = {
        "chat": lambda: {"messages": [("user", "and then?")]},
        "fan-out": lambda: {"topic": "redis", "budget": 7, "language": "en", "profile": {"name": "ada"}, "scores": {"a": 0.1}},
    }
    builders = {"chat": chat_graph, "fan-out": fan_out_graph}
    timings = Timings()
    runs = bench.scale.runs
    with bench.savers(floors=False) as savers:
        checkpointers: dict[str, Any] = {"without": None, **savers}
        for kind, given in inputs.items():
            graphs = {name: builders[kind]().compile(checkpointer=saver) for name, saver in checkpointers.items()}
            quiet()
            for turn in range(-1, runs):
                bench.tick(f"invoke: {kind}")
                for name in turns(list(graphs), abs(turn) + 1)[-len(graphs) :]:
                    measured = timings if turn >= 0 else Timings()
                    config = {"configurable": {"thread_id": f"{kind}-sync"}}
                    measured(name, f"invoke {kind}").run(graphs[name].invoke, given(), config)

    async def asynchronous() -> None:
        async with bench.async_savers() as savers:
            checkpointers: dict[str, Any] = {"without": None, **savers}
            for kind, given in inputs.items():
                graphs = {name: builders[kind]().compile(checkpointer=saver) for name, saver in checkpointers.items()}
                quiet()
                for turn in range(-1, runs):
                    bench.tick(f"ainvoke: {kind}")
                    for name in turns(list(graphs), abs(turn) + 1)[-len(graphs) :]:
                        config = {"configurable": {"thread_id": f"{kind}-async"}}
                        cpu, wall = time.thread_time(), time.perf_counter()
                        await graphs[name].ainvoke(given(), config)
                        if turn >= 0:
                            timings(name, f"ainvoke {kind}").wall.append((time.perf_counter() - wall) * 1000)
                            timings(name, f"ainvoke {kind}").cpu.append((time.thread_time() - cpu) * 1000)

    asyncio.run(asynchronous())
    return timings.summary()


THREADS, THEIR_STEPS = 64, 4


def _chats() -> list[list[State]]:
    return [list(chat(20 + THEIR_STEPS, seed=1000 + number, begin=20)) for number in range(THREADS)]


async def _play(saver: Any, name: str, states: Sequence[State], taken: list[float]) -> None:
    """The steps of one thread, and a read in between; `taken`: how long its caller waited for each call, in ms."""
    thread = Thread(saver, name)

    async def measured(call: Any) -> Any:
        began = time.perf_counter()
        found = await call
        taken.append((time.perf_counter() - began) * 1000)
        return found

    for number, state in enumerate(states):
        call = thread.call(state)
        await measured(saver.aput(*call.put))
        for writes, task in call.writes:
            await measured(saver.aput_writes(thread.config, writes, task))
        if number == THEIR_STEPS // 2:
            assert await measured(saver.aget_tuple(thread.latest)) is not None


def concurrent(bench: Bench) -> Results:
    """(g) 64 threads at once on one event loop: each makes four steps of a chat of 20, and reads its latest checkpoint.

    Of a call: what its caller waits, and the CPU time of this process and of the server."""
    chats = _chats()
    server_cpu: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    taken: dict[str, Timing] = {}

    async def main() -> None:
        async with bench.async_savers() as savers:
            quiet()
            for round_ in range(-1, bench.scale.rounds):
                for name in turns(list(savers), abs(round_) + 1)[-len(savers) :]:
                    bench.tick(f"64 threads: {name}")
                    waits: list[float] = []
                    server = bench.servers.get(name)
                    served = server.cpu_seconds() if server else 0.0
                    cpu, began = time.process_time(), time.perf_counter()
                    await asyncio.gather(
                        *(_play(savers[name], f"r{round_}-t{number}", states, waits) for number, states in enumerate(chats))
                    )
                    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
                    if round_ >= 0:
                        rates.setdefault(name, []).append(len(waits) / wall)
                        timing = taken.setdefault(name, Timing())
                        timing.wall += waits
                        timing.cpu.append(cpu * 1000 / len(waits))
                        if server:
                            server_cpu.setdefault(name, []).append((server.cpu_seconds() - served) * 1000 / len(waits))

    asyncio.run(main())
    return {
        "threads": THREADS,
        "calls a second": {name: statistics.median(each) for name, each in rates.items()},
        "a call": {name: timing.summary() for name, timing in taken.items()},
        "server CPU ms": {name: statistics.median(each) for name, each in server_cpu.items()},
    }


# --- the event loop, and importing ---


class _Ready(JsonPlusSerializer):
    """Gives large values from memory, so that what is left of a call is what this package does."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self._value, self._dumped = value, JsonPlusSerializer().dumps_typed(value)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return self._dumped if obj is self._value else super().dumps_typed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return self._value if len(data[1]) == len(self._dumped[1]) else super().loads_typed(data)


def stalls(bench: Bench) -> Results:
    """How long the event loop stands still while a state of about 10 MB is put and read: one text, 2,500 messages, and a dict
    of 100,000 small entries; and, here and in memory, while a DeltaChannel of 10 MB is read, from 50 checkpoints.

    Also with a serializer that has nothing to do, which leaves what this package itself does; and the serializer alone,
    dumping on the loop and loading in a worker thread, as this package calls it, with garbage collected and without. All
    others have garbage collected as in any process: a full collection stops the loop, whichever thread sets it off.
    """
    gc.unfreeze()
    prose = Prose(41)
    part = prose.words(30_000)
    text = "\n".join(f"{number} {part}" for number in range(1 + 10_000_000 // len(part)))[:10_000_000]
    body = [prose.words(560) for _ in range(2500)]
    messages = [message(prose, number) for number in range(2500)]
    for each, content in zip(messages, body, strict=True):
        each.content = content
    cases = {
        "one text of 10 MB": text,
        "2,500 messages, 10 MB": messages,
        "a dict of 100,000 entries, 9 MB": {f"key {number}": [number, "v" * 60] for number in range(100_000)},
    }
    found: dict[str, dict[str, dict[str, float]]] = {}

    async def calls(case: str, name: str, saver: Any, value: Any) -> None:
        bench.tick(f"loop stall: {name}")
        thread = Thread(saver, case)
        gaps: dict[str, list[float]] = {"aput": [], "aget_tuple": []}
        began = time.monotonic()
        for number in range(bench.scale.stalls):
            if number and name != OURS and time.monotonic() - began > bench.scale.seconds / 5:
                break
            call = thread.call(State({"value": value, "number": number}, ["value", "number"]))
            gaps["aput"].append(await longest_stall(lambda c=call: saver.aput(*c.put)))
            gaps["aget_tuple"].append(await longest_stall(lambda: saver.aget_tuple(thread.latest)))
        keep(case, name, gaps)

    async def alone(case: str, value: Any) -> None:
        serde = JsonPlusSerializer()
        dumped = serde.dumps_typed(value)

        async def dump() -> None:
            serde.dumps_typed(value)

        for name in (ALONE, UNCOLLECTED):
            if name == UNCOLLECTED:
                gc.disable()
            gaps: dict[str, list[float]] = {"aput": [], "aget_tuple": []}
            for _ in range(bench.scale.stalls):
                gaps["aput"].append(await longest_stall(dump))
                gaps["aget_tuple"].append(await longest_stall(lambda: asyncio.to_thread(serde.loads_typed, dumped)))
            keep(case, name, gaps)
        gc.enable()

    async def delta(name: str, saver: Any) -> None:
        bench.tick(f"loop stall, DeltaChannel: {name}")
        graph, config = delta_graph().compile(checkpointer=saver), {"configurable": {"thread_id": "delta"}}
        for number in range(50):
            await graph.ainvoke({"log": [f"{number} {line} {part[:390]}" for line in range(500)]}, config)
        gaps: dict[str, list[float]] = {"aget_state": []}
        for _ in range(bench.scale.stalls):
            gaps["aget_state"].append(await longest_stall(lambda: graph.aget_state(config)))
        assert len((await graph.aget_state(config)).values["log"]) == 50 * 500
        keep("a DeltaChannel of 10 MB", name, gaps)

    def keep(case: str, name: str, gaps: dict[str, list[float]]) -> None:
        for call_name, each in gaps.items():
            found.setdefault(f"{call_name}, {case}", {})[name] = statistics.median(each)

    async def main() -> None:
        async with bench.async_savers() as savers:
            for case, value in cases.items():
                for name, saver in savers.items():
                    if name in (OURS, MEMORY) or name in bench.servers:
                        await calls(case, name, saver, value)
                async with RedisSaver(bench.urls[OURS], prefix="ready", serde=_Ready(value)) as saver:
                    await calls(case, READY, saver, value)
                await alone(case, value)
            for name in (OURS, MEMORY):
                await delta(name, savers[name])

    asyncio.run(main())
    return found


def imports(bench: Bench) -> Results:
    """What importing the package costs after langgraph-checkpoint, and what importing redis would add, in ms."""
    program = (
        "import time, langgraph.checkpoint.base, langgraph.checkpoint.memory\n"
        "begin = time.perf_counter()\n"
        "import {module}\n"
        "print((time.perf_counter() - begin) * 1000)"
    )
    modules = {"langgraph_redis_state": [], "redis, redis.asyncio": [], "langgraph.checkpoint.redis": []}
    folder = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as compiled:  # as an installed package is, whatever the environment says
        return _imports(bench, modules, program, folder, compiled)


def _imports(bench: Bench, modules: dict[str, list[float]], program: str, folder: Path, compiled: str) -> Results:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for turn in range(bench.scale.imports + 1):
        for module, samples in modules.items():
            if module == "langgraph.checkpoint.redis" and bench.left_out.get("checkpoint-redis", "").endswith("installed"):
                continue
            bench.tick(f"import {module}")
            output = subprocess.run(
                [sys.executable, "-c", program.format(module=module)],
                capture_output=True,
                check=True,
                cwd=folder,
                env=environment,
            ).stdout
            if turn:  # the first compiles
                samples.append(float(output))
    return {module: statistics.median(samples) for module, samples in modules.items() if samples}


# --- where our time goes ---


def profiles(bench: Bench) -> Results:
    """For this package: where the time of a call goes, by the profiler, and how long the server's script takes."""
    found: Results = {}
    server = bench.servers[OURS]

    def keep(what: str, profiler: cProfile.Profile, calls: int, busy: dict[str, list[float]]) -> None:
        stats: Any = pstats.Stats(profiler)
        total = stats.total_tt
        rows = [
            {"function": _named(where), "calls": count / calls, "percent": 100 * own / total}
            for where, (_, count, own, _, _) in stats.stats.items()
        ]
        rows.sort(key=lambda row: -row["percent"])
        packages: dict[str, float] = {}
        for where, (_, _, own, _, _) in stats.stats.items():
            package = _package(where[0])
            packages[package] = packages.get(package, 0.0) + 100 * own / total
        found[what] = {
            "script ms": statistics.median(busy["EVALSHA"]),
            "profiled ms": 1000 * total / calls,
            "functions": rows[:12],
            "packages": dict(sorted(packages.items(), key=lambda one: -one[1])),
        }

    with bench.savers(only=[OURS]) as savers:
        saver = savers[OURS]

        def profile(what: str, works: Sequence[Callable[[], Any]]) -> None:
            bench.tick(f"profile of {what}")
            for work in works[:5]:
                work()
            profiler = cProfile.Profile()
            with server.scripts() as busy:
                for work in works[5:]:
                    profiler.runcall(work)
            keep(what, profiler, len(works) - 5, busy)

        def puts(length: int, name: str) -> tuple[list[Callable[[], Any]], Thread]:
            thread = Thread(saver, name)
            calls = [thread.call(state) for state in chat(length + 40, begin=length - 5)]
            return [lambda c=call: saver.put(*c.put) for call in calls], thread

        works, thread = puts(500, "profile-500")
        profile("put, chat of 500", works)
        profile("get_tuple, chat of 500", [lambda: saver.get_tuple(thread.latest)] * 45)
        works = []
        for number in range(45):
            small = Thread(saver, f"profile-{number}")
            for state in chat(9, seed=number):
                small.play(iter([state]))
            call = small.call(list(chat(10, seed=number))[-1])
            works.append(lambda c=call: saver.put(*c.put))
        profile("put, chat of 10", works)
        state = next(chat(1))
        writes = [lambda n=n: saver.put_writes(thread.at(n), state.writes[0], f"task-{n}") for n in range(45)]
        profile("put_writes", writes)

    async def concurrently() -> None:
        bench.tick("profile of 64 threads")
        bench.empty(OURS)
        async with bench.candidates[OURS].asynchronous(bench.urls[OURS]) as saver:
            chats = _chats()

            async def play(round_: int, taken: list[float]) -> None:
                await asyncio.gather(*(_play(saver, f"p{round_}-{n}", states, taken) for n, states in enumerate(chats)))

            await play(0, [])  # by then connections and scripts are there
            profiler, taken = cProfile.Profile(), list[float]()
            with server.scripts() as busy:
                profiler.enable()
                await play(1, taken)
                await play(2, taken)
                profiler.disable()
            keep("a call of 64 threads at once", profiler, len(taken), busy)

    asyncio.run(concurrently())
    return found


def _package(file: str) -> str:
    """Whose Python code it is; a function in C belongs to nobody who can be told."""
    if file == "~":
        return "functions in C"
    known = ("langgraph_redis_state", "benchmarks", "redis", "asyncio", "langgraph", "langchain_core", "pydantic")
    return next((package for package in known if package in Path(file).parts), "other Python")


def _named(where: tuple[str, int, str]) -> str:
    file, _line, name = where
    return name if file == "~" else f"{Path(file).parent.name}/{Path(file).name}:{name}"


SECTIONS: dict[str, Callable[[Bench], Results]] = {
    "imports": imports,
    "short chats": short_chats,
    "steps": costs.steps,
    "long chat": long_chat,
    "very long chat": very_long_chat,
    "states": states,
    "pending write": pending_write,
    "small threads": costs.small_threads,
    "fan-out": costs.fan_out,
    "concurrent": concurrent,
    "graph runs": graph_runs,
    "stalls": stalls,
    "growth": growth,
    "long history": long_history,
    "cost growth": costs.cost_growth,
    "profiles": profiles,
}
