"""What is on the server may be damaged, moved, forged or written by others: then it is refused, never misread.

A reader either gives exactly what was written or raises an error that names the place. Damage is done here with plain
commands, on the fields of layout v1.
"""

from __future__ import annotations

import contextlib
import random
import resource
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.types import Interrupt
from shapes import at, checkpoint, id_of, metadata, plain, words
from soak import LEVEL, times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.caching.parts import Parts
from langgraph_redis_state.errors import (
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    IntegrityKeyError,
    LayoutError,
    SerializationError,
)
from langgraph_redis_state.storage import bodies, records
from langgraph_redis_state.storage.bodies import Value
from langgraph_redis_state.storage.chunks import PAGE_FROM, paginate
from langgraph_redis_state.storage.codec import BODY_MAX, CHUNK_MAX, CompressionType, Integrity, digest, pack, unpack
from langgraph_redis_state.storage.keys import ThreadKeys, bucket_key, layout_key
from langgraph_redis_state.storage.records import FIXED, STAMP, RecordKey, References

IDS = [f"1f0a0000-0000-6000-8000-00000000000{n}" for n in range(9)]


@pytest.fixture
def saver(url: str, prefix: str) -> Iterator[RedisSaver]:
    """One that remembers no chunks: all it gives comes from the server."""
    with RedisSaver(url, prefix=prefix, cache_bytes=0) as opened:
        yield opened


@dataclass
class Stored:
    """A thread on the server, what it must read as, and the means to damage and to restore it."""

    saver: RedisSaver
    client: Any
    prefix: str
    thread: str
    truth: dict[tuple[str, str], Any] = field(default_factory=dict)
    fields: dict[bytes, bytes] = field(default_factory=dict)
    dumps: list[Any] = field(default_factory=list)

    @property
    def keys(self) -> ThreadKeys:
        return ThreadKeys(self.prefix, self.thread.encode())

    def put(self, ns: str, id: str, values: dict[str, Any], parent: str | None = None, **more: Any) -> Any:
        made = checkpoint(values, id=id)
        return self.saver.put(at(self.thread, ns, parent), made, metadata(**more), made["channel_versions"])

    def freeze(self) -> Stored:
        """From here on `truth` is what must be read, and `restore` comes back to it."""
        for found in self.saver.list(at(self.thread, None)):
            self.truth[(found.config["configurable"]["checkpoint_ns"], id_of(found.config))] = plain(found)
        self.fields = self.client.hgetall(self.keys.hash)
        self.dumps = [self.client.dump(key) for key in self.keys.all[:2]]
        return self

    def restore(self) -> None:
        for key, dump in zip(self.keys.all[:2], self.dumps, strict=True):
            self.client.restore(key, 0, dump, replace=True)

    def hset(self, name: bytes, content: bytes) -> None:
        self.client.hset(self.keys.hash, name, content)

    def readers(self) -> list[Callable[[], None]]:
        """Every way to read the whole thread, each comparing with the truth."""

        def one_by_one() -> None:
            for (ns, id), expected in self.truth.items():
                assert plain(self.saver.get_tuple(at(self.thread, ns, id))) == expected

        def newest() -> None:
            for space in {ns for ns, _ in self.truth}:
                expected = max(id for ns, id in self.truth if ns == space)
                assert plain(self.saver.get_tuple(at(self.thread, space))) == self.truth[(space, expected)]

        def listed() -> None:
            found = [plain(each) for each in self.saver.list(at(self.thread, None))]
            assert found == list(self.truth.values())

        return [one_by_one, newest, listed]


def outcome(read: Callable[[], None]) -> CheckpointerError | None:
    """None if everything was as it was written, else the error of this package. Anything else fails the test."""
    try:
        read()
    except CheckpointerError as error:
        return error
    return None


def flipped(content: bytes, position: int, bit: int) -> bytes:
    return content[:position] + bytes([content[position] ^ (1 << bit)]) + content[position + 1 :]


def build_small(saver: RedisSaver, client: Any, prefix: str) -> Stored:
    """Two namespaces, inline values only, writes without references: small enough to damage every byte."""
    made = Stored(saver, client, prefix, "small")
    made.put("", IDS[0], {"n": 1}, run_id="run a")
    child = made.put("", IDS[1], {"n": 2}, IDS[0], run_id="run a")
    made.put("sub:1", IDS[2], {"m": "inline"}, parents={"": IDS[1]})
    saver.put_writes(child, [("n", 3), (INTERRUPT, [Interrupt("why?", id="i")])], "task 1", "~path")
    saver.put_writes(child, [(RESUME, ["yes"])], "task 2")
    return made.freeze()


def build_large(saver: RedisSaver, client: Any, prefix: str) -> Stored:
    """Pages (more than 24 references), chunks, sliced values, writes with references, several namespaces."""
    made = Stored(saver, client, prefix, "large")
    messages = [words(n, 300) for n in range(40)]
    made.put("", IDS[0], {"messages": messages, "blob": words(99, 200).encode(), "n": 1})
    child = made.put("", IDS[1], {"messages": [*messages, "one more"], "n": 2}, IDS[0])
    made.put("sub:1", IDS[2], {"messages": messages[:5], "long": [words(7, 400)]}, parents={"": IDS[1]})
    made.put("beside", IDS[3], {"n": 3})
    saver.put_writes(child, [("long", words(8, 400)), ("short", 1)], "task 1")
    saver.put_writes(at("large", "sub:1", IDS[2]), [("pages", [words(100 + n, 300) for n in range(34)])], "task 2")
    frozen = made.freeze()
    kinds = {name[:1] for name in frozen.fields}
    assert kinds == {b"C", b"W", b"D", b"P", b"S"}
    return frozen


