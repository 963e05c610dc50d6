"""Stored bytes that were damaged are refused, never misread; writing and pruning around them loses nothing."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
from damaging import IDS, Stored, build_large, build_small, outcome
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME
from shapes import at, checkpoint, id_of, metadata, plain, words
from soak import LEVEL, times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointerError, LayoutError
from langgraph_redis_state.storage import records
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.records import FIXED, STAMP


@pytest.fixture
def saver(url: str, prefix: str) -> Iterator[RedisSaver]:
    """One that remembers no chunks: all it gives comes from the server."""
    with RedisSaver(url, prefix=prefix, cache_bytes=0) as opened:
        yield opened


def flipped(content: bytes, position: int, bit: int) -> bytes:
    return content[:position] + bytes([content[position] ^ (1 << bit)]) + content[position + 1 :]


@pytest.mark.longer
def test_a_flipped_bit_in_any_byte_of_a_small_thread_is_corruption_or_changes_nothing(
    saver: RedisSaver, raw: Any, prefix: str
) -> None:
    made = build_small(saver, raw, prefix)
    for name, content in made.fields.items():
        for position in range(0, len(content), times(3, 1, 1)):
            bits = range(8) if LEVEL else ((position * 3) % 8, (position * 3 + 4) % 8)
            every_bit = position < STAMP + FIXED if name[:1] == b"C" else position < 6 + STAMP + FIXED
            for bit in bits if every_bit else (position % 8, (position + 4) % 8)[: times(1, 2, 2)]:
                made.hset(name, flipped(content, position, bit))
                one_by_one, newest, _ = made.readers()
                for read in (one_by_one, newest):
                    error = outcome(read)
                    where = (name, position, bit, error)
                    if name == b"S" or _harmless(name, position, error) or (read is newest and error is None):
                        assert error is None or isinstance(error, CheckpointCorruptError), where
                        continue
                    assert isinstance(error, CheckpointCorruptError) or _format(content, position, error), where
                    assert "'small'" in str(error), where
                    assert name[1:].rpartition(b"\0")[2].decode() in str(error) or "script" in str(error), where
        made.hset(name, content)
    assert all(outcome(read) is None for read in made.readers())


def _harmless(name: bytes, position: int, error: CheckpointerError | None) -> bool:
    """The flag "a write has references", set without need, changes nothing."""
    return name[:1] == b"W" and position == 1 and error is None


def _format(content: bytes, position: int, error: CheckpointerError | None) -> bool:
    """A damaged format byte may also be told as an unknown format."""
    return isinstance(error, LayoutError) and content[position] == records.FORMAT


def sampled(content: bytes, seed: int, most: int) -> list[int]:
    if len(content) <= most:
        return list(range(len(content)))
    # half of them at the beginning, where scripts read
    return sorted(
        {*range(0, min(60, len(content)), max(1, 120 // most)), *random.Random(seed).sample(range(len(content)), most // 2)}
    )


@pytest.mark.longer
def test_a_flipped_bit_in_a_thread_with_chunks_and_pages_is_corruption(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_large(saver, raw, prefix)
    for number, (name, content) in enumerate(sorted(made.fields.items())):
        kind = name[:1]
        for position in sampled(content, number, {b"C": 40, b"W": 40, b"P": 24}.get(kind, 21) // times(7, 1, 1)):
            made.hset(name, flipped(content, position, (position + number) % 8))
            error = outcome(made.readers()[0] if position % 2 else made.readers()[2])
            where = (name, position, error)
            if kind == b"S" or _harmless(name, position, error):
                assert error is None or isinstance(error, CheckpointCorruptError), where
            else:
                assert isinstance(error, CheckpointCorruptError) or _format(content, position, error), where
                assert "'large'" in str(error), where
        made.hset(name, content)
    assert all(outcome(read) is None for read in made.readers())


@pytest.mark.longer
def test_the_history_of_a_delta_channel_is_verified_too(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = Stored(saver, raw, prefix, "delta")
    made.put("", IDS[0], {"log": [words(1, 300)]})
    for n in (1, 2, 3):
        parent = at("delta", "", IDS[n - 1])
        saver.put_writes(parent, [("log", words(n, 300)), ("other", n)], f"task {n}")
        saver.put(parent, checkpoint({}, {"log": n + 1}, id=IDS[n]), metadata(), {"log": n + 1})
    made.freeze()
    config = at("delta", "", IDS[3])

    def history() -> Any:
        return saver.get_delta_channel_history(config=config, channels=["log"])

    expected = history()
    assert expected["log"]["seed"] == [words(1, 300)]
    assert [value for _, _, value in expected["log"]["writes"]] == [words(n, 300) for n in (1, 2, 3)]
    for number, (name, content) in enumerate(sorted(made.fields.items())):
        for position in sampled(content, number, times(30, 80, 80)):
            made.hset(name, flipped(content, position, position % 8))
            error = outcome(lambda: assert_equal(history(), expected))
            assert error is None or isinstance(error, CheckpointCorruptError) or _format(content, position, error), (
                name,
                position,
                error,
            )
        made.hset(name, content)
    assert history() == expected


def assert_equal(found: Any, expected: Any) -> None:
    assert found == expected


@pytest.mark.longer
@pytest.mark.parametrize("build", [build_small, build_large])
def test_a_copy_of_a_damaged_thread_is_refused_or_whole(saver: RedisSaver, raw: Any, prefix: str, build: Any) -> None:
    made = build(saver, raw, prefix)
    for number, (name, content) in enumerate(sorted(made.fields.items())):
        for position in sampled(content, number, times(8, 30, 30))[:: 1 if name[:1] in b"CWS" else 8]:
            made.hset(name, flipped(content, position, position % 8))
            target = f"copy {number} {position}"
            try:
                saver.copy_thread(made.thread, target)
            except CheckpointerError as error:
                if not (isinstance(error, CheckpointCorruptError) or _format(content, position, error)):
                    raise
                found = saver.get_tuple(at(target))
                if found is None:
                    continue
                pytest.fail(f"a copy that failed is there: {name!r} {position}")
            copied = {(f.config["configurable"]["checkpoint_ns"], id_of(f.config)): f for f in saver.list(at(target, None))}
            assert copied.keys() == made.truth.keys(), (name, position)
            for place, found in copied.items():
                expected = made.truth[place]
                assert plain(found)["checkpoint"] == expected["checkpoint"], (name, position)
                assert plain(found)["writes"] == expected["writes"], (name, position)
        made.hset(name, content)


@pytest.mark.longer
@pytest.mark.parametrize("build", [build_small, build_large])
def test_pruning_a_damaged_thread_destroys_nothing_that_stays(saver: RedisSaver, raw: Any, prefix: str, build: Any) -> None:
    made = build(saver, raw, prefix)
    newest: dict[str, str] = {}
    for ns, id in made.truth:
        newest[ns] = max(newest.get(ns, ""), id)
    for number, (name, content) in enumerate(sorted(made.fields.items())):
        for position in sampled(content, number, times(4, 30, 30))[:: 2 if name[:1] in b"CWS" else 6]:
            damaged = flipped(content, position, position % 8)
            made.hset(name, damaged)
            try:
                saver.prune([made.thread])
            except CheckpointerError as error:
                if not (isinstance(error, CheckpointCorruptError) or _format(content, position, error)):
                    raise
                kept = list(made.truth)
            else:
                kept = list(newest.items())
            if raw.hget(made.keys.hash, name) == damaged:
                made.hset(name, content)  # mended: whatever is said to be kept must be whole again
            for ns, id in kept:
                found = plain(saver.get_tuple(at(made.thread, ns, id)))
                assert found == made.truth[(ns, id)], (name, position)
            made.restore()


@pytest.mark.longer
def test_writing_into_a_damaged_thread_loses_nothing_silently(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    written = b"W\0" + IDS[1].encode()
    content = made.fields[written]
    before = {(task, channel): value for task, channel, value in made.truth[("", IDS[1])]["writes"]}
    config = at("small", "", IDS[1])
    after = before | {("task 2", RESUME): ["again"], ("task 3", "n"): 4, ("task 1", INTERRUPT): ["other"]}
    for position in range(0, len(content), times(3, 1, 1)):
        for bit in range(8) if position < 10 and LEVEL else (position % 8, 7):
            made.hset(written, flipped(content, position, bit))
            try:
                saver.put_writes(config, [(RESUME, ["again"])], "task 2")
                saver.put_writes(config, [(INTERRUPT, ["other"])], "task 1")
                saver.put_writes(config, [("n", 4)], "task 3")
                found = saver.get_tuple(config)
            except (CheckpointCorruptError, LayoutError):
                pass
            else:
                assert found is not None
                assert {(task, channel): value for task, channel, value in found.pending_writes or []} == after, (position, bit)
            made.restore()


@pytest.mark.longer
def test_a_put_into_a_damaged_thread_loses_nothing(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    for number, (name, content) in enumerate(sorted(made.fields.items())):
        for position in sampled(content, number, times(16, 40, 40)):
            damaged = flipped(content, position, position % 8)
            made.hset(name, damaged)
            try:
                made.put("", IDS[8], {"n": 9}, IDS[1])
                stored = True
            except CheckpointCorruptError:
                stored = False
            if raw.hget(made.keys.hash, name) == damaged:
                made.hset(name, content)
            for (ns, id), expected in made.truth.items():
                assert plain(saver.get_tuple(at("small", ns, id))) == expected, (name, position)
            assert (saver.get_tuple(at("small", "", IDS[8])) is not None) is stored
            made.restore()


def test_damaged_counts_stop_what_goes_by_them_and_no_reading_of_checkpoints(
    saver: RedisSaver, url: str, raw: Any, prefix: str
) -> None:
    made = build_small(saver, raw, prefix)
    made.hset(b"S", b"9" + made.fields[b"S"])
    made.saver = RedisSaver(url, prefix=prefix)  # another writer than the last one
    for (ns, id), expected in made.truth.items():
        assert plain(saver.get_tuple(at("small", ns, id))) == expected
    assert len([*saver.list(at("small", None))]) == len(made.truth)
    for refused in (
        lambda: [*saver.list(at("small", None), filter={"step": 0})],
        lambda: [*saver.history("small")],
        lambda: saver.tags("small"),
        lambda: made.put("", IDS[8], {"n": 9}, IDS[1]),
    ):
        with pytest.raises(CheckpointCorruptError, match="counts"):
            refused()
    made.saver.close()


def test_a_writer_that_nobody_overtook_puts_damaged_counts_right(saver: RedisSaver, raw: Any, prefix: str) -> None:
    first = checkpoint({"n": 1}, id=IDS[0])
    config = saver.put(at("t"), first, metadata(), first["channel_versions"])
    field, counts = ThreadKeys(prefix, b"t").hash, raw.hget(ThreadKeys(prefix, b"t").hash, b"S")
    raw.hset(field, b"S", b"9" + counts)
    second = checkpoint({"n": 2}, {"n": f"{2:032}"}, id=IDS[1])
    saver.put(config, second, metadata(), second["channel_versions"])
    assert not list(saver.verify("t"))


def test_a_damaged_format_byte_is_corruption(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    name = b"C\0" + IDS[1].encode()
    made.hset(name, flipped(made.fields[name], STAMP, 4))
    with pytest.raises(CheckpointCorruptError, match=IDS[1]):
        saver.get_tuple(at("small", "", IDS[1]))


def test_a_damaged_flag_of_writes_is_corruption_and_destroys_nothing(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_large(saver, raw, prefix)
    put_more = made.put("", IDS[8], {"n": 8}, IDS[1], run_id="run x")
    assert put_more
    name = b"W\0" + IDS[1].encode()
    made.hset(name, flipped(made.fields[name], 1, 0))
    error = outcome(lambda: assert_equal(plain(saver.get_tuple(at("large", "", IDS[1]))), made.truth[("", IDS[1])]))
    with contextlib.suppress(CheckpointCorruptError):
        saver.delete_for_runs(["run x"])
    made.hset(name, made.fields[name])
    assert plain(saver.get_tuple(at("large", "", IDS[1]))) == made.truth[("", IDS[1])]
    assert isinstance(error, CheckpointCorruptError)
