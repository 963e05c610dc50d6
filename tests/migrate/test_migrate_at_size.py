"""Many threads of real graphs migrate; a process that migrates is killed again and again, and the next one goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
import redis.connection
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from playing import Play
from scenarios import SCENARIOS, asking
from shapes import at
from soak import times
from storehouse import killed

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.migrate import migrate

PLAYED = (
    *("several_interrupts_in_parallel_tasks", "a_loop_with_tools"),
    *("a_subgraph_with_an_interrupt", "delta_channels_over_many_turns", "forks_of_forks"),
)


@pytest.fixture(scope="module")
def originals() -> list[tuple[InMemorySaver, str]]:
    """Threads of graphs with subgraphs, DeltaChannels, forks and interrupts, and one that waits for its answer."""
    found = []
    for name in PLAYED[: times(2, 5)]:
        build, script = SCENARIOS[name]
        memory = InMemorySaver()
        asyncio.run(script(Play(build, lambda memory=memory: memory, False, "sync")))  # type: ignore[misc]
        found += [(memory, str(thread)) for thread in memory.storage]
    waiting = InMemorySaver()
    asking(waiting).invoke({"n": 1}, at("waits"))
    return [*found, (waiting, "waits")]


def many(originals: list[tuple[InMemorySaver, str]], threads: int) -> InMemorySaver:
    """A saver with so many threads, copies of the originals."""
    whole = InMemorySaver()
    for n in range(threads):
        memory, thread = originals[n % len(originals)]
        name = f"{thread} {n}"
        whole.storage[name] = memory.storage[thread]
        whole.blobs.update({(name, *key[1:]): blob for key, blob in memory.blobs.items() if key[0] == thread})
        whole.writes.update({(name, *key[1:]): dict(kept) for key, kept in memory.writes.items() if key[0] == thread})
    return whole


def same(source: InMemorySaver, target: RedisSaver, thread: str) -> bool:
    """Whether both sides list the same checkpoints, with values, metadata, parents and pending writes."""
    told = [
        sorted(
            ((tup.config["configurable"]["checkpoint_ns"], tup.checkpoint["id"], tup) for tup in saver.list(at(thread, None))),
            key=lambda each: each[:2],
        )
        for saver in (source, target)
    ]
    return len(told[0]) == len(told[1]) and all(
        (one.checkpoint, one.metadata, one.parent_config, one.pending_writes)
        == (other.checkpoint, other.metadata, other.parent_config, other.pending_writes)
        for (*_, one), (*_, other) in zip(*told, strict=True)
    )


def test_many_threads_migrate_without_a_difference_and_go_on(
    saver: RedisSaver, originals: list[tuple[InMemorySaver, str]]
) -> None:
    source = many(originals, times(14, 1000))
    report = migrate(source, saver, workers=2)
    assert (report.ok, report.threads, dict(report.losses)) == (True, times(14, 1000), {})
    assert report.verified == report.checkpoints
    for thread in list(source.storage)[: len(originals)]:
        assert same(source, saver, thread)
    waits = next(thread for thread in source.storage if thread.startswith("waits"))
    asked = {each.id: "yes" for each in asking(saver).get_state(at(waits)).interrupts}
    results = [asking(each).invoke(Command(resume=asked), at(waits)) for each in (source, saver)]
    assert results[0] == results[1]


class Killed(RedisSaver):
    """Kills its process behind the packet of a call: what it asked for happens, and nobody hears the answer."""

    left, verb = 0, "put"

    def put(self, *arguments: Any) -> Any:
        self.left -= 1
        self._arm("put")
        return super().put(*arguments)

    def put_writes(self, *arguments: Any) -> None:
        self._arm("put_writes")
        super().put_writes(*arguments)

    def _arm(self, verb: str) -> None:
        if self.left > 0 or verb != self.verb:
            return
        send = redis.connection.AbstractConnection.send_packed_command

        def last(*arguments: Any, **options: Any) -> None:
            send(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        redis.connection.AbstractConnection.send_packed_command = last  # type: ignore[method-assign]


def test_a_migration_that_is_killed_again_and_again_is_resumed_without_a_difference(
    url: str, prefix: str, originals: list[tuple[InMemorySaver, str]]
) -> None:
    source = many(originals, times(7, 1000))
    points, stored = times(4, 20), [0]
    checkpoints = migrate(source, InMemorySaver(), dry_run=True).checkpoints

    def until_killed(_: RedisSaver) -> None:
        with Killed(url, prefix=prefix) as target:
            target.left = checkpoints // (points + 1)
            target.verb = ("put", "put_writes")[len(stored) % 2]
            migrate(source, target, verify=False)

    with RedisSaver(url, prefix=prefix) as saver:
        for _ in range(points):
            killed(url, prefix, until_killed)
            stored.append(saver.stats().checkpoints)
            assert stored[-2] < stored[-1] < checkpoints
        report = migrate(source, saver, workers=2)
        assert (report.ok, report.already + report.checkpoints) == (True, checkpoints)
        assert report.already > 0
        assert saver.stats().checkpoints == checkpoints
        for thread in list(source.storage)[: times(7, 50)]:
            assert same(source, saver, thread)
        assert list(saver.verify()) == []
