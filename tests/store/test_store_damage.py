"""What is stored: golden bytes, and what happens when they are damaged, moved, forged, evicted or of a newer version."""

from __future__ import annotations

from typing import Any

import pytest
from keeping import Make, keys_of
from soak import times

from langgraph_redis_state import (
    CheckpointCorruptError,
    CheckpointLostError,
    EncryptionKeyError,
    FormatError,
    IntegrityKeyError,
    RedisStore,
    SerializationError,
)
from langgraph_redis_state.storage.codec import CompressionType
from langgraph_redis_state.storage.seals import PLAIN
from langgraph_redis_state.store import items
from langgraph_redis_state.store.items import Place

HERE = ("users", "ada")
FIELD = b"users\0ada\0\0k"


def record_of(raw: Any, prefix: str) -> bytes:
    found: bytes = raw.hget(keys_of(prefix, HERE)[0], FIELD)
    return found


def test_keys_fields_and_buckets_are_those_of_layout_1() -> None:
    assert items.field_name(HERE, "k") == FIELD
    assert items.field_name((), "") == b"\0\0"
    assert {each: items.bucket_of(each) for each in GOLDEN_BUCKETS} == GOLDEN_BUCKETS
    assert items.bucket_keys("p", 3) == (b"p:{s3c6}:items", b"p:{s3c6}:order", b"p:{s3c6}:expires", b"p:{s3c6}:vectors")


GOLDEN_BUCKETS: dict[tuple[str, ...], int] = {
    (): 2,
    ("a",): 15,
    ("a", "b"): 1,
    ("a", "b", "c"): 1,
    ("users", "ada"): 15,
    ("é", "\U0001f600"): 3,
}


