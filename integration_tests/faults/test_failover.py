"""The primary is killed under load, behind Sentinel and in a Cluster: how long until writes are taken again, and how many
checkpoints that were acknowledged are gone. With `Replicas("all")` none may be; with less they are counted, not asserted.

Replication on one machine takes next to no time, so besides killing the primary alone there are faults that open the gap: its
replicas hang for a while before (all of them, or all but one that is then killed, too), as when the network is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from conftest import TOPOLOGIES_OF
from figures import figure
from redis.crc import key_slot
from servers import HOST, OUTSIDE, SERVICE, Box, Server, cluster, sentinel, until
from shapes import SyncSurface, at, checkpoint, metadata

from langgraph_redis_state import DurabilityError, RedisSaver, Replicas, ServerRefusedError, ServerUnavailableError
from langgraph_redis_state.storage.keys import ThreadKeys

WRITERS = 8
"""Half of them sync, in threads; half async, in one event loop."""
DOWN_AFTER = 2.0
"""Seconds after which Sentinels and nodes of a Cluster take a node for dead."""
HANG_SECONDS = 2.0
LEVELS = {"none": None, "1": Replicas(1, 1), "all": Replicas("all", 1), "2": Replicas(2, 1)}
UNSURE = (DurabilityError, ServerUnavailableError, ServerRefusedError)


@dataclass
class Writer:
    """Puts one checkpoint after the other on a thread of its own, and keeps what was acknowledged, and when."""

    thread: str
    acknowledged: list[tuple[str, float]] = field(default_factory=list)
    unsure: int = 0
    unexpected: list[BaseException] = field(default_factory=list)

    async def work(self, saver: Any, size: int, over: threading.Event) -> None:
        config = at(self.thread)
        while not over.is_set():
            made = checkpoint({"x": os.urandom(size)})
            try:
                config = await saver.aput(config, made, metadata(), {"x": 1})
            except UNSURE:
                self.unsure += 1
                await asyncio.sleep(0.02)
            except BaseException as error:
                self.unexpected.append(error)
                raise
            else:
                self.acknowledged.append((made["id"], time.monotonic()))


@contextlib.contextmanager
def load(url: str, prefix: str, level: Replicas | None, threads: Sequence[str], size: int) -> Iterator[list[Writer]]:
    """Writers at work, until the block is over."""
    over = threading.Event()
    writers = [Writer(thread) for thread in threads]
    sync, asynchronous = writers[::2], writers[1::2]
    with RedisSaver(url, prefix=prefix, durability=level) as saver:

        async def all_async() -> None:
            async with RedisSaver(url, prefix=prefix, durability=level) as other:
                await asyncio.gather(*(writer.work(other, size, over) for writer in asynchronous))

        def one(writer: Writer) -> None:
            asyncio.run(writer.work(SyncSurface(saver), size, over))

        running = [threading.Thread(target=one, args=(writer,)) for writer in sync]
        running.append(threading.Thread(target=lambda: asyncio.run(all_async())))
        for thread in running:
            thread.start()
        try:
            yield writers
        finally:
            over.set()
            for thread in running:
                thread.join()


def signal(box: Box, name: str, *processes: int) -> None:
    told = box.container.get_wrapped_container().exec_run(["sh", "-c", f"kill -{name} {' '.join(map(str, processes))}"])
    assert told.exit_code == 0, told.output


def kill(box: Box, *processes: int) -> float:
    """The moment when they are dead, and what they answered last has arrived."""
    signal(box, "KILL", *processes)
    time.sleep(0.2)
    return time.monotonic()


def process_of(node: Any) -> int:
    return int(node.info("server")["process_id"])


def judged(name: str, server: Server, prefix: str, level: str, writers: list[Writer], killed: float, **more: Any) -> int:
    """How many acknowledged checkpoints are gone; what is there loads and verifies."""
    assert not [error for writer in writers for error in writer.unexpected]
    acknowledged = lost = lost_before = 0
    with RedisSaver(server.url, prefix=prefix) as saver:
        for writer in writers:
            stored = {version.checkpoint_id for version in saver.history(writer.thread)}
            gone = [moment for made, moment in writer.acknowledged if made not in stored]
            acknowledged += len(writer.acknowledged)
            lost += len(gone)
            for found in saver.list(at(writer.thread), limit=20):
                assert len(found.checkpoint["channel_values"]["x"]) > 0
            if gone:
                lost_before = max(lost_before, killed - min(gone))
    firsts = [min(moment for _, moment in writer.acknowledged if moment > killed) - killed for writer in writers]
    waited_for = "None" if level == "none" else f"Replicas({level})"
    figure(
        f"{name}, durability={waited_for}",
        acknowledged=acknowledged,
        lost=lost,
        lost_back_to_s=round(lost_before, 2),
        unsure=sum(writer.unsure for writer in writers),
        first_write_after_s=round(min(firsts), 1),
        all_writers_after_s=round(max(firsts), 1),
        down_after_s=DOWN_AFTER,
        **more,
    )
    return lost


def wait_for(writers: list[Writer], count: int, since: float, what: str) -> None:
    """Until each writer got so many acknowledgements since a moment."""
    until(
        lambda: (
            all(sum(moment > since for _, moment in writer.acknowledged) >= count for writer in writers)
            or any(writer.unexpected for writer in writers)
        ),
        what,
    )


# --- Sentinel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["none", "1", "all"])
@pytest.mark.parametrize("fault", ["primary", "primary after its replicas hung", "primary and a replica after the other hung"])
def test_a_primary_that_sentinel_replaces(fault: str, level: str, prefix: str) -> None:
    with sentinel(TOPOLOGIES_OF) as replicated, contextlib.ExitStack() as stack:
        server, box = replicated.server, replicated.box
        replicas = [stack.enter_context(redis.Redis.from_url(url, **OUTSIDE)) for url in replicated.replicas]
        for host_port in server.url.split("://")[1].split("/")[0].split(","):
            node = stack.enter_context(redis.Redis(port=int(host_port.rpartition(":")[2]), **OUTSIDE))
            node.execute_command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", int(DOWN_AFTER * 1000))
        victim, hung = process_of(server.admin), [process_of(node) for node in replicas]
        threads = [f"t{n}" for n in range(WRITERS)]
        size = 5_000 if fault == "primary" else 100_000
        with load(server.url, prefix, LEVELS[level], threads, size) as writers:
            wait_for(writers, 20, 0, "the writers do not begin")
            time.sleep(1)
            dead = [victim]
            if fault == "primary":
                hung = []
            elif fault == "primary and a replica after the other hung":
                dead.append(hung.pop())
            if hung:
                signal(box, "STOP", *hung)
                time.sleep(HANG_SECONDS)
            killed = kill(box, *dead)
            if hung:
                signal(box, "CONT", *hung)
            if len(dead) > 1 and level != "none":
                # nobody is left to acknowledge: an operator brings the replica back, once there is a primary for it
                survivor = replicas[0]
                until(lambda: survivor.execute_command("ROLE")[0] == b"master", "no fail-over")
                again(box, replicas[1], f"--replica-announce-ip {HOST} --replicaof {HOST} {port_of(survivor)}")
            wait_for(writers, 5, killed, "the writers do not go on")
        lost = judged(f"failover, Sentinel: killed {fault}", server, prefix, level, writers, killed)
    if level == "all":
        assert lost == 0


@pytest.mark.parametrize("level", ["none", "1", "all", "2"])
def test_a_primary_that_sentinel_is_told_to_replace(level: str, prefix: str) -> None:
    """Nobody fails: for some seconds there are two primaries, and the old one goes on with the replicas that are left to it.
    Only a number that it cannot reach without the promoted one keeps it from acknowledging what will be thrown away."""
    with sentinel(TOPOLOGIES_OF) as replicated, contextlib.ExitStack() as stack:
        server = replicated.server
        replicas = [stack.enter_context(redis.Redis.from_url(url, **OUTSIDE)) for url in replicated.replicas]
        first = server.url.split("://")[1].split(",")[0]
        node = stack.enter_context(redis.Redis(port=int(first.rpartition(":")[2]), **OUTSIDE))
        with load(server.url, prefix, LEVELS[level], [f"t{n}" for n in range(WRITERS)], 5_000) as writers:
            wait_for(writers, 20, 0, "the writers do not begin")
            time.sleep(1)
            told = time.monotonic()
            node.execute_command("SENTINEL", "FAILOVER", SERVICE)
            until(lambda: any(each.execute_command("ROLE")[0] == b"master" for each in replicas), "no fail-over")
            until(lambda: server.admin.execute_command("ROLE")[0] == b"slave", "the old primary stays one")
            changed = time.monotonic()
            wait_for(writers, 5, changed + 0.2, "the writers do not go on")
        took = round(changed - told, 1)
        lost = judged(
            "failover, Sentinel: told to, nobody killed", server, prefix, level, writers, changed, changed_after_s=took
        )
    if level == "2":
        assert lost == 0


def port_of(node: Any) -> int:
    return int(node.connection_pool.connection_kwargs["port"])


def again(box: Box, node: Any, options: str) -> None:
    """Starts a process that was killed, with what its folder holds."""
    port = port_of(node)
    command = f"cd /tmp/{port} && exec redis-server --port {port} --bind 0.0.0.0 --protected-mode no --save '' {options}"
    box.container.get_wrapped_container().exec_run(["sh", "-c", command], detach=True)
    until(node.ping, "the server does not come back")


# --- Cluster ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["none", "1", "all"])
@pytest.mark.parametrize("fault", ["primary", "primary after its replica hung"])
def test_a_primary_that_the_cluster_replaces(fault: str, level: str, prefix: str) -> None:
    """A primary has one replica here, so that "1" is "all"; the one that takes over has none until the dead one is back."""
    with cluster(TOPOLOGIES_OF) as (server, box):
        for node in (*server.primaries, *server.replicas):
            node.config_set("cluster-node-timeout", int(DOWN_AFTER * 1000))
        victim = server.primaries[0]
        replica = next(node for node in server.replicas if node.info("replication")["master_port"] == port_of(victim))
        ranges = [
            (first, last)
            for first, last, (_, port, *_), *_ in victim.execute_command("CLUSTER SLOTS")
            if port == port_of(victim)
        ]
        of_victim = (
            f"t{n}"
            for n in range(100_000)
            if any(first <= key_slot(ThreadKeys(prefix, f"t{n}".encode()).hash) <= last for first, last in ranges)
        )
        threads = [next(of_victim) for _ in range(WRITERS)]
        process, hung = process_of(victim), process_of(replica) if fault != "primary" else 0
        size = 5_000 if fault == "primary" else 100_000
        with load(server.url, prefix, LEVELS[level], threads, size) as writers:
            wait_for(writers, 20, 0, "the writers do not begin")
            time.sleep(1)
            if hung:
                signal(box, "STOP", hung)
                time.sleep(HANG_SECONDS / 2)  # longer, and the others would take it for dead
            killed = kill(box, process)
            if hung:
                signal(box, "CONT", hung)
            until(lambda: replica.execute_command("ROLE")[0] == b"master", "no fail-over")
            promoted = time.monotonic() - killed
            again(box, victim, f"--cluster-enabled yes --cluster-announce-ip {HOST}")
            wait_for(writers, 5, killed, "the writers do not go on")
        lost = judged(
            f"failover, Cluster: killed {fault}", server, prefix, level, writers, killed, promoted_after_s=round(promoted, 1)
        )
    if level == "all":
        assert lost == 0
