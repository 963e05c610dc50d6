"""Packing, checksums, limits."""

from __future__ import annotations

import sys
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import lz4.block
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langgraph_redis_state import CheckpointCorruptError, CompressionType, InvalidConfigError, RedisSaver, storage
from langgraph_redis_state.errors import FormatError
from langgraph_redis_state.storage import zstandard
from langgraph_redis_state.storage.codec import CHUNK_MAX, digest, pack, place_check, unpack
from langgraph_redis_state.storage.lz4_dictionary import DICTIONARY
from langgraph_redis_state.storage.seals import Integrity

PLACE = (b"1", b"prefix", b"thread", b"C", b"ns", b"id")


@given(st.binary(max_size=3000) | st.binary(max_size=20).map(lambda part: part * 200), st.sampled_from(CompressionType))
@settings(deadline=None)
def test_what_was_packed_unpacks(plain: bytes, compression: CompressionType) -> None:
    packed = pack(plain, compression)
    assert unpack(packed, CHUNK_MAX, "here") == plain
    assert len(packed) <= len(plain) + 1


def test_the_dictionary_never_changes() -> None:
    """Part of layout 1: data compressed with it is read with it."""
    assert digest(DICTIONARY).hex() == "df0f5d53f0610c0c913b467ecc3a4784"


@pytest.mark.parametrize("how", [1, 2, 3])
def test_a_bomb_is_refused_before_it_inflates(how: int) -> None:
    plain = bytes(64 * 1024 * 1024)
    compressors = {1: lambda: lz4.block.compress(plain, store_size=False), 2: lambda: zlib.compress(plain)}
    data = compressors.get(how, lambda: zstandard.compress(plain))()
    for claim in (len(plain), CHUNK_MAX, 2**32 - 1):
        tracemalloc.start()
        with pytest.raises(CheckpointCorruptError, match="here"):
            unpack(bytes([how]) + claim.to_bytes(4, "big") + data, CHUNK_MAX, "here")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * 1024 * 1024


@given(st.binary(max_size=200))
def test_garbage_is_a_typed_error_or_plain_bytes(garbage: bytes) -> None:
    with suppress(CheckpointCorruptError):
        assert len(unpack(garbage, CHUNK_MAX, "here")) <= CHUNK_MAX


def test_an_empty_string_is_no_packed_string() -> None:
    with pytest.raises(CheckpointCorruptError):
        unpack(b"", CHUNK_MAX, "here")


def test_checksums_cover_every_part_and_their_borders() -> None:
    plain = Integrity([], False)
    signed = plain.sign(PLACE, b"header", b"body")
    assert plain.verifies(0, signed, PLACE, b"header", b"body")
    assert not plain.verifies(0, signed, PLACE, b"heade", b"rbody")
    for at in range(len(PLACE)):
        other = (*PLACE[:at], PLACE[at] + b"x", *PLACE[at + 1 :])
        assert not plain.verifies(0, signed, other, b"header", b"body")


def test_keys_sign_with_the_first_and_verify_with_all() -> None:
    old, both, other = Integrity([b"old"], False), Integrity([b"new", b"old"], False), Integrity([b"other"], False)
    signed = old.sign(PLACE, b"h", b"b")
    assert both.verifies(old.signing_id, signed, PLACE, b"h", b"b")
    assert not other.verifies(old.signing_id, signed, PLACE, b"h", b"b")
    assert not old.verifies(both.signing_id, both.sign(PLACE, b"h", b"b"), PLACE, b"h", b"b")
    assert old.signing_id != 0


def test_the_check_of_the_server_is_bound_to_its_place() -> None:
    assert place_check(b"1 2 3", b"thread") != place_check(b"1 2 3", b"threae")
    assert place_check(b"1 2 3", b"thread").hex() == "31e5f16d"


@pytest.mark.parametrize("size", [30_000, CHUNK_MAX])
def test_what_zstandard_makes_too_small_is_packed_otherwise(size: int) -> None:
    """Such a ratio is refused when it is read."""
    packed = pack(bytes(size), CompressionType.ZSTD)
    assert packed[0] == 1
    assert unpack(packed, CHUNK_MAX, "here") == bytes(size)


@pytest.mark.parametrize("change", ["size above", "size below", "cut", "more behind it", "another frame"])
def test_a_frame_of_zstandard_is_what_it_claims_or_refused(change: str) -> None:
    plain = bytes(range(256)) * 10
    data = zstandard.compress(plain)
    size = len(plain) + {"size above": 1, "size below": -1}.get(change, 0)
    data = {"cut": data[:-1], "more behind it": data + b"x", "another frame": data + data}.get(change, data)
    with pytest.raises(CheckpointCorruptError, match="here"):
        unpack(b"\3" + size.to_bytes(4, "big") + data, CHUNK_MAX, "here")


def test_threads_share_a_compressor() -> None:
    plain = [f"{n} some words ".encode() * 200 for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        packed = list(pool.map(lambda each: pack(each, CompressionType.ZSTD), plain))
    assert [unpack(each, CHUNK_MAX, "here") for each in packed] == plain


def test_without_zstandard_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(b"some words " * 100, CompressionType.ZSTD)
    monkeypatch.setitem(sys.modules, "langgraph_redis_state.storage.zstandard", None)
    monkeypatch.delattr(storage, "zstandard")
    with pytest.raises(FormatError, match=r"here: .* Zstandard; pip install 'langgraph-redis-state\[zstd\]'"):
        unpack(packed, CHUNK_MAX, "here")
    with pytest.raises(InvalidConfigError, match="pip install"):
        RedisSaver(compression="zstd")


def test_what_was_compressed_with_zstandard_stays_readable() -> None:
    packed = bytes.fromhex(
        "030000007428b52ffd0000250100e85768617420697320746865207765617468657220696e204f736c6f3f20010011989413"
    )
    assert unpack(packed, CHUNK_MAX, "here") == b"What is the weather in Oslo? " * 4