def test_each_bucket_stands_in_a_sixteenth_of_the_slots_of_its_own() -> None:
    from redis.crc import key_slot

    assert [key_slot(items.bucket_keys("any", bucket)[0]) * 16 // 16384 for bucket in range(16)] == list(range(16))


def test_a_record_is_the_same_byte_by_byte() -> None:
    place = Place(b"golden", FIELD)
    sealed = items.sealed(place, "msgpack", b"\x81\xa1n\x01", 60_000, 0, PLAIN, CompressionType.LZ4)
    assert sealed.hex() == GOLDEN_SEALED
    stored = bytes.fromhex(GOLDEN_STORED)
    assert items.opened(stored, place, PLAIN) == ("msgpack", b"\x81\xa1n\x01")
    assert tuple(moment.isoformat() for moment in items.times(stored, place)) == GOLDEN_TIMES


GOLDEN_SEALED = "010000000000000000ea60192c070d8d0a07cab247287e9c8fa6780092a76d73677061636bc40481a16e01"
GOLDEN_STORED = (
    "010000000000000000ea60"  # format, flags, key, vectors, TTL
    "065bfeda25e000065bfeda27c240383a6428"  # created, updated, check
    "192c070d8d0a07cab247287e9c8fa678"  # checksum
    "0092a76d73677061636bc40481a16e01"
)
GOLDEN_TIMES = ("2026-09-21T14:13:20+00:00", "2026-09-21T14:13:20.123456+00:00")


def test_the_server_writes_what_python_reads(memories: RedisStore, raw: Any, prefix: str) -> None:
    memories.put(HERE, "k", {"n": 1}, ttl=1)
    kept, order, expires, _ = keys_of(prefix, HERE)
    record = record_of(raw, prefix)
    (member,) = raw.zrange(order, 0, -1)
    assert items.field_of(member) == (FIELD, items.updated_us(record))
    assert record[0] == items.FORMAT
    assert int.from_bytes(record[5:11], "big") == 60_000
    assert raw.zrange(expires, 0, -1) == [FIELD]
    assert raw.hkeys(kept) == [FIELD]


def test_every_damaged_byte_is_a_typed_error(make: Make, raw: Any, prefix: str) -> None:
    store = make(serde=None)
    store.put(HERE, "k", {"n": 1, "text": "words " * 20}, ttl=1)
    key, record = keys_of(prefix, HERE)[0], record_of(raw, prefix)
    step = times(5, 1)
    for at in range(0, len(record), step):
        for bit in (1, 128):
            raw.hset(key, FIELD, record[:at] + bytes([record[at] ^ bit]) + record[at + 1 :])
            for read in (lambda: store.get(HERE, "k"), lambda: store.search(HERE), lambda: store.search((), filter={"n": 1})):
                with pytest.raises(CheckpointCorruptError):
                    read()
    for length in range(0, len(record), 7):
        raw.hset(key, FIELD, record[:length])
        with pytest.raises(CheckpointCorruptError):
            store.get(HERE, "k")
    store.put(HERE, "k", {"n": 2})  # a damaged item can be replaced
    assert [item.value for item in store.search(HERE)] == [{"n": 2}]
    raw.hset(key, FIELD, record_of(raw, prefix)[:18] + b"\0" * 7 + record_of(raw, prefix)[25:])
    store.delete(HERE, "k")  # and removed
    assert raw.exists(*keys_of(prefix, HERE)) == 0


def test_a_record_of_another_place_is_refused(memories: RedisStore, raw: Any, prefix: str, make: Make) -> None:
    for key in ("k", "other"):
        memories.put(HERE, key, {"of": key})
    kept, *_ = keys_of(prefix, HERE)
    raw.hset(kept, items.field_name(HERE, "other"), record_of(raw, prefix))
    with pytest.raises(CheckpointCorruptError, match=r"'other'.*moved"):
        memories.get(HERE, "other")
    elsewhere = make(prefix=f"{prefix}:b")
    elsewhere.put(HERE, "k", {})
    raw.hset(keys_of(f"{prefix}:b", HERE)[0], FIELD, record_of(raw, prefix))
    with pytest.raises(CheckpointCorruptError):
        elsewhere.get(HERE, "k")


def test_a_newer_format_is_named(memories: RedisStore, raw: Any, prefix: str) -> None:
    memories.put(HERE, "k", {})
    raw.hset(keys_of(prefix, HERE)[0], FIELD, b"\x02" + record_of(raw, prefix)[1:])
    with pytest.raises(FormatError, match="newer version"):
        memories.get(HERE, "k")


def test_records_are_signed_with_a_key(make: Make) -> None:
    old, new = b"o" * 16, b"n" * 32
    make().put(HERE, "plain", {})
    make(integrity_key=old).put(HERE, "old", {})
    both = make(integrity_key=[new, old])
    both.put(HERE, "new", {})
    assert both.get(HERE, "old").value == {}  # type: ignore[union-attr]
    for store, key in ((both, "plain"), (make(integrity_key=new), "old"), (make(), "new")):
        with pytest.raises(IntegrityKeyError):
            store.get(HERE, key)
    assert make(integrity_key=new, accept_unkeyed=True).get(HERE, "plain") is not None


def test_values_are_encrypted_with_a_key(make: Make, raw: Any, prefix: str) -> None:
    old, new, value = b"o" * 32, b"n" * 32, {"secret": "the words of a person " * 9}
    make(encryption_key=old, compression="none").put(HERE, "k", value, ttl=1)
    assert b"words" not in b"".join(raw.dump(key) or b"" for key in keys_of(prefix, HERE))
    both = make(encryption_key=[new, old])
    assert both.get(HERE, "k").value == both.search((), filter=value)[0].value == value  # type: ignore[union-attr]
    both.put(HERE, "l", value)
    for store, key in ((make(), "k"), (make(encryption_key=old), "l")):
        with pytest.raises(EncryptionKeyError, match=f"'{key}'"):
            store.get(HERE, key)
    raw.hset(keys_of(prefix, HERE)[0], items.field_name(HERE, "l"), record_of(raw, prefix))
    with pytest.raises(CheckpointCorruptError, match="moved"):
        both.get(HERE, "l")
    make().put(HERE, "plain", value)
    with pytest.raises(IntegrityKeyError):
        both.get(HERE, "plain")
    for options in ({"encryption_key": lambda thread: old}, {"name_key": old}):
        with pytest.raises(TypeError, match="store"):
            make(**options)
    with pytest.raises(ValueError, match="index"):
        make(encryption_key=old, index={"dims": 1, "embed": lambda texts: [[1.0]] * len(texts)})


def test_an_item_that_needs_another_serializer_says_so(memories: RedisStore, make: Make) -> None:
    class Other:
        def dumps_typed(self, value: Any) -> tuple[str, bytes]:
            return "other", b"x"

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            return {"read": data}

    make(serde=Other()).put(HERE, "k", {})
    with pytest.raises(SerializationError, match=r"'k'.*serializer"):
        memories.get(HERE, "k")


@pytest.mark.parametrize("compression", ["lz4", "zlib", "none", "zstd"])
def test_what_is_stored_can_be_read_whatever_the_setting(make: Make, memories: RedisStore, compression: str) -> None:
    value = {"text": "some words that repeat " * 200}
    make(compression=compression).put(HERE, "k", value)
    assert memories.get(HERE, "k").value == value  # type: ignore[union-attr]


def test_items_that_were_evicted_are_an_error_and_not_an_empty_store(memories: RedisStore, raw: Any, prefix: str) -> None:
    memories.put(HERE, "k", {})
    memories.put(HERE, "l", {})
    raw.delete(keys_of(prefix, HERE)[0])
    calls = [
        lambda: memories.get(HERE, "k"),
        lambda: memories.search(HERE),
        lambda: memories.search(()),
        memories.list_namespaces,
        lambda: memories.put(HERE, "k", {}),
    ]
    for call in calls:
        with pytest.raises(CheckpointLostError, match="evicted"):
            call()
    assert memories.repair() == 2
    assert memories.get(HERE, "k") is None
    memories.put(HERE, "k", {})
    assert memories.list_namespaces() == [HERE]


def test_an_order_that_was_evicted_is_made_anew(memories: RedisStore, raw: Any, prefix: str) -> None:
    for key in ("k", "l"):
        memories.put(HERE, key, {}, ttl=1)
    before = [item.key for item in memories.search(HERE)]
    raw.delete(*keys_of(prefix, HERE)[1:3])
    assert memories.get(HERE, "k") is not None
    for call in (lambda: memories.search(HERE), memories.list_namespaces, lambda: memories.put(HERE, "m", {})):
        with pytest.raises(CheckpointLostError, match="repair"):
            call()
    assert memories.repair() == 2
    assert [item.key for item in memories.search(HERE)] == before
    assert raw.zcard(keys_of(prefix, HERE)[2]) == 2


def test_an_item_that_somebody_else_removed_is_an_error_in_a_search(memories: RedisStore, raw: Any, prefix: str) -> None:
    for key in ("k", "l"):
        memories.put(HERE, key, {})
    raw.hdel(keys_of(prefix, HERE)[0], FIELD)
    with pytest.raises(CheckpointLostError, match=r"'k'.*repair"):
        memories.search(HERE)
    assert memories.repair() == 1
    assert [item.key for item in memories.search(HERE)] == ["l"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_key_of_another_type_is_an_error_and_nothing_is_written(memories: RedisStore, raw: Any, prefix: str, at: int) -> None:
    memories.put(HERE, "k", {"n": 1}, ttl=1)
    keys = keys_of(prefix, HERE)[:3]
    kept = {key: raw.dump(key) for key in keys}
    raw.set(keys[at], "something else")
    with pytest.raises((CheckpointCorruptError, CheckpointLostError)):
        memories.put(HERE, "k", {"n": 2})
    for key in keys[:at] + keys[at + 1 :]:
        assert raw.dump(key) == kept[key]
