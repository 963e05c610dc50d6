"""Slots of a Cluster move from node to node while savers write and read what is in them, as `redis-cli --cluster reshard`
moves them: no error reaches the caller, nothing is lost.

A script names all keys of a thread, and while a slot moves some of them are here and some there, so the nodes refuse the
script (TRYAGAIN) until the last key has moved. That takes longer than redis-py is ready to wait.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from calls import BIG
from conftest import TOPOLOGIES_OF, Servers
from figures import figure, often
from redis.crc import key_slot
from servers import HOST, Server, cluster, until
from shapes import SyncSurface, at, checkpoint, id_of, listed, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys

THREADS = 4
"""Of each surface."""
MOVES = often(60, else_=20)
SLOW = 5
"""Every so manieth move holds a slot half moved, for longer than redis-py tries."""
HELD_SECONDS = 2.0


class Slots:
    """Moves slots between the primaries."""

    def __init__(self, server: Server) -> None:
        self._nodes = list(server.primaries)
        self._ids = [node.execute_command("CLUSTER", "MYID") for node in self._nodes]
        self._owner: dict[int, int] = {}
        for first, last, (_, port, *_), *_ in self._nodes[0].execute_command("CLUSTER SLOTS"):
            owner = next(n for n, node in enumerate(self._nodes) if node.connection_pool.connection_kwargs["port"] == port)
            self._owner.update(dict.fromkeys(range(first, last + 1), owner))

    def move(self, slot: int, to: int, held: float = 0.0) -> int:
        """To the primary of that number; how many keys went. `held`: seconds to wait when the first key has gone."""
        source, target = self._owner[slot], to % len(self._nodes)
        if source == target:
            return 0
        port = self._nodes[target].connection_pool.connection_kwargs["port"]
        self._set(target, slot, "IMPORTING", self._ids[source])
        self._set(source, slot, "MIGRATING", self._ids[target])
        moved = 0
        while keys := self._nodes[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1 if held and not moved else 10):
            self._nodes[source].execute_command("MIGRATE", HOST, port, "", 0, 30_000, "KEYS", *keys)
            if not moved:
                time.sleep(held)
            moved += len(keys)
        for node in (target, source, *(n for n in range(len(self._nodes)) if n not in (target, source))):
            self._set(node, slot, "NODE", self._ids[target])
        self._owner[slot] = target
        return moved

    def _set(self, node: int, slot: int, what: str, of: bytes) -> None:
        self._nodes[node].execute_command("CLUSTER", "SETSLOT", slot, what, of)


@pytest.fixture(scope="module")
def growing() -> Iterator[Server]:
    """A Cluster that just got one primary more."""
    with cluster(TOPOLOGIES_OF, spare=1) as (server, _):
        yield server


class Worker:
    """Puts, writes and reads on a thread of its own, and knows what must be there. Every error is one too many."""

    def __init__(self, saver: Any, thread: str) -> None:
        self._saver, self.thread = saver, thread
        self.expected: dict[str, Any] = {}
        self.calls = 0
        self.longest = 0.0

    async def _timed(self, call: Any) -> Any:
        begun = time.monotonic()
        reply = await call
        self.calls += 1
        self.longest = max(self.longest, time.monotonic() - begun)
        return reply

    async def work(self, over: threading.Event) -> None:
        config, step = at(self.thread), 0
        while not over.is_set():
            step += 1
            values = {"grows": [*BIG[: step % 300], step], "same": BIG[:100]}
            made = checkpoint(values)
            new = {"grows": 1} if step > 1 else {"grows": 1, "same": 1}
            config = await self._timed(self._saver.aput(config, made, metadata(step=step), new))
            await self._timed(self._saver.aput_writes(config, [("x", step), ("y", BIG[:20])], "task"))
            self.expected[made["id"]] = values, [("task", "x", step), ("task", "y", BIG[:20])]
            found = await self._timed(self._saver.aget_tuple(at(self.thread)))
            assert shown(found) == (made["id"], *self.expected[made["id"]])
            if step % 20 == 0:
                await self._timed(listed(self._saver, at(self.thread), limit=5))
            await asyncio.sleep(0)


def shown(found: Any) -> Any:
    return id_of(found.config), found.checkpoint["channel_values"], found.pending_writes


async def test_savers_write_and_read_on_while_their_slots_move(growing: Server, prefix: str) -> None:
    slots = Slots(growing)
    over = threading.Event()
    errors: list[BaseException] = []
    sync = RedisSaver(growing.url, prefix=prefix)
    asynchronous = RedisSaver(growing.url, prefix=prefix)
    async_workers = [Worker(asynchronous, f"async {n}") for n in range(THREADS)]
    sync_workers = [Worker(SyncSurface(sync), f"sync {n}") for n in range(THREADS)]
    workers = [*async_workers, *sync_workers]

    def alone(worker: Worker) -> None:
        try:
            asyncio.run(worker.work(over))
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)
            over.set()

    moved = [0, 0]

    def move() -> None:
        chance = random.Random(3)
        at_work = [key_slot(ThreadKeys(prefix, worker.thread.encode()).hash) for worker in workers]
        try:
            for number in range(MOVES):
                until(lambda: over.is_set() or all(worker.calls for worker in workers), "the workers do not begin")
                if over.wait(chance.random() * 0.1):
                    return
                moved[1] += slots.move(chance.choice(at_work), number, held=HELD_SECONDS if number % SLOW == SLOW - 1 else 0.0)
                moved[0] += 1
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)
        finally:
            over.set()

    others = [threading.Thread(target=alone, args=(worker,)) for worker in sync_workers] + [threading.Thread(target=move)]
    for thread in others:
        thread.start()
    async with asynchronous:
        results = await asyncio.gather(*(worker.work(over) for worker in async_workers), return_exceptions=True)
        over.set()
        for thread in others:
            await asyncio.to_thread(thread.join)
        errors += [result for result in results if result is not None]
        if errors:
            raise errors[0]
        stored = 0
        for worker in workers:
            found = {id_of(each.config): shown(each)[1:] for each in await listed(asynchronous, at(worker.thread))}
            assert found == worker.expected
            stored += len(found)
    sync.close()
    figure(
        "resharding under load",
        moves=moved[0],
        keys_moved=moved[1],
        calls=sum(worker.calls for worker in workers),
        longest_sync_call_s=round(max(worker.longest for worker in sync_workers), 2),
        longest_async_call_s=round(max(worker.longest for worker in async_workers), 2),
        errors=0,
        checkpoints=stored,
        lost=0,
    )


def test_a_connection_that_is_released_twice_is_not_given_to_two_threads(servers: Servers, prefix: str) -> None:
    """What redis-py's cluster client does when it is sent to a node that it cannot use."""
    with RedisSaver(servers.cluster().url, prefix=prefix) as saver:
        saver.ping()
        pool = saver.client.get_redis_connection(saver.client.get_primaries()[0]).connection_pool
        taken: list[Any] = []
        ours = pool.get_connection()
        pool.release(ours)
        other = threading.Thread(target=lambda: taken.append(pool.get_connection()))
        other.start()
        other.join()
        assert taken == [ours]
        pool.release(ours)
        assert pool.get_connection() is not ours
