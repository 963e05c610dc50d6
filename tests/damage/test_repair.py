"""`repair` mends what `verify` finds; threads that change meanwhile, and large ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langgraph.checkpoint.serde.types import ERROR
from shapes import at, id_of, words
from soak import every, rare, times
from verifying import C0, C1, C2, DAMAGES, FIRST, IDS, W1, build, flip, lose, put, told

from langgraph_redis_state import Finding, Progress, RedisSaver
from langgraph_redis_state.errors import CheckpointLostError
from langgraph_redis_state.storage.keys import ThreadKeys


def found(saver: RedisSaver, thread: str | None = None) -> list[tuple[str, str | None, str, bool]]:
    return [(each.kind, each.thread_id, each.where, each.repairable) for each in saver.verify(thread)]


@pytest.fixture
def whole(url: str, prefix: str) -> Iterator[RedisSaver]:
    with RedisSaver(url, prefix=prefix, index_metadata=("user",)) as saver:
        build(saver)
        build(saver, "another")
        yield saver


# --- each damage is found, and mended ---------------------------------------------------------------------------------


KINDS = {tuple(kind for kind, _ in expected): name for name, (_, expected, _) in DAMAGES.items()}


@pytest.mark.parametrize("name", every(4, DAMAGES, *KINDS.values()))
@pytest.mark.parametrize("alone", [True, rare(False)], ids=["one thread", "all threads"])
def test_a_single_damage_is_found_where_it_is_and_mended(
    whole: RedisSaver, raw: Any, prefix: str, name: str, alone: bool
) -> None:
    damage, expected, lost = DAMAGES[name]
    truth = told(whole)
    keys = ThreadKeys(prefix, b"t")
    damage(raw, keys)
    one = "t" if alone else None
    findings = [*whole.verify(one)]
    assert [each.kind for each in findings] == [kind for kind, _ in expected], findings
    for finding, (_, where) in zip(findings, expected, strict=True):
        named = f"{keys.base.decode()}{where}:t" if len(where) == 1 else where
        assert finding.where == named or (where in ("chunk", "page of references") and finding.where.startswith(where)), finding
        assert finding.thread_id == "t"
    # what can be mended without loss is, and the rest is as it was
    mended = [*whole.repair(one)]
    assert [each.kind for each in mended] == [each.kind for each in findings if each.repairable]
    assert [*whole.verify(one)] == [each for each in findings if not each.repairable]
    dropped = [*whole.repair(one, drop_unreadable=True)]
    assert bool(dropped) == any(not each.repairable for each in findings)
    assert [*whole.verify(one)] == [*whole.repair(one, drop_unreadable=True)] == []
    left = told(whole)
    for place, before in truth.items():
        if place[0] != "t" or place[2] not in lost:
            assert left[place] == before
        else:
            assert place not in left or left[place]["writes"] != before["writes"]
    if lost != set(IDS):
        following = put(whole, "t", "", IDS[8], {"n": 9}, IDS[0], run_id="run n")
        whole.put_writes(following, [("n", 10)], "task")
        whole.prune(["t"])
    assert [*whole.verify()] == []


def test_only_true_drops_anything(whole: RedisSaver) -> None:
    for other in ("no", "yes", [], 2):
        with pytest.raises(ValueError, match="drop_unreadable must be True or False"):
            next(whole.repair(drop_unreadable=other))  # type: ignore[arg-type]


def test_settings_that_are_damaged_go_only_when_told(whole: RedisSaver, raw: Any, prefix: str) -> None:
    whole.persist("t")
    flip(b"T", 2)(raw, ThreadKeys(prefix, b"t"))
    assert found(whole) == [("settings", "t", "TTL settings (field T)", False)]
    assert [*whole.repair()] == []
    assert [(each.kind, each.thread_id) for each in whole.repair(drop_unreadable=True)] == [("settings", "t")]
    assert [*whole.verify()] == []


def test_writes_that_can_be_read_stay_when_others_of_their_checkpoint_are_dropped(
    whole: RedisSaver, raw: Any, prefix: str
) -> None:
    def writes() -> list[Any]:
        return whole.get_tuple(at("t", "", IDS[1])).pending_writes

    before = writes()
    lose(b"D", W1)(raw, ThreadKeys(prefix, b"t"))
    (finding,) = whole.verify()
    assert "write 1 of 4" in finding.problem
    (repair,) = whole.repair(drop_unreadable=True)
    assert repair.done == "write 1 was removed"
    assert writes() == [write for write in before if write[1] != "long"]


def test_a_tag_that_is_gone_is_lost_and_no_other_error(whole: RedisSaver, raw: Any, prefix: str) -> None:
    raw.hdel(ThreadKeys(prefix, b"t").hash, b"Ginner")
    for read in (whole.tags, lambda thread: whole.prune([thread]), lambda thread: [*whole.history(thread)]):
        with pytest.raises(CheckpointLostError, match="tag 'inner' of thread 't'"):
            read("t")


def test_dropping_a_checkpoint_takes_its_tags_its_writes_and_the_chunks_only_it_used(
    whole: RedisSaver, raw: Any, prefix: str
) -> None:
    flip(C2, -1)(raw, ThreadKeys(prefix, b"t"))
    done = [*whole.repair("t", drop_unreadable=True)]
    assert [each.kind for each in done if each.kind != "orphan"] == ["damaged", "lost"]
    assert {each.where.split()[0] for each in done if each.kind == "orphan"} == {"chunk", "page"}
    assert whole.tags("t") == {"good": IDS[0]}
    assert {name[:1] for name in raw.hkeys(ThreadKeys(prefix, b"t").hash) if IDS[2].encode() in name} == set()
    assert [*whole.verify()] == []


def test_of_a_thread_that_lost_every_checkpoint_and_write_nothing_stays(saver: RedisSaver, raw: Any, prefix: str) -> None:
    put(saver, "t", "", IDS[0], {"n": 1}, run_id="r")
    flip(C0, -1)(raw, ThreadKeys(prefix, b"t"))
    assert [each.kind for each in saver.repair(drop_unreadable=True)] == ["damaged"]
    assert [*raw.scan_iter(match=f"{prefix}:{{*", count=10_000)] == []
    assert saver.get_tuple(at("t")) is None


def test_chunks_that_nothing_refers_to_are_swept(saver: RedisSaver, raw: Any, prefix: str) -> None:
    config = put(saver, "t", "", IDS[0], {"n": 1})
    saver.put_writes(config, [(ERROR, words(1, 400))], "task")
    saver.put_writes(config, [(ERROR, "nothing, after all")], "task")  # replaces the first
    assert [each.kind for each in saver.verify()] == ["orphan"]
    assert [each.kind for each in saver.repair()] == ["orphan"]
    assert [*saver.verify()] == []
    assert saver.get_tuple(config).pending_writes == [("task", ERROR, "nothing, after all")]


def test_many_damages_at_once_are_mended_in_one_go(whole: RedisSaver, raw: Any, prefix: str) -> None:
    keys = ThreadKeys(prefix, b"t")
    for name in (
        *("a chunk", "the counts", "the second of several writes", "a strange field", "an index entry is gone", "a tag"),
        *("the bucket forgot the thread", "the bucket names a wrong run", "a checkpoint is gone", "only the index expires"),
    ):
        DAMAGES[name][0](raw, keys)
    kinds = {each.kind for each in whole.verify()}
    assert kinds == {"damaged", "counts", "unknown", "index", "bucket", "lost", "expiry"}
    assert {each.kind for each in whole.repair()} == {"counts", "index", "bucket", "expiry"}
    assert {each.kind for each in whole.verify()} == {"damaged", "unknown", "lost"}
    assert {each.kind for each in whole.repair(drop_unreadable=True)} >= {"damaged", "unknown", "lost"}
    assert [*whole.verify()] == []
    assert {id_of(each.config) for each in whole.list(at("t", None))} == {IDS[0], IDS[1]}


# --- threads that change, and large ones ------------------------------------------------------------------------------


def test_a_thread_that_is_written_meanwhile_gives_no_false_finding(whole: RedisSaver, url: str, prefix: str) -> None:
    writes = 0
    with RedisSaver(url, prefix=prefix) as writer:

        def write(_: Progress) -> None:
            nonlocal writes
            if writes < 5:
                writes += 1
                put(writer, "t", "", IDS[3 + writes], {"n": writes, "text": words(writes, 300)}, IDS[1])
                writer.prune(["t"], keep_last=2)

        assert [*whole.verify("t", progress=write)] == []
    assert writes == 5


def test_a_thread_that_never_stands_still_is_called_busy_and_left_alone(
    whole: RedisSaver, raw: Any, url: str, prefix: str
) -> None:
    flip(C0, -1)(raw, ThreadKeys(prefix, b"t"))
    with RedisSaver(url, prefix=prefix) as writer:

        def write(_: Progress) -> None:
            writer.tag("t", "other", IDS[1])
            writer.untag("t", "other")

        assert [each[:3] for each in found_with(whole, write)] == [("damaged", "t", FIRST), ("busy", "t", "the thread")]
        (repair,) = whole.repair("t", drop_unreadable=True, progress=write)
    assert (repair.kind, repair.done.split(":")[0]) == ("busy", "nothing")
    assert found(whole) == [("damaged", "t", FIRST, False)]


def found_with(saver: RedisSaver, progress: Callable[[Progress], None]) -> list[tuple[str, str | None, str]]:
    return [(each.kind, each.thread_id, each.where) for each in saver.verify("t", progress=progress)]


def test_a_repair_is_planned_again_if_the_thread_changes_before_it(whole: RedisSaver, raw: Any, url: str, prefix: str) -> None:
    keys = ThreadKeys(prefix, b"t")
    raw.zrem(keys.all[1], C1)
    with RedisSaver(url, prefix=prefix) as writer:
        written = []

        def write(progress: Progress) -> None:
            if progress.threads and not written:  # the thread was read, and nothing was done yet
                written.append(put(writer, "t", "", IDS[6], {"n": 6}, IDS[1]))

        assert [each.kind for each in whole.repair("t", progress=write)] == ["index"]
    assert written
    assert [*whole.verify("t")] == []


@pytest.mark.longer
def test_no_command_takes_long_however_long_the_thread_is(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        parent, messages = None, []
        for n in range(times(500, 2_000, 4_000)):
            messages = [*messages[-60:], words(n, 30)]
            config = put(
                saver, "t", "", f"1f0a0000-0000-6000-8000-{n:012}", {"messages": messages, "n": n}, parent, run_id=f"r{n // 50}"
            )
            parent = id_of(config)
            if n % 10 == 0:
                saver.put_writes(config, [("n", n)], "task")
        limit = raw.config_get("slowlog-log-slower-than")["slowlog-log-slower-than"]
        try:
            raw.config_set("slowlog-log-slower-than", 20_000)
            slow: list[int] = []
            for _ in range(3):  # the server's time is the machine's: a command may have waited for a processor
                last = max((each["id"] for each in raw.slowlog_get(1)), default=-1)
                assert [*saver.verify()] == []
                raw.delete(ThreadKeys(prefix, b"t").all[1])
                assert [each.kind for each in saver.repair("t")] == ["index"]
                slow.append(sum(each["id"] > last and prefix.encode() in each["command"] for each in raw.slowlog_get(10)))
                if not slow[-1]:
                    break
        finally:
            raw.config_set("slowlog-log-slower-than", limit)
        assert slow[-1] == 0, slow
        assert [*saver.verify("t")] == []


def test_a_thread_can_be_verified_while_an_event_loop_serves_others(whole: RedisSaver, url: str, prefix: str) -> None:
    async def both() -> list[Finding]:
        async with RedisSaver(url, prefix=prefix) as saver:

            async def verify() -> list[Finding]:
                return [each async for each in saver.averify("t")]

            async def read() -> None:
                for _ in range(20):
                    assert await saver.aget_tuple(at("another")) is not None

            findings, _ = await asyncio.gather(verify(), read())
            return findings

    assert asyncio.run(both()) == []


@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_all_pending_writes_of_a_checkpoint_can_be_dropped_at_once(
    saver: RedisSaver, raw: Any, prefix: str, with_checkpoint: bool
) -> None:
    keys = ThreadKeys(prefix, b"t")
    config = put(saver, "t", "", IDS[0], {"n": 1})
    saver.put_writes(config, [("a", words(1, 400)), ("b", words(2, 400))], "task")
    raw.hdel(keys.hash, *(name for name in raw.hkeys(keys.hash) if name[:1] == b"D"))
    if with_checkpoint:
        flip(C0, -1)(raw, keys)
    done = [each.done for each in saver.repair(drop_unreadable=True)]
    assert [each for each in done if each.startswith("write")] == ["write 1 was removed", "write 2 was removed"]
    assert [*saver.verify()] == []
