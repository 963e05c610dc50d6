"""Garbage, unknown fields, keys of the wrong type, unknown layouts: typed errors only."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from damaging import IDS, Stored, build_small
from langgraph.checkpoint.serde.types import ERROR
from shapes import at, checkpoint, metadata, words
from soak import times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointerError, LayoutError
from langgraph_redis_state.storage.keys import ThreadKeys, bucket_key, layout_key


@pytest.fixture
def saver(url: str, prefix: str) -> Iterator[RedisSaver]:
    """One that remembers no chunks: all it gives comes from the server."""
    with RedisSaver(url, prefix=prefix, cache_bytes=0) as opened:
        yield opened


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


@pytest.mark.longer
def test_garbage_in_any_field_gives_typed_errors_only(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = build_small(saver, raw, prefix)
    chosen = random.Random(11)
    share = times(3, 1, 1)  # of the fields, each verb meets each garbage in one of so many
    for m, name in enumerate(made.fields):
        garbage = [b"", b"\0", b"\1", b"\1\1", b"\xff" * 40, b"\0" * 400, b"1 1", chosen.randbytes(36), chosen.randbytes(3000)]
        for n, content in enumerate(garbage):
            for what, verb in verbs(saver, "small")[(m + n) % share :: share]:
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
