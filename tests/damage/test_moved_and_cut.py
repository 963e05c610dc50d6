"""Records that were moved or cut off, and sizes that lie, are refused."""

from __future__ import annotations

import random
import resource
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from damaging import IDS, Stored, build_large, build_small, outcome
from shapes import at
from soak import in_turn, times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointLostError
from langgraph_redis_state.storage import records
from langgraph_redis_state.storage.codec import BODY_MAX, CHUNK_MAX, CompressionType, pack, unpack
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.records import RecordKey, References
from langgraph_redis_state.storage.seals import PLAIN, Seal


@pytest.fixture
def saver(url: str, prefix: str) -> Iterator[RedisSaver]:
    """One that remembers no chunks: all it gives comes from the server."""
    with RedisSaver(url, prefix=prefix, cache_bytes=0) as opened:
        yield opened


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
    entries, position = [], 4
    while position < len(blob):
        end = position + 4 + int.from_bytes(blob[position : position + 4], "big")
        entries.append(blob[position:end])
        position = end
    return entries


def test_the_order_in_which_writes_are_stored_does_not_matter(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    name = b"W\0" + IDS[1].encode()
    blob = made.fields[name]
    made.hset(name, blob[:4] + b"".join(entries_of(blob)[::-1]))
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
        made.hset(name, blob[:4] + b"".join(entries[:dropped] + entries[dropped + 1 :]))
        with pytest.raises(CheckpointCorruptError, match=IDS[1]):
            saver.get_tuple(at("small", "", IDS[1]))


@pytest.mark.longer
def test_a_field_cut_short_at_any_byte_is_corruption(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    for name, content in made.fields.items():
        ends = {4}
        for entry in entries_of(content) if name[:1] == b"W" else ():
            ends.add(max(ends) + len(entry))
        for length in range(0, len(content), times(3, 1, 1)):
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


@pytest.mark.parametrize(("claim", "how"), in_turn([CHUNK_MAX + 1, 2**31, 2**32 - 1], [1, 2]))
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


def forge(made: Stored, id: str, body: bytes, by: Seal = PLAIN) -> None:
    """Writes a record as somebody would who knows the layout: everything holds but what `by` cannot sign."""
    place = RecordKey(made.prefix.encode(), made.thread.encode(), b"C", b"", id.encode())
    tail = b"".join(records.packed_id(part) for part in (b"", b"", b"", b""))
    sealed = records.seal(by, place, References.of([]), tail, body, flags=0, depth=0, logical=len(body), chunked=0)
    made.hset(place.field, records.stamp(1, 1, len(sealed), place) + sealed)
