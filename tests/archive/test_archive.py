"""Threads go into a file and come back exactly; a backup takes what changed; a cut leaves nothing half done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from exercise import BIG
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from playing import THREAD, Play
from scenarios import SCENARIOS, asking
from shapes import at, checkpoint, metadata
from soak import in_turn, rare, times

from langgraph_redis_state import (
    InvalidConfigError,
    RedisSaver,
    ServerUnavailableError,
    ThreadDeletedError,
)
from langgraph_redis_state.archive import (
    ArchiveSaver,
    abackup,
    aexport_threads,
    aimport_threads,
    backup,
    export_threads,
    exporting,
    import_threads,
    importing,
    verify_archive,
)
from langgraph_redis_state.effects import Emit
from langgraph_redis_state.migrate import migrate
from langgraph_redis_state.storage.keys import ThreadKeys

KEY = b"a key of more than sixteen bytes"


def played(name: str, saver: RedisSaver) -> Any:
    build, script = SCENARIOS[name]
    asyncio.run(script(Play(build, lambda: saver, False, "sync")))
    return build


def put(saver: RedisSaver, thread: str, values: Any, step: int = 0, **more: Any) -> Any:
    made = checkpoint(values)
    return saver.put(at(thread), made, metadata(step=step, **more), made["channel_versions"])


def ids(saver: RedisSaver) -> list[str]:
    return sorted(each.thread_id for each in saver.list_threads())


NAMES = list(SCENARIOS)


@pytest.mark.parametrize(
    "name", [name if name in ("a_loop_with_tools", "a_chat_of_some_turns") else rare(name) for name in NAMES]
)
def test_export_import_and_export_again_give_equal_files(url: str, prefix: str, tmp_path: Path, name: str) -> None:
    with RedisSaver(url, prefix=prefix, integrity_key=KEY, index_metadata=("step",)) as source:
        build = played(name, source)
        for each in ids(source):
            source.tag(each, "kept")
            source.prune([each], strategy="keep_latest")  # so that DeltaChannels have histories of their own
        with RedisSaver(url, prefix=f"{prefix}-other", compression="zlib", cache_bytes=0) as target:
            first = export_threads(source, tmp_path / "one")
            back = import_threads(tmp_path / "one", target)
            assert (first.ok, back.ok, back.threads) == (True, True, first.threads)
            assert export_threads(target, tmp_path / "two").ok
            assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
            assert list(target.verify()) == []
            for each in ids(source):
                assert list(target.list(at(each, None))) == list(source.list(at(each, None)))
                told = [list(saver.history(each, checkpoint_ns=None)) for saver in (source, target)]
                assert told[0] == told[1]
                assert target.tags(each) == source.tags(each)
                with ArchiveSaver(tmp_path / "two") as file:
                    assert list(file.list(at(each, None))) == list(source.list(at(each, None)))
                    assert list(build(file).get_state_history(at(each))) == list(build(source).get_state_history(at(each)))


async def test_the_same_awaited(asaver: RedisSaver, url: str, prefix: str, tmp_path: Path) -> None:
    for thread in ("a", "b", "c"):
        await asyncio.to_thread(put, asaver, thread, {"x": BIG, "y": [thread] * 100})
    seen: list[tuple[str, int, int]] = []
    first = await aexport_threads(asaver, tmp_path / "one", progress=lambda p: seen.append((p.thread_id, p.threads, p.of)))
    assert seen == [("a", 1, 3), ("b", 2, 3), ("c", 3, 3)]
    async with RedisSaver(url, prefix=f"{prefix}-other") as target:
        assert (await aimport_threads(tmp_path / "one", target)).threads == first.threads == 3
        await aexport_threads(target, tmp_path / "two", threads=["c", "a", "b"])
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        assert (await abackup(target, tmp_path / "full")).threads == 3
        assert (await abackup(target, tmp_path / "more", base=tmp_path / "full")).unchanged == 3
    with ArchiveSaver(tmp_path / "one") as file:
        tup = await file.aget_tuple(at("b"))
        assert tup is not None
        assert [each async for each in file.alist(at("b"), limit=1)] == [tup]


def test_an_interrupt_is_answered_after_an_import_onto_a_deleted_id(saver: RedisSaver, tmp_path: Path) -> None:
    asking(saver).invoke({"n": 1}, THREAD)
    saver.set_ttl("t", 1000)
    before = list(saver.list(THREAD))
    export_threads(saver, tmp_path / "file")
    late = before[0].config
    saver.delete_thread("t")
    with pytest.raises(ThreadDeletedError):
        saver.put_writes(late, [("x", 1)], "task")
    assert import_threads(tmp_path / "file", saver).ok
    assert list(saver.list(THREAD)) == before
    assert 990_000 < saver.client.pttl(ThreadKeys(saver._engine.settings.prefix, b"t").hash) <= 1_000_000
    answers = {each.id: "yes" for each in asking(saver).get_state(THREAD).interrupts}
    asking(saver).invoke(Command(resume=answers), THREAD)
    assert list(saver.verify()) == []


def test_a_thread_that_exists_is_never_changed(saver: RedisSaver, tmp_path: Path) -> None:
    put(saver, "a", {"x": "old"})
    put(saver, "b", {"x": BIG})
    export_threads(saver, tmp_path / "file")
    put(saver, "a", {"x": "new"})
    saver.delete_thread("b")
    report = import_threads(tmp_path / "file", saver)
    assert (list(report.failures), report.threads, report.ok) == (["a"], 1, False)
    assert "exists" in report.failures["a"]
    again = import_threads(tmp_path / "file", saver, skip_existing=True)
    assert (again.ok, again.existing, again.threads) == (True, 2, 0)
    renamed = import_threads(tmp_path / "file", saver, threads=["a"], names={"a": "a copy"})
    assert (renamed.ok, ids(saver)) == (True, ["a", "a copy", "b"])
    values = {each: saver.get_tuple(at(each)).checkpoint["channel_values"]["x"] for each in ("a", "a copy")}  # type: ignore[union-attr]
    assert values == {"a": "new", "a copy": "old"}
    assert list(saver.verify()) == []


def test_ids_that_are_not_there_are_told(saver: RedisSaver, tmp_path: Path) -> None:
    put(saver, "a", {"x": 1})
    saver.put_writes(at("early", checkpoint_id="not yet"), [("x", 1)], "task")  # no thread yet
    report = export_threads(saver, tmp_path / "file", threads=["a", "nobody"])
    assert (list(report.failures), report.threads) == (["nobody"], 1)
    assert list(import_threads(tmp_path / "file", saver, threads=["nobody"]).failures) == ["nobody"]
    assert export_threads(saver, tmp_path / "all").threads == 1
    with pytest.raises(TypeError, match="sequence of ids"):
        export_threads(saver, tmp_path / "more", threads="a")
    assert not (tmp_path / "more").exists()


# --- cut in the middle ---


def limited(going: Iterator[Any], left: int) -> Iterator[Any]:
    """An operation that ends before its n-th effect, as that of a process which is killed."""
    reply: Any = None
    while True:
        try:
            effect = going.send(reply)  # type: ignore[attr-defined]
        except StopIteration:
            return
        if not isinstance(effect, Emit):
            if left == 0:
                raise ServerUnavailableError("cut")
            left -= 1
        reply = yield effect


def cutting(monkeypatch: pytest.MonkeyPatch, module: Any) -> Callable[[int], None]:
    perform = module.stream

    def after(effects: int) -> None:
        monkeypatch.setattr(module, "stream", lambda going, *rest: perform(limited(going, effects), *rest))

    return after


def test_an_import_that_is_cut_anywhere_shows_nothing_and_is_repeated(
    saver: RedisSaver, url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: redis.Redis
) -> None:
    played("several_interrupts_in_parallel_tasks", saver)
    put(saver, "other", {f"x{n}": os.urandom(40_000) for n in range(6)})  # several frames, and several commands
    monkeypatch.setattr("langgraph_redis_state.archive.writing.FRAME_BYTES", 100_000)
    monkeypatch.setattr("langgraph_redis_state.operations.uploading.UPLOAD_BYTES", 100_000)
    whole = export_threads(saver, tmp_path / "file").threads
    cut_after = cutting(monkeypatch, importing)
    seen = set()
    for effects in range(0, 1000, times(4, 1)):
        with RedisSaver(url, prefix=f"{prefix}-{effects}") as target:
            cut_after(effects)
            try:
                import_threads(tmp_path / "file", target)
            except ServerUnavailableError:
                seen.add(len(ids(target)))
                for each in ids(target):
                    assert list(target.list(at(each, None))) == list(saver.list(at(each, None)))
                cut_after(10_000)
                assert (again := import_threads(tmp_path / "file", target, skip_existing=True)).ok
                assert again.threads + again.existing == whole
            else:
                break
            assert [list(target.verify(each)) for each in ids(target)] == [[], []]
            for key in raw.scan_iter(match=f"{prefix}-{effects}:*:u:*", count=10_000):
                assert 0 < raw.pttl(key) <= 600_000
    assert (seen, effects > 10) == ({0, 1}, True)


def test_a_large_thread_is_read_field_by_field(saver: RedisSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(150):
        put(saver, "t", {"x": n}, n)
    for held in (exporting.HELD_BYTES, 1000):
        monkeypatch.setattr(exporting, "HELD_BYTES", held)
        assert export_threads(saver, tmp_path / f"{held}").checkpoints == 150
    assert len({each.read_bytes() for each in tmp_path.iterdir()}) == 1


def test_an_export_that_is_cut_leaves_no_file(saver: RedisSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(saver, "a", {"x": BIG})
    cut_after = cutting(monkeypatch, exporting)
    for effects in range(1000):
        cut_after(effects)
        try:
            export_threads(saver, tmp_path / "file")
        except ServerUnavailableError:
            assert list(tmp_path.iterdir()) == []
        else:
            break
    assert effects > 3
    assert [(each.name, each.stat().st_mode & 0o777) for each in tmp_path.iterdir()] == [("file", 0o600)]
    with pytest.raises(FileExistsError, match="would be overwritten"):
        export_threads(saver, tmp_path / "file")


def test_a_thread_that_changes_while_it_is_read_is_read_again(
    saver: RedisSaver, url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2):
        put(saver, "t", {"x": [n, *BIG]}, n)
    monkeypatch.setattr("langgraph_redis_state.archive.frames.COST", 1)
    reseal, left = exporting.Crossing.resealed, [3]

    def busy(self: Any, there: Any) -> Any:
        if left[0]:
            left[0] -= 1
            put(saver, "t", {"x": [left, *BIG]})
        return reseal(self, there)

    monkeypatch.setattr(exporting.Crossing, "resealed", busy)
    report = export_threads(saver, tmp_path / "file", passphrase="a passphrase")
    assert (report.ok, report.checkpoints) == (True, 5)
    assert verify_archive(tmp_path / "file", "a passphrase") == []
    left[0] = 1000
    assert "changed each of" in export_threads(saver, tmp_path / "other").failures["t"]


# --- backups ---


def test_a_backup_takes_what_changed_and_a_restore_gives_the_last_state(
    saver: RedisSaver, url: str, prefix: str, tmp_path: Path, raw: redis.Redis
) -> None:
    for name in ("same", "changed", "deleted", "tagged", "lives", "anew"):
        put(saver, name, {"x": [name] * 40})
    full, more, last = (tmp_path / name for name in ("full", "more", "last"))
    assert backup(saver, full).threads == 6
    put(saver, "changed", {"x": ["changed again"] * 40}, 1)
    put(saver, "new", {"x": 1})
    saver.delete_thread("deleted")
    saver.tag("tagged", "good")
    saver.set_ttl("lives", 1000)
    saver.delete_thread("anew")
    put(saver, "anew", {"x": ["another life"]})
    second = backup(saver, more, base=full)
    assert (second.ok, second.threads, second.unchanged) == (True, 5, 1)
    put(saver, "new", {"x": 2}, 1)
    hash_of = ThreadKeys(prefix, b"changed").hash
    raw.hset(hash_of, max(name for name in raw.hkeys(hash_of) if name[:1] == b"C"), b"damaged")
    put(saver, "changed", {"x": 3}, 2)
    third = backup(saver, last, base=more)
    assert (list(third.failures), third.threads, third.unchanged) == (["changed"], 1, 4)
    with RedisSaver(url, prefix=f"{prefix}-back") as back:
        report = import_threads([full, more, last], back)
        assert (report.failures, report.threads) == ({}, 6)
        assert "older than the backup" in report.problems[0]
        assert ids(back) == ["anew", "changed", "lives", "new", "same", "tagged"]
        for name in set(ids(back)) - {"changed"}:
            assert list(back.list(at(name))) == list(saver.list(at(name)))
        assert len(list(back.list(at("changed")))) == 2
        assert back.tags("tagged") == saver.tags("tagged")
    with RedisSaver(url, prefix=f"{prefix}-other") as other:
        with pytest.raises(InvalidConfigError, match="does not build on"):
            import_threads([full, last], other)
        alone = import_threads(last, other)
        assert (alone.threads, len(alone.failures)) == (1, 5)
        assert "earlier file" in alone.failures["same"]
        assert "could not be read" in alone.failures["changed"]


# --- without a server ---


def test_a_file_is_a_saver_that_reads(saver: RedisSaver, tmp_path: Path) -> None:
    build = played("delta_channels_over_many_turns", saver)
    export_threads(saver, tmp_path / "file")
    with ArchiveSaver(tmp_path / "file") as file:
        assert file.threads == ids(saver) == ["t"]
        memory = InMemorySaver()
        assert migrate(file, memory).ok
        assert build(memory).get_state(THREAD) == build(saver).get_state(THREAD)
        tuples = list(saver.list(at("t", None)))
        assert list(file.list(at("t", None), before=tuples[1].config, limit=2)) == tuples[2:4]
        assert list(file.list(None, filter={"step": 1})) == [tup for tup in tuples if tup.metadata.get("step") == 1]
        assert (file.get_tuple(at("nobody")), file.get_tuple(at("t", "", "nothing"))) == (None, None)
        with pytest.raises(InvalidConfigError, match="only read"):
            file.put(at("t"), checkpoint(), metadata(), {})
    saver.prune(["t"])  # what its DeltaChannels are rebuilt from stands in a field of its own now
    export_threads(saver, tmp_path / "cut")
    state = build(saver).get_state(THREAD)
    assert state.values
    with ArchiveSaver(tmp_path / "cut") as file:
        assert build(file).get_state(THREAD) == state
    saver.delete_thread("t")
    assert import_threads(tmp_path / "cut", saver).ok
    export_threads(saver, tmp_path / "again")
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "again").read_bytes()


SEALS: dict[str, Any] = {
    "plain": {},
    "encrypted": {"encryption_key": KEY},
    "hidden": {"encryption_key": KEY[::-1], "name_key": KEY},
}


@pytest.mark.parametrize(
    ("way", "held"),
    in_turn(
        [("plain", "encrypted"), ("encrypted", "hidden"), ("hidden", "plain"), ("hidden", "hidden")],
        [exporting.HELD_BYTES, 1000],
    ),
)
def test_threads_cross_between_savers_that_encrypt_in_different_ways(
    url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: tuple[str, str], held: int
) -> None:
    monkeypatch.setattr(exporting, "HELD_BYTES", held)
    index: Any = {"index_metadata": ("user",), "tombstone": None}
    with RedisSaver(url, prefix=f"{prefix}:source", **SEALS[way[0]], **index) as source:
        config: Any = at("t")
        for n in range(3):
            values = {"x": [*BIG, n], "y": [os.urandom(300).hex() for _ in range(60)]}
            made = checkpoint(values)
            config = source.put(config, made, metadata(step=n, run_id=f"run {n}", user="ada"), made["channel_versions"])
            source.put_writes(config, [("x", [*BIG, "w"])], "task")
            made = checkpoint({"z": BIG})
            source.put(at("t", "child:ü"), made, metadata(run_id=f"run {n}"), made["channel_versions"])
        source.tag("t", "a tag")
        assert export_threads(source, tmp_path / "one").ok
        with RedisSaver(url, prefix=f"{prefix}:target", **SEALS[way[1]], **index, cache_bytes=0) as target:
            assert import_threads(tmp_path / "one", target).ok
            assert list(target.verify("t")) == []
            assert list(target.list(at("t", None))) == list(source.list(at("t", None)))
            told = [[replace(each, run_id="") for each in saver.history("t", checkpoint_ns=None)] for saver in (source, target)]
            assert told[0] == told[1]
            assert target.tags("t") == source.tags("t")
            assert [each.thread_id for each in target.find_threads(user="ada")] == ["t"]
            assert target.stats("t").checkpoints == source.stats("t").checkpoints
            assert export_threads(target, tmp_path / "two").ok
            assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
            with ArchiveSaver(tmp_path / "two") as file:
                assert list(file.list(at("t", None))) == list(source.list(at("t", None)))
            target.delete_for_runs(["run 2"])
            assert len(list(target.history("t", checkpoint_ns=None))) == 4
