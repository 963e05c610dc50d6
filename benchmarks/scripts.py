"""What scripts take on the server: `python -m benchmarks.scripts [OTHER_CHECKOUT]` prints usec_per_call by commandstats.

A put, a put_writes and a get of a chat are captured, and each is sent again many times in pipelines, the first two with new
ids. With another checkout both take turns, and the last column is the ratio of the medians.
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
from langgraph_redis_state.effects import packable
from langgraph_redis_state.scripts import commands

from .workloads import Thread, chat

ROOT = Path(__file__).parent.parent
WORKER = """
import sys, langgraph_redis_state
sys.path.insert(0, sys.argv[1])
from benchmarks.scripts import work
work(*sys.argv[2:])
"""
SCRIPTS, LENGTHS, ROUNDS, CALLS = ("put", "put_writes", "get"), (10, 50, 200), 8, 100


def work(url: str, prefix: str) -> None:
    """For each line of the input, a number of messages, prints the samples of each script."""
    saver, client, numbers = RedisSaver(url, prefix=prefix), redis.Redis.from_url(url), itertools.count()
    for line in sys.stdin:
        thread = f"thread-{next(numbers):06}-0000-0000-000000000000"
        print(json.dumps(sampled(saver, client, int(line), thread)), flush=True)
        saver.delete_thread(thread)


def sampled(saver: Any, client: redis.Redis, length: int, name: str) -> dict[str, list[float]]:
    """µs of each script with a chat of so many messages."""
    last, made = dict[str, Any](), commands._call

    def captured(script: Any, *arguments: Any, **more: Any) -> Any:
        last[script.name] = made(script, *arguments, **more)
        return last[script.name]

    commands._call = captured
    try:
        thread = Thread(saver, name)
        for state in itertools.islice(chat(length + 4, begin=length - 1), 4):
            call = thread.call(state)
            saver.put(*call.put)
            for writes, task in call.writes:
                saver.put_writes(thread.config, writes, task)
            saver.get_tuple(thread.latest)
    finally:
        commands._call = made
    return {script: measure(client, last[script]) for script in SCRIPTS}


def measure(client: redis.Redis, call: Any) -> list[float]:
    samples = []
    for n in range(ROUNDS):
        client.config_resetstat()
        pipeline = client.pipeline(transaction=False)
        for k in range(CALLS):
            arguments = packable(call.args)
            if call.script.name != "get":
                arguments[2] = b"1f1eb2%02x-%04x-6031-bfff-09724bad7d05" % (n, k)
            pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *arguments, call.token)
        assert all(reply[0] == b"ok" for reply in pipeline.execute())
        samples.append(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])
    return samples


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
