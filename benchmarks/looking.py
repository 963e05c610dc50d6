"""How long an operator waits for `lgrs` among 10,000 threads, and for one of 2,000 checkpoints: `python -m benchmarks.looking`.

Each figure of a command is the median of whole commands, each a process of its own, beside that of `lgrs --version`: starting
Python and importing. Screens of `lgrs serve` are asked for in this process. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from uuid import uuid4

from langgraph.checkpoint.base import empty_checkpoint

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer

COMMANDS = {
    "lgrs --version": ("--version",),
    "lgrs threads": ("threads",),
    "lgrs threads --status failed": ("threads", "--status", "failed"),
    "lgrs why long": ("why", "long"),
    "lgrs history long": ("history", "long"),
    "lgrs show long": ("show", "long"),
    "lgrs messages long -n 20": ("messages", "long", "-n", "20"),
}


SCREENS = ("/", "/stuck?whole=1", "/thread?id=long", "/step?id=long", "/diff?id=long", "/cost?id=long")


def screens(url: str, rounds: int) -> dict[str, list[float]]:
    """Seconds for each screen; the first of "/" is that of a server that has just started."""
    from starlette.testclient import TestClient

    from langgraph_redis_state.inspection.structural import StructuralSerializer
    from langgraph_redis_state.web.app import create
    from langgraph_redis_state.web.guard import Sessions

    taken: dict[str, list[float]] = {name: [] for name in SCREENS}
    for _ in range(rounds):
        sessions = Sessions()
        with RedisSaver(url, read_only=True, serde=StructuralSerializer()) as saver:
            client = TestClient(create(saver, sessions, ("page:80",)), base_url="http://page:80", headers={"host": "page:80"})
            client.get(f"/enter?token={sessions.token}", follow_redirects=False)
            for name in SCREENS:
                began = time.perf_counter()
                assert client.get(name).status_code == 200, name
                taken[name].append(time.perf_counter() - began)
    return taken


def fill(saver: RedisSaver, threads: int, checkpoints: int) -> None:
    """Threads of two checkpoints with a question open in every tenth, and a conversation of many checkpoints."""
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.types import Interrupt

    for n in range(threads):
        thread = {"configurable": {"thread_id": f"thread-{n:05d}", "checkpoint_ns": ""}}
        for step in range(2):
            values = (
                {"messages": [f"message {step} of {n}" * 5], "branch:to:work": None} if step == 0 else {"messages": ["done"]}
            )
            thread = put(saver, thread, values, step)
        if n % 10 == 0:
            saver.put_writes(
                thread, [("__interrupt__", [Interrupt(value="go on?", id="1")])], str(uuid4()), "~__pregel_pull, work"
            )
    config = {"configurable": {"thread_id": "long", "checkpoint_ns": ""}}
    messages: list[object] = []
    for step in range(checkpoints):
        messages.append((AIMessage if step % 2 else HumanMessage)(f"What was said in step {step}. " * 8, id=str(step)))
        config = put(saver, config, {"messages": messages[-200:]}, step)


def put(saver: RedisSaver, config: dict, values: dict, step: int) -> dict:
    version = saver.get_next_version(f"{step:032d}" if step else None, None)
    made = {**empty_checkpoint(), "channel_values": values, "channel_versions": dict.fromkeys(values, version)}
    return saver.put(config, made, {"source": "loop", "step": step}, made["channel_versions"])


def seconds(url: str, *arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "langgraph_redis_state", *arguments],
        env={**os.environ, "LGRS_URL": url},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=10_000)
    parser.add_argument("--checkpoints", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with EmbeddedServer.start() as server:
        with RedisSaver(server.url) as saver:
            fill(saver, options.threads, options.checkpoints)
        taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(options.rounds):
            for name, arguments in COMMANDS.items():
                taken[name].append(seconds(server.url, *arguments))
        pages = screens(server.url, options.rounds)
    start = statistics.median(taken["lgrs --version"])
    print(f"{options.threads} threads, and one of {options.checkpoints} checkpoints; medians of {options.rounds} rounds")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"{name:32} {median:6.2f} s   {median - start:5.2f} s without starting")
    for name, times in pages.items():
        print(f"screen {name:25} {statistics.median(times):6.2f} s")


if __name__ == "__main__":
    main()
