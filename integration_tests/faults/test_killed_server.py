"""A server with `appendfsync always` is killed under load, again and again: what it acknowledged is there when it is back,
whole and once. The kill takes the process; the machine and its disk stay.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest
from calls import BIG
from figures import figure, often
from servers import Box, Server, single
from shapes import SyncSurface, at, checkpoint, id_of, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import ServerUnavailableError

KILLS = often(50, else_=10)
WRITERS = 3
"""Of each surface."""
WRITES = 3


class Writer:
    """Puts and writes on one thread until told to end, over the death of the server and its return."""

    def __init__(self, saver: Any, thread: str) -> None:
        self._saver, self.thread = saver, thread
        self.puts: dict[str, int] = {}
        self.written: set[str] = set()
        self.tried: dict[str, int] = {}
        self.errors = 0

    def values(self, step: int) -> dict[str, Any]:
        return {"grows": [f"{self.thread} {step}", *BIG[: step % 50]], "same": BIG[:30], "step": step}

    def writes(self, step: int) -> list[tuple[str, Any]]:
        return [(f"channel {n}", [self.thread, step, *BIG[:n]]) for n in range(WRITES)]

    async def work(self, over: threading.Event) -> None:
        config, step = at(self.thread), 0
        while not over.is_set():
            step += 1
            made = checkpoint(self.values(step))
            self.tried[made["id"]] = step
            try:
                new = {"grows": 1, "step": 1} if self.puts else made["channel_versions"]
                config = await self._saver.aput(config, made, metadata(step=step), new)
                self.puts[made["id"]] = step
                await self._saver.aput_writes(config, self.writes(step), "task")
                self.written.add(made["id"])
            except ServerUnavailableError:
                self.errors += 1
            await asyncio.sleep(0)


def check(saver: RedisSaver, writers: list[Writer], totals: Counter[str]) -> None:
    for writer in writers:
        found = list(saver.list(at(writer.thread)))
        stored = [id_of(each.config) for each in found]
        assert len(stored) == len(set(stored))
        assert writer.puts.keys() <= set(stored) <= writer.tried.keys()
        for each in found:
            step = writer.tried[id_of(each.config)]
            assert each.checkpoint["channel_values"] == writer.values(step)
            assert each.metadata["step"] == step
            whole = [("task", *write) for write in writer.writes(step)]
            assert each.pending_writes in ([whole] if id_of(each.config) in writer.written else [[], whole])
        numbers = [version.number for version in saver.history(writer.thread)]
        assert numbers == list(range(len(stored), 0, -1))
        totals["checkpoints"] += len(stored)
        totals["acknowledged"] += len(writer.puts)
        totals["errors"] += writer.errors


@pytest.mark.parametrize("image", ["redis:7.0", "redis:8.0"])
def test_a_server_killed_under_load_keeps_all_that_it_acknowledged(prefix: str, image: str) -> None:
    kills = KILLS // 2
    chance = random.Random(50)
    totals: Counter[str] = Counter()
    down: list[float] = []
    options = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
    with single(image, *options) as (server, box), RedisSaver(server.url, prefix=prefix) as saver:
        for kill in range(kills):
            writers = _one_kill(server, box, saver, prefix, kill, chance.uniform(0.05, 0.5), down)
            check(saver, writers, totals)
        assert sum(1 for _ in saver.list_threads()) == kills * 2 * WRITERS
        assert sum(1 for _ in saver.list(None)) == totals["checkpoints"]
    figure(
        f"kill -9 of a server, {image}",
        kills=kills,
        acknowledged_checkpoints=totals["acknowledged"],
        lost=0,
        torn=0,
        twice=0,
        calls_that_failed=totals["errors"],
        unacknowledged_but_there=totals["checkpoints"] - totals["acknowledged"],
        longest_time_down_s=round(max(down), 2),
    )


def _one_kill(
    server: Server, box: Box, saver: RedisSaver, prefix: str, kill: int, after: float, down: list[float]
) -> list[Writer]:
    """The writers, when the server was killed and is back, and each of them was served again."""
    over = threading.Event()
    errors: list[BaseException] = []
    sync_writers = [Writer(SyncSurface(saver), f"sync {kill} {n}") for n in range(WRITERS)]
    async_writers: list[Writer] = []

    async def asynchronous() -> None:
        async with RedisSaver(server.url, prefix=prefix) as own:
            async_writers.extend(Writer(own, f"async {kill} {n}") for n in range(WRITERS))
            await asyncio.gather(*(writer.work(over) for writer in async_writers))

    def guarded(work: Any) -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    works = [*(writer.work(over) for writer in sync_writers), asynchronous()]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    time.sleep(after)  # the random point
    box.kill()
    killed = time.monotonic()
    box.start()
    down.append(time.monotonic() - killed)
    writers = [*sync_writers, *async_writers]
    before = [len(writer.written) for writer in writers]
    deadline = time.monotonic() + 30
    while not errors and any(len(writer.written) <= then for writer, then in zip(writers, before, strict=True)):
        assert time.monotonic() < deadline, "a writer is not served again"
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return writers
