"""What scripts take on the server: `python -m benchmarks.scripts [OTHER_CHECKOUT]` prints the µs of each by the server's clock.

The calls of some steps of a chat are captured, and sent again in one pipeline, after the thread was brought back to what it
was before them. With another checkout both take turns, and the last column is the ratio of the medians.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from langgraph_redis_state import EmbeddedServer, RedisSaver
from langgraph_redis_state.scripts import commands

from .workloads import Thread, chat

ROOT = Path(__file__).parent.parent
WORKER = """
import sys, langgraph_redis_state
sys.path.insert(0, sys.argv[1])
from benchmarks.scripts import work
work(*sys.argv[2:])
"""
SCRIPTS, LENGTHS, ROUNDS, CALLS = ("put", "put_writes", "get"), (10, 50, 200), 24, 20


def work(url: str, prefix: str) -> None:
    """For each line of the input, a number of messages, prints the samples of each script."""
    saver, client, numbers = RedisSaver(url, prefix=prefix), redis.Redis.from_url(url), itertools.count()
    for line in sys.stdin:
        thread = f"thread-{next(numbers):06}-0000-0000-000000000000"
        print(json.dumps(sampled(saver, client, int(line), thread)), flush=True)
        saver.delete_thread(thread)


def sampled(saver: Any, client: redis.Redis, length: int, name: str) -> dict[str, list[float]]:
    """µs of each script with a chat of so many messages."""
    thread, calls, made = Thread(saver, name), list[Any](), commands._call

    def captured(*arguments: Any, **more: Any) -> Any:
        calls.append(made(*arguments, **more))
        return calls[-1]

    def step(state: Any) -> None:
        call = thread.call(state)
        saver.put(*call.put)
        for writes, task in call.writes:
            saver.put_writes(thread.config, writes, task)
        saver.get_tuple(thread.latest)

    states = chat(length + CALLS, begin=length - 1)
    step(next(states))
    commands._call = captured
    try:
        step(next(states))
        keys = calls[0].keys[:2]
        before = [client.dump(key) for key in keys]
        calls.clear()
        for state in states:
            step(state)
    finally:
        commands._call = made
    samples: dict[str, list[float]] = {script: [] for script in SCRIPTS}
    for _ in range(ROUNDS):
        for key, content in zip(keys, before, strict=True):
            client.restore(key, 0, content, replace=True)
        for script, taken in measure(client, calls).items():
            samples[script].append(statistics.fmean(taken))
    return samples


def measure(client: redis.Redis, calls: Sequence[Any]) -> dict[str, list[int]]:
    """Sends calls again in a pipeline, on the state that they were made for: µs of each by the server's SLOWLOG, whose clock is
    that of commandstats."""
    settings = {"slowlog-log-slower-than": 0, "slowlog-max-len": len(calls) + 10}
    before = {name: client.config_get(name)[name] for name in settings}
    for name, value in settings.items():
        client.config_set(name, value)
    client.slowlog_reset()
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.evalsha(call.script.sha, *call.arguments)
    assert all(reply[0] == b"ok" for reply in pipeline.execute())
    names = {call.script.sha: call.script.name for call in calls}
    taken = defaultdict[str, list[int]](list)
    for entry in client.slowlog_get(len(calls) + 10):
        command = bytes(entry["command"]).split(b" ")
        if command[0] == b"EVALSHA" and command[1] in names:
            taken[names[command[1]]].append(entry["duration"])
    for name, value in before.items():
        client.config_set(name, value)
    return taken


def main(arguments: Sequence[str]) -> None:
    sides = [*(Path(other).resolve() for other in arguments[:1]), ROOT]
    found: dict[tuple[int, str, Path], list[float]] = defaultdict(list)
    with EmbeddedServer.start() as server:
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(ROOT), server.url, f"side{n}"],
                cwd=side,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n, side in enumerate(sides)
        ]
        for length in LENGTHS * 3:
            for side, worker in zip(sides, workers, strict=True):
                assert worker.stdin is not None
                assert worker.stdout is not None
                print(length, file=worker.stdin, flush=True)
                for name, samples in json.loads(worker.stdout.readline()).items():
                    found[length, name, side] += samples
        for worker in workers:
            worker.communicate()
    print("| messages | script | " + " | ".join(f"{side.name}: least, median, µs" for side in sides) + " | ratio |")
    print("| --- | --- |" + " --- |" * (len(sides) + 1))
    for length, name in itertools.product(LENGTHS, SCRIPTS):
        each = [found[length, name, side] for side in sides]
        cells = [f"{min(samples):.1f}, {statistics.median(samples):.1f}" for samples in each]
        ratio = statistics.median(each[-1]) / statistics.median(each[0])
        print(f"| {length} | {name} | {' | '.join(cells)} | {ratio:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
