"""Somebody who can write to the server, without the key, gets an encrypted thread refused, and never another state read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from shapes import at, checkpoint, metadata, plain, words
from soak import LEVEL

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import (
    CheckpointCorruptError,
    CheckpointLostError,
    EncryptionKeyError,
    IntegrityKeyError,
    LayoutError,
)

KEY, OTHER, NAME_KEY = bytes(range(32)), bytes(range(1, 33)), bytes(range(32, 64))
IDS = [f"1f0a0000-0000-6000-8000-00000000000{n}" for n in range(4)]
REFUSED = (CheckpointCorruptError, CheckpointLostError, LayoutError)


class Watching(JsonPlusSerializer):
    """Remembers what it was given to deserialize."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[tuple[str, bytes]] = []

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        self.loaded.append(data)
        return super().loads_typed(data)


@pytest.fixture(params=["encrypted", "encrypted, names hidden"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"encryption_key": KEY, **({"name_key": NAME_KEY} if "names" in request.param else {})}


@pytest.fixture
def saver(url: str, prefix: str, options: dict[str, Any]) -> Iterator[RedisSaver]:
    """One that remembers no chunks: all it gives comes from the server."""
    with RedisSaver(url, prefix=prefix, cache_bytes=0, serde=Watching(), **options) as opened:
        yield opened


def fill(saver: RedisSaver, thread: str, salt: str = "") -> None:
    made = checkpoint({"n": salt, "long": words(thread + salt, 30)}, id=IDS[0])
    first = saver.put(at(thread), made, metadata(run_id="r"), made["channel_versions"])
    made = checkpoint({"n": "two" + salt}, id=IDS[1])
    saver.put(first, made, metadata(), made["channel_versions"])
    made = checkpoint({"m": "in" + salt}, id=IDS[2])
    saver.put(at(thread, "sub"), made, metadata(parents={"": IDS[1]}), made["channel_versions"])
    saver.put_writes(at(thread, "", IDS[1]), [("n", "w" + salt)], "task")
    saver.tag(thread, "good", IDS[0])


def keys_of(saver: RedisSaver, thread: str) -> Any:
    return saver._engine.address(thread).keys


def told(saver: RedisSaver, thread: str) -> Any:
    tagged = saver.tags(thread)
    found = [plain(saver.get_tuple(at(thread, ns, id))) for ns, id in (("", IDS[0]), ("", IDS[1]), ("sub", IDS[2]))]
    return found, [plain(each) for each in saver.list(at(thread, None))], tagged


def attacked(saver: RedisSaver, thread: str, truth: Any, allowed: set[tuple[str, bytes]], where: object) -> bool:
    """Whether reading was refused; what is read must be true, and nothing new may come to the serializer."""
    saver.serde.loaded.clear()  # type: ignore[attr-defined]
    try:
        found = told(saver, thread)
    except REFUSED:
        refused = True
    else:
        assert found == truth, where
        refused = False
    assert set(saver.serde.loaded) <= allowed, where  # type: ignore[attr-defined]
    return refused


def truth_of(saver: RedisSaver, thread: str) -> tuple[Any, set[tuple[str, bytes]]]:
    saver.serde.loaded.clear()  # type: ignore[attr-defined]
    return told(saver, thread), set(saver.serde.loaded)  # type: ignore[attr-defined]


@pytest.mark.longer
def test_a_flipped_bit_anywhere_is_refused(saver: RedisSaver, raw: Any) -> None:
    fill(saver, "t")
    truth, allowed = truth_of(saver, "t")
    key = keys_of(saver, "t").hash
    fields = raw.hgetall(key)
    assert {name[:1] for name in fields} == {b"C", b"W", b"D", b"G", b"S"}
    for name, content in fields.items():
        for position in range(0, len(content), 1 if LEVEL else 7):
            raw.hset(key, name, content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :])
            refused = attacked(saver, "t", truth, allowed, (name, position))
            assert refused or name == b"S" or (name[:1] == b"W" and position == 1), (name, position)
        raw.hset(key, name, content)
    assert told(saver, "t") == truth


