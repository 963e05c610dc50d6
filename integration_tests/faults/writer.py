"""A client that is killed in the middle of its work; `test_killed_clients.py` runs it, and kills it.

For each line on its standard input it forks a process that works until it is killed: puts, writes, copies, prunes and
uploads through staging, or a graph that is interrupted and resumed, on threads named after the number in the line. What
was acknowledged goes to a file, line by line, before the next operation begins.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import redis.asyncio  # noqa: F401 - before the first fork: it takes longer than some clients live

sys.path.insert(1, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(2, str(Path(__file__).parents[1]))

from graphs import graph_on
from langchain_core.messages import HumanMessage
from langgraph.types import Command
from shapes import SyncSurface, at, id_of, put

from langgraph_redis_state import RedisSaver

WRITES = 3
FIRST = {"messages": [HumanMessage("rivers bridges", id="h1")]}


def state(number: int, step: int) -> dict[str, Any]:
    """What the checkpoint of a step holds; it grows, as a chat does."""
    return {"list": [f"{number} {n} " + "some words " * 20 for n in range(step * 40)], "step": step}


async def work(url: str, prefix: str, number: int, surface: str, acknowledged: str) -> None:
    opened = RedisSaver(url, prefix=prefix)
    saver: Any = opened if surface == "async" else SyncSurface(opened)
    out = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def done(what: str, *told: Any) -> None:
        os.write(out, (json.dumps([what, *told]) + "\n").encode())

    thread = f"thread {number}"
    chance = random.Random(number)
    config = at(thread)
    await opened.aping()
    done("began")
    for step in range(1, 10_000):
        config = await put(saver, config, state(number, step % 60), step=step)
        done("put", thread, id_of(config))
        await saver.aput_writes(config, [(f"channel {n}", state(number, step % 60)) for n in range(WRITES)], "task")
        done("writes", thread, id_of(config))
        copy = f"copy of {step} from {number}"
        if step % 3 == 0:
            await saver.acopy_thread(thread, copy)
            done("copy", copy)
        if step % 6 == 0:
            await saver.aprune([copy])
            done("prune", copy)
        if step % 4 == 0:
            large = await put(saver, at(f"large {number}"), {"bytes": chance.randbytes(5_000_000)}, step=step)
            done("put", f"large {number}", id_of(large))


def run_graphs(url: str, prefix: str, number: int, acknowledged: str) -> None:
    saver = RedisSaver(url, prefix=prefix)
    graph = graph_on(saver)
    saver.ping()
    out = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(out, b'["began"]\n')
    for run in range(10_000):
        config: Any = {"configurable": {"thread_id": f"graph {run} of {number}"}}
        graph.invoke(FIRST, config)
        graph.invoke(Command(resume="yes"), config)
        os.write(out, (json.dumps(["graph", config["configurable"]["thread_id"]]) + "\n").encode())


def main() -> None:
    url, prefix, acknowledged = sys.argv[1:]
    child = 0
    for line in sys.stdin:
        if child:
            os.waitpid(child, 0)
        number, surface = line.split()
        child = os.fork()
        if child == 0:
            if surface == "graph":
                run_graphs(url, prefix, int(number), acknowledged)
            asyncio.run(work(url, prefix, int(number), surface, acknowledged))
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
