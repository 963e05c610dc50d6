"""Keys are changed, introduced and given up by `rekey`; cut in the middle, a thread is as it was."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from audit import audit, grow, keys_of
from shapes import at, id_of, plain, words
from soak import in_turn
from whole import KINDS, Watching, build, kind_of
from whole import told as everything

from langgraph_redis_state import RedisSaver, RedisStatePersistence, RedisStore
from langgraph_redis_state.client.driver import run
from langgraph_redis_state.errors import CheckpointCorruptError, EncryptionKeyError, IntegrityKeyError
from langgraph_redis_state.operations import copying
from langgraph_redis_state.storage.keys import split_field
from langgraph_redis_state.storage.records import STAMP, RecordKey
from langgraph_redis_state.storage.seals import ENCRYPTED, Integrity, key_id
from langgraph_redis_state.storage.thread_fields import as_list, split_writes

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def told(saver: RedisSaver, thread: str = "t") -> Any:
    return [plain(each) for each in saver.list(at(thread, None))], saver.tags(thread)


def fill(saver: RedisSaver, thread: str = "t") -> Any:
    made = grow(saver, thread, 6, 1)
    for n in range(12):
        saver.put_writes(made[-1], [("long", words(("w", n), 40))], f"another {n}")
    saver.tag(thread, "good", id_of(made[0]))
    return told(saver, thread)


def sound(saver: RedisSaver, raw: Any, prefix: str, thread: str, truth: Any) -> None:
    assert told(saver, thread) == truth
    assert not list(saver.verify(thread))
    audit(raw, prefix, thread)
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]


def test_a_new_key_takes_the_place_of_the_old_one(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        truth = {thread: fill(saver, thread) for thread in ("t", "u")}
    with RedisSaver(url, prefix=prefix, encryption_key=NEW) as saver:
        with pytest.raises(EncryptionKeyError, match=rf"id {key_id(OLD)}\).*add it behind the first in encryption_key.*rekey"):
            saver.get_tuple(at("t"))
    seen: list[int] = []
    with RedisSaver(url, prefix=prefix, encryption_key=[NEW, OLD]) as saver:
        assert saver.rekey(["t"]) == 1
        assert saver.rekey(progress=seen.append) == 1
        assert saver.rekey() == 0
        assert seen[-1] == 1
    with RedisSaver(url, prefix=prefix, encryption_key=NEW, cache_bytes=0) as saver:
        for thread, expected in truth.items():
            sound(saver, raw, prefix, thread, expected)
            with RedisSaver(url, prefix=prefix, encryption_key=OLD) as old, pytest.raises(EncryptionKeyError):
                old.get_tuple(at(thread))


@pytest.mark.parametrize("option", ["encryption_key", "integrity_key"])
def test_rekey_tells_keys_apart_that_have_the_same_id(url: str, prefix: str, raw: Any, option: str) -> None:
    of = {"encryption_key": key_id, "integrity_key": lambda key: Integrity([key], False).signing_id}[option]
    alike = next(key for n in range(9_999) if of(key := n.to_bytes(32, "big")) == of(OLD))
    with RedisSaver(url, prefix=prefix, **{option: OLD}) as saver:
        truth = fill(saver)
    with RedisSaver(url, prefix=prefix, **{option: [alike, OLD]}) as saver:
        assert saver.rekey() == 1
        assert saver.rekey() == 0
    with RedisSaver(url, prefix=prefix, **{option: alike}, cache_bytes=0) as saver:
        sound(saver, raw, prefix, "t", truth)


def test_encryption_is_introduced_over_plain_threads(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix) as saver:
        truth = fill(saver)
    with RedisSaver(url, prefix=prefix, encryption_key=NEW) as saver, pytest.raises(IntegrityKeyError, match="accept_unkeyed"):
        saver.get_tuple(at("t"))
    with RedisSaver(url, prefix=prefix, encryption_key=NEW, accept_unkeyed=True) as saver:
        assert told(saver) == truth
        assert saver.rekey() == 1
    with RedisSaver(url, prefix=prefix, encryption_key=NEW, cache_bytes=0) as saver:
        sound(saver, raw, prefix, "t", truth)


def test_copies_and_new_writes_stand_on_what_is_under_the_old_key(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        truth = fill(saver)
    with RedisSaver(url, prefix=prefix, encryption_key=[NEW, OLD], cache_bytes=0) as saver:
        saver.copy_thread("t", "copy")
        newest = saver.get_tuple(at("t"))
        assert newest
        grow(saver, "t", 2, 1, newest.config)
        longer = told(saver)
        assert saver.rekey(["t"]) == 1
    with RedisSaver(url, prefix=prefix, encryption_key=NEW, cache_bytes=0) as saver:
        sound(saver, raw, prefix, "t", longer)
        assert [each["checkpoint"] for each in told(saver, "copy")[0]] == [each["checkpoint"] for each in truth[0]]
        assert not list(saver.verify("copy"))
        audit(raw, prefix, "copy")


@pytest.mark.parametrize("names", [{}, {"name_key": bytes(range(64, 96))}])
def test_rekey_drops_no_field_whose_name_was_damaged(url: str, prefix: str, raw: Any, names: Any) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD, **names) as saver:
        fill(saver)
        key = saver._engine.address("t").keys.hash
    inner = next(name for name in raw.hkeys(key) if name[:1] == b"C" and name[1:2] != b"\0")
    raw.hset(key, b"Cx" + inner[2:], raw.hget(key, inner))
    raw.hdel(key, inner)
    before = raw.hgetall(key)
    with RedisSaver(url, prefix=prefix, encryption_key=[NEW, OLD], **names) as saver:
        with pytest.raises(CheckpointCorruptError):
            saver.rekey(["t"])
    assert raw.hgetall(key) == before


def stands_encrypted(content: bytes, name: bytes) -> bool:
    """Whether a field says of itself that a key is needed: by the flag of a record, or the first byte of a chunk."""
    kind = kind_of(name)
    if kind in (b"W list", b"W segment"):
        place = RecordKey(b"", b"", b"W", *split_field(name))
        return any(raw[STAMP + 1] & ENCRYPTED for raw in split_writes(as_list(content)[1], place))
    if kind == b"G":
        return bool(content[0] & ENCRYPTED)
    if kind in (b"Z", b"F"):
        return bool(content[1] & ENCRYPTED)
    return content[0] >= 0x80 if kind == b"D" else kind in (b"C", b"H") and bool(content[STAMP + 1] & ENCRYPTED)


@pytest.mark.parametrize(
    ("given", "signed"),
    in_turn(["a key", "two keys", "a provider"], [{}, {"integrity_key": b"a key that signs, of some bytes"}]),
)
def test_encryption_is_turned_off_and_nothing_stays_encrypted(
    url: str, prefix: str, raw: Any, given: str, signed: dict[str, Any]
) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        build(saver)
        build(saver, "u", "other", 3)
        fill(saver, "v")
        key = saver._engine.address("t").keys.hash
    if given == "two keys":
        with RedisSaver(url, prefix=prefix, encryption_key=[NEW, OLD]) as saver:
            saver.rekey(["u"])
            grow(saver, "v", 2, 3, saver.get_tuple(at("v")).config)  # partly under each key
    keys = {"a key": OLD, "two keys": [NEW, OLD], "a provider": lambda thread: [OLD]}[given]
    with RedisSaver(url, prefix=prefix, encryption_key=keys, cache_bytes=0) as saver:
        truth = {thread: everything(saver, thread) for thread in ("t", "u", "v")}
    before = raw.hgetall(key)
    assert {kind_of(name) for name, content in before.items() if stands_encrypted(content, name)} == {
        *(b"C", b"H", b"D", b"G", b"W list", b"W segment")
    }
    assert {kind_of(name) for name in before} == KINDS
    seen: list[int] = []
    with RedisSaver(url, prefix=prefix, encryption_key=keys, decrypt_only=True, **signed) as saver:
        assert everything(saver, "t") == truth["t"]
        assert raw.hgetall(key) == before
        grow(saver, "v", 1, 4, saver.get_tuple(at("v")).config)  # plain, on what is encrypted
        grow(saver, "w", 1, 5)
        truth |= {thread: everything(saver, thread) for thread in ("v", "w")}
        assert saver.rekey(["t"]) == 1
        assert saver.rekey(progress=seen.append) == 2
        assert saver.rekey() == 0
        assert seen[-1] == 2
    with RedisSaver(url, prefix=prefix, cache_bytes=0, **signed) as saver:
        for thread, expected in truth.items():
            assert everything(saver, thread) == expected
            stored = raw.hgetall(saver._engine.address(thread).keys.hash)
            assert not [name for name, content in stored.items() if stands_encrypted(content, name)]
            audit(raw, prefix, thread)
        assert not list(saver.verify())
        assert len(list(saver.list(None))) == sum(len(each[3]) for each in truth.values())
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]


def test_until_rekey_what_was_written_plain_is_read_and_what_somebody_else_wrote_plain_is_too(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        fill(saver)
    with RedisSaver(url, prefix=prefix, encryption_key=OLD, decrypt_only=True) as saver:
        grow(saver, "plain", 1, 2)
        truth = told(saver), told(saver, "plain")
    with RedisSaver(url, prefix=prefix) as saver:
        assert told(saver, "plain") == truth[1]
        with pytest.raises(EncryptionKeyError, match="this saver has no encryption_key"):
            told(saver)
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver, pytest.raises(IntegrityKeyError, match="neither signed"):
        told(saver, "plain")
    with RedisSaver(
        url, prefix=prefix, encryption_key=OLD, decrypt_only=True, integrity_key=NEW, serde=(watching := Watching())
    ) as saver:
        assert told(saver) == truth[0]
        watching.loaded.clear()
        with pytest.raises(IntegrityKeyError, match="neither signed nor encrypted"):
            told(saver, "plain")
        assert not watching.loaded


def test_states_and_items_are_written_plain_too(url: str, prefix: str, raw: Any) -> None:
    off: dict[str, Any] = {"encryption_key": OLD, "decrypt_only": True}
    states, items = f"{prefix}-states", f"{prefix}-items"
    with RedisStatePersistence(url, prefix=states, encryption_key=OLD) as saved:
        for n in range(3):
            saved.save_with_metadata({"text": words(n, 90)}, "s", tags=["good"])
    with RedisStore(url, prefix=items, encryption_key=OLD) as store:
        for name in ("kept", "changed"):
            store.put(("a", "b"), name, {"n": name})
    with RedisSaver(url, prefix=states, **off) as saver:
        assert saver.rekey() == 1
    with RedisStatePersistence(url, prefix=states) as saved:
        assert [each.version for each in saved.search_by_tags(["good"])] == [3]
        assert [saved.load_with_metadata("s", version)[0] for version in (1, 2, 3)] == [
            {"text": words(n, 90)} for n in range(3)
        ]
    with RedisStore(url, prefix=items, **off) as store:
        assert store.get(("a", "b"), "changed").value == {"n": "changed"}
        store.put(("a", "b"), "changed", {"n": "again"})
        assert {each.key: each.value["n"] for each in store.search(("a",))} == {"kept": "kept", "changed": "again"}
    with RedisStore(url, prefix=items) as store:
        assert store.get(("a", "b"), "changed").value == {"n": "again"}
        with pytest.raises(EncryptionKeyError, match=rf"'kept'.*\(id {key_id(OLD)}\), and this saver has no encryption_key"):
            store.get(("a", "b"), "kept")


@pytest.mark.parametrize("stays", [False, True])
def test_encryption_is_turned_off_with_freshness_or_without(url: str, prefix: str, raw: Any, stays: bool) -> None:
    signed = {"integrity_key": b"a key that signs, of some bytes", "freshness": True} if stays else {}
    with RedisSaver(url, prefix=prefix, encryption_key=OLD, freshness=True) as saver:
        build(saver)
        truth, key = everything(saver), saver._engine.address("t").keys.hash
    with RedisSaver(url, prefix=prefix, encryption_key=OLD, decrypt_only=True, **signed) as saver:
        assert saver.rekey() == 1
        assert saver.rekey() == 0
        assert everything(saver) == truth
    with RedisSaver(url, prefix=prefix, cache_bytes=0, **signed) as saver:
        assert everything(saver) == truth
        assert not list(saver.verify())
        stored = raw.hgetall(key)
        assert not [name for name, content in stored.items() if stands_encrypted(content, name)]
        assert {name[:1] for name in stored} & {b"Z", b"F"} == ({b"Z", b"F"} if stays else set())
        grow(saver, "t", 1, 2, saver.get_tuple(at("t", "beside")).config)


def test_decrypt_only_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decrypt_only=True needs the encryption_key that decrypts"):
        RedisSaver(decrypt_only=True)


@pytest.mark.parametrize("to", [{"encryption_key": [NEW, OLD]}, {"encryption_key": OLD, "decrypt_only": True}])
def test_an_interrupted_rekey_leaves_the_thread_and_is_repeated(url: str, prefix: str, raw: Any, to: dict[str, Any]) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        truth = fill(saver)
        key = saver._engine.address("t").keys.hash
    before = raw.hgetall(key)

    def one(effect: Any) -> Generator[Any, Any, Any]:
        return (yield effect)

    with RedisSaver(url, prefix=prefix, **to) as saver:
        for stop in range(1, 100):
            operation, reply = copying.rekey(saver._engine, ["t"], None), None
            for _ in range(stop):
                reply = run(one(operation.send(reply)), saver._connection)
            operation.close()
            if raw.hget(key, "S") != before[b"S"]:
                break
            assert raw.hgetall(key) == before
        assert stop > 4
        assert saver.rekey() == 0
    with RedisSaver(url, prefix=prefix, **({} if "decrypt_only" in to else {"encryption_key": NEW})) as saver:
        assert told(saver) == truth