# --- one flipped bit --------------------------------------------------------------------------------------------------


@pytest.mark.longer
def test_a_flipped_bit_in_any_byte_of_a_small_thread_is_corruption_or_changes_nothing(
    saver: RedisSaver, raw: Any, prefix: str
) -> None:
    made = build_small(saver, raw, prefix)
    for name, content in made.fields.items():
        for position in range(len(content)):
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
        for position in sampled(content, number, {b"C": 40, b"W": 40, b"P": 24}.get(kind, 21) // times(2, 1, 1)):
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
        for position in sampled(content, number, 80):
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
        for position in sampled(content, number, times(12, 30, 30))[:: 1 if name[:1] in b"CWS" else 8]:
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
        for position in sampled(content, number, times(12, 30, 30))[:: 2 if name[:1] in b"CWS" else 6]:
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
    for position in range(len(content)):
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


def test_damaged_counts_stop_what_goes_by_them_and_no_reading_of_checkpoints(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    made.hset(b"S", b"9" + made.fields[b"S"])
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


# --- moved ------------------------------------------------------------------------------------------------------------


def test_a_record_moved_anywhere_else_does_not_verify(saver: RedisSaver, raw: Any, url: str, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    home = made.keys
    record = made.fields[b"C\0" + IDS[1].encode()]
    elsewhere = prefix + "-2"
    with RedisSaver(url, prefix=elsewhere) as other:
        places = [
            (saver, home, "small", "", IDS[7]),
            (saver, home, "small", "sub:1", IDS[1]),
            (saver, home, "small", "new", IDS[1]),
            (saver, ThreadKeys(prefix, b"other"), "other", "", IDS[1]),
            (other, ThreadKeys(elsewhere, b"small"), "small", "", IDS[1]),
        ]
        for reader, keys, thread, ns, id in places:
            name = b"%s\0%s" % (ns.encode(), id.encode())
            if raw.hget(keys.hash, "S") is None:
                raw.hset(keys.hash, mapping={"S": made.fields[b"S"]})
            raw.hset(keys.hash, b"C" + name, record)
            raw.zadd(keys.all[1], {b"C" + name: 0, b"A%s\0%s" % (id.encode(), ns.encode()) if ns else b"C" + name: 0})
            with pytest.raises(CheckpointCorruptError, match=id):
                reader.get_tuple(at(thread, ns, id))
            with pytest.raises(CheckpointCorruptError):
                list(reader.list(at(thread, ns)))
            made.restore()


def test_pending_writes_moved_to_another_checkpoint_do_not_verify(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    writes = made.fields[b"W\0" + IDS[1].encode()]
    for name in (b"\0" + IDS[0].encode(), b"sub:1\0" + IDS[2].encode()):
        made.hset(b"W" + name, writes)
        ns, _, id = name.decode().partition("\0")
        with pytest.raises(CheckpointCorruptError, match=id):
            saver.get_tuple(at("small", ns, id))
        made.restore()


def entries_of(blob: bytes) -> list[bytes]:
    """The writes of a `W` field, each with its length."""
    entries, position = [], 2
    while position < len(blob):
        end = position + 4 + int.from_bytes(blob[position : position + 4], "big")
        entries.append(blob[position:end])
        position = end
    return entries


def test_the_order_in_which_writes_are_stored_does_not_matter(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    name = b"W\0" + IDS[1].encode()
    blob = made.fields[name]
    made.hset(name, blob[:2] + b"".join(entries_of(blob)[::-1]))
    assert all(outcome(read) is None for read in made.readers())


def test_a_write_that_stands_twice_is_corruption(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    name = b"W\0" + IDS[1].encode()
    blob = made.fields[name]
    for entry in entries_of(blob):
        made.hset(name, blob + entry)
        with pytest.raises(CheckpointCorruptError, match=IDS[1]):
            saver.get_tuple(at("small", "", IDS[1]))


def test_a_write_that_was_cut_off_is_corruption(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    name = b"W\0" + IDS[1].encode()
    blob = made.fields[name]
    entries = entries_of(blob)
    for dropped in range(len(entries)):
        made.hset(name, blob[:2] + b"".join(entries[:dropped] + entries[dropped + 1 :]))
        with pytest.raises(CheckpointCorruptError, match=IDS[1]):
            saver.get_tuple(at("small", "", IDS[1]))


def test_a_field_cut_short_at_any_byte_is_corruption(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    for name, content in made.fields.items():
        ends = {2}
        for entry in entries_of(content) if name[:1] == b"W" else ():
            ends.add(max(ends) + len(entry))
        for length in range(len(content)):
            if name[:1] == b"W" and length in ends:
                continue  # see the test above
            made.hset(name, content[:length])
            error = outcome(made.readers()[0])
            assert isinstance(error, CheckpointCorruptError) or (name == b"S" and error is None), (name, length, error)
        made.hset(name, content)


def test_parts_that_are_gone_are_lost_and_not_empty(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_large(saver, raw, prefix)
    for name in sorted(made.fields):
        if name[:1] in b"DPC":
            raw.hdel(made.keys.hash, name)
            error = outcome(made.readers()[0])
            assert isinstance(error, CheckpointLostError | CheckpointCorruptError), (name, error)
            made.hset(name, made.fields[name])


# --- sizes that lie ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [1, 2])
@pytest.mark.parametrize("claim", [CHUNK_MAX + 1, 2**31, 2**32 - 1])
def test_a_chunk_that_claims_to_be_huge_is_refused_before_memory_is_taken(
    saver: RedisSaver, raw: Any, prefix: str, how: int, claim: int
) -> None:
    made = build_large(saver, raw, prefix)
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9) if how == 2 else bytes(100_000)
    for name in made.fields:
        if name[:1] == b"D":
            made.hset(name, bytes([how]) + claim.to_bytes(4, "big") + bomb)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointCorruptError, match="refused"):
        saver.get_tuple(at("large"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 32 * 1024  # KiB


def test_a_chunk_that_inflates_to_more_than_it_claims_is_cut_off(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_large(saver, raw, prefix)
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
    for name in made.fields:
        if name[:1] == b"D":
            made.hset(name, b"\2" + (1000).to_bytes(4, "big") + bomb)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointCorruptError, match="more data"):
        saver.get_tuple(at("large"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 32 * 1024


@pytest.mark.parametrize("how", [1, 2])
def test_a_body_that_claims_to_be_huge_is_refused_even_if_it_is_signed(
    saver: RedisSaver, raw: Any, prefix: str, how: int
) -> None:
    made = build_small(saver, raw, prefix)
    claims = {3_000_000_000: bytes(2000), BODY_MAX: b"\0" * 50_000 if how == 2 else b"\0" * 2_000}
    for claim, content in claims.items():
        body = bytes([how]) + claim.to_bytes(4, "big") + content
        forge(made, IDS[1], body)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(CheckpointCorruptError, match=r"refused"):
            saver.get_tuple(at("small", "", IDS[1]))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 32 * 1024


@pytest.mark.parametrize("compression", list(CompressionType))
def test_what_is_packed_is_unpacked_whatever_its_size(compression: CompressionType) -> None:
    chosen = random.Random(7)
    for size in [*range(300), 4095, 4096, 65_535, 65_536, CHUNK_MAX]:
        for content in (b"a" * size, chosen.randbytes(size), (b"abcdefgh" * (size // 8 + 1))[:size]):
            assert unpack(pack(content, compression), CHUNK_MAX, "here") == content


# --- forged -----------------------------------------------------------------------------------------------------------


def forge(made: Stored, id: str, body: bytes, integrity: Integrity | None = None) -> None:
    """Writes a record as somebody would who knows the layout: everything holds but what `integrity` cannot sign."""
    place = RecordKey(made.prefix.encode(), made.thread.encode(), b"C", b"", id.encode())
    tail = b"".join(records.packed_id(part) for part in (b"", b"", b"", b""))
    sealed = records.seal(
        integrity or Integrity([], False), place, References.of([]), tail, body, flags=0, depth=0, logical=len(body), chunked=0
    )
    made.hset(place.field, records.stamp(1, 1, len(sealed), place) + sealed)


class Watching(JsonPlusSerializer):
    """Counts what it is asked to deserialize."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        self.loads.append(data[0])
        return super().loads_typed(data)


def test_with_a_key_a_record_of_somebody_without_it_is_refused_before_it_is_deserialized(
    url: str, raw: Any, prefix: str
) -> None:
    serde = Watching()
    with (
        RedisSaver(url, prefix=prefix) as stranger,
        RedisSaver(url, prefix=prefix, integrity_key="another secret of tests") as other,
        RedisSaver(url, prefix=prefix, integrity_key="the secret of tests", serde=serde) as saver,
    ):
        for thread, writer in (("plain", stranger), ("other", other)):
            made = Stored(writer, raw, prefix, thread)
            config = made.put("", IDS[0], {"n": 1})
            writer.put_writes(config, [("n", 2)], "task")
            with pytest.raises(IntegrityKeyError, match=thread):
                saver.get_tuple(at(thread))
            with pytest.raises(IntegrityKeyError):
                list(saver.list(at(thread)))
            with pytest.raises(IntegrityKeyError):
                saver.copy_thread(thread, f"copy of {thread}")
            with pytest.raises(IntegrityKeyError):
                saver.get_delta_channel_history(config=made.put("", IDS[1], {}, IDS[0]), channels=["n"])
        mine = Stored(saver, raw, prefix, "mine")
        config = mine.put("", IDS[0], {"n": 1})
        stranger.put_writes(config, [("n", "forged")], "task")
        serde.loads.clear()
        with pytest.raises(IntegrityKeyError, match="pending writes"):
            saver.get_tuple(at("mine"))
        assert "forged" not in serde.loads
        serde.loads.clear()
        with pytest.raises(IntegrityKeyError):
            saver.get_tuple(at("plain"))
        assert serde.loads == []


def test_a_key_that_was_rotated_still_verifies_and_chunks_are_shared(url: str, raw: Any, prefix: str) -> None:
    messages = [words(n, 300) for n in range(30)]
    with (
        RedisSaver(url, prefix=prefix, integrity_key=b"the old key of tests") as old,
        RedisSaver(url, prefix=prefix, integrity_key=["the new key of tests", "the old key of tests"]) as both,
        RedisSaver(url, prefix=prefix, integrity_key="the new key of tests") as new,
    ):
        made = Stored(old, raw, prefix, "t")
        made.put("", IDS[0], {"messages": messages})
        chunks = {name for name in raw.hkeys(made.keys.hash) if name[:1] in b"DP"}
        made.saver = both
        assert both.get_tuple(at("t")).checkpoint["channel_values"]["messages"] == messages
        made.put("", IDS[1], {"messages": messages}, IDS[0])
        assert {name for name in raw.hkeys(made.keys.hash) if name[:1] in b"DP"} == chunks
        assert new.get_tuple(at("t", "", IDS[1])).checkpoint["channel_values"]["messages"] == messages
        with pytest.raises(IntegrityKeyError):
            old.get_tuple(at("t", "", IDS[1]))
        with pytest.raises(IntegrityKeyError):
            new.get_tuple(at("t", "", IDS[0]))
        both.copy_thread("t", "copy")  # signed anew, with the first key
        assert len(list(new.list(at("copy")))) == 2


SECRET = "the secret of tests"


@pytest.mark.parametrize(
    ("given", "same"), [(SECRET, SECRET.encode()), ([SECRET], SECRET), ((SECRET.encode(), "another " + SECRET), SECRET)]
)
def test_a_key_may_be_text_or_bytes_or_several(url: str, prefix: str, given: Any, same: Any) -> None:
    with RedisSaver(url, prefix=prefix, integrity_key=given) as one, RedisSaver(url, prefix=prefix, integrity_key=same) as two:
        made = checkpoint({"n": 1})
        one.put(at("t"), made, metadata(), {"n": 1})
        assert two.get_tuple(at("t")).checkpoint["channel_values"] == {"n": 1}


def test_unkeyed_data_is_read_with_a_key_only_where_that_is_allowed(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as before:
        Stored(before, raw, prefix, "t").put("", IDS[0], {"n": 1})
    with RedisSaver(url, prefix=prefix, integrity_key="the key of tests", accept_unkeyed=True) as migrating:
        assert migrating.get_tuple(at("t")).checkpoint["channel_values"] == {"n": 1}
        Stored(migrating, raw, prefix, "t").put("", IDS[1], {"n": 2}, IDS[0])
    with RedisSaver(url, prefix=prefix, integrity_key="the key of tests") as strict:
        assert strict.get_tuple(at("t")).checkpoint["channel_values"] == {"n": 2}
        with pytest.raises(IntegrityKeyError, match="accept_unkeyed"):
            strict.get_tuple(at("t", "", IDS[0]))
    with RedisSaver(url, prefix=prefix) as without, pytest.raises(IntegrityKeyError):
        without.get_tuple(at("t"))


class Tagged(JsonPlusSerializer):
    """Writes values under a type of its own."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self.tag = tag

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        if value == "special":
            return self.tag, b"\x80\x04K\x01."  # the pickle of 1
        return super().dumps_typed(value)


@pytest.mark.parametrize("tag", ["pickle", "unheard of", ""])
def test_a_stored_tag_that_is_unknown_or_pickle_is_refused_and_named(url: str, raw: Any, prefix: str, tag: str) -> None:
    with RedisSaver(url, prefix=prefix, serde=Tagged(tag)) as writer, RedisSaver(url, prefix=prefix) as saver:
        made = Stored(writer, raw, prefix, "t")
        config = made.put("", IDS[0], {"n": 1})
        writer.put_writes(config, [("w", "special")], "task")
        with pytest.raises(SerializationError, match=f"'w'.*{tag!r}"):
            saver.get_tuple(at("t"))
        made.put("", IDS[1], {"channel": "special"})
        with pytest.raises(SerializationError, match=f"'channel'.*{tag!r}"):
            saver.get_tuple(at("t"))
        with pytest.raises(SerializationError, match="'channel'"):
            list(saver.list(at("t")))


# --- garbage ----------------------------------------------------------------------------------------------------------


def verbs(saver: RedisSaver, thread: str) -> list[tuple[str, Callable[[], Any]]]:
    def put() -> Any:
        made = checkpoint({"n": 5, "long": words(3, 300)}, id=IDS[8])
        return saver.put(at(thread, "", IDS[1]), made, metadata(run_id="r"), made["channel_versions"])

    config = at(thread, "", IDS[1])
    return [
        ("get_tuple", lambda: saver.get_tuple(config)),
        ("newest", lambda: saver.get_tuple(at(thread))),
        ("list", lambda: list(saver.list(at(thread, None)))),
        ("filter", lambda: list(saver.list(at(thread, None), filter={"step": 0}))),
        ("history", lambda: saver.get_delta_channel_history(config=config, channels=["n", "absent"])),
        ("put", put),
        ("put_writes", lambda: saver.put_writes(config, [("n", 1), (ERROR, "e")], "task 1")),
        ("copy", lambda: saver.copy_thread(thread, f"copy of {thread}")),
        ("prune", lambda: saver.prune([thread])),
        ("delete_for_runs", lambda: saver.delete_for_runs(["run a"])),
    ]


def test_garbage_in_any_field_gives_typed_errors_only(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    chosen = random.Random(11)
    for name in made.fields:
        garbage = [b"", b"\0", b"\1", b"\1\1", b"\xff" * 40, b"\0" * 400, b"1 1", chosen.randbytes(36), chosen.randbytes(3000)]
        for content in garbage:
            for what, verb in verbs(saver, "small"):
                made.hset(name, content)
                try:
                    verb()
                except CheckpointerError:
                    pass
                except Exception as error:
                    raise AssertionError(f"{what} with {content[:20]!r} in {name!r}: {error!r}") from error
                made.restore()
                raw.delete(ThreadKeys(prefix, b"copy of small").hash, ThreadKeys(prefix, b"copy of small").all[1])


STRANGE_FIELDS = [
    *(b"C", b"Cxyz", b"D", b"Dshort", b"P", b"\xff", b"A", b"G", b""),
    *(b"C\0\xff\xfe", b"W\0\xff\xfe"),
]


@pytest.mark.parametrize("field", STRANGE_FIELDS)
def test_fields_nobody_wrote_give_typed_errors_or_do_not_matter(saver: RedisSaver, raw: Any, prefix: str, field: bytes) -> None:
    made = build_small(saver, raw, prefix)
    for what, verb in verbs(saver, "small"):
        made.hset(field, b"garbage that is long enough to be taken for a record, perhaps, by somebody")
        try:
            verb()
        except CheckpointerError:
            pass
        except Exception as error:
            raise AssertionError(f"{what} with a field {field!r}: {error!r}") from error
        made.restore()
        saver.delete_thread("copy of small")


STRANGE_MEMBERS = [
    b"C",
    b"Cx",
    b"C\0nowhere",
    b"A",
    b"Ax",
    b"Ax\0y",
    b"\xff",
    b"",
    *(b"C\0\xfe", b"A\xfe\0y"),
]


@pytest.mark.parametrize("member", STRANGE_MEMBERS)
def test_index_members_nobody_wrote_give_typed_errors_or_do_not_matter(
    saver: RedisSaver, raw: Any, prefix: str, member: bytes
) -> None:
    made = build_small(saver, raw, prefix)
    for what, verb in verbs(saver, "small"):
        raw.zadd(made.keys.all[1], {member: 0})
        try:
            verb()
        except CheckpointerError:
            pass
        except Exception as error:
            raise AssertionError(f"{what} with a member {member!r}: {error!r}") from error
        made.restore()
        saver.delete_thread("copy of small")


def contents(raw: Any, key: bytes) -> Any:
    """What a key holds, of any type; a DUMP would differ with the order in a hash table."""
    kind = raw.type(key)
    if kind == b"hash":
        return raw.hgetall(key)
    return raw.zrange(key, 0, -1, withscores=True) if kind == b"zset" else raw.dump(key)


@pytest.mark.parametrize("which", ["t", "i", "threads", "expiry", "runs", "m", "x"])
def test_a_key_of_the_wrong_type_is_a_typed_error_and_nothing_is_half_written(
    url: str, raw: Any, prefix: str, which: str
) -> None:
    with RedisSaver(url, prefix=prefix, ttl=3600) as saver:
        made = build_small(saver, raw, prefix)
        key = made.keys.all[["t", "i", "threads", "expiry", "runs", "m", "x"].index(which)]
        kept = {each: raw.dump(each) for each in made.keys.all if raw.exists(each)}
        for what, verb in verbs(saver, "small"):
            raw.delete(key)
            raw.lpush(key, "not what you think")
            others = [each for each in made.keys.all if each != key]
            before = [contents(raw, each) for each in others]
            try:
                verb()
            except CheckpointerError:
                assert [contents(raw, each) for each in others] == before, what
            except Exception as error:
                raise AssertionError(f"{what} with a list as {which}: {error!r}") from error
            raw.delete(*made.keys.all)
            for each, dump in kept.items():
                raw.restore(each, 0, dump)
            for each in ThreadKeys(prefix, b"copy of small").all[:2]:
                raw.delete(each)


@pytest.mark.parametrize("verb", ["delete", "prune", "copy"])
def test_an_index_of_the_bucket_of_the_wrong_type_stops_a_removal_before_it_begins(
    saver: RedisSaver, raw: Any, prefix: str, verb: str
) -> None:
    made = Stored(saver, raw, prefix, "t")
    made.put("", IDS[0], {"n": 1}, run_id="run 0")
    made.put("", IDS[1], {"n": 2}, IDS[0], run_id="run 1")
    made.freeze()
    target = ThreadKeys(prefix, b"copy")
    wrong = {"delete": made.keys.all[2], "prune": made.keys.all[4], "copy": target.all[4]}[verb]
    raw.delete(wrong)
    raw.lpush(wrong, "not what you think")
    calls = {"delete": saver.delete_thread, "prune": lambda t: saver.prune([t]), "copy": lambda t: saver.copy_thread(t, "copy")}
    with pytest.raises(CheckpointCorruptError):
        calls[verb]("t")
    assert raw.hgetall(made.keys.hash) == made.fields
    assert raw.exists(*target.all[:2]) == 0


def test_a_thread_can_be_deleted_whatever_is_stored_in_it(saver: RedisSaver, raw: Any, prefix: str) -> None:
    for which in (0, 1):
        made = build_small(saver, raw, prefix)
        raw.delete(made.keys.all[which])
        raw.lpush(made.keys.all[which], "a list")
        saver.delete_thread("small")
        assert saver.get_tuple(at("small")) is None
        raw.delete(made.keys.all[6])
    made = build_small(saver, raw, prefix)
    for name in made.fields:
        made.hset(name, b"garbage")
    saver.delete_thread("small")
    assert saver.get_tuple(at("small")) is None


# --- layout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["2 2", "99 2", "2", "", "garbage", "1 1 1", "\xff"])
def test_a_prefix_of_a_newer_or_unknown_layout_is_neither_read_nor_written(
    url: str, raw: Any, prefix: str, stored: str
) -> None:
    raw.set(layout_key(prefix), stored)
    for what, verb in verbs(RedisSaver(url, prefix=prefix), "t"):
        with RedisSaver(url, prefix=prefix) as saver, pytest.raises(LayoutError, match="layout"):
            dict(verbs(saver, "t"))[what]()
        assert verb is not None
    assert raw.keys(f"{prefix}:*") == [layout_key(prefix)]


def test_a_newer_layout_that_lets_this_version_write_is_used(url: str, raw: Any, prefix: str) -> None:
    raw.set(layout_key(prefix), "2 1")
    with RedisSaver(url, prefix=prefix) as saver:
        Stored(saver, raw, prefix, "t").put("", IDS[0], {"n": 1})
        assert saver.get_tuple(at("t")) is not None
    assert raw.get(layout_key(prefix)) == b"2 1"


def test_the_layout_is_written_once_with_the_first_write(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        assert saver.get_tuple(at("t")) is None
        assert raw.exists(layout_key(prefix)) == 0
        Stored(saver, raw, prefix, "t").put("", IDS[0], {"n": 1})
    assert raw.get(layout_key(prefix)) == b"1 1"
    assert bucket_key(prefix, 0, "threads").startswith(prefix.encode())


# --- bytes that were released -----------------------------------------------------------------------------------------


def golden_thread(saver: RedisSaver) -> None:
    """What `GOLDEN` was made from, with the prefix "golden". The thread's clock fields are those of the day it was made."""
    values = {f"channel {n:02}": f"{n:02}" * 60 for n in range(26)} | {"n": 1}
    made = checkpoint(values, id=IDS[0])
    config = saver.put(at("t"), made, metadata(run_id="run"), made["channel_versions"])
    saver.put_writes(config, [("log", "w" * 1200), (RESUME, [True])], "task", "path")
    made = checkpoint({"n": None}, {"n": f"{7:032}"}, id="an id of my own")
    saver.put(at("t", "sub:é", IDS[0]), made, metadata(parents={"": IDS[0]}), made["channel_versions"])


GOLDEN = """
430031663061303030302d303030302d363030302d383030302d303030303030303030303030

01a1fc47f9df0000000001000000071f8f41c671010000000100020000000000000e350000000c6435949afa627279e480622ec88ea12e9cc268f750ec54
78a5ebc41751b80ce29d93ea18abd02e0e69409f3cf0434d7fbb00000372756e00edd7d19f15137d856753834e593abe380100000443063c04b401d09286
a17604a26964c0ae01b1352d30352d30355430353a030002ae011f35ae010443de001baa2b0346203030010c0017310c0017320c0017330c0017340c0017
350c0017360c0017370c0017380c0016390c0017317800173178001731780017317800173178001731780017317800173178001731780017317800173278
00173278001732780017327800173278005b323501a16e1b05178189020d88042dc084d3011c00bd0386a372756edc001b9486011430ea013791017a1700
1f311700031f321700031f331700031f341700031f351700031f361700031f371700031f381700031f391700021f31e600031f31e600031f31e600031f31
e600031f31e600031f31e600031f31e600031f31e600031f31e600031f31e600031f32e600031f32e600031f32e600031f32e600031f32e600031832e600
e093a16ea76d73677061636bc40101

437375623ac3a900616e206964206f66206d79206f776e

01a1fc47f9e0000000000200000000ddfaef6b980102000000000000000000000000b20000000000801f0a0000000060008000000000000000801f0a0000
0000600080000000000000000000b988aaf90a82d0a6db75a1fe63c1a52001000000c8053c04b4c4b29286a17604a26964c0ad01b1352d30352d30355430
353a030002ad011f35ad01044a81a16e074e0117814e010d4d031ec0980014008202d181a0d92431663061303030302d050064363030302d380f00040200
b09193a16ea46e756c6cc400

570031663061303030302d303030302d363030302d383030302d303030303030303030303030

010000020000006901a1fc47f9e00000000002000000005512cf38110101000000000100000000000004b300000004b3d6a7591af53a167f9c1927902c99
419480000000047461736b305343f8c221a835110342ad95af0d450095a470617468a36c6f67a76d73677061636b9101cd04b30000005801a1fc47f9e000
00000002000000004465dbf8a401010000000000000000000000000200000000007ffffffc047461736b10bfbd684fb4e6c9291d90e82569053501000000
1e6795a4706174682101044c0450c40291c302

440dfc7a88b7c3e6302917de02a3642781

010000007a4fd978303802005e503830383038

440e877672939ad6299e5f496c866f6425

010000007a4fd978303302005e503330333033

4410d6126996bd61db1dfb574ff808c267

010000007a4fd978323302005e503332333233

4411f44aaac81840df07b0b9e561d2130c

010000007a4fd978313702005e503731373137

442bc20782e5d7ea15b6a5ea4eb795195e

010000007a4fd978313502005e503531353135

443c8d61dabea6b577aceb8b473c5b953e

010000007a4fd978323102005e503132313231

443cddc5a182492e3487ab128eb40c4ffa

010000007a4fd978303602005e503630363036

4443033bcad525778782feb7ee2f3bee8c

010000007a4fd978313902005e503931393139

4473cb3089a48716de3996718314851f59

010000007a4fd978313302005e503331333133

447555fc19f09c2fa544babc4f23974b65

010000007a4fd978313602005e503631363136

4476bbbf6cd9bbf4d267793c4b8fdf89bc

010000007a4fd978303702005e503730373037

4477869d64675ae475d1c4fee2801de1c3

010000007a4fd978303502005e503530353035

44792756e6c5d6b7a99a0d1e09cc6f7ad7

010000007a4fd978303102005e503130313031

4493463d9dc38d0fde7e1195aef68b8362

010000007a4fd978323002005e503032303230

4493ea18abd02e0e69409f3cf0434d7fbb

010000007a4fd978323502005e503532353235

4493f1085cea9a48666e686f0b71c9f38b

010000007a4fd978313002005e503031303130

44974cc91e93e9e3f39d79984ead6b103b

010000007a4fd978303202005e503230323032

44b32487d764b82d0e28f87399e3557640

010000007a4fd978303902005e503930393039

44c268f750ec5478a5ebc41751b80ce29d

010000007a4fd978323402005e503432343234

44c35d387addf9eaecaec99f4da7d08a5b

010000007a3fd9783101005f503131313131

44c9fcd3f5777424f829713ba9a291e232

010000007a4fd978303402005e503430343034

44d6a7591af53a167f9c1927902c994194

01000004b34fda04b0770100ffffffff9b507777777777

44dab63a224b003104bf9ee104e7de0bc8

010000007a4fd978313802005e503831383138

44e1b90df01f77adb93ba4af1f3598c89e

010000007a4fd978313402005e503431343134

44e81415f616407179e2d90943cb4900f4

010000007a22d97882010f02005a503030303030

44ed72846eed38b3013b7ef95e8b370dfc

010000007a3fd9783201005f503232323232

44ed799847d66bfcd23e77adf792e3da18

010000007a4fd978313202005e503231323132

5035949afa627279e480622ec88ea12e9c

e81415f616407179e2d90943cb4900f4792756e6c5d6b7a99a0d1e09cc6f7ad7974cc91e93e9e3f39d79984ead6b103b0e877672939ad6299e5f496c866f
6425c9fcd3f5777424f829713ba9a291e23277869d64675ae475d1c4fee2801de1c33cddc5a182492e3487ab128eb40c4ffa76bbbf6cd9bbf4d267793c4b
8fdf89bc0dfc7a88b7c3e6302917de02a3642781b32487d764b82d0e28f87399e355764093f1085cea9a48666e686f0b71c9f38bc35d387addf9eaecaec9
9f4da7d08a5bed799847d66bfcd23e77adf792e3da1873cb3089a48716de3996718314851f59e1b90df01f77adb93ba4af1f3598c89e2bc20782e5d7ea15
b6a5ea4eb795195e7555fc19f09c2fa544babc4f23974b6511f44aaac81840df07b0b9e561d2130cdab63a224b003104bf9ee104e7de0bc843033bcad525
778782feb7ee2f3bee8c93463d9dc38d0fde7e1195aef68b83623c8d61dabea6b577aceb8b473c5b953eed72846eed38b3013b7ef95e8b370dfc10d61269
96bd61db1dfb574ff808c267

53

31203137393532333339333738383730363820332032203220322032372032333237203530323020343337352034333735206138656362636231
"""


def golden_fields() -> dict[bytes, bytes]:
    pairs = [bytes.fromhex(block) for block in GOLDEN.strip().split("\n\n")]
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def test_a_thread_stored_by_the_first_release_is_read_written_and_copied(url: str, raw: Any, prefix: str) -> None:
    keys = ThreadKeys("golden", b"t")
    try:
        raw.hset(keys.hash, mapping=golden_fields())
        with RedisSaver(url, prefix="golden") as saver:  # the index is rebuilt from the hash
            found = saver.get_tuple(at("t"))
            assert found.checkpoint["channel_values"] == {f"channel {n:02}": f"{n:02}" * 60 for n in range(26)} | {"n": 1}
            assert found.metadata == metadata(run_id="run")
            assert found.pending_writes == [("task", RESUME, [True]), ("task", "log", "w" * 1200)]
            inner = saver.get_tuple(at("t", "sub:é"))
            assert id_of(inner.config) == "an id of my own"
            assert id_of(inner.parent_config) == IDS[0]
            assert inner.checkpoint["channel_versions"] == {"n": f"{7:032}"}
            assert inner.checkpoint["channel_values"] == {"n": None}
            saver.copy_thread("t", "copy")
            assert len(list(saver.list(at("copy", None)))) == 2
            made = checkpoint({"n": 2}, id=IDS[1])
            saver.put(found.config, made, metadata(), {"n": 1})
            saver.put_writes(found.config, [(RESUME, [False])], "task")
            assert saver.get_tuple(found.config).pending_writes[0] == ("task", RESUME, [False])
            saver.prune(["t"])  # the call of a subgraph, stored long ago, goes with the root checkpoint that called it
            assert [id_of(each.config) for each in saver.list(at("t", None))] == [IDS[1]]
    finally:
        for key in raw.scan_iter(match="golden:*"):
            raw.delete(key)


def test_the_names_and_numbers_of_layout_1_are_these() -> None:
    assert ThreadKeys("p", "thread é".encode()).all == tuple(
        f"p:{{01a8}}:{name}".encode() for name in ("t:thread é", "i:thread é", "threads", "expiry", "runs", "m", "x:thread é")
    )
    assert layout_key("p") == b"p:layout"
    assert digest(b"chunk").hex() == "dc2573ff6e5265aacbc55f6ef44e88f0"
    assert records.packed_id(IDS[1].encode()).hex() == "801f0a0000000060008000000000000001"
    assert records.packed_id(b"id").hex() == "026964"
    assert records.packed_id(b"x" * 127).hex() == "7f0000007f" + "78" * 127
    assert records.packed_id(IDS[1].upper().encode())[:1] == b"\x24"  # not canonical: its text counts
    assert records.write_marker(-4, b"t").hex() == "7ffffffc0174"
    names = [digest(b"%d" % n) for n in range(60)]
    pages, rest = paginate(names)
    assert [len(page) for page in pages] + [len(rest)] == [22, 17, 9, 12]
    assert PAGE_FROM == 24


def test_a_record_is_encoded_byte_by_byte_as_in_the_first_release() -> None:
    place = RecordKey(b"p", b"t", b"C", b"ns", b"id")
    body = bodies.checkpoint_body(("msgpack", b"\x80"), {"n": Value("msgpack", b"\x01", (), 1)}, CompressionType.NONE)
    names = [digest(b"%d" % n) for n in range(2)]
    tail = b"".join(records.packed_id(part) for part in (IDS[0].encode(), b"", b"run", b""))
    for integrity, signed in ((Integrity([], False), PLAIN_RECORD), (Integrity([b"k"], False), KEYED_RECORD)):
        sealed = records.seal(integrity, place, References.of(names), tail, body, flags=2, depth=3, logical=258, chunked=257)
        assert sealed.hex() == signed
        stored = records.stamp(1_700_000_000_000, 9, 300, place) + sealed
        assert stored[:STAMP].hex() == "018bcfe568000000000009000000012ce40e34fd"
        header, plain_body = records.open_record(stored, place, integrity)
        assert (header.created_at, header.version, header.new_bytes) == (1_700_000_000_000, 9, 300)
        assert (header.parent, header.root, header.run, header.fork) == (IDS[0], None, "run", None)
        assert (header.pages, header.loose, header.depth, header.logical, header.flags) == ((), tuple(names), 3, 258, 2)
        assert pack(plain_body, CompressionType.NONE) == body


PLAIN_RECORD = (
    "01020000000002000003000000010200000001011240a4684403b160e6597a653a88f56ccea3878a334b240469d159ff840b6434801f0a"
    "0000000060008000000000000000000372756e00dfc5ef269f0f2b85fd9ef367347ee4940093a76d73677061636bc401809193a16ea76d"
    "73677061636bc40101"
)
KEYED_RECORD = (
    "01023000000002000003000000010200000001011240a4684403b160e6597a653a88f56ccea3878a334b240469d159ff840b6434801f0a"
    "0000000060008000000000000000000372756e009d1f444dc79b8779c563bbd07f09498d0093a76d73677061636bc401809193a16ea76d"
    "73677061636bc40101"
)


def test_chunks_of_every_compression_of_the_first_release_are_read() -> None:
    for stored in (
        "0061",
        "01000000c0034a00845f76616c7565732065011f20180090506167657320",
        "02000000c0789c4bce48cccb4bcd892f4bcc294d2d56c84d2d2e4e4c07329287883800612c4b01",
    ):
        plain_chunk = unpack(bytes.fromhex(stored), CHUNK_MAX, "here")
        assert plain_chunk in (b"a", b"channel_values messages " * 8)
        parts = Parts({}, {digest(plain_chunk): bytes.fromhex(stored)})
        assert parts.chunk(digest(plain_chunk), "here") == plain_chunk
