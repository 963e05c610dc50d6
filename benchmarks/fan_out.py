"""Pending writes of many tasks at one checkpoint: `python -m benchmarks.fan_out [TASKS ...]` prints what each of them costs.

Each task writes 120 bytes. Replicated bytes are what the server counts for a replica that is connected; it is one connection
here, which reads what it gets.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from langgraph.checkpoint.base import empty_checkpoint

from langgraph_redis_state import EmbeddedServer, RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys


def measure(saver: RedisSaver, client: redis.Redis, tasks: int) -> list[str]:
    thread = str(uuid.uuid4())
    config = saver.put({"configurable": {"thread_id": thread, "checkpoint_ns": ""}}, empty_checkpoint(), {"step": 0}, {})
    key = ThreadKeys("lgrs", thread.encode()).hash
    random.seed(tasks)
    values = [random.randbytes(60).hex() for _ in range(tasks)]

    def counted() -> tuple[int, ...]:
        stored, sent = saver.stats(thread).stored_bytes, client.info("replication")["master_repl_offset"]
        return stored, sent, client.memory_usage(key, samples=0)

    before, times = counted(), []
    for value in values:
        began = time.perf_counter()
        saver.put_writes(config, [("results", value)], str(uuid.uuid4()), "~")
        times.append((time.perf_counter() - began) * 1000)
    stored, sent, memory = (now - then for now, then in zip(counted(), before, strict=True))
    began = time.perf_counter()
    saver.get_tuple(config)
    read = (time.perf_counter() - began) * 1000
    each = [f"{number / tasks:.0f}" for number in (stored, sent, memory)]
    return [f"{tasks:,}", *each, f"{sent / stored:.2f}", f"{statistics.median(times):.3f}", f"{read:.1f}"]


def main(arguments: Sequence[str]) -> None:
    columns = ["tasks", "stored, bytes each", "replicated", "memory", "replicated / stored", "a call, ms", "get_tuple, ms"]
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client, RedisSaver(server.url) as saver:
        print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
        with replica(client):
            for tasks in map(int, arguments or ("1", "5", "10", "100", "1000", "10000")):
                print(f"| {' | '.join(measure(saver, client, tasks))} |", flush=True)


@contextlib.contextmanager
def replica(client: Any) -> Iterator[None]:
    """A connection that asks for what replicas get, and reads it."""
    connection = client.connection_pool.get_connection()
    connection.send_command("PSYNC", "?", "-1")
    threading.Thread(target=_receive, args=(connection,), daemon=True).start()
    while not client.info("replication")["connected_slaves"]:
        time.sleep(0.1)
    yield
    connection.disconnect()


def _receive(replica: redis.Connection) -> None:
    with contextlib.suppress(OSError):  # closed
        while replica._sock is not None and replica._sock.recv(1 << 20):
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