def test_a_field_cut_extended_emptied_or_doubled_is_refused(saver: RedisSaver, raw: Any) -> None:
    fill(saver, "t")
    truth, allowed = truth_of(saver, "t")
    key = keys_of(saver, "t").hash
    for name, content in raw.hgetall(key).items():
        if name == b"S":
            continue
        for damaged in (content[:-1], content[: len(content) // 2], content[:1], b"", content + b"\0", content * 2):
            raw.hset(key, name, damaged)
            assert attacked(saver, "t", truth, allowed, (name, len(damaged))), (name, len(damaged))
        raw.hset(key, name, content)
    assert told(saver, "t") == truth


def test_a_field_that_is_dropped_is_missed(saver: RedisSaver, raw: Any) -> None:
    fill(saver, "t")
    truth, allowed = truth_of(saver, "t")
    key = keys_of(saver, "t").hash
    for name, content in raw.hgetall(key).items():
        if name[:1] in (b"C", b"D", b"G"):
            raw.hdel(key, name)
            assert attacked(saver, "t", truth, allowed, name), name
            raw.hset(key, name, content)


def test_fields_swapped_within_a_thread_and_between_threads_are_refused(saver: RedisSaver, raw: Any) -> None:
    fill(saver, "t")
    fill(saver, "u", "other")
    truth, allowed = truth_of(saver, "t")
    here, there = keys_of(saver, "t").hash, keys_of(saver, "u").hash
    own, foreign = raw.hgetall(here), raw.hgetall(there)
    for name, content in own.items():
        if name == b"S":
            continue
        for source in (own, foreign):
            for other, planted in source.items():
                if other[:1] == name[:1] and planted != content:
                    raw.hset(here, name, planted)
                    assert attacked(saver, "t", truth, allowed, (name, other)), (name, other)
        raw.hset(here, name, content)
    assert not {name for name in own.keys() & foreign.keys() if name[:1] == b"D"}
    assert told(saver, "t") == truth


def test_a_whole_thread_under_another_id_or_prefix_is_refused(
    saver: RedisSaver, raw: Any, url: str, prefix: str, options: dict[str, Any]
) -> None:
    fill(saver, "t")
    _, allowed = truth_of(saver, "t")
    with RedisSaver(url, prefix=prefix + "-2", cache_bytes=0, serde=Watching(), **options) as other:
        fill(other, "begun")
        for reader, thread in ((saver, "u"), (other, "t")):
            for source, target in zip(keys_of(saver, "t").all[:2], keys_of(reader, thread).all[:2], strict=True):
                raw.restore(target, 0, raw.dump(source), replace=True)
            for ns, id in (("", None), ("", IDS[0]), ("", IDS[1])):
                with pytest.raises(CheckpointCorruptError):
                    reader.get_tuple(at(thread, ns, id))
            with pytest.raises(CheckpointCorruptError):
                list(reader.list(at(thread, None)))
            assert set(reader.serde.loaded) <= allowed  # type: ignore[attr-defined]


def test_what_was_written_without_a_key_is_refused(saver: RedisSaver, raw: Any, url: str, prefix: str, options: Any) -> None:
    fill(saver, "t")
    truth, allowed = truth_of(saver, "t")
    key = keys_of(saver, "t").hash
    fields = raw.hgetall(key)
    names = {name: value for name, value in options.items() if name == "name_key"}
    saver.delete_thread("t")
    with RedisSaver(url, prefix=prefix, tombstone=0, **names) as stranger:
        raw.delete(keys_of(saver, "t").tombstone)
        fill(stranger, "t", "planted")
    planted = {name: content for name, content in raw.hgetall(key).items() if name in fields and name != b"S"}
    raw.delete(key)
    raw.hset(key, mapping=fields)
    assert {name[:1] for name in planted} == {b"C", b"W", b"G"}
    for name, content in planted.items():
        raw.hset(key, name, content)
        assert attacked(saver, "t", truth, allowed, name), name
        with pytest.raises(IntegrityKeyError, match="neither signed nor encrypted"):
            told(saver, "t")
        raw.hset(key, name, fields[name])
    for name in fields:
        if name[:1] == b"D":
            raw.hset(key, name, b"\0" + words("planted", 30).encode())
            assert attacked(saver, "t", truth, allowed, name), name
            raw.hset(key, name, fields[name])


def test_another_key_or_none_reads_nothing(saver: RedisSaver, url: str, prefix: str, options: dict[str, Any]) -> None:
    fill(saver, "t")
    names = {name: value for name, value in options.items() if name == "name_key"}
    for wrong in ({"encryption_key": OTHER}, {"integrity_key": KEY}, {}):
        with RedisSaver(url, prefix=prefix, serde=Watching(), **names, **wrong) as reader:
            for read in (
                lambda reader=reader: reader.get_tuple(at("t")),
                lambda reader=reader: list(reader.list(at("t", None))),
                lambda reader=reader: list(reader.history("t")),
                lambda reader=reader: reader.tags("t"),
                lambda reader=reader: reader.copy_thread("t", "u"),
                lambda reader=reader: reader.rekey(["t"]),
            ):
                with pytest.raises(EncryptionKeyError, match=r"key"):
                    read()
            assert not reader.serde.loaded  # type: ignore[attr-defined]
