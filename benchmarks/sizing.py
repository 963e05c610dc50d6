"""What threads of five kinds take of a server: `python -m benchmarks.sizing`. Writes `docs/benchmarks/sizing.md`.

Fills a private server with some threads of a kind and asks the server what it has more than before: memory, bytes of the
append-only file and of a snapshot, bytes received, time spent in scripts. Then counts the connections of busy savers.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from langgraph_redis_state import EmbeddedServer, RedisSaver

from .candidates import versions
from .workloads import State, Thread, agent, chat, deep_agent

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "sizing.md"

KINDS: list[tuple[str, Callable[[int], Iterator[State]], int, dict[str, Any]]] = [
    ("chat of 10 messages", lambda seed: chat(10, seed), 200, {}),
    ("chat of 100 messages", lambda seed: chat(100, seed), 40, {}),
    ("the same, `max_versions=10`", lambda seed: chat(100, seed), 40, {"max_versions": 10}),
    ("chat of 500 messages", lambda seed: chat(500, seed), 8, {}),
    ("agent, 40 steps, ten fan-outs of 20 tasks with subgraphs", lambda seed: agent(40, seed), 8, {}),
    ("deep agent, 40 steps, 200 files of 2 KB", lambda seed: deep_agent(40, seed), 8, {}),
]
"""What a row is called, the states of a thread, how many threads, options of the saver."""

HEAD = "| thread | checkpoints | memory | per checkpoint | append-only file | snapshot | received | script time |"


def told(client: Any) -> dict[str, float]:
    info = client.info("everything")
    scripts = [each for name, each in info.items() if name in ("cmdstat_evalsha", "cmdstat_eval")]
    return {
        "memory": info["used_memory"],
        "aof": info["aof_current_size"] + info["aof_buffer_length"],
        "received": info["total_net_input_bytes"],
        "script": sum(each["usec"] for each in scripts),
    }


def row(what: str, states: Callable[[int], Iterator[State]], threads: int, options: dict[str, Any]) -> str:
    """A line of the table: everything for one thread of this kind."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer.start(folder) as server:
        with RedisSaver(server.url, **options) as saver:
            saver.put({"configurable": {"thread_id": "first", "checkpoint_ns": ""}}, *_small(saver))  # scripts, layout
            client = saver.client
            client.config_set("auto-aof-rewrite-percentage", 0)
            before = told(client)
            for number in range(threads):
                Thread(saver, f"thread-{number}").play(states(number))
            after = told(client)
            stats = saver.stats()
            client.save()
            snapshot = Path(folder, client.config_get("dbfilename")["dbfilename"]).stat().st_size
    each = {name: (after[name] - before[name]) / threads for name in before}
    checkpoints = (stats.checkpoints - 1) / threads
    cells = (
        f"{checkpoints:.0f}",
        kilobytes(each["memory"]),
        f"{each['memory'] / checkpoints:,.0f} bytes",
        kilobytes(each["aof"]),
        kilobytes(snapshot / threads),
        kilobytes(each["received"]),
        f"{each['script'] / 1000:.1f} ms",
    )
    return f"| {what} | {' | '.join(cells)} |"


def kilobytes(count: float) -> str:
    return f"{count / 1000:,.0f} KB" if count >= 10_000 else f"{count / 1000:.1f} KB"


def _small(saver: RedisSaver) -> tuple[Any, Any, Any]:
    call = Thread(saver, "first").call(State({"n": 0}, ["n"]))
    return call.checkpoint, call.metadata, call.versions


def connections() -> list[str]:
    """Connections that one saver holds, by how many callers it has at once."""
    rows = []
    for callers in (1, 20, 200):
        several = "s" if callers > 1 else ""
        with EmbeddedServer.start() as server, RedisSaver(server.url) as saver:
            rows.append(f"| {callers} Python thread{several} | {_most(server, partial(in_threads, saver, callers))} |")
        with EmbeddedServer.start() as server:
            rows.append(
                f"| {callers} task{several} of an event loop | {_most(server, partial(in_tasks, server.url, callers))} |"
            )
    return rows


def _most(server: EmbeddedServer, work: Callable[[], object]) -> int:
    """The most connections beside that of the one that looks, while `work` is done."""
    with RedisSaver(server.url, prefix="looking") as looking:
        most, done = 0, threading.Event()
        base = looking.client.info("clients")["connected_clients"]

        def look() -> None:
            nonlocal most
            while not done.is_set():
                most = max(most, looking.client.info("clients")["connected_clients"] - base)
                time.sleep(0.002)

        watch = threading.Thread(target=look)
        watch.start()
        work()
        done.set()
        watch.join()
        return most


def in_threads(saver: RedisSaver, callers: int) -> None:
    def call(number: int) -> None:
        Thread(saver, f"thread-{number}").play(chat(20, number))

    workers = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()


def in_tasks(url: str, callers: int) -> None:
    async def call(saver: RedisSaver, number: int) -> None:
        thread = Thread(saver, f"thread-{number}")
        for state in chat(20, number):
            await saver.aput(*thread.call(state).put)

    async def main() -> None:
        async with RedisSaver(url) as saver:
            await asyncio.gather(*(call(saver, number) for number in range(callers)))

    asyncio.run(main())


def main() -> None:
    load = os.getloadavg()[0]
    with EmbeddedServer.start() as server, RedisSaver(server.url) as saver:
        info = saver.client.info("server")
        name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
        allocator = saver.client.info("memory")["mem_allocator"]
    system = versions()
    lines = [
        "# What threads take",
        "",
        "Written by `python -m benchmarks.sizing`: one thread of each kind, on an embedded server with an append-only file.",
        f"{name} ({allocator}), Python {system['Python']}, {system['system']}, redis-py {system['redis']}; load {load:.1f}.",
        "",
        HEAD,
        "| --- |" + " ---: |" * (HEAD.count("|") - 2),
        *(row(*kind) for kind in KINDS),
        "",
        "Memory is what the server uses more after all threads were stored; the append-only file is not rewritten in between;",
        "script time is that of the server for all writes of a thread.",
        "",
        "## Connections of one saver",
        "",
        "| callers at once | connections |",
        "| --- | ---: |",
        *connections(),
    ]
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")
    print(PAGE.read_text("utf-8"))


if __name__ == "__main__":
    main()
