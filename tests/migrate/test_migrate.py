"""Threads of real graphs move from one saver to another, and nothing differs; an interrupted migration is repeated."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from playing import THREAD, Play
from scenarios import SCENARIOS, asking
from soak import every

from langgraph_redis_state import RedisSaver, ServerUnavailableError
from langgraph_redis_state.migrate import Difference, amigrate, migrate
from langgraph_redis_state.migrate.sources import Write
from langgraph_redis_state.migrate.writes import batches


def played(name: str) -> tuple[Any, InMemorySaver]:
    """A saver on which a graph has run, and the graph's builder."""
    build, script = SCENARIOS[name]
    memory = InMemorySaver()
    asyncio.run(script(Play(build, lambda: memory, False, "sync")))
    return build, memory


def snapshots(build: Any, saver: Any, thread: str) -> list[Any]:
    """What a graph tells of a thread, with subgraphs, and what the saver has of it."""
    config: Any = {"configurable": {"thread_id": thread}}
    told = [tuple(each) for each in build(saver).get_state_history(config)]
    kept = sorted(saver.list(config), key=lambda tup: (tup.checkpoint["id"], tup.config["configurable"]["checkpoint_ns"]))
    return told + [(tup.checkpoint, tup.metadata, tup.parent_config, tup.pending_writes) for tup in kept]


NAMES = list(SCENARIOS)


@pytest.mark.parametrize("name", every(11, NAMES, "delta_channels_over_many_turns", "a_subgraph_with_a_memory_of_its_own"))
def test_no_difference_after_a_migration_there_and_back(saver: RedisSaver, name: str) -> None:
    build, memory = played(name)
    report = migrate(memory, saver)
    assert (report.ok, dict(report.losses)) == (True, {})
    back = InMemorySaver()
    assert migrate(saver, back).ok
    for thread in list(memory.storage):
        assert snapshots(build, memory, thread) == snapshots(build, saver, thread) == snapshots(build, back, thread)


def test_threads_of_the_process_migrate_every_thread_once(saver: RedisSaver) -> None:
    _, memory = played("several_updates_at_once")
    for n in range(7):
        memory.storage[f"copy {n}"] = memory.storage["t"]
    done: list[str] = []
    report = migrate(memory, saver, workers=3, progress=lambda progress: done.append(progress.thread_id), verify=False)
    assert sorted(done) == sorted(memory.storage)
    assert (report.threads, sorted(each.thread_id for each in saver.list_threads())) == (8, sorted(done))


async def test_no_difference_when_awaited_with_several_threads_at_a_time(asaver: RedisSaver) -> None:
    _, memory = await asyncio.to_thread(played, "a_chat_of_some_turns")
    for n in range(5):
        memory.storage[f"copy {n}"] = memory.storage["another"]
        memory.blobs.update({(f"copy {n}", *key[1:]): blob for key, blob in memory.blobs.items() if key[0] == "another"})
    report = await amigrate(memory, asaver, workers=3)
    assert report.ok
    assert (report.threads, report.verified) == (7, report.checkpoints)


def test_an_open_interrupt_is_answered_on_the_new_side(saver: RedisSaver) -> None:
    memory = InMemorySaver()
    asking(memory).invoke({"n": 1}, THREAD)
    migrate(memory, saver)
    open_there, open_here = (asking(each).get_state(THREAD).interrupts for each in (memory, saver))
    assert open_here == open_there != ()
    answers = {each.id: "yes" for each in open_here}
    results = [asking(each).invoke(Command(resume=answers), THREAD) for each in (memory, saver)]
    assert results[0] == results[1]


class Dying(RedisSaver):
    """A target that vanishes at its n-th call."""

    left = 0

    def put(self, *arguments: Any) -> Any:
        self._count()
        return super().put(*arguments)

    def put_writes(self, *arguments: Any) -> None:
        self._count()
        super().put_writes(*arguments)

    def _count(self) -> None:
        if self.left == 0:
            raise ServerUnavailableError("the server went away")
        self.left -= 1


def test_a_migration_that_is_cut_at_any_call_is_completed_by_repeating_it(url: str, prefix: str) -> None:
    build, memory = played("several_interrupts_in_parallel_tasks")
    for calls in range(1000):
        with Dying(url, prefix=f"{prefix}-{calls}") as target:
            target.left = calls
            try:
                migrate(memory, target)
            except ServerUnavailableError:
                target.left = 10_000
            else:
                assert calls > 10  # it was cut at each call before
                break
            report = migrate(memory, target)
            assert report.ok
            assert report.already + report.checkpoints == report.verified
            if calls % 5 == 0:
                assert snapshots(build, target, "t") == snapshots(build, memory, "t")


