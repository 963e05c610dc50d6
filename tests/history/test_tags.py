"""Tags: names for checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
from shapes import at, checkpoint, id_of, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointNotFoundError, IntegrityKeyError, ThreadNotFoundError
from langgraph_redis_state.storage.keys import ThreadKeys


def put(saver: RedisSaver, values: dict[str, Any] | None = None, parent: str | None = None, ns: str = "", **more: Any) -> str:
    made = checkpoint(values)
    return id_of(saver.put(at("t", ns, parent), made, metadata(**more), made["channel_versions"]))


def chain(saver: RedisSaver, length: int, ns: str = "") -> list[str]:
    made: list[str] = []
    for n in range(length):
        made.append(put(saver, {"n": n}, made[-1] if made else None, ns, step=n))
    return made


async def test_a_tag_names_the_newest_or_any_checkpoint_and_can_be_moved_and_removed(
    saver: RedisSaver, asaver: RedisSaver
) -> None:
    made = chain(saver, 4)
    saver.tag("t", "end")
    saver.tag("t", "first", made[0])
    saver.tag("t", "back", -1)
    await asaver.atag("t", "by tag", "first")
    assert saver.tags("t") == {"back": made[2], "by tag": made[0], "end": made[3], "first": made[0]}
    assert await asaver.atags("t") == saver.tags("t")
    assert [each.tags for each in saver.history("t")] == [("end",), ("back",), (), ("by tag", "first")]
    saver.tag("t", "end", made[1])
    assert saver.untag("t", "first") is True
    assert saver.untag("t", "first") is False
    assert await asaver.auntag("t", "by tag") is True
    assert saver.tags("t") == {"back": made[2], "end": made[1]}


def test_a_tag_stays_where_it_is_when_the_thread_goes_on(saver: RedisSaver) -> None:
    (only,) = chain(saver, 1)
    saver.tag("t", "here")
    put(saver, {}, only)
    assert saver.tags("t") == {"here": only}


def test_there_must_be_something_to_name_and_a_name(saver: RedisSaver) -> None:
    with pytest.raises(ThreadNotFoundError):
        saver.tag("t", "name")
    chain(saver, 2)
    for missing in ("no such id", -2, "1f0a0000-0000-6000-8000-000000000000"):
        with pytest.raises(CheckpointNotFoundError):
            saver.tag("t", "name", missing)
    with pytest.raises(ThreadNotFoundError):
        saver.tag("t", "name", checkpoint_ns="other")
    for bad in ("", "a\0b", "\ud800", 7, None):
        with pytest.raises(ValueError, match="t"):
            saver.tag("t", bad)  # type: ignore[arg-type]
    assert saver.tags("t") == {}
    assert saver.tags("no such thread") == {}
    assert saver.untag("no such thread", "name") is False


@pytest.mark.parametrize("name", ["a b", "v1:{x}*", "ÄÖ \U0001f980", "-1", "S", "T", "n" * 1_000])
def test_any_text_may_be_a_tag(saver: RedisSaver, name: str) -> None:
    made = chain(saver, 3)
    saver.tag("t", name, made[0])
    assert saver.tags("t") == {name: made[0]}
    assert id_of(saver.rollback("t", name, mode="truncate")) == made[0]


def test_tagged_checkpoints_survive_retention_and_prune(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=3) as saver:
        made = chain(saver, 2)
        saver.tag("t", "kept", made[1])
        for n in range(30):
            made.append(put(saver, {"n": n}, made[-1]))
        assert made[1] in {each.checkpoint_id for each in saver.history("t")}
        assert len(list(saver.history("t"))) <= 3 + 1 + 1
        for prune in ({}, {"keep_last": 1}):
            saver.prune(["t"], **prune)
            assert [each.checkpoint_id for each in saver.history("t")] == [made[-1], made[1]]
        assert saver.get_tuple(at("t", "", made[1])).checkpoint["channel_values"] == {"n": 1}
        saver.untag("t", "kept")
        saver.prune(["t"])
        assert [each.checkpoint_id for each in saver.history("t")] == [made[-1]]


def test_a_tag_that_moved_keeps_only_where_it_is_now(saver: RedisSaver) -> None:
    made = chain(saver, 4)
    saver.tag("t", "kept", made[0])
    saver.tag("t", "kept", made[1])
    saver.prune(["t"], keep_last=1)
    assert [each.checkpoint_id for each in saver.history("t")] == [made[3], made[1]]


def test_tags_go_with_their_checkpoint_and_are_copied_with_the_thread(saver: RedisSaver) -> None:
    made = chain(saver, 3)
    saver.tag("t", "a", made[0])
    saver.tag("t", "c", made[2])
    saver.copy_thread("t", "copy")
    assert saver.tags("copy") == {"a": made[0], "c": made[2]}
    saver.rollback("t", "a", mode="truncate")
    assert saver.tags("t") == {"a": made[0]}
    saver.delete_thread("t")
    assert saver.tags("t") == {}
    assert id_of(saver.rollback("copy", "a", mode="truncate")) == made[0]


def test_a_damaged_tag_is_corruption_and_never_another_checkpoint(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = chain(saver, 3)
    saver.tag("t", "name", made[0])
    saver.tag("t", "other", made[1])
    keys = ThreadKeys(prefix, b"t")
    key, name = keys.hash, keys.names.field(b"Gname")
    good, other = raw.hget(key, name), raw.hget(key, keys.names.field(b"Gother"))
    for n in range(len(good)):
        raw.hset(key, name, good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :])
        with pytest.raises(CheckpointCorruptError):
            saver.tags("t")
    for bad in (b"", b"\1", good[:-1], good + b"x", other):
        raw.hset(key, name, bad)
        with pytest.raises(CheckpointCorruptError, match="t"):
            saver.rollback("t", "name")
        with pytest.raises(CheckpointCorruptError):
            list(saver.history("t"))
        with pytest.raises(CheckpointCorruptError):
            saver.prune(["t"], keep_last=1)
        assert len(list(saver.list(at("t")))) == 3
    assert saver.untag("t", "name")  # which mends it
    assert saver.tags("t") == {"other": made[1]}
    saver.prune(["t"], keep_last=1)


def test_with_a_key_a_tag_that_somebody_else_wrote_is_refused(url: str, prefix: str, raw: Any) -> None:
    key = ThreadKeys(prefix, b"t").hash
    with RedisSaver(url, prefix=prefix) as plain:
        made = chain(plain, 2)
        plain.tag("t", "name", made[0])
    forged = raw.hget(key, b"Gname")
    with RedisSaver(url, prefix=prefix, integrity_key="a secret of tests", accept_unkeyed=True) as reader:
        assert reader.tags("t") == {"name": made[0]}
        reader.tag("t", "name", made[1])
        assert raw.hget(key, b"Gname") != forged
    with RedisSaver(url, prefix=prefix, integrity_key="a secret of tests") as signed:
        assert signed.tags("t") == {"name": made[1]}
        raw.hset(key, b"Gname", forged)
        with pytest.raises(IntegrityKeyError):
            signed.tags("t")