def test_a_second_pass_takes_only_what_is_new(saver: RedisSaver) -> None:
    memory = InMemorySaver()
    asking(memory).invoke({"n": 1}, THREAD)
    first = migrate(memory, saver)
    while asked := asking(memory).get_state(THREAD).interrupts:
        asking(memory).invoke(Command(resume={each.id: "yes" for each in asked}), THREAD)
    second = migrate(memory, saver)
    assert (second.ok, second.already) == (True, first.checkpoints)
    assert second.checkpoints > 0
    assert snapshots(asking, memory, "t") == snapshots(asking, saver, "t")
    third = migrate(memory, saver)
    assert (third.ok, third.checkpoints) == (True, 0)


def test_a_dry_run_counts_and_stores_nothing(saver: RedisSaver) -> None:
    _, memory = played("a_chat_of_some_turns")
    counted = migrate(memory, saver, dry_run=True)
    assert list(saver.list_threads()) == []
    done = migrate(memory, saver)
    assert (counted.checkpoints, counted.writes) == (done.checkpoints, done.writes)


def test_tags_come_along(saver: RedisSaver, url: str, prefix: str) -> None:
    _, memory = played("a_chat_of_some_turns")
    migrate(memory, saver)
    saver.tag("another", "good")
    with RedisSaver(url, prefix=f"{prefix}-other") as other:
        assert migrate(saver, other).tags == 1
        assert other.tags("another") == saver.tags("another")


def test_what_differs_is_named(saver: RedisSaver) -> None:
    _, memory = played("a_chat_of_some_turns")
    migrate(memory, saver)
    place = max(memory.storage["another"][""])
    checkpoint, _, parent = memory.storage["another"][""][place]
    memory.storage["another"][""][place] = (checkpoint, memory.serde.dumps_typed({"step": 77}), parent)
    assert migrate(memory, saver).differences == [Difference("another", "", place, "metadata")]


def test_delta_channels_that_a_removal_cut_are_not_lost_in_silence(saver: RedisSaver, url: str, prefix: str) -> None:
    _, memory = played("delta_channels_over_many_turns")
    migrate(memory, saver)
    saver.prune(["t"])
    with RedisSaver(url, prefix=f"{prefix}-other") as other:
        report = migrate(saver, other)
    assert any(each.what.startswith("delta channel") for each in report.differences)


def test_a_thread_that_fails_is_named_and_the_others_are_migrated(saver: RedisSaver) -> None:
    _, memory = played("a_chat_of_some_turns")
    place = max(memory.storage["another"][""])
    memory.storage["another"][""][place] = (("msgpack", b"\xc1"), *memory.storage["another"][""][place][1:])
    report = migrate(memory, saver)
    assert (list(report.failures), report.ok) == (["another"], False)
    assert [each.thread_id for each in saver.list_threads(prefix="t")] == ["t"]
    assert migrate(memory, saver, threads=["nobody"]).failures == {"nobody": "the source has no such thread"}


def test_writes_keep_their_index_and_order() -> None:
    def write(task: str, path: str | None, index: int | None, channel: str) -> Write:
        return Write(task, path, index, channel, channel)

    gap = [write("b", "~1", -3, "__interrupt__"), write("b", "~1", 1, "x"), write("b", "~1", 2, "y")]
    assert list(batches(gap)) == [("b", "~1", [("__interrupt__", "__interrupt__"), ("x", "x"), ("y", "y")])]
    unknown = [write("b", None, None, "x"), write("a", None, None, "y")]
    assert [(task, path) for task, path, _ in batches(unknown)] == [("b", "00000000"), ("a", "00000001")]
    ascending = [write("a", None, None, "x"), write("b", None, None, "y")]
    assert [(task, path) for task, path, _ in batches(ascending)] == [("a", ""), ("b", "")]


def test_what_is_no_saver_is_refused(saver: RedisSaver) -> None:
    with pytest.raises(TypeError, match="BaseCheckpointSaver"):
        migrate(object(), saver)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sequence of thread ids"):
        migrate(InMemorySaver(), saver, threads="one")
